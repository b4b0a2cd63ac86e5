"""A finished dataset folder -> its classes and splits."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgdata.dataset.columns import columns_file
from imgdata.dataset.manifest import MANIFEST, Manifest, dataset_folder, parse_manifest, read_manifest
from imgdata.dataset.members import Member
from imgdata.dataset.remote_manifest import manifest_at, remote_folder
from imgdata.dataset.split import Split
from imgdata.dataset.table_file import TableFile
from imgdata.dataset.target import CLASS_TARGET, NO_TARGET, Target
from imgdata.dataset.targets import Targets
from imgdata.errors import OptionError, ShardError
from imgdata.extras import require_torch
from imgdata.sample import ClassName
from imgdata.storage.folder import DatasetFolder, JoinedFolder, LooseFolder
from imgdata.storage.local_paths import url_scheme
from imgdata.storage.remote_folder import RemoteFolder

if TYPE_CHECKING:
    from PIL.Image import Image

    from imgdata.dataset.torch_dataset import TorchImages


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
                columns=TableFile(folder, files[entry.name]) if files[entry.name] in manifest.files else None,
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
