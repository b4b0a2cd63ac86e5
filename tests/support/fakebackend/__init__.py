"""A fourth backend, as somebody would add one: a kind that says what it can do, a backend that does it."""
