"""A folder, an entry of its `dataset.json` -> one split: its samples by position or key, read from their tars."""

import copy
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import numpy as np
import pyarrow as pa
import xxhash

from imgdata.dataset.columns import Columns, kept_in_cache
from imgdata.dataset.fields import fields_table, type_text
from imgdata.dataset.files import ImageFiles, image_files
from imgdata.dataset.index import Index
from imgdata.dataset.index_checks import IndexLimits
from imgdata.dataset.manifest import (
    MANIFEST,
    ShardRecord,
    SplitEntry,
)
from imgdata.dataset.members import Member, member_columns
from imgdata.dataset.near_keys import near_keys
from imgdata.dataset.parted_index import PartedIndex
from imgdata.dataset.remote_files import RemoteShards
from imgdata.dataset.table_file import TableFile
from imgdata.errors import OptionError, ShardError
from imgdata.sample import Sample, fields_of
from imgdata.storage.atomic import FilePool, pread
from imgdata.storage.folder import DatasetFolder, LooseFolder
from imgdata.storage.reading import parse_json
from imgdata.storage.shard_cache import ShardCache

if TYPE_CHECKING:
    import webdataset


_READ_COLUMNS = ("shard", "offset", "size", "label", "format", "key")
_JSON_COLUMNS = ("json_offset", "json_size")
_TOGETHER, _TOGETHER_BYTES = 64, 2**25
"""Samples in a store, and bytes of their images, that are fetched together and held in memory."""
_MEMBERS = 1024
"""`json` members that are."""
_ALSO_IN_INDEX = frozenset({"class_id", "class_name", "label", "width", "height", "source", "key"})
"""Fields of `json` members that `imgdata shard` writes, or that name what the index has."""


def open_index(folder: DatasetFolder, entry: SplitEntry, num_classes: int | None = None) -> Index:
    """Open the index of a split, of one file or in parts; `num_classes` bounds its labels. Raises `ShardError`."""
    if entry.parts is not None:
        return PartedIndex(folder, entry, num_classes)
    limits = IndexLimits(num_classes=num_classes, shards=frozenset(shard.file for shard in entry.shards))
    return Index(TableFile(folder, entry.index), limits, remedy=folder.remedy)


class Split:
    """One split: a sequence of samples, each read from its tar when asked for.

    Works as a map-style dataset of `torch.utils.data.DataLoader`: picklable, and safe after a fork.
    """

    shard_records: tuple[ShardRecord, ...] = ()
    """What `dataset.json` says of the tars; nothing where several datasets are read as one."""
    _ahead: Mapping[tuple[int, int, int], bytes] = MappingProxyType({})
    """Bytes that were fetched before, by number of the shard, offset and size."""
    cache: ShardCache | None = None
    """What keeps shards of an object store on this machine; only a loader's split has one."""

    def __init__(
        self,
        folder: DatasetFolder,
        entry: SplitEntry,
        num_classes: int | None = None,
        *,
        columns: TableFile | None = None,
        members: tuple[Member, ...] = (),
    ) -> None:
        """Open the index; `num_classes` bounds its labels, `columns` is the file of columns beside it.

        Raises `ShardError` when the index doesn't fit `dataset.json`.
        """
        self.folder = folder
        self.name = entry.name
        self.is_loose = isinstance(folder, LooseFolder)
        self.index = open_index(folder, entry, num_classes)
        self._shard_files = [] if self.is_loose else [shard.file for shard in entry.shards]
        if len(self.index) != entry.samples:
            raise ShardError(
                f"{self.index.path}: rows must be {entry.samples} as {MANIFEST} says, got {len(self.index)}; "
                f"rebuild the index with `imgdata index {folder}`"
            )
        self.members = members
        """Further images of the samples, such as masks."""
        self.shard_records = entry.shards
        self.index.require_members([one.name for one in members])
        self._files: ImageFiles | None = None
        self._pool: FilePool | None = None
        fields = self._fields_table if self.index.has_json else None
        self.columns = Columns(self.index, columns, None if columns is not None else fields)
        """The samples' columns: those of the index, and the fields of the `json` members."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": None, "_pool": None}

    @cached_property
    def shards(self) -> list[Path]:
        """The tars, paths or URLs; none where the images lie in the user's own files."""
        return [self.folder.place(file) for file in self._shard_files]

    def __repr__(self) -> str:
        where = f"loose in {self.folder}" if self.is_loose else f"in {len(self._shard_files)} shards"
        return f"<Split {self.name}: {len(self)} samples {where}>"

    def __len__(self) -> int:
        return len(self.index)

    @overload
    def __getitem__(self, place: SupportsIndex | str) -> Sample: ...
    @overload
    def __getitem__(self, place: slice) -> list[Sample]: ...
    def __getitem__(self, place: SupportsIndex | str | slice) -> Sample | list[Sample]:
        """Return the sample at a position, or of a key; of a slice a list of them.

        Negative positions count from the end. Raises `IndexError`, `KeyError` that names keys like it, `ShardError`.
        """
        if isinstance(place, slice):
            return list(self._each(range(*place.indices(len(self)))))
        i = self.find(place) if isinstance(place, str) else self._row(place)
        image = self._read(i, "offset", "size")
        index = self.index
        return Sample(
            key=index.key(i),
            image=image,
            format=index.words("format")[index.array("format")[i]],
            label=int(index.label_N[i]),
            fields=self.fields(i),
            members={one.name: data for one in self.members if (data := self.read_member(i, one.name))},
        )

    def __iter__(self) -> Iterator[Sample]:
        return self._each(range(len(self)))

    def _each(self, positions: range) -> Iterator[Sample]:
        for part, some in self.in_pieces(positions):
            yield from (part[i] for i in some)

    def in_pieces(self, positions: Sequence[int]) -> Iterator[tuple["Split", Sequence[int]]]:
        """Yield some of the positions after the other, each with a split that reads their samples.

        Samples in a store are fetched piece by piece, by requests side by side, and held in memory meanwhile. Raises
        `ShardError`.
        """
        if not isinstance(self._opened(), RemoteShards):
            yield self, positions
            return
        columns = [("offset", "size"), *[("json_offset", "json_size")] * self.index.has_json]
        columns += [member_columns(name)[:2] for name in self.index.members]
        for start in range(0, len(positions), _TOGETHER):
            some = positions[start : start + _TOGETHER]
            sizes = self.index.size_N[np.asarray(some, np.int64)]
            count = max(1, -(-int(sizes.sum()) // _TOGETHER_BYTES))
            for piece in np.array_split(np.arange(len(some)), min(count, len(some))):
                part = some[int(piece[0]) : int(piece[-1]) + 1]
                yield self._fetched(part, columns), part

    def _fetched(self, positions: Sequence[int], columns: Sequence[tuple[str, str]]) -> "Split":
        """Return the split with members of samples in a store in memory: those with these places and sizes."""
        files, position_K = self._opened(), np.asarray(positions, np.int64)
        assert isinstance(files, RemoteShards), "what is on this machine is not fetched"
        rows = []
        for offset, size in columns:
            size_K = self.index.array(size)[position_K].astype(np.int64)
            there_M = position_K[size_K > 0]
            rows.append(np.stack([files.numbers(there_M), self.index.array(offset)[there_M], size_K[size_K > 0]]))
        number_R, offset_R, size_R = np.concatenate(rows, axis=1)
        fetched = copy.copy(self)
        try:
            found = files.read_all(number_R, offset_R, size_R)
        except ShardError:
            # Read one by one, they say which one is meant.
            return fetched
        places = zip(number_R.tolist(), offset_R.tolist(), size_R.tolist(), strict=True)
        fetched._ahead = dict(zip(places, found, strict=True))
        return fetched

    def read(self, position: SupportsIndex) -> bytes:
        """Return the encoded image at `position`, as stored. Raises `IndexError`, `ShardError`."""
        return self._read(self._row(position), "offset", "size")

    def read_member(self, position: SupportsIndex, name: str) -> bytes:
        """Return the further image `name` of the sample at `position`, as stored; no bytes where the sample has none.

        Raises `KeyError` where the dataset has no such images, `IndexError`, `ShardError`.
        """
        if name not in self.index.members:
            raise KeyError(f"no further images {name!r} in split {self.name!r}, only {', '.join(self.index.members)}")
        i = self._row(position)
        offset, size, *_ = member_columns(name)
        return self._read(i, offset, size, name) if self.index.array(size)[i] else b""

    def fields(self, position: SupportsIndex) -> dict[str, object]:
        """Return what the sample's `json` member holds, without reading its image; empty where it has none.

        Its `txt` member, such as the caption in tars that others made, is the field `txt`. Raises `IndexError`,
        `ShardError`.
        """
        i = self._row(position)
        fields = self._json_fields(i)
        if "txt" not in fields and (text := self._text(i)):
            fields["txt"] = text
        return fields

    def _text(self, i: int) -> str:
        """Return the text of a `txt` member, which the file of columns keeps; empty where there is none."""
        if not self.columns.are_stored or (field := self.columns.field("txt")) is None:
            return ""
        if type_text(field) != "text":
            return ""
        return str(self.columns.values("txt", np.array([i]))[0])

    def _json_fields(self, i: int) -> dict[str, object]:
        if self.is_loose:
            text = self.index.column("fields")[i].as_py()
            return fields_of(parse_json(text)) if text else {}
        if not self.index.has_json or not self.index.array("json_size")[i]:
            return {}
        return self._parsed(i, self._read(i, "json_offset", "json_size"))

    def _parsed(self, i: int, data: bytes) -> dict[str, object]:
        try:
            return fields_of(parse_json(data))
        except ValueError as error:
            offset = int(self.index.array("json_offset")[i])
            raise ShardError(
                f"{self.file(i)}: json member at byte {offset} is no JSON ({error}); `imgdata verify` the folder"
            ) from error

    def metadata(self, position: SupportsIndex) -> dict[str, bool | int | float | str]:
        """Return the numbers, truths and texts among `fields` that are not in the index as well, as the label is.

        Raises `IndexError`, `ShardError`.
        """
        return {
            name: value
            for name, value in self.fields(position).items()
            if name not in _ALSO_IN_INDEX and isinstance(value, bool | int | float | str)
        }

    def find(self, key: str) -> int:
        """Return the position of the sample with `key`. Raises `KeyError` that names similar keys."""
        position = self.index.find(key)
        if position < 0:
            close = self.close_keys(key)
            raise KeyError(
                f"no sample {key!r} in split {self.name!r}" + (f"; near: {', '.join(close)}" if close else "")
            )
        return position

    def close_keys(self, key: str, count: int = 5) -> list[str]:
        """Return up to `count` keys that look like `key`, the closest first."""
        return near_keys(self.index.column("key"), key, count)

    def webdataset(self, **options: Any) -> "webdataset.WebDataset":
        """Return a `webdataset.WebDataset` pipeline over the same shards, in order; `options` are passed to it."""
        import webdataset

        require_shards(self.folder, "webdataset reads tars")
        settings = {"shardshuffle": False, **options}
        return webdataset.WebDataset([str(path) for path in self.shards], **settings).with_length(
            len(self), silent=True
        )

    def verified_member(self, position: SupportsIndex, name: str) -> bytes:
        """Return what `read_member` returns, compared with the hash in the index, or raise `ShardError`."""
        data = self.read_member(position, name)
        offset, _, _, xxh64 = member_columns(name)
        return self._compared(self._row(position), data, offset, xxh64, f" ({name})") if data else data

    def verified(self, position: SupportsIndex) -> bytes:
        """Return what `read` returns, compared with the hash in the index. Raises `ShardError` when they differ."""
        i = self._row(position)
        data = self._read(i, "offset", "size")
        return self._compared(i, data, "offset", "xxh64")

    def _compared(self, i: int, data: bytes, offset: str, xxh64: str, what: str = "") -> bytes:
        """Return `data` where its hash is that in the column `xxh64`. Raises `ShardError`."""
        # A loose file is compared with what the system said of it when it is opened.
        if not self.is_loose and xxhash.xxh64_intdigest(data) != int(self.index.array(xxh64)[i]):
            key, byte = self.index.key(i), int(self.index.array(offset)[i])
            raise ShardError(f"{self.file(i)}: {key}{what} at byte {byte} differs from the index; check the copy")
        return data

    def _fields_table(self) -> pa.Table:
        """Return the fields of all `json` members, which are read where no earlier process has done so."""
        return kept_in_cache(self.index, lambda: fields_table(self._all_fields()))

    def _all_fields(self) -> Iterator[dict[str, object]]:
        if not isinstance(self._opened(), RemoteShards):
            yield from (self.fields(i) for i in range(len(self)))
            return
        for start in range(0, len(self), _MEMBERS):
            some = range(start, min(start + _MEMBERS, len(self)))
            part = self._fetched(some, [("json_offset", "json_size")])
            yield from map(part._json_fields, some)

    def _row(self, position: SupportsIndex) -> int:
        i = operator.index(position)
        if not -len(self) <= i < len(self):
            raise IndexError(f"position must be from {-len(self)} to {len(self) - 1}, got {i}")
        return i % len(self)

    def file(self, position: SupportsIndex) -> Path:
        """Return the path of the file that holds the image: a tar, or where it is not sharded the user's own file."""
        files = self._opened()
        return files.path(int(files.numbers(np.array([self._row(position)]))[0]))

    def hash(self, position: SupportsIndex) -> int:
        """Return xxh64 of the image's bytes, which are read for it where they are not sharded. Raises `ShardError`."""
        i = self._row(position)
        return xxhash.xxh64_intdigest(self.read(i)) if self.is_loose else int(self.index.xxh64_N[i])

    def version(self, position: SupportsIndex) -> str:
        """Return 16 hex digits that are others once the image has changed; no image is read."""
        i = self._row(position)
        state = int(self.index.array("state")[i]) if self.is_loose else 0
        return f"{int(self.index.xxh64_N[i]) ^ state:016x}"

    def _opened(self) -> ImageFiles:
        if self._files is None:
            needed = _READ_COLUMNS + _JSON_COLUMNS * self.index.has_json
            # A key alone is in a row group.
            self.index.load([name for name in needed if name != "key" or not self.index.is_ranged])
            self._files = image_files(self.folder, self.index)
        return self._files

    def _read(self, i: int, offset_column: str, size_column: str, member: str = "") -> bytes:
        index, files = self.index, self._opened()
        number = int(files.numbers(np.array([i]), member)[0])
        offset, size = int(index.array(offset_column)[i]), int(index.array(size_column)[i])
        try:
            data = self._bytes(files, number, offset, size)
        except OSError as error:
            raise files.unreadable(number, error) from error
        if len(data) != size:
            key = index.key(i)
            if self.is_loose:
                raise files.cut_short(number, key, offset + size)
            path = files.path(number)
            end = files.size(number) if isinstance(files, RemoteShards) else path.stat().st_size
            raise ShardError(
                f"{path}: cut short at byte {end}, {key} ends at byte {offset + size}; copy the shard again"
            )
        return data

    def _bytes(self, files: ImageFiles, number: int, offset: int, size: int) -> bytes:
        if isinstance(files, RemoteShards):
            known = self._ahead.get((number, offset, size))
            return files.read(number, offset, size) if known is None else known
        if not files.keeps_open:
            descriptor = files.open(number)
            try:
                return pread(descriptor, size, offset)
            finally:
                os.close(descriptor)
        if self._pool is None:
            self._pool = self.folder.pool(self.index.words("shard"))
        return self._pool.read(number, offset, size)


def require_shards(folder: DatasetFolder, why: str) -> None:
    """Raise `OptionError` for a folder that was not sharded, with what needs shards."""
    if isinstance(folder, LooseFolder):
        raise OptionError(f"{folder}: not sharded, and {why}; run `imgdata shard {folder} OUT` and give OUT")
