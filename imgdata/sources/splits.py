"""Cells of a split column -> split names."""

import re
from collections.abc import Iterable

from imgdata.errors import SourceError
from imgdata.sources.listing import MAX_SPLITS, too_many_splits

SPLIT_NAMES = ("split", "set", "subset", "partition", "data_set", "fold")
"""Usual names of split columns, the best first."""


class Splits:
    """The splits that the cells of one column name."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._names: dict[object, str] = {}
        self._seen: dict[str, None] = {}

    def name(self, value: object, at: str) -> str:
        """Return the split in a cell. Raises `SourceError` for an empty cell, and for too many splits."""
        if isinstance(value, list | dict):
            raise SourceError(
                f"{at}: the split (column {self.column!r}) holds a {type(value).__name__}; {self._way_out}"
            )
        split = self._names.get(value)
        if split is None:
            split = self._names[value] = self._read(value, at)
            self._seen.setdefault(split)
            if len(self._seen) > MAX_SPLITS:
                raise too_many_splits(f"{at}: column {self.column!r}", list(self._seen))
        return split

    @property
    def _way_out(self) -> str:
        return "name another column with --split-column, or give --split-column '' for none"

    def _read(self, value: object, at: str) -> str:
        text = str(int(value) if isinstance(value, float) and value.is_integer() else "" if value is None else value)
        split = "" if value != value else split_name(text)
        if not split:
            raise SourceError(
                f"{at}: the split (column {self.column!r}) must be a word such as train or val, got {text!r}; "
                f"fill it in, or {self._way_out}"
            )
        # Folds are often numbers; alone they would make poor names of files.
        return f"{split_name(self.column)}{split}" if split.isdigit() else split


_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}
_BETWEEN = re.compile(r"[-._ 0-9]+")


def split_of_word(word: str) -> str | None:
    """Return `train`, `val` or `test` when `word` is one of their usual names in any case; else None."""
    return _SPLIT_OF.get(word.strip().lower())


def split_in_path(path: str) -> str | None:
    """Return the split in the last part of a path that has a split word between `-._`, digits or spaces, or None.

    `data/train-00000-of-00002.parquet` -> `train`; `default/validation/0000.parquet` -> `val`.
    """
    for part in reversed(path.split("/")):
        for word in _BETWEEN.split(part):
            split = split_of_word(word)
            if split is not None:
                return split
    return None


def split_name(text: str) -> str:
    """Return `text` as a split name: the usual name where it is a split word, else letters, digits and `_` kept."""
    return split_of_word(text) or re.sub(r"[^a-z0-9]+", "_", text.strip().lower()).strip("_")


def in_usual_order(splits: Iterable[str]) -> list[str]:
    """Return the splits in the order train, val, test, then the others by name."""
    usual = list(_WORDS)
    return sorted(set(splits), key=lambda split: (usual.index(split) if split in usual else len(usual), split))
