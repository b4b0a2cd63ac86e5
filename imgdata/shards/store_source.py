"""The URL of raw images in an object store -> a folder that looks the same, for its listing; a reader of the objects.

Images are listed by their names and sizes alone: each is a hole of its size in that folder. Tables and lists of names
are copied. The folder is gone when the listing is made; images are read from the store, each by one request.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import xxhash

from imgdata.errors import OptionError, ShardError, SourceError
from imgdata.sample import SampleRef
from imgdata.sources.listing import Listing
from imgdata.sources.readers import FileReader
from imgdata.sources.walk import is_image
from imgdata.storage.atomic import output_error
from imgdata.storage.file_names import unescape_name
from imgdata.storage.local_paths import UrlPath
from imgdata.storage.remote import RemoteStore
from imgdata.storage.remote_client import RemoteFacts

_PACKED = (".tar", ".tgz", ".tar.gz", ".zip", ".parquet", ".arrow", ".npz", ".npy", ".h5", ".hdf5", ".tfrecord", ".mds")
READS = 8
"""Images of a shard that are asked for at a time."""
_MAX_COPY_BYTES = 1 << 28
"""Largest file beside the images that is copied: a table."""


@dataclass(frozen=True)
class StoreReader:
    """Reader of samples that are objects: `folder / ref.name`, within the URL of the store."""

    store: RemoteStore
    folder: str

    def file(self, ref: SampleRef) -> None:
        """Return None: no file of this machine holds the image."""

    def read(self, ref: SampleRef) -> bytes:
        """Return the whole object. Raises `SourceError` when its size is not the listed one, and `ShardError`."""
        name = f"{self.folder}{unescape_name(ref.name)}"
        data = self.store.read(name)
        if len(data) != ref.size:
            raise SourceError(
                f"{self.store.place(name)}: changed between listing and reading: {ref.size} bytes were listed; wait "
                "until nothing writes to the source, then run the same command again"
            )
        return data


@dataclass(frozen=True)
class Mirror:
    """A folder that looks like a source in a store."""

    store: RemoteStore
    path: Path
    content: str
    """Hash of the names and ETags of all objects."""

    def reading_objects(self, listing: Listing) -> Listing:
        """Return `listing`, which was made of the folder, with a reader of the objects. Raises `SourceError`."""
        if not isinstance(listing.reader, FileReader) or listing.members:
            raise SourceError(
                f"{self.store.url}: of layouts in object stores class folders and tables of images are read, this "
                f"one is {listing.kind}{' with masks' if listing.members else ''}; copy it to this machine first"
            )
        folder = Path(listing.reader.root).relative_to(self.path).as_posix()
        prefix = "" if folder == "." else f"{folder}/"
        return replace(listing, reader=StoreReader(self.store, prefix), content=self.content)


@contextlib.contextmanager
def mirrored(url: str | os.PathLike[str]) -> Iterator[Mirror]:
    """Yield a folder that looks like what is at `url`; it is removed with the block.

    Raises `SourceError` for files that hold many images, `ShardError` for a store that can't be read.
    """
    store = RemoteStore(os.fspath(url))
    objects = [one for one in store.list() if not one.name.endswith("/")]
    if not objects:
        raise SourceError(f"{store.url}: nothing is there; check the URL and the endpoint")
    packed = next((one.name for one in objects if one.name.lower().endswith(_PACKED)), None)
    if packed is not None:
        raise SourceError(
            f"{store.url}: holds {packed}; tars, Parquet and other files of many images are not read from a URL as a "
            "source: copy them to this machine first"
        )
    digest = xxhash.xxh3_128()
    with tempfile.TemporaryDirectory(prefix="imgdata-") as temporary:
        path = Path(temporary, UrlPath(store.url).name)
        path.mkdir()
        copied = []
        for one in objects:
            digest.update(f"{one.name} {one.size} {one.etag}\n".encode())
            if _made(path, one, store):
                copied.append(one.name)
        store.in_parallel(lambda number: _copy(store, copied[number], path), len(copied))
        try:
            yield Mirror(store, path, digest.hexdigest())
        except (SourceError, OptionError, ShardError) as error:
            raise type(error)(str(error).replace(str(path), store.url)) from error


def _made(path: Path, one: RemoteFacts, store: RemoteStore) -> bool:
    """Make a hole for an object; return whether it is to be copied."""
    if ".." in PurePosixPath(one.name).parts or one.name.startswith("/") or "//" in one.name:
        raise SourceError(f"{store.place(one.name)}: no name that a file can have; rename it, or copy the others")
    file = path / one.name
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "xb") as hole:
            hole.truncate(one.size)
    except (FileExistsError, NotADirectoryError):
        raise SourceError(
            f"{store.place(one.name)}: an object and a folder have one name; rename one of them"
        ) from None
    except OSError as error:
        raise output_error(error, file) from error
    return not is_image(one.name) and one.size <= _MAX_COPY_BYTES


def _copy(store: RemoteStore, name: str, path: Path) -> None:
    with open(path / name, "r+b") as file:
        store.copy_to(file.fileno(), name)
