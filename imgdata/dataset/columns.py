"""A file of columns beside an index, or the `json` members of a split -> the values of samples, column by column.

A dataset's further columns lie in `json` members, where every reader finds them, and once more as typed columns in
`NAME-SPLIT.columns.parquet`: rows are those of the index. Datasets without that file, such as older ones, get it in the
cache folder when a column is first asked for.
"""

import difflib
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from imgdata.arrow import number_array, numbers
from imgdata.dataset.fields import is_field, is_json, type_text
from imgdata.dataset.index import Index
from imgdata.dataset.lazy_array import MAX_WHOLE
from imgdata.dataset.table_file import TableFile
from imgdata.errors import OptionError, OutputError, ShardError
from imgdata.storage.atomic import whole_file
from imgdata.storage.cache_folder import CacheWarning, cache_folder, make_room
from imgdata.storage.reading import damage, require_regular

Values = NDArray[Any] | list[Any]
"""Numbers and truths `(N,)`, lists of one length `(N, D)`; else a list: texts, arrays, lists of texts, JSON values."""

INDEX_COLUMNS: Mapping[str, str] = {
    "key": "text",
    "source": "text",
    "shard": "text",
    "format": "text",
    "mode": "text",
    "label": "whole number",
    "width": "whole number",
    "height": "whole number",
    "size": "whole number",
    "orientation": "whole number",
}
"""Columns that every index has, with their types; a field of the same name hides one of these."""
_DAMAGE = (pa.ArrowException, OSError, KeyError, UnicodeDecodeError)
_FORMAT = b"1"
"""Version of the files in the cache folder."""


def columns_file(index_file: str) -> str:
    """Return the name of the file of columns beside an index."""
    return index_file.removesuffix(".index.parquet") + ".columns.parquet"


def write_columns(path: Path, table: pa.Table) -> None:
    """Write `table`, as `fields_table` makes it, to `path`: whole or not at all. Raises `OutputError`."""
    with whole_file(path) as temporary:
        pq.write_table(table.combine_chunks(), temporary, compression="zstd")


class Columns:
    """The columns of one split by name: those of the index, and the fields of its samples.

    Each is read on its first use. Picklable: a copy reads again.
    """

    def __init__(self, index: Index, file: TableFile | None = None, read: Callable[[], pa.Table] | None = None) -> None:
        """Take a file of columns; without one `read` makes the fields' table when it is needed, None for no fields."""
        self._index = index
        self._file = file
        self._read = read
        self._table: pa.Table | None = None
        self._schema: pa.Schema | None = None
        self._loaded: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None, "_schema": None, "_loaded": {}}

    @property
    def types(self) -> dict[str, str]:
        """Type of each field for people, by name, without the index's columns. Raises `ShardError`."""
        return {field.name: type_text(field) for field in self._fields()}

    @property
    def are_stored(self) -> bool:
        """Whether the dataset has a file of columns, so that their types are known without reading a shard."""
        return self._file is not None

    @property
    def names(self) -> tuple[str, ...]:
        """All columns, the fields first. Raises `ShardError`."""
        return tuple(dict.fromkeys([*self._fields().names, *INDEX_COLUMNS]))

    def check(self, names: Sequence[str], option: str = "columns") -> None:
        """Raise `OptionError` where one of `names` is no column."""
        if all(name in INDEX_COLUMNS for name in names):
            return
        for name in names:
            if name not in self.names:
                near = difflib.get_close_matches(name, self.names, n=1)
                perhaps = f" (did you mean {near[0]!r}?)" if near else ""
                raise OptionError(f"{option} must be among {', '.join(self.names)}, got {name!r}{perhaps}")

    def field(self, name: str) -> pa.Field | None:
        """Return the type of a field; None where there is none of that name. Raises `ShardError`."""
        schema = self._fields()
        return schema.field(name) if name in schema.names else None

    @property
    def place(self) -> str:
        """Where the columns are, for messages."""
        return str(self._index.path if self._file is None else self._file.place)

    def arrow(self, name: str) -> pa.ChunkedArray:
        """Return all values of a field. Raises `OptionError`, `ShardError`."""
        field = self.field(name)
        if field is None:
            raise OptionError(f"{self.place}: column must be one of {', '.join(self._fields().names)}, got {name!r}")
        self._refuse_many()
        if self._file is None:
            assert self._read is not None, "a field that no file and no member has"
            return self._whole(self._read)[name]
        try:
            column = self._file.read([name]).column(0)
            column.validate(full=True)
        except (*_DAMAGE, ValueError) as error:
            raise self._damaged(error) from error
        return column

    def table(self) -> pa.Table:
        """Return all fields, as `fields_table` makes them; a table without columns where there are none.

        Raises `ShardError`.
        """
        schema = self._fields()
        return pa.table([self.arrow(name) for name in schema.names], schema=schema) if schema.names else pa.table({})

    def values(self, name: str, position_N: NDArray[np.int64]) -> Values:
        """Return the values of column `name` at positions of the split. Raises `OptionError`, `ShardError`.

        A missing number is NaN, so that whole numbers and truths among which some are missing are float64; a missing
        text is empty, and so is a missing list.
        """
        if name not in self._loaded:
            self.check([name])
            field = self.field(name)
            some = None if field is None else self._rows(name, position_N)
            if field is not None and some is not None:
                return _loaded(field, some)(np.arange(len(position_N)))
            self._loaded[name] = _index_column(self._index, name) if field is None else _loaded(field, self.arrow(name))
        loaded: _Loaded = self._loaded[name]
        return loaded(position_N)

    def _rows(self, name: str, position_N: NDArray[np.int64]) -> pa.ChunkedArray | None:
        """Return values of a field without the rest of it; None where the whole column is the better choice."""
        if self._file is None:
            return None
        try:
            found = self._file.rows(name, position_N)
            if found is not None:
                found.validate(full=True)
        except (*_DAMAGE, ValueError) as error:
            raise self._damaged(error) from error
        return found

    def _fields(self) -> pa.Schema:
        if self._schema is None:
            if self._file is not None:
                self._schema = self._file_schema(self._file)
            else:
                self._schema = pa.schema([]) if self._read is None else self._whole(self._read).schema
        return self._schema

    def _refuse_many(self) -> None:
        if len(self._index) > MAX_WHOLE and self._index.is_parted:
            raise OptionError(
                f"{self.place}: columns of {len(self._index):,} samples can't be read, of at most {MAX_WHOLE:,} they "
                "can; take the fields of single samples with Split.fields"
            )

    def _whole(self, read: Callable[[], pa.Table]) -> pa.Table:
        self._refuse_many()
        if self._table is None:
            self._table = read()
        return self._table

    def _file_schema(self, file: TableFile) -> pa.Schema:
        try:
            metadata = file.footer()
            schema = metadata.schema.to_arrow_schema()
        except _DAMAGE as error:
            raise self._damaged(error) from error
        if metadata.num_rows != len(self._index):
            raise self._damaged(f"rows must be {len(self._index)}, got {metadata.num_rows}")
        for field in schema:
            if not is_field(field):
                raise self._damaged(f"column {field.name!r} is a {field.type}")
        return schema

    def _damaged(self, why: Exception | str) -> ShardError:
        assert self._file is not None
        error = why if isinstance(why, Exception) else ValueError(why)
        return ShardError(f"{self._file.place}: {damage('damaged columns', error, self._index.remedy)}")


_Loaded = Callable[[NDArray[np.int64]], Values]


class _Texts:
    """Texts, lists of texts, or JSON."""

    def __init__(self, column: pa.ChunkedArray, missing: Any, parse: Callable[[str], Any] | None = None) -> None:
        kind = pa.large_string() if pa.types.is_string(column.type) else column.type
        self._array = pa.concat_arrays([chunk.cast(kind) for chunk in column.chunks] or [pa.array([], kind)])
        self._missing, self._parse = missing, parse

    def __call__(self, position_N: NDArray[np.int64]) -> Values:
        found = self._array.take(number_array(position_N)).to_pylist()
        parse = self._parse
        if parse is None:
            return [self._missing if value is None else value for value in found]
        return [self._missing if value is None else parse(value) for value in found]


class _Ragged:
    """Lists of numbers of any length."""

    def __init__(self, value_E: NDArray[Any], start_N: NDArray[np.int64]) -> None:
        self._value_E, self._start_N = value_E, start_N

    def __call__(self, position_N: NDArray[np.int64]) -> Values:
        start_N, end_N = self._start_N[position_N].tolist(), self._start_N[position_N + 1].tolist()
        return [self._value_E[start:end] for start, end in zip(start_N, end_N, strict=True)]


def _index_column(index: Index, name: str) -> _Loaded:
    if name in ("key", "source"):
        return partial(index.texts, name)
    if INDEX_COLUMNS[name] == "text":
        words = index.words(name)
        return lambda position_N: [words[code] for code in index.array(name)[position_N].tolist()]
    return lambda position_N: index.array(name)[position_N].astype(np.int64)


def _loaded(field: pa.Field, column: pa.ChunkedArray) -> _Loaded:
    kind = field.type
    if is_json(field):
        return _Texts(column, None, json.loads)
    if pa.types.is_string(kind):
        return _Texts(column, "")
    if pa.types.is_fixed_size_list(kind) and not pa.types.is_string(kind.value_type):
        value_ND = _plain(column.combine_chunks().flatten()).reshape(len(column), kind.list_size)
        return lambda position_N: value_ND[position_N]
    if pa.types.is_nested(kind):
        if pa.types.is_string(kind.value_type):
            return _Texts(column, [])
        lists = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], kind)
        length_N = np.array([0 if size is None else size for size in lists.value_lengths().to_pylist()], np.int64)
        return _Ragged(_plain(lists.flatten()), np.concatenate([np.zeros(1, np.int64), np.cumsum(length_N)]))
    value_N = _plain(column)
    return lambda position_N: value_N[position_N]


def _plain(column: "pa.ChunkedArray | pa.Array") -> NDArray[Any]:
    """Return numbers and truths as an array: float64 with NaN where one is missing."""
    if isinstance(column, pa.Array):
        column = pa.chunked_array([column])
    truths = pa.types.is_boolean(column.type)
    if truths:
        # Bits become bytes.
        column = column.cast(pa.uint8())
    if column.null_count:
        return numbers(column.cast(pa.float64()).fill_null(np.nan))
    return numbers(column).astype(np.bool_) if truths else numbers(column)


def kept_in_cache(index: Index, read: Callable[[], pa.Table]) -> pa.Table:
    """Return the fields' table of the `json` members: what `read` returns, or the same from the cache folder.

    The members' hashes in the index are its name there.
    """
    digest = hashlib.sha256(_FORMAT)
    for name in ("json_xxh64", "json_size"):
        digest.update(np.ascontiguousarray(index.array(name)).tobytes())
    path = cache_folder() / "columns" / f"{digest.hexdigest()[:32]}.parquet"
    if path.exists():
        try:
            require_regular(path)
            # `pq.read_table` would import pyarrow.dataset, and that pandas: 0.3 s.
            with pq.ParquetFile(path, memory_map=True) as file:
                found = file.read()
            if len(found) == len(index) and all(map(is_field, found.schema)):
                return found
        except _DAMAGE:
            # Made anew below.
            pass
    table = read()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if make_room(table.nbytes):
            write_columns(path, table)
    except (OSError, OptionError, OutputError) as error:
        warnings.warn(
            f"{path}: the columns can't be kept ({error}), and the next loader reads all json members again",
            CacheWarning,
            stacklevel=2,
        )
    return table
