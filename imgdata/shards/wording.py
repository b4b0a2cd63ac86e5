"""Numbers with their nouns, for messages and cards."""


def counted(number: int, noun: str) -> str:
    """Return `number` and `noun`, in the plural unless it is one: `1 class`, `1,000 classes`."""
    plural = noun if number == 1 else noun + ("es" if noun.endswith(("s", "x")) else "s")
    return f"{number:,} {plural}"
