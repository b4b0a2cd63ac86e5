"""Names of folders, files and table cells -> split names."""

import re
from collections.abc import Iterable

_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}
_BETWEEN = re.compile(r"[-._ 0-9]+")


def split_of_word(word: str) -> str | None:
    """`train`, `val` or `test` when `word` is one of their usual names in any case; else None."""
    return _SPLIT_OF.get(word.strip().lower())


def split_in_path(path: str) -> str | None:
    """The split that a path speaks of: the last of its parts with a split word between `-._`, digits or spaces.

    `data/train-00000-of-00002.parquet` -> `train`; `default/validation/0000.parquet` -> `val`.
    """
    for part in reversed(path.split("/")):
        for word in _BETWEEN.split(part):
            split = split_of_word(word)
            if split is not None:
                return split
    return None


def split_name(text: str) -> str:
    """`text` as a split name: the usual name where it is a split word, else letters, digits and `_` kept."""
    return split_of_word(text) or re.sub(r"[^a-z0-9]+", "_", text.strip().lower()).strip("_")


def in_usual_order(splits: Iterable[str]) -> list[str]:
    """Splits in the order train, val, test, then the others by name."""
    usual = list(_WORDS)
    return sorted(set(splits), key=lambda split: (usual.index(split) if split in usual else len(usual), split))
