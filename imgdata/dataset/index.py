"""The index: one Parquet file per split, one row per sample -> columns as NumPy and Arrow arrays."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from imgdata.arrow import number_array, numbers
from imgdata.dataset.index_checks import NO_LIMITS, IndexLimits, column_fault
from imgdata.dataset.index_schema import LOOSE_FACTS, index_schema, schema_with
from imgdata.dataset.members import loose_columns, member_columns, members_in
from imgdata.dataset.table_file import TableFile
from imgdata.errors import ShardError
from imgdata.storage.folder import DatasetFolder
from imgdata.storage.reading import damage

_FEW_ROWS = 1_000_000
"""So many rows take little memory, whatever the file's size."""
DAMAGE = (pa.ArrowException, OSError, KeyError, UnicodeDecodeError)
"""Errors that pyarrow raises while it reads a damaged file; the last one for names of columns and for words."""


class IndexRow(NamedTuple):
    """One row of the index."""

    key: str
    shard: str
    offset: int
    size: int
    label: int
    width: int
    height: int
    mode: str
    format: str
    orientation: int
    xxh64: int
    source: str


class Index:
    """The columns of one split, each read from the file on its first use. Picklable: a copy reads the file again."""

    is_parted = False
    """Whether the index is in parts, and its columns stay in their files."""
    file: TableFile | None = None
    """The file; None for an index of several."""

    def __init__(self, file: Path | TableFile, limits: IndexLimits = NO_LIMITS, *, remedy: str | None = None) -> None:
        """Read the file's footer and check its columns; `limits` are for their values. Raises `ShardError`.

        `remedy` ends the message of an error; by default it says how the index of shards is rebuilt.
        """
        self.file = file if isinstance(file, TableFile) else TableFile(DatasetFolder(file.parent), file.name)
        self.path = self.file.path
        self._limits = limits
        self.remedy = remedy or f"rebuild it with `imgdata index {self.path.parent}`"
        metadata = self._metadata(self.file)
        self._num_rows: int = metadata.num_rows
        names = metadata.schema.to_arrow_schema().names
        self.has_json = "json_offset" in names
        self.has_crop_ready = "restart_interval" in names
        self.members = members_in(names)
        """Names of the further images of the samples."""
        self.is_loose = "state" in names
        facts = json.loads((metadata.metadata or {}).get(LOOSE_FACTS, b"{}")) if self.is_loose else {}
        self.archives: list[tuple[str, int]] = [(str(name), int(state)) for name, state in facts.get("archives", ())]
        """Names and states of the user's archives that hold images; none where images are in shards."""
        self.has_fields = self.has_json or bool(facts.get("has_fields"))
        """Whether samples may have further fields than the columns."""
        self._columns: dict[str, pa.ChunkedArray[Any]] = {}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._words: dict[str, list[str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_columns": {}, "_arrays": {}, "_words": {}}

    def __len__(self) -> int:
        return self._num_rows

    @property
    def is_ranged(self) -> bool:
        """Whether the index lies in a store, and only the columns and row groups that are needed are fetched."""
        return self.file is not None and self.file.is_ranged

    def _metadata(self, file: TableFile) -> pq.FileMetaData:
        try:
            num_bytes, metadata = file.num_bytes, file.footer()
            found = metadata.schema.to_arrow_schema()
        except FileNotFoundError:
            raise ShardError(f"{self.path}: no such index; {self.remedy}") from None
        except DAMAGE as error:
            raise self._damaged(error) from error
        expected = schema_with(found.names)
        if not found.equals(expected):
            raise ShardError(
                f"{self.path}: columns of an index must be {expected.names}, got {found.names}; {self.remedy}"
            )
        # The hashes alone take 8 bytes a row, and hardly shrink: billions of equal rows would fill the memory.
        if metadata.num_rows > max(_FEW_ROWS, num_bytes):
            raise ShardError(
                f"{self.path}: damaged index ({metadata.num_rows} rows in {num_bytes} bytes); {self.remedy}"
            )
        return metadata

    @property
    def names(self) -> list[str]:
        """The columns."""
        return list(
            index_schema(
                has_json=self.has_json, crop_ready=self.has_crop_ready, loose=self.is_loose, members=self.members
            ).names
        )

    def _damaged(self, error: Exception) -> ShardError:
        return ShardError(f"{self.path}: {damage('damaged index', error, self.remedy)}")

    def require_members(self, names: Sequence[str]) -> None:
        """Raise `ShardError` unless these are the names of the further images."""
        if sorted(self.members) != sorted(names):
            raise ShardError(
                f"{self.path}: further images must be {list(names)} as dataset.json says, got {list(self.members)}; "
                f"{self.remedy}"
            )

    def load(self, names: Sequence[str]) -> None:
        """Read the columns `names` at once; those already read are left alone."""
        missing = [name for name in names if name not in self._columns]
        if not missing:
            return
        assert self.file is not None, "an index of several files has its own columns"
        try:
            table = self.file.read(missing)
        except (*DAMAGE, ValueError) as error:
            raise self._damaged(error) from error
        if table.num_rows != len(self):
            raise ShardError(f"{self.path}: changed while it was open; open the dataset again")
        for name, column in zip(table.column_names, table.unify_dictionaries().columns, strict=True):
            self._check(name, column)
            self._columns[name] = column

    def _check(self, name: str, column: "pa.ChunkedArray[Any]") -> None:
        try:
            fault = column_fault(name, column, self._limits)
        except (*DAMAGE, ValueError) as error:
            raise self._damaged(error) from error
        if fault is not None:
            raise ShardError(f"{self.path}: {fault}; {self.remedy}")

    def column(self, name: str) -> "pa.ChunkedArray[Any]":
        """Return column `name` as an Arrow array of N values."""
        if name not in self._columns:
            self.load([name])
        return self._columns[name]

    def array(self, name: str) -> NDArray[Any]:
        """Return column `name` as a read-only array of N numbers; words as int32 positions in `words(name)`."""
        if name not in self._arrays:
            column = self.column(name)
            if pa.types.is_string(column.type):
                raise TypeError(f"column {name!r} is text: use column({name!r})")
            array = numbers(column)
            array.flags.writeable = False
            self._arrays[name] = array
        return self._arrays[name]

    def words(self, name: str) -> list[str]:
        """Return the distinct values of a word column (`shard`, `mode`, `format`), in order of their first row."""
        if name not in self._words:
            chunks = cast("list[pa.DictionaryArray[Any, Any]]", self.column(name).chunks)
            try:
                self._words[name] = [str(word) for word in chunks[0].dictionary.to_pylist()] if chunks else []
            except UnicodeDecodeError as error:
                raise self._damaged(error) from error
        return self._words[name]

    @property
    def label_N(self) -> NDArray[np.int32]:  # noqa: N802
        """Class indices; -1 for none."""
        return self.array("label")

    @property
    def shard_N(self) -> NDArray[np.int32]:  # noqa: N802
        """Positions in `words("shard")`."""
        return self.array("shard")

    @property
    def offset_N(self) -> NDArray[np.int64]:  # noqa: N802
        """First byte of each image in its tar."""
        return self.array("offset")

    @property
    def size_N(self) -> NDArray[np.int64]:  # noqa: N802
        """Bytes of each image."""
        return self.array("size")

    @property
    def width_N(self) -> NDArray[np.int32]:  # noqa: N802
        """Pixels across, as stored (EXIF orientation not applied)."""
        return self.array("width")

    @property
    def height_N(self) -> NDArray[np.int32]:  # noqa: N802
        """Pixels down, as stored."""
        return self.array("height")

    @property
    def orientation_N(self) -> NDArray[np.uint8]:  # noqa: N802
        """EXIF orientation, 1 to 8."""
        return self.array("orientation")

    @property
    def xxh64_N(self) -> NDArray[np.uint64]:  # noqa: N802
        """Hash of each image's bytes."""
        return self.array("xxh64")

    def row(self, position: int) -> IndexRow:
        """Return the row at `position`, counted from 0."""
        self.load(IndexRow._fields)
        return IndexRow(*(self._columns[name][position].as_py() for name in IndexRow._fields))

    def keys(self, position_N: NDArray[np.int64]) -> list[str]:
        """Return the keys of samples."""
        return self.texts("key", position_N)

    def key(self, position: int) -> str:
        """Return the key of a sample."""
        return self.texts("key", np.array([position]))[0]

    def texts(self, name: str, position_N: NDArray[np.int64]) -> list[str]:
        """Return the values of a column of texts, such as `source`, of samples."""
        found = None if name in self._columns else self._rows(name, position_N)
        if found is None:
            found = self.column(name).take(number_array(position_N))
        return [str(text) for text in found.to_pylist()]

    def _rows(self, name: str, position_N: NDArray[np.int64]) -> "pa.ChunkedArray[Any] | None":
        """Return values of a column without the rest of it; None where the whole column is the better choice."""
        try:
            found = None if self.file is None else self.file.rows(name, position_N)
        except (*DAMAGE, ValueError) as error:
            raise self._damaged(error) from error
        if found is not None:
            self._check(name, found)
        return found

    def find(self, key: str) -> int:
        """Return the position of the first sample with `key`; -1 when there is none."""
        position: int = pc.index(self.column("key"), key).as_py()
        return position

    def find_all(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Return the position of the first sample with each of `keys`, int64 `(K,)`; -1 where there is none."""
        found = pc.index_in(pa.array(keys, pa.string()), value_set=self.column("key").combine_chunks())
        return numbers(pa.chunked_array([found.fill_null(-1)])).astype(np.int64)

    def column_at(self, name: str, position_K: NDArray[np.int64]) -> "pa.ChunkedArray[Any]":
        """Return the values of a column of texts at ascending positions."""
        return self.column(name).take(number_array(position_K))

    @property
    def identity(self) -> str:
        """32 hex digits of SHA-256 over the images' hashes, in order, labels, and hashes of further images."""
        hashes = [member_columns(name)[-1] for name in self.members]
        self.load(("xxh64", "label", *hashes))
        digest = hashlib.sha256(self.xxh64_N.astype("<u8").tobytes())
        digest.update(self.label_N.astype("<i4").tobytes())
        for column in hashes:
            digest.update(column.encode() + self.array(column).astype("<u8").tobytes())
        return digest.hexdigest()[:32]


def joined_words(indices: Iterable[Index], column: str) -> tuple[list[str], list[NDArray[np.int32]]]:
    """Return the distinct values of a word column of several indices, and which one each row of each index has."""
    known: dict[str, int] = {}
    codes = []
    for index in indices:
        code_W = np.array([known.setdefault(word, len(known)) for word in index.words(column)], np.int32)
        codes.append(code_W[index.array(column)])
    return list(known), codes


def index_id(index: Index) -> str:
    """Return the name of a split's contents: 32 hex digits of SHA-256 over its images' hashes, in order, and labels.

    Further images count with their hashes as well. Of loose files names and sizes count instead of bytes, so that a
    copy of the folder has the same name. Of an index in parts it is made of the hashes of its files.
    """
    return index.identity


def content_id(index: Index) -> str:
    """Return `index_id`, for what is made of the pixels: another one where a loose file was written to."""
    if not index.is_loose:
        return index_id(index)
    digest = hashlib.sha256(index_id(index).encode())
    for name in ("", *index.members):
        digest.update(index.array(loose_columns(name)[1]).astype("<i8").tobytes())
    digest.update(repr([state for _, state in index.archives]).encode())
    return digest.hexdigest()[:32]
