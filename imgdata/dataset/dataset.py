"""A finished dataset folder -> splits of samples with random access."""

import operator
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import numpy as np
import pyarrow as pa
import xxhash

from imgdata.dataset.columns import Columns, columns_file, kept_in_cache
from imgdata.dataset.fields import fields_table, type_text
from imgdata.dataset.files import ImageFiles, image_files
from imgdata.dataset.index import Index
from imgdata.dataset.index_checks import IndexLimits
from imgdata.dataset.manifest import (
    MANIFEST,
    Manifest,
    ShardRecord,
    SplitEntry,
    dataset_folder,
    parse_manifest,
    read_manifest,
)
from imgdata.dataset.members import Member, member_columns
from imgdata.dataset.near_keys import near_keys
from imgdata.dataset.parted_index import PartedIndex
from imgdata.dataset.remote_files import RemoteShards
from imgdata.dataset.remote_manifest import manifest_at, remote_folder
from imgdata.dataset.target import CLASS_TARGET, NO_TARGET, Target
from imgdata.dataset.targets import Targets
from imgdata.errors import OptionError, ShardError
from imgdata.extras import require_torch
from imgdata.sample import ClassName, Sample, fields_of
from imgdata.storage.atomic import FilePool, pread
from imgdata.storage.folder import DatasetFolder, JoinedFolder, LooseFolder
from imgdata.storage.local_paths import url_scheme
from imgdata.storage.reading import parse_json
from imgdata.storage.remote_folder import RemoteFolder
from imgdata.storage.shard_cache import ShardCache

if TYPE_CHECKING:
    import webdataset
    from PIL.Image import Image

    from imgdata.dataset.torch_dataset import TorchImages

_READ_COLUMNS = ("shard", "offset", "size", "label", "format", "key")
_JSON_COLUMNS = ("json_offset", "json_size")
_ALSO_IN_INDEX = frozenset({"class_id", "class_name", "label", "width", "height", "source", "key"})
"""Fields of `json` members that `imgdata shard` writes, or that name what the index has."""


def open_index(folder: DatasetFolder, entry: SplitEntry, num_classes: int | None = None) -> Index:
    """Open the index of a split, of one file or in parts; `num_classes` bounds its labels. Raises `ShardError`."""
    if entry.parts is not None:
        return PartedIndex(folder, entry, num_classes)
    limits = IndexLimits(num_classes=num_classes, shards=frozenset(shard.file for shard in entry.shards))
    return Index(folder.local(entry.index), limits, remedy=folder.remedy)


class Split:
    """One split: a sequence of samples, each read from its tar when asked for.

    Works as a map-style dataset of `torch.utils.data.DataLoader`: picklable, and safe after a fork.
    """

    shard_records: tuple[ShardRecord, ...] = ()
    """What `dataset.json` says of the tars; nothing where several datasets are read as one."""
    cache: ShardCache | None = None
    """What keeps shards of an object store on this machine; only a loader's split has one."""

    def __init__(
        self,
        folder: DatasetFolder,
        entry: SplitEntry,
        num_classes: int | None = None,
        *,
        columns: Path | None = None,
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
            return [self[i] for i in range(*place.indices(len(self)))]
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
        return (self[i] for i in range(len(self)))

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
        return self._read(i, offset, size) if self.index.array(size)[i] else b""

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
        data = self._read(i, "json_offset", "json_size")
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
        # A loose file is compared with what the system said of it when it is opened.
        return data if self.is_loose else self._compared(i, data, "offset", "xxh64")

    def _compared(self, i: int, data: bytes, offset: str, xxh64: str, what: str = "") -> bytes:
        """Return `data` where its hash is that in the column `xxh64`. Raises `ShardError`."""
        if xxhash.xxh64_intdigest(data) != int(self.index.array(xxh64)[i]):
            key, byte = self.index.key(i), int(self.index.array(offset)[i])
            raise ShardError(f"{self.file(i)}: {key}{what} at byte {byte} differs from the index; check the copy")
        return data

    def _fields_table(self) -> pa.Table:
        """Return the fields of all `json` members, which are read where no earlier process has done so."""
        return kept_in_cache(self.index, lambda: fields_table(self.fields(i) for i in range(len(self))))

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
            self.index.load(_READ_COLUMNS + _JSON_COLUMNS * self.index.has_json)
            self._files = image_files(self.folder, self.index)
        return self._files

    def _read(self, i: int, offset_column: str, size_column: str) -> bytes:
        index, files = self.index, self._opened()
        number = int(files.numbers(np.array([i]))[0])
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
            return files.read(number, offset, size)
        if not files.keeps_open:
            descriptor = files.open(number)
            try:
                return pread(descriptor, size, offset)
            finally:
                os.close(descriptor)
        if self._pool is None:
            self._pool = self.folder.pool(self.index.words("shard"))
        return self._pool.read(number, offset, size)


class Dataset(Mapping[str, Split]):
    """A finished dataset folder, or raw images in place: classes and splits, by name and in order."""

    def __init__(self, folder: DatasetFolder, manifest: Manifest) -> None:
        """Open every split's index. Raises `ShardError`."""
        self.folder = folder
        self.manifest = manifest
        files = {entry.name: columns_file(entry.index) for entry in manifest.splits}
        self.splits: dict[str, Split] = {
            entry.name: Split(
                folder,
                entry,
                len(manifest.classes),
                columns=folder.local(files[entry.name]) if files[entry.name] in manifest.files else None,
                members=manifest.members,
            )
            for entry in manifest.splits
        }

    @property
    def path(self) -> Path:
        """The folder."""
        return self.folder.path

    @property
    def is_loose(self) -> bool:
        """Whether the images lie in the user's own files, and were not sharded."""
        return isinstance(self.folder, LooseFolder)

    @property
    def name(self) -> str:
        """Name of the dataset, the first part of its shards' names."""
        return self.manifest.name

    @property
    def version(self) -> int:
        """Number of this version of the dataset; 1 until `imgdata shard --append` adds to it."""
        return self.manifest.version

    def at(self, version: int) -> "Dataset":
        """Return an earlier version of the dataset. Raises `OptionError` for a version that there isn't."""
        return self if version == self.version else Dataset(self.folder, self.manifest.at(version))

    @property
    def classes(self) -> tuple[ClassName, ...]:
        """Class index -> id and name."""
        return self.manifest.classes

    @property
    def target(self) -> Target:
        """What a network has to say of the samples: one class each, several, shares, numbers, or nothing."""
        if self.manifest.target is not None:
            return self.manifest.target
        return NO_TARGET if self.manifest.label_from == "none" else CLASS_TARGET

    @property
    def members(self) -> tuple[Member, ...]:
        """Further images of the samples, such as masks."""
        return self.manifest.members

    def targets(self, split: str) -> Targets | None:
        """Return the targets of a split's samples, where they are in columns; None where the index has labels or none.

        Raises `KeyError` when there is no such split.
        """
        columns = self[split].columns
        return Targets(self.target, columns, self.classes) if self.target.has_columns else None

    def __getitem__(self, split: str) -> Split:
        try:
            return self.splits[split]
        except KeyError:
            raise KeyError(f"no split {split!r} in {self.path}; it has {', '.join(self.splits)}") from None

    def torch(self, split: str, transform: "Callable[[Image], Any] | None" = None) -> "TorchImages":
        """Return the split as a map-style PyTorch dataset of `(transform(image), label)`, in place of `ImageFolder`.

        Where the target isn't one class, the label is a tensor: a flag or share of each class, or numbers.
        `transform` takes a PIL image in RGB. The limit of pixels is the one that the dataset was made with, 200
        million by default; Pillow's own, which is lower and of the whole process, does not apply. Raises `KeyError`
        when there is no such split, and `MissingExtraError` without PyTorch.
        """
        require_torch("Dataset.torch")
        from imgdata.dataset.torch_dataset import TorchImages

        values = self.targets(split)
        return TorchImages(self[split], self.classes, transform, max_pixels=self.manifest.max_pixels, values=values)

    def __iter__(self) -> Iterator[str]:
        return iter(self.splits)

    def __len__(self) -> int:
        return len(self.splits)

    def __repr__(self) -> str:
        splits = ", ".join(f"{name} {len(split)}" for name, split in self.splits.items())
        version = f", version {self.version}" if self.version > 1 else ""
        return f"<Dataset {self.name}{version}: {len(self.classes)} classes; {splits}>"


def open(path: str | Path, *, version: int | None = None) -> Dataset:
    """Open the dataset in the folder `path` (or the folder of its `dataset.json`), which `imgdata shard` wrote.

    The folder may be a URL, such as `s3://bucket/folder`; `version` is an earlier version of a dataset that has grown.
    Raises `ShardError` when it is no finished dataset, and says what to do, and `OptionError` for a version that there
    isn't.
    """
    if url_scheme(path) is not None:
        dataset = reopen(remote_folder(path))
        return dataset if version is None else dataset.at(version)
    folder = dataset_folder(path)
    manifest = read_manifest(folder)
    return Dataset(DatasetFolder(folder), manifest if version is None else manifest.at(version))


def reopen(folder: DatasetFolder) -> Dataset:
    """Open a dataset again by the folder of one that is open, without another look at loose files.

    Raises `ShardError`, and `OptionError` for several datasets that are read together.
    """
    if isinstance(folder, JoinedFolder):
        raise OptionError(f"{folder}: several datasets that are read together have no folder; give their list again")
    if isinstance(folder, RemoteFolder):
        return Dataset(folder, manifest_at(folder))
    if not isinstance(folder, LooseFolder):
        return open(folder.path)
    path = folder.local(MANIFEST)
    try:
        return Dataset(folder, parse_manifest(folder.read(MANIFEST), path))
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror or error}; open {folder} again") from error


def require_shards(folder: DatasetFolder, why: str) -> None:
    """Raise `OptionError` for a folder that was not sharded, with what needs shards."""
    if isinstance(folder, LooseFolder):
        raise OptionError(f"{folder}: not sharded, and {why}; run `imgdata shard {folder} OUT` and give OUT")
