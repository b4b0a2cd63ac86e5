"""Splits of several datasets -> one split, whose positions are those of the first, then of the second, and so on.

No file is copied: the columns of the indices are put one behind the other, and a shard is named by the number of its
dataset and its own name.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from imgdata.arrow import number_array
from imgdata.dataset.columns import Columns
from imgdata.dataset.fields import join_tables
from imgdata.dataset.index import Index
from imgdata.dataset.index_checks import NO_LIMITS
from imgdata.dataset.parted_index import PartedIndex
from imgdata.dataset.split import Split, require_shards
from imgdata.errors import OptionError
from imgdata.storage.folder import JoinedFolder
from imgdata.storage.joined_remote import JoinedRemoteFolder
from imgdata.storage.remote_folder import RemoteFolder

DATASET_COLUMN = "dataset"
"""Column that says from which dataset a sample is, counted from 0."""


class JoinedIndex(Index):
    """The indices of several splits, one behind the other. Labels are those that each index has."""

    def __init__(self, indices: Sequence[Index]) -> None:
        self._indices = tuple(indices)
        self.path = self._indices[0].path
        self.remedy = "open each of the datasets by itself to see which one is damaged"
        self._limits = NO_LIMITS
        self._num_rows = sum(map(len, self._indices))
        self.has_json = any(index.has_json for index in self._indices)
        self.has_crop_ready = any(index.has_crop_ready for index in self._indices)
        self.has_fields = any(index.has_fields for index in self._indices)
        self.members = self._indices[0].members if len({index.members for index in self._indices}) == 1 else ()
        self.is_loose = False
        self.archives = []
        self._columns, self._arrays, self._words = {}, {}, {}

    def load(self, names: Sequence[str]) -> None:
        """See `Index`."""
        for name in names:
            if name not in self._columns:
                columns = [self._part(number, name) for number in range(len(self._indices))]
                chunks = [chunk for column in columns for chunk in column.chunks]
                table = pa.table({name: pa.chunked_array(chunks, columns[0].type)})
                self._columns[name] = table.unify_dictionaries().column(0)

    def _part(self, number: int, name: str) -> "pa.ChunkedArray":
        """Return a column of one index; zeros where it is one of those that not all indices have."""
        index = self._indices[number]
        if name not in index.names:
            kind = next(one.column(name).type for one in self._indices if name in one.names)
            return pa.chunked_array([number_array(np.zeros(len(index), np.int64)).cast(kind)])
        if name != "shard":
            return index.column(name)
        words = pa.array([f"{number}/{word}" for word in index.words(name)], pa.string())
        return pa.chunked_array([pa.DictionaryArray.from_arrays(number_array(index.shard_N), words)])


class JoinedSplit(Split):
    """One split of several datasets. Raises `OptionError` for one that was not sharded."""

    def __init__(self, splits: Sequence[Split]) -> None:
        for split in splits:
            require_shards(split.folder, "only shards can be loaded together with others")
            if isinstance(split.index, PartedIndex):
                raise OptionError(f"{split.folder}: has an index in parts, and can't be read together with others")
        self.splits = tuple(splits)
        folders = [split.folder for split in splits]
        is_remote = [isinstance(folder, RemoteFolder) for folder in folders]
        self.folder = JoinedRemoteFolder(folders) if any(is_remote) else JoinedFolder(folders)
        self.name = splits[0].name
        self.is_loose = False
        # Further images that not all have are read dataset by dataset.
        self.members = splits[0].members if len({split.members for split in splits}) == 1 else ()
        self.index = JoinedIndex([split.index for split in splits])
        self._shard_files = [f"{number}/{file}" for number, split in enumerate(splits) for file in split._shard_files]
        self.columns = Columns(self.index, None, self._joined_fields)
        self._files, self._pool = None, None
        self.shard_records = tuple(
            replace(shard, file=f"{number}/{shard.file}")
            for number, split in enumerate(splits)
            for shard in split.shard_records
        )

    @property
    def start_D(self) -> NDArray[np.int64]:  # noqa: N802
        """First position of each dataset's samples, int64 `(D,)`."""
        return np.cumsum([0, *map(len, self.splits[:-1])])

    def _joined_fields(self) -> pa.Table:
        table = join_tables([split.columns.table() for split in self.splits], list(map(len, self.splits)))
        number_N = number_array(np.repeat(np.arange(len(self.splits)), list(map(len, self.splits))))
        if DATASET_COLUMN in table.column_names:
            return table
        return (
            table.append_column(DATASET_COLUMN, pa.chunked_array([number_N]))
            if table.num_columns
            else pa.table({DATASET_COLUMN: number_N})
        )
