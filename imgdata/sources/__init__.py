"""Raw datasets -> listings: one module for each layout; `detect` chooses."""
