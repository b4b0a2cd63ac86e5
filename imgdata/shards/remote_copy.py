"""A dataset's folder or URL -> a folder on this machine that has its small files, and a shard while it is looked at."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from imgdata.dataset.manifest import MANIFEST, Manifest, dataset_folder, read_manifest
from imgdata.dataset.remote_manifest import manifest_at, remote_folder
from imgdata.storage.atomic import output_error
from imgdata.storage.local_paths import url_scheme
from imgdata.storage.locks import LockHeldError, locked
from imgdata.storage.remote import RemoteMissingError
from imgdata.storage.remote_folder import RemoteFolder

_ALONE, _LOCK = "imgdata-shard-", "lock"

Shard = Callable[[str], AbstractContextManager[None]]
"""Function of a shard's name: the shard is in the folder inside the block."""


@contextlib.contextmanager
def on_this_machine(dataset: str | Path) -> Iterator[tuple[Path, Manifest, Shard]]:
    """Yield the folder of a dataset, what its `dataset.json` says, and what brings a shard there.

    Of a remote dataset the folder is a temporary one, and a shard is removed after its block, so that the disk needs
    space for a shard for each thread. Files that are missing stay missing. Raises `ShardError`, `OutputError`.
    """
    if url_scheme(dataset) is None:
        folder = dataset_folder(dataset)
        yield folder, read_manifest(folder), lambda name: nullcontext()
        return
    remote = remote_folder(dataset)
    manifest = manifest_at(remote)
    shards = {shard.file for split in manifest.splits for shard in split.shards}
    with tempfile.TemporaryDirectory(prefix="imgdata-") as temporary:
        for name in _small_files(remote, manifest):
            # A tar that is not listed is a fault by its name alone.
            if name.endswith(".tar") or name in shards:
                if name not in shards:
                    Path(temporary, name).touch()
                continue
            _copy(remote, name, Path(temporary, name))
        yield Path(temporary), manifest, lambda name: _shard(remote, name, Path(temporary, name))


def _small_files(remote: RemoteFolder, manifest: Manifest) -> list[str]:
    if remote.lists:
        return [one.name for one in remote.store.list() if "/" not in one.name]
    earlier = (split.index for version in manifest.versions for split in version.splits.values())
    indices = dict.fromkeys([*(split.index for split in manifest.splits), *earlier])
    return [MANIFEST, *indices, *manifest.files]


@contextlib.contextmanager
def files_alone(remote: RemoteFolder, names: Sequence[str]) -> Iterator[Path]:
    """Yield a temporary folder that has these files of a dataset; what is missing stays missing.

    Folders of processes that were killed are removed first: those that nobody has locked. Raises `ShardError`,
    `OutputError`.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{_ALONE}*"):
        with contextlib.suppress(LockHeldError, OSError), locked(left / _LOCK):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_ALONE, ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        with locked(folder / _LOCK):
            for name in names:
                _copy(remote, name, folder / name)
            yield folder


@contextlib.contextmanager
def _shard(remote: RemoteFolder, name: str, path: Path) -> Iterator[None]:
    try:
        _copy(remote, name, path)
        yield
    finally:
        path.unlink(missing_ok=True)


def _copy(remote: RemoteFolder, name: str, path: Path) -> None:
    try:
        with open(path, "wb") as file:
            remote.store.copy_to(file.fileno(), name)
    except RemoteMissingError:
        path.unlink()
    except OSError as error:
        raise output_error(error, path) from error
