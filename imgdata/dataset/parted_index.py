"""The index of a large split, in parts -> the same columns, of which only the rows that are asked for are read.

Numbers that a loader needs come from the places, records of one size: a batch of 256 is 256 short reads. Texts and
hashes come from row groups of the Parquet files. Memory: some row groups of single columns, the last batches' records.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imgdata.arrow import number_array, numbers
from imgdata.dataset.index import DAMAGE, Index, IndexRow
from imgdata.dataset.index_checks import IndexLimits, column_fault
from imgdata.dataset.index_schema import ROW_GROUP, index_schema
from imgdata.dataset.lazy_array import MAX_WHOLE, lazy_array
from imgdata.dataset.manifest import SplitEntry
from imgdata.dataset.place_records import PlaceRecords
from imgdata.dataset.places import word_columns
from imgdata.dataset.table_file import TableFile
from imgdata.errors import OptionError, ShardError
from imgdata.storage.folder import DatasetFolder
from imgdata.storage.reading import damage

_KEPT_GROUPS = 8
"""Row groups of single columns that are kept, with 131,072 rows each."""
_SLICE = 1 << 20
"""Records that are read at a time where a whole column is."""
_MANY = 1 << 16
"""Keys for which whole parts are read, instead of row groups."""


class PartedIndex(Index):
    """The columns of one split whose index is in parts. Opening reads no file. Picklable, safe in threads."""

    is_parted = True

    def __init__(self, folder: DatasetFolder, entry: SplitEntry, num_classes: int | None = None) -> None:
        """Take the parts that `dataset.json` names; they are checked when they are read. Raises `ShardError`."""
        assert entry.parts is not None, "an index of one file"
        self.path = folder.place(entry.index)
        self._num_classes = num_classes
        self.remedy = f"rebuild it with `imgdata index {folder}`"
        self.has_json, self.has_crop_ready, self.is_loose = entry.parts.has_json, entry.parts.crop_ready, False
        self.has_fields = self.has_json
        self.archives = []
        self.members = entry.parts.members
        self._folder, self._parts = folder, entry.parts.parts
        self._identity = entry.index_sha256[:32]
        self._shards = entry.shards
        self._word_lists = {name: list(words) for name, words in entry.parts.words.items()}
        self._records = PlaceRecords(folder, entry, num_classes=num_classes, remedy=self.remedy)
        self._place_names = frozenset(self._records.kind.names or ())
        self._word_columns = word_columns(self.members)
        if missing := set(self._word_columns) - {"shard", *self._word_lists}:
            raise ShardError(f"{self.path}: index_parts must have words of {', '.join(sorted(missing))}; {self.remedy}")
        self._schema = index_schema(has_json=self.has_json, crop_ready=self.has_crop_ready, members=self.members)
        self._start_P = np.cumsum([0, *(part.rows for part in self._parts)])
        self._num_rows = int(self._start_P[-1])
        self._groups: OrderedDict[tuple[int, int, str], pa.ChunkedArray[Any]] = OrderedDict()
        self._arrays, self._words = {}, {}
        self._tables: OrderedDict[int, TableFile] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        empty: dict[str, Any] = {
            "_groups": OrderedDict(),
            "_arrays": {},
            "_words": {},
            "_tables": OrderedDict(),
        }
        return {**self.__dict__, **empty}

    @property
    def identity(self) -> str:
        """32 hex digits of SHA-256 over the hashes of all parts."""
        return self._identity

    @property
    def shard_sizes(self) -> tuple[int, ...]:
        """Samples of each shard that has any, in order."""
        return tuple(shard.samples for shard in self._shards if shard.samples)

    def load(self, names: Sequence[str]) -> None:
        """Read nothing: columns stay in their files."""

    def words(self, name: str) -> list[str]:
        """See `Index`."""
        if name not in self._words:
            self._words[name] = [one.file for one in self._shards] if name == "shard" else self._word_lists[name]
        return self._words[name]

    def array(self, name: str) -> NDArray[Any]:
        """Return column `name` as an array that reads what is asked for; see `Index` and `LazyArray`."""
        if name not in self._arrays:
            field = self._schema.field(name)
            if pa.types.is_string(field.type):
                raise TypeError(f"column {name!r} is text: use column({name!r})")
            kind = np.dtype(np.int32 if name in self._word_columns else field.type.to_pandas_dtype())
            some = partial(self._from_places if name in self._place_names else self._from_groups, name, kind)
            whole = partial(self._whole, name, kind)
            self._arrays[name] = lazy_array(f"{self.path}, {name}", len(self), kind, some=some, whole=whole)
        return self._arrays[name]

    def column(self, name: str) -> "pa.ChunkedArray[Any]":
        """Return column `name` as an Arrow array of N values, read now and not kept. Raises `OptionError` for many."""
        if len(self) > MAX_WHOLE:
            raise OptionError(
                f"{self.path}: this needs the whole column {name!r} of {len(self):,} samples in memory, and at most "
                f"{MAX_WHOLE:,} are read; use a dataset of fewer samples"
            )
        tables = [pa.table({name: self._read(part, None, name)}) for part in range(len(self._parts))]
        return pa.concat_tables(tables).unify_dictionaries().column(0)

    def texts(self, name: str, position_N: NDArray[np.int64]) -> list[str]:
        """See `Index`. Each row group that holds some of them is decoded: 131,072 texts."""
        found: list[str] = [""] * len(position_N)
        for row_M, column, inside_M in self._by_group(name, position_N):
            values = column.take(number_array(inside_M)).to_pylist()
            for row, value in zip(row_M.tolist(), values, strict=True):
                found[row] = str(value)
        return found

    def column_at(self, name: str, position_K: NDArray[np.int64]) -> "pa.ChunkedArray[Any]":
        """Return the values of a column of texts at ascending positions. Each row group that holds some is decoded."""
        parts = [column.take(number_array(inside_M)) for _, column, inside_M in self._by_group(name, position_K)]
        return pa.chunked_array([chunk for part in parts for chunk in part.chunks], pa.string())

    def row(self, position: int) -> IndexRow:
        """See `Index`."""
        place_N = np.array([position])
        values: list[Any] = []
        for field in index_schema(has_json=False):
            if field.name in self._word_columns:
                values.append(self.words(field.name)[self.array(field.name)[position]])
            elif pa.types.is_string(field.type):
                values.append(self.texts(field.name, place_N)[0])
            else:
                values.append(int(self.array(field.name)[position]))
        return IndexRow(*values)

    def find(self, key: str) -> int:
        """See `Index`; reads the keys row group by row group."""
        return int(self.find_all([key])[0])

    def find_all(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """See `Index`; reads the keys row group by row group, for many keys part by part."""
        wanted, found_K = pa.array(keys, pa.string()), np.full(len(keys), -1, np.int64)
        for part, start in enumerate(self._start_P[:-1].tolist()):
            whole = len(keys) > _MANY
            for first in range(0, self._parts[part].rows, self._parts[part].rows if whole else ROW_GROUP):
                column = self._read(part, None if whole else first // ROW_GROUP, "key")
                if not pc.any(pc.is_in(column, value_set=wanted)).as_py():
                    continue
                at = pc.index_in(wanted, value_set=column.combine_chunks()).fill_null(-1)
                at_K = numbers(pa.chunked_array([at])).astype(np.int64)
                found_K = np.where((found_K < 0) & (at_K >= 0), at_K + start + first, found_K)
        return found_K

    def least(self, name: str) -> int:
        """Return the least `label`, `width` or `height`, by the statistics of the parts. Raises `ShardError`."""
        column = index_schema(has_json=False).get_field_index(name)
        found = []
        for part in range(len(self._parts)):
            with self._opened(part) as file:
                footer = file.footer()
                groups = range(footer.num_row_groups)
                found += [footer.row_group(group).column(column).statistics.min for group in groups]
        return int(min(found))

    def _from_places(self, name: str, kind: np.dtype[Any], position_K: NDArray[np.int64]) -> NDArray[Any]:
        if len(position_K) <= _SLICE:
            return self._records.at(position_K)[name].astype(kind)
        slices = (position_K[start : start + _SLICE] for start in range(0, len(position_K), _SLICE))
        return np.concatenate([self._records.at(one)[name].astype(kind) for one in slices])

    def _from_groups(self, name: str, kind: np.dtype[Any], position_K: NDArray[np.int64]) -> NDArray[Any]:
        value_K = np.empty(len(position_K), kind)
        for row_M, column, inside_M in self._by_group(name, position_K):
            value_K[row_M] = numbers(column)[inside_M]
        return value_K

    def _whole(self, name: str, kind: np.dtype[Any]) -> NDArray[Any]:
        if name in self._place_names:
            slices = (np.arange(start, min(start + _SLICE, len(self))) for start in range(0, len(self), _SLICE))
            value_N = np.concatenate([np.empty(0, kind), *(self._records.fresh(place_K)[name] for place_K in slices)])
        else:
            value_N = numbers(self.column(name))
        return value_N.astype(kind)

    def _by_group(
        self, name: str, position_K: NDArray[np.int64]
    ) -> "Iterator[tuple[NDArray[np.int64], pa.ChunkedArray[Any], NDArray[np.int64]]]":
        """Yield (rows of `position_K`, column of their row group, their places in it) for each row group concerned."""
        part_K = np.searchsorted(self._start_P, position_K, side="right") - 1
        inside_K = position_K - self._start_P[part_K]
        groups = -(-max(part.rows for part in self._parts) // ROW_GROUP)
        group_G, which_K = np.unique(part_K * groups + inside_K // ROW_GROUP, return_inverse=True)
        for number, both in enumerate(group_G.tolist()):
            row_M = np.flatnonzero(which_K == number)
            part, group = divmod(both, groups)
            yield row_M, self._group(part, group, name), inside_K[row_M] - group * ROW_GROUP

    def _group(self, part: int, group: int, name: str) -> "pa.ChunkedArray[Any]":
        place = (part, group, name)
        found = self._groups.get(place)
        if found is None:
            found = self._read(part, group, name)
            self._groups[place] = found
            while len(self._groups) > _KEPT_GROUPS:
                self._groups.popitem(last=False)
        return found

    def _read(self, part: int, group: int | None, name: str) -> "pa.ChunkedArray[Any]":
        """Return a column of a row group, or of the whole part, checked. Raises `ShardError`."""
        rows = self._parts[part].rows
        with self._opened(part) as file:
            table = file.read([name]) if group is None else pa.table({name: file.read_group(group, name)})
            expected = rows if group is None else min(ROW_GROUP, rows - group * ROW_GROUP)
            if len(table) != expected:
                raise ValueError(f"must have {expected} rows in a row group, got {len(table)}")
            column = table.unify_dictionaries().column(0)
            shards = frozenset(self.words("shard")) if name == "shard" else None
            fault = column_fault(name, column, IndexLimits(num_classes=self._num_classes, shards=shards))
            if fault is not None:
                raise ValueError(fault)
        return column

    @contextmanager
    def _opened(self, part: int) -> Iterator[TableFile]:
        """Give the Parquet file of a part. What fails in the block is a `ShardError` that names the file."""
        file = self._tables.get(part) or TableFile(self._folder, self._parts[part].file)
        try:
            footer = file.footer()
            found, rows = footer.schema.to_arrow_schema(), footer.num_rows
            if not found.equals(self._schema) or rows != self._parts[part].rows:
                raise ValueError(
                    f"columns must be {self._schema.names}, {self._parts[part].rows} rows, got {found.names}, {rows}"
                )
            if file.is_ranged:
                self._tables[part] = file
                while len(self._tables) > _KEPT_GROUPS:
                    self._tables.popitem(last=False)
            yield file
        except FileNotFoundError:
            raise ShardError(f"{file.place}: no such part of the index; {self.remedy}") from None
        except (*DAMAGE, ValueError) as error:
            raise ShardError(f"{file.place}: {damage('damaged index', error, self.remedy)}") from error
