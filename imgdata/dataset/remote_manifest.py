"""A folder or URL -> what its `dataset.json` says; where a dataset has to be on this machine, an error."""

import os
from pathlib import Path

from imgdata.dataset.manifest import MANIFEST, Manifest, dataset_folder, parse_manifest, read_manifest
from imgdata.errors import OptionError
from imgdata.storage.folder import DatasetFolder
from imgdata.storage.local_paths import url_scheme
from imgdata.storage.remote import RemoteMissingError
from imgdata.storage.remote_folder import RemoteFolder


def remote_folder(url: str | Path) -> RemoteFolder:
    """Return the folder of a dataset at a URL, or at that of its `dataset.json`."""
    return RemoteFolder(os.fspath(url).removesuffix(MANIFEST))


def manifest_of(path: str | Path) -> Manifest:
    """Return what the `dataset.json` of a finished dataset says; its folder may be a URL. Raises `ShardError`."""
    return read_manifest(dataset_folder(path)) if url_scheme(path) is None else manifest_at(remote_folder(path))


def manifest_at(folder: RemoteFolder) -> Manifest:
    """Return what the `dataset.json` of a remote dataset says. Raises `ShardError`."""
    try:
        return parse_manifest(folder.read(MANIFEST), folder.place(MANIFEST))
    except RemoteMissingError as error:
        raise RemoteMissingError(
            f"{error}. A dataset has its {MANIFEST} there: `imgdata shard SOURCE OUT` makes one; raw images are not "
            "read from a URL"
        ) from error


def require_local(folder: DatasetFolder, why: str) -> None:
    """Raise `OptionError` for a dataset in an object store, with what reads files of this machine."""
    if isinstance(folder, RemoteFolder):
        raise OptionError(f"{folder}: in an object store, and {why}; copy the dataset here, and give the copy")
