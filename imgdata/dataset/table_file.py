"""A Parquet file of a dataset -> its footer, columns, rows: of a large one in a store only what is asked for comes.

Such a file is fetched column by column, each into a file of the cache folder that all processes share, with a hole for
the rest, so that whoever reads a column reads a Parquet file on this machine. Single rows come by their row group.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from imgdata.arrow import number_array
from imgdata.storage.folder import DatasetFolder
from imgdata.storage.reading import require_regular
from imgdata.storage.remote_file import RangeFile
from imgdata.storage.remote_folder import RemoteFolder

WHOLE_BYTES = 64 * 2**20
"""Files of a store that are no longer are copied as a whole: that takes a second or so."""
_KEPT_GROUPS = 8
"""Row groups of single columns that are in memory, and that one read may need, or it takes the whole column."""


class TableFile:
    """A Parquet file, opened when it is first read. Picklable, safe in threads.

    Raises what pyarrow raises for a damaged file, `OSError`, and of a file in a store `ShardError`.
    """

    def __init__(self, folder: DatasetFolder, name: str) -> None:
        """Name the file in the folder of its dataset; nothing is read yet."""
        self._folder, self._name = folder, name
        self._ranged: bool | None = None
        self._footer: pq.FileMetaData | None = None
        self._groups: OrderedDict[tuple[int, str], pa.ChunkedArray[Any]] = OrderedDict()
        self._fetched: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_footer": None, "_groups": OrderedDict(), "_fetched": {}}

    @property
    def place(self) -> Path:
        """Where the file is, for messages."""
        return self._folder.place(self._name)

    @property
    def is_ranged(self) -> bool:
        """Whether the file is read by ranges of an object in a store. Raises `ShardError`."""
        if self._ranged is None:
            folder = self._folder
            self._ranged = isinstance(folder, RemoteFolder) and folder.size(self._name) > WHOLE_BYTES
        return self._ranged

    @property
    def path(self) -> Path:
        """The file on this machine; of one that is read by ranges its URL."""
        return self.place if self.is_ranged else self._folder.local(self._name)

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return self._remote.size(self._name) if self.is_ranged else require_regular(self.path)

    def footer(self) -> pq.FileMetaData:
        """Return what the file says of its columns and row groups."""
        if not self.is_ranged:
            require_regular(self.path)
            return pq.read_metadata(self.path, memory_map=True)
        if self._footer is None:
            self._footer = pq.read_metadata(_Ranges(self._remote, self._name))
        return self._footer

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Return whole columns."""
        if not self.is_ranged:
            # `pq.read_table` would import pyarrow.dataset, and that pandas: 0.3 s.
            with pq.ParquetFile(self.path, memory_map=True) as file:
                return file.read(columns=list(columns))
        footer = self.footer()
        tail = footer.serialized_size + 8
        found = []
        for column in columns:
            ranges = [(self.num_bytes - tail, tail)]
            for group in range(footer.num_row_groups):
                ranges += self._ranges(group, column)
            with pq.ParquetFile(self._remote.local_ranges(self._name, column, ranges), memory_map=True) as file:
                found.append(file.read(columns=[column]))
        return pa.table([table.column(0) for table in found], schema=pa.schema([table.schema[0] for table in found]))

    def read_group(self, group: int, column: str) -> "pa.ChunkedArray[Any]":
        """Return a column of one row group."""
        if not self.is_ranged:
            with pq.ParquetFile(self.path) as file:
                return file.read_row_group(group, columns=[column]).column(0)
        source = _Ranges(self._remote, self._name, self._ranges(group, column))
        with pq.ParquetFile(source, metadata=self.footer()) as file:
            return file.read_row_group(group, columns=[column]).column(0)

    def rows(self, column: str, position_K: NDArray[np.int64]) -> "pa.ChunkedArray[Any] | None":
        """Return the values of a column at some positions, from the row groups that have them.

        None where the whole column is the better choice: the file is on this machine, many row groups are needed, or
        half of all were fetched one by one.
        """
        if not self.is_ranged or not len(position_K):
            return None
        footer = self.footer()
        start_G = np.cumsum([0, *(footer.row_group(group).num_rows for group in range(footer.num_row_groups))])
        group_K = np.searchsorted(start_G, position_K, side="right") - 1
        group_U, which_K = np.unique(group_K, return_inverse=True)
        if len(group_U) > _KEPT_GROUPS or self._fetched.get(column, 0) * 2 > footer.num_row_groups:
            return None
        columns = [self._group(group, column) for group in group_U.tolist()]
        before_U = np.cumsum([0, *map(len, columns)])[:-1]
        chunks = [chunk for one in columns for chunk in one.chunks]
        place_K = before_U[which_K] + position_K - start_G[group_K]
        return pa.chunked_array(chunks, columns[0].type).unify_dictionaries().take(number_array(place_K))

    def _group(self, group: int, column: str) -> "pa.ChunkedArray[Any]":
        found = self._groups.get((group, column))
        if found is None:
            found = self._groups[group, column] = self.read_group(group, column)
            self._fetched[column] = self._fetched.get(column, 0) + 1
            while len(self._groups) > _KEPT_GROUPS:
                self._groups.popitem(last=False)
        return found

    @property
    def _remote(self) -> RemoteFolder:
        assert isinstance(self._folder, RemoteFolder), "only files of stores are read by ranges"
        return self._folder

    def _ranges(self, group: int, column: str) -> list[tuple[int, int]]:
        """Return `(offset, size)` of what a row group has of a column, one for each of its leaves."""
        footer, ranges = self.footer(), []
        for leaf in range(footer.num_columns):
            path = footer.schema.column(leaf).path
            if path != column and not path.startswith(f"{column}."):
                continue
            chunk = footer.row_group(group).column(leaf)
            offset, size = chunk.data_page_offset, chunk.total_compressed_size
            if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
                offset = min(offset, chunk.dictionary_page_offset)
            if offset < 0 or size < 0 or offset + size > self.num_bytes:
                raise ValueError(f"column {column!r} lies at byte {offset}, outside the file")
            ranges.append((offset, size))
        return ranges


class _Ranges(RangeFile):
    """An object as a file for pyarrow. What `ranges` say is fetched at once, side by side; anything else by itself."""

    def __init__(self, folder: RemoteFolder, name: str, ranges: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__(folder.size(name))
        self._folder, self._name = folder, name
        self._known = list(zip(ranges, folder.read_ranges(name, ranges), strict=True)) if ranges else []

    def fetch(self, offset: int, size: int) -> bytes:
        for (first, length), data in self._known:
            if first <= offset and offset + size <= first + length:
                return data[offset - first : offset - first + size]
        return self._folder.read(self._name, offset, size)
