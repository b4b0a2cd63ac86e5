"""A finished dataset folder -> splits of samples with random access."""

import difflib
import operator
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from imgdata.dataset.columns import Columns, columns_file, kept_in_cache
from imgdata.dataset.fields import fields_table
from imgdata.dataset.index import Index
from imgdata.dataset.index_checks import IndexLimits
from imgdata.dataset.manifest import MANIFEST, Manifest, SplitEntry, dataset_folder, read_manifest
from imgdata.errors import ShardError
from imgdata.sample import ClassName, Sample, fields_of
from imgdata.storage.atomic import FilePool
from imgdata.storage.folder import DatasetFolder
from imgdata.storage.reading import parse_json

if TYPE_CHECKING:
    import webdataset
    from PIL.Image import Image

    from imgdata.dataset.torch_dataset import TorchImages

_READ_COLUMNS = ("shard", "offset", "size", "label", "format", "key")
_JSON_COLUMNS = ("json_offset", "json_size")
_ALSO_IN_INDEX = frozenset({"class_id", "class_name", "label", "width", "height", "source", "key"})
"""Fields of `json` members that `imgdata shard` writes, or that name what the index has."""
_CLOSE_CANDIDATES = 2_000


class Split:
    """One split: a sequence of samples, each read from its tar when asked for.

    Works as a map-style dataset of `torch.utils.data.DataLoader`: picklable, and safe after a fork.
    """

    def __init__(
        self, folder: DatasetFolder, entry: SplitEntry, num_classes: int | None = None, *, columns: Path | None = None
    ) -> None:
        """Open the index; `num_classes` bounds its labels, `columns` is the file of columns beside it.

        Raises `ShardError` when the index doesn't fit `dataset.json`.
        """
        self.folder = folder
        self.name = entry.name
        limits = IndexLimits(num_classes=num_classes, shards=frozenset(shard.file for shard in entry.shards))
        self.index = Index(folder.local(entry.index), limits)
        self.shards = [folder.local(shard.file) for shard in entry.shards]
        if len(self.index) != entry.samples:
            raise ShardError(
                f"{self.index.path}: rows must be {entry.samples} as {MANIFEST} says, got {len(self.index)}; "
                f"rebuild the index with `imgdata index {folder}`"
            )
        self._files: FilePool | None = None
        members = self._fields_table if self.index.has_json else None
        self.columns = Columns(self.index, columns, None if columns is not None else members)
        """The samples' columns: those of the index, and the fields of the `json` members."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": None}

    def __repr__(self) -> str:
        return f"<Split {self.name}: {len(self)} samples in {len(self.shards)} shards>"

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
            key=index.column("key")[i].as_py(),
            image=image,
            format=index.words("format")[index.array("format")[i]],
            label=int(index.label_N[i]),
            fields=self.fields(i),
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def read(self, position: SupportsIndex) -> bytes:
        """Return the encoded image at `position`, as stored. Raises `IndexError`, `ShardError`."""
        return self._read(self._row(position), "offset", "size")

    def fields(self, position: SupportsIndex) -> dict[str, object]:
        """Return what the sample's `json` member holds, without reading its image; empty where it has none.

        Raises `IndexError`, `ShardError`.
        """
        i = self._row(position)
        if not self.index.has_json or not self.index.array("json_size")[i]:
            return {}
        data = self._read(i, "json_offset", "json_size")
        try:
            return fields_of(parse_json(data))
        except ValueError as error:
            offset = int(self.index.array("json_offset")[i])
            raise ShardError(
                f"{self._path(i)}: json member at byte {offset} is no JSON ({error}); `imgdata verify` the folder"
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
        column = self.index.column("key")
        base = key.rsplit("/", 1)[-1].split(".", 1)[0]
        # Comparing with a million keys one by one takes minutes: narrow down by ever shorter beginnings.
        candidates: list[str] = []
        for part in (base, *(base[:length] for length in range(len(base) - 1, 2, -2))):
            if not part:
                break
            found = column.filter(pc.match_substring(column, part, ignore_case=True))
            candidates = [str(found_key) for found_key in found.slice(0, _CLOSE_CANDIDATES).to_pylist()]
            if candidates:
                break
        if not candidates:
            candidates = [str(any_key) for any_key in column.slice(0, _CLOSE_CANDIDATES).to_pylist()]
        return difflib.get_close_matches(key, candidates, count, cutoff=0.5)

    def webdataset(self, **options: Any) -> "webdataset.WebDataset":
        """Return a `webdataset.WebDataset` pipeline over the same shards, in order; `options` are passed to it."""
        import webdataset

        settings = {"shardshuffle": False, **options}
        return webdataset.WebDataset([str(path) for path in self.shards], **settings).with_length(
            len(self), silent=True
        )

    def verified(self, position: SupportsIndex) -> bytes:
        """Return what `read` returns, compared with the hash in the index. Raises `ShardError` when they differ."""
        i = self._row(position)
        data = self._read(i, "offset", "size")
        if xxhash.xxh64_intdigest(data) != int(self.index.xxh64_N[i]):
            row = self.index.row(i)
            raise ShardError(f"{self._path(i)}: {row.key} at byte {row.offset} differs from the index; check the copy")
        return data

    def _fields_table(self) -> pa.Table:
        """Return the fields of all `json` members, which are read where no earlier process has done so."""
        return kept_in_cache(self.index, lambda: fields_table(self.fields(i) for i in range(len(self))))

    def _row(self, position: SupportsIndex) -> int:
        i = operator.index(position)
        if not -len(self) <= i < len(self):
            raise IndexError(f"position must be from {-len(self)} to {len(self) - 1}, got {i}")
        return i % len(self)

    def _open(self) -> FilePool:
        self.index.load(_READ_COLUMNS + _JSON_COLUMNS * self.index.has_json)
        return self.folder.pool(self.index.words("shard"))

    def _path(self, i: int) -> Path:
        return self.folder.local(self.index.words("shard")[int(self.index.shard_N[i])])

    def _read(self, i: int, offset_column: str, size_column: str) -> bytes:
        if self._files is None:
            self._files = self._open()
        index = self.index
        offset, size = int(index.array(offset_column)[i]), int(index.array(size_column)[i])
        try:
            data = self._files.read(int(index.shard_N[i]), offset, size)
        except OSError as error:
            raise ShardError(f"{self._path(i)}: {error.strerror or error}; copy the shard again") from error
        if len(data) != size:
            key = index.column("key")[i].as_py()
            end = self._path(i).stat().st_size
            raise ShardError(
                f"{self._path(i)}: cut short at byte {end}, {key} ends at byte {offset + size}; copy the shard again"
            )
        return data


class Dataset(Mapping[str, Split]):
    """A finished dataset folder: its classes and its splits, by name and in order."""

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
            )
            for entry in manifest.splits
        }

    @property
    def path(self) -> Path:
        """The folder."""
        return self.folder.path

    @property
    def name(self) -> str:
        """Name of the dataset, the first part of its shards' names."""
        return self.manifest.name

    @property
    def classes(self) -> tuple[ClassName, ...]:
        """Class index -> id and name."""
        return self.manifest.classes

    def __getitem__(self, split: str) -> Split:
        try:
            return self.splits[split]
        except KeyError:
            raise KeyError(f"no split {split!r} in {self.path}; it has {', '.join(self.splits)}") from None

    def torch(self, split: str, transform: "Callable[[Image], Any] | None" = None) -> "TorchImages":
        """Return the split as a map-style PyTorch dataset of `(transform(image), label)`, in place of `ImageFolder`.

        `transform` takes a PIL image in RGB. The limit of pixels is the one that the dataset was made with, 200
        million by default; Pillow's own, which is lower and of the whole process, does not apply. Raises `KeyError`
        when there is no such split.
        """
        from imgdata.dataset.torch_dataset import TorchImages

        return TorchImages(self[split], self.classes, transform, max_pixels=self.manifest.max_pixels)

    def __iter__(self) -> Iterator[str]:
        return iter(self.splits)

    def __len__(self) -> int:
        return len(self.splits)

    def __repr__(self) -> str:
        splits = ", ".join(f"{name} {len(split)}" for name, split in self.splits.items())
        return f"<Dataset {self.name}: {len(self.classes)} classes; {splits}>"


def open(path: str | Path) -> Dataset:
    """Open the dataset in the folder `path` (or the folder of its `dataset.json`).

    Raises `ShardError` when the folder is no finished dataset, and says what to do.
    """
    folder = dataset_folder(path)
    return Dataset(DatasetFolder(folder), read_manifest(folder))
