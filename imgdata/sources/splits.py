"""Cells of a split column -> split names."""

from imgdata.errors import SourceError
from imgdata.sources.listing import MAX_SPLITS, too_many_splits
from imgdata.sources.words import split_name

SPLIT_NAMES = ("split", "set", "subset", "partition", "data_set", "fold")
"""Usual names of split columns, the best first."""


class Splits:
    """The splits that the cells of one column name."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._names: dict[object, str] = {}
        self._seen: dict[str, None] = {}

    def name(self, value: object, at: str) -> str:
        """The split in a cell. Raises `SourceError` for an empty one, and for one of too many splits."""
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
