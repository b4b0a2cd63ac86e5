"""Splits of a dataset -> rows numbered through, their columns, their texts; nothing is read before it is asked for."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from imgdata.dataset.dataset import Dataset
from imgdata.dataset.index import joined_words
from imgdata.dataset.split import Split
from imgdata.views.view import View, whole

_TEXT_BYTES = 128 << 20
"""Row groups of texts that stay in memory: of 131,072 rows each, some megabytes."""
_FEW = 20
NUMBERS = ("width", "height", "size", "label", "orientation")


class Row(NamedTuple):
    """One row, as the index has it."""

    number: int
    split: str
    position: int
    key: str
    source: str
    label: int
    width: int
    height: int
    size: int
    format: str
    mode: str
    orientation: int
    shard: str
    offset: int
    xxh64: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """The M samples of all splits, one split after the other. A **number** counts in them all, a position in a split.

    Columns of numbers are read whole, once; keys and names of sources by row group, so that ten million of them don't
    have to be in memory.
    """

    dataset: Dataset
    splits: tuple[Split, ...]

    def __len__(self) -> int:
        return int(self.start_S[-1])

    @cached_property
    def start_S(self) -> NDArray[np.int64]:  # noqa: N802
        """Number of the first row of each split, and M, int64 `(S + 1,)`."""
        return np.cumsum([0, *map(len, self.splits)])

    def place(self, number: int) -> tuple[Split, int]:
        """Return the split and the position of a row. Raises `IndexError`."""
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        which = int(np.searchsorted(self.start_S, number, side="right")) - 1
        return self.splits[which], number - int(self.start_S[which])

    def number(self, split: str, key: str) -> int:
        """Return the number of a sample. Raises `KeyError`."""
        which = [one.name for one in self.splits].index(split)
        return int(self.start_S[which]) + self.splits[which].find(key)

    def numbers(self, samples: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """Return the numbers of samples, given as split and key; those that are not in the dataset are left out."""
        wanted = list(samples)
        with self._lock:
            for which, split in enumerate(self.splits):
                new = [key for name, key in wanted if name == split.name and (name, key) not in self._found]
                if not new:
                    continue
                # A few by looking through the column, many by a table of it.
                if len(new) < _FEW:
                    places: list[int] = [split.index.find(key) for key in new]
                else:
                    column = split.index.column("key")
                    places = pc.fill_null(pc.index_in(pa.array(new, column.type), value_set=column), -1).to_pylist()
                start = int(self.start_S[which])
                self._found.update(
                    ((split.name, key), start + place if place >= 0 else -1)
                    for key, place in zip(new, places, strict=True)
                )
            return {one: self._found[one] for one in wanted if self._found.get(one, -1) >= 0}

    @cached_property
    def _found(self) -> dict[tuple[str, str], int]:
        return {}

    @cached_property
    def _lock(self) -> threading.RLock:
        return threading.RLock()

    def array(self, column: str) -> NDArray[Any]:
        """Return a column of numbers, `(M,)`; of one split without a copy."""
        parts = [split.index.array(column) for split in self.splits]
        if len(parts) == 1:
            return parts[0]
        with self._lock:
            if column not in self._arrays:
                self._arrays[column] = np.concatenate(parts)
            return self._arrays[column]

    @cached_property
    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {}

    def words(self, column: str) -> tuple[list[str], NDArray[np.int32]]:
        """Return the distinct values of a column of words, and the one of each row, `(M,)`."""
        words, parts = joined_words((split.index for split in self.splits), column)
        return words, parts[0] if len(parts) == 1 else np.concatenate(parts)

    def row(self, number: int) -> Row:
        """Return all that the index says of a row. Raises `IndexError`."""
        split, position = self.place(number)
        index = split.index
        key, source = (self._texts.at(split, column, position) for column in ("key", "source"))

        def value(column: str) -> int:
            return int(index.array(column)[position])

        def word(column: str) -> str:
            return index.words(column)[value(column)]

        return Row(
            number=number,
            split=split.name,
            position=position,
            key=key,
            source=source,
            label=value("label"),
            width=value("width"),
            height=value("height"),
            size=value("size"),
            format=word("format"),
            mode=word("mode"),
            orientation=value("orientation"),
            shard=word("shard"),
            offset=value("offset"),
            xxh64=value("xxh64"),
        )

    def keys(self, numbers: Sequence[int]) -> list[str]:
        """Return the keys of some rows."""
        # In the order of the file, so that each row group is read once.
        found = {number: self._texts.at(*self._placed(number)) for number in sorted(set(numbers))}
        return [found[number] for number in numbers]

    def _placed(self, number: int) -> tuple[Split, str, int]:
        split, position = self.place(number)
        return split, "key", position

    @cached_property
    def _texts(self) -> "_Texts":
        return _Texts()


class _Texts:
    """Columns of texts, by row group; the least recently used are let go. Safe in threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[str, pq.ParquetFile] = {}
        self._groups: OrderedDict[tuple[str, str, int], pa.ChunkedArray[Any]] = OrderedDict()
        self._bytes = 0

    def at(self, split: Split, column: str, position: int) -> str:
        if split.index.is_parted or split.index.is_ranged:
            return split.index.texts(column, np.array([position]))[0]
        with self._lock:
            file = self._files.get(split.name)
            if file is None:
                file = self._files[split.name] = pq.ParquetFile(split.index.path)
            group, start = _group_of(file, position)
            name = (split.name, column, group)
            if name not in self._groups:
                texts = self._groups[name] = file.read_row_group(group, columns=[column]).column(column)
                self._bytes += texts.nbytes
                while self._bytes > _TEXT_BYTES and len(self._groups) > 1:
                    self._bytes -= self._groups.popitem(last=False)[1].nbytes
            self._groups.move_to_end(name)
            return str(self._groups[name][position - start].as_py())


def _group_of(file: pq.ParquetFile, position: int) -> tuple[int, int]:
    start = 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if position < start + rows:
            return group, start
        start += rows
    raise IndexError(position)


_SHOWN = ("label", "xxh64", "shard", "offset", "size", "width", "height", "format", "mode", "orientation")


def warm(rows: Rows) -> None:
    """Read the columns that every page needs, each file once."""
    for split in rows.splits:
        split.index.load(_SHOWN)


def rows_of(dataset: Dataset) -> Rows:
    """Return the rows of all splits of a dataset."""
    return Rows(dataset=dataset, splits=tuple(dataset.values()))


def only(dataset: Dataset, split: str, position: int) -> View:
    """Return the view of one sample."""
    view = whole(dataset, split)
    row = slice(position, position + 1)
    return replace(view, position_N=view.position_N[row], label_N=view.label_N[row])
