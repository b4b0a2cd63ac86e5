"""The URL of a raw dataset in an object store -> a folder that looks the same, for its listing; a reader of objects.

Each object is a hole of its size in that folder, which says its name. Small files beside the images are copied there at
once, and large ones, such as tars, when the listing opens them: as many stay as have room. The folder is gone when the
listing is made; images are read from the store.
"""

import contextlib
import fnmatch
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

import braceexpand
import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from imgdata.dataset.manifest import MANIFEST
from imgdata.dataset.remote_manifest import manifest_at
from imgdata.errors import ImgdataError, OptionError, ShardError, SourceError
from imgdata.shards.store_hulls import Hulls
from imgdata.shards.store_readers import StoreParquetFiles, StoreRanges, StoreReader, object_state
from imgdata.sources.listing import Listing, Reader
from imgdata.sources.readers import FileReader, RangeReader
from imgdata.sources.walk import is_image
from imgdata.storage.atomic import output_error
from imgdata.storage.file_names import unescape_name
from imgdata.storage.local_paths import UrlPath
from imgdata.storage.reading import filled_on_opening
from imgdata.storage.remote import WEB, RemoteMissingError, RemoteStore
from imgdata.storage.remote_client import RemoteFacts
from imgdata.storage.remote_file import RemoteFile
from imgdata.storage.remote_folder import RemoteFolder
from imgdata.storage.swept_folder import swept_folder

_MANY_IMAGES = (".tar", ".tgz", ".gz", ".zip", ".parquet", ".arrow", ".npz", ".npy", ".h5", ".hdf5", ".mds", ".bin")
"""Ends of the names of files that are copied when they are opened, whatever their size."""
_MAX_COPY_BYTES = 16 * 2**20
"""Largest other file beside the images that is copied before it is opened: a table."""
KEPT_BYTES = 4 * 2**30
"""Most bytes of opened files that stay in the folder at a time, beside a single larger one."""


class Mirror:
    """A folder that looks like a source in a store."""

    def __init__(self, store: RemoteStore, path: Path, objects: Sequence[RemoteFacts]) -> None:
        """Make the folder's files, as holes but for small ones. Raises `SourceError`, `ShardError`, `OutputError`."""
        self.store = store
        self.path = path
        self.source = path
        """What is listed: the folder, or a file or a pattern in it."""
        self.fault: ShardError | None = None
        """Error of an object that the listing could not open."""
        self._facts = {one.name: one for one in objects}
        self._small: set[str] = set()
        self._opened: OrderedDict[str, int] = OrderedDict()
        self._hulls = Hulls(path)
        self._lock = threading.RLock()
        digest = xxhash.xxh3_128()
        for one in objects:
            digest.update(f"{one.name} {one.size} {one.etag}\n".encode())
            self._make_hole(one)
            if one.size <= _MAX_COPY_BYTES and not is_image(one.name) and not one.name.lower().endswith(_MANY_IMAGES):
                self._small.add(one.name)
        self.content = digest.hexdigest()
        """Hash of the names, sizes and ETags of all objects."""
        small = list(self._small)
        store.in_parallel(lambda number: self._copy(small[number]), len(small))

    def fill(self, name: str) -> None:
        """Copy an object into the folder, where it is not there yet. Raises `ShardError`, `OutputError`."""
        with self._lock:
            if name in self._opened:
                self._opened.move_to_end(name)
            if self._is_here(name):
                return
            facts = self._facts[name]
            try:
                if not (name.endswith(".tar") and self._hulls.write(name, facts.size)):
                    self._make_room(facts.size)
                    self._copy(name)
                taken = (self.path / name).stat().st_blocks * 512
            except ShardError as error:
                self._failed(error)
                raise
            except OSError as error:
                raise output_error(error, self.path / name) from error
            # A shard without its images takes more or less, as its images are small or large.
            self._make_room(taken)
            self._opened[name] = taken

    def _is_here(self, name: str) -> bool:
        """Return whether a file has its bytes, or is none of the objects."""
        return name in self._small or name in self._opened or name not in self._facts

    def _make_room(self, num_bytes: int) -> None:
        """Empty the files that were opened least recently, until there is room for one of so many bytes."""
        room = min(KEPT_BYTES, shutil.disk_usage(self.path).free // 2)
        while self._opened and sum(self._opened.values()) + num_bytes > room:
            oldest, _ = self._opened.popitem(last=False)
            # A new file: the old one stays for those that have it open.
            (self.path / oldest).unlink()
            self._make_hole(self._facts[oldest])

    def stream(self, name: str) -> BinaryIO | None:
        """Return a file that reads an object by ranges; None for one that is in the folder."""
        if self._is_here(name):
            return None
        return cast(BinaryIO, RemoteFile(self.store, self._facts[name], self._failed))

    def in_store(self, listing: Listing) -> Listing:
        """Return `listing`, which was made of the folder, with a reader of the objects. Raises `SourceError`."""
        # Imported here: each is a source that others don't need.
        from imgdata.sources.imagenet.source import ImagenetReader
        from imgdata.sources.parquet.source import ParquetReader
        from imgdata.sources.zip import ZipReader, header_places

        reader = listing.reader
        if isinstance(reader, ImagenetReader):
            ranges = self._ranges(reader.ranges.containers)
            return self._listed(listing, replace(ranges, files=self._files(reader.files)))
        if isinstance(reader, FileReader) and reader.root.is_relative_to(self.path):
            return self._listed(listing, self._files(reader))
        if isinstance(reader, RangeReader):
            return self._listed(listing, self._ranges(reader.containers))
        if isinstance(reader, ZipReader):
            offset_N = listing.offset_N.copy()
            for number, place_M in enumerate(map(header_places, reader.archives)):
                of_archive_N = listing.container_N == number
                offset_N[of_archive_N] = place_M[offset_N[of_archive_N]]
            return self._listed(replace(listing, offset_N=offset_N), self._ranges(reader.archives, zipped=True))
        if isinstance(reader, ParquetReader):
            facts = {self.store.place(name): self._facts[name] for name in map(self._name, reader.files)}
            opener = StoreParquetFiles(self.store, facts)
            return self._listed(listing, replace(reader, files=tuple(map(UrlPath, facts)), opener=opener))
        raise SourceError(
            f"{self.store.url}: images are packed, or in arrays (layout {listing.kind}), which are not read from an "
            "object store; copy them to this machine first"
        )

    def _files(self, reader: FileReader) -> StoreReader:
        folder = self._name(reader.root)
        return StoreReader(self.store, "" if folder == "." else f"{folder}/")

    def _ranges(self, paths: Iterable[Path], *, zipped: bool = False) -> StoreRanges:
        names = tuple(map(self._name, paths))
        etags = tuple(self._facts[one].etag if one in self._facts else "" for one in names)
        return StoreRanges(self.store, names, etags, zipped)

    def _listed(self, listing: Listing, reader: Reader) -> Listing:
        files = reader.files if isinstance(reader, StoreRanges) else reader
        if isinstance(files, StoreReader):
            members = [replace(one, state_N=self._states(files, one.name_N)) for one in listing.members]
            listing = replace(listing, state_N=self._states(files, listing.name_N), members=tuple(members))
        return replace(listing, reader=reader, content=self.content)

    def _states(self, files: StoreReader, name_N: pa.ChunkedArray) -> NDArray[np.int64]:
        """Return the states of the objects that are images, 0 for images that are in another object."""
        objects = (self._facts.get(f"{files.folder}{unescape_name(name)}") for name in name_N.to_pylist())
        return np.array([0 if one is None else object_state(one.etag) for one in objects], np.int64)

    def _failed(self, error: ShardError) -> None:
        self.fault = self.fault or error

    def _name(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()

    def _make_hole(self, one: RemoteFacts) -> None:
        if ".." in PurePosixPath(one.name).parts or one.name.startswith("/") or "//" in one.name:
            raise SourceError(
                f"{self.store.place(one.name)}: no name that a file can have; rename it, or copy the others"
            )
        file = self.path / one.name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with open(file, "xb") as hole:
                hole.truncate(one.size)
        except (FileExistsError, NotADirectoryError):
            raise SourceError(
                f"{self.store.place(one.name)}: an object and a folder have one name; rename one of them"
            ) from None
        except OSError as error:
            raise output_error(error, file) from error

    def _copy(self, name: str) -> None:
        try:
            with open(self.path / name, "r+b") as file:
                self.store.copy_to(file.fileno(), name, etag=self._facts[name].etag or None)
        except OSError as error:
            raise output_error(error, self.path / name) from error


@contextlib.contextmanager
def mirrored(url: str | os.PathLike[str]) -> Iterator[Mirror]:
    """Yield a folder that looks like what is at `url`; it is removed with the block.

    Raises `SourceError` for what can't be a folder, `ShardError` for a store that can't be read.
    """
    store, objects, name = _meant(os.fspath(url))
    if not objects:
        raise SourceError(f"{store.place(name)}: nothing is there; check the URL and the endpoint")
    with swept_folder("listing") as temporary:
        path = temporary / UrlPath(store.url).name
        path.mkdir()
        mirror = Mirror(store, path, objects)
        mirror.source = path / name
        try:
            with filled_on_opening(path, mirror):
                yield mirror
        except ImgdataError as error:
            if mirror.fault is not None:
                raise mirror.fault from error
            if not isinstance(error, SourceError | OptionError | ShardError):
                raise
            raise type(error)(str(error).replace(str(path), store.url)) from error


def _meant(url: str) -> tuple[RemoteStore, list[RemoteFacts], str]:
    """Return the store of a folder, the objects that `url` means, and their name or pattern; empty for all of them."""
    store, name = RemoteStore(url), UrlPath(url).name
    if any(mark in name for mark in "{*?["):
        return _named(url)
    is_file = name.lower().endswith(_MANY_IMAGES)
    if store.scheme in WEB:
        return _named(url) if is_file else (store, _dataset_files(store), "")
    found = [one for one in store.list() if not one.name.endswith("/")]
    return _named(url) if is_file and not found else (store, found, "")


def _named(url: str) -> tuple[RemoteStore, list[RemoteFacts], str]:
    """Return what `_meant` does for a name, or a pattern of names such as `x-{000..099}.tar` or `x-*.tar`.

    Raises `ShardError` for an object that is not there.
    """
    store, pattern = RemoteStore(str(UrlPath(url).parent)), UrlPath(url).name
    names = list(braceexpand.braceexpand(pattern))
    if not any(mark in pattern for mark in "*?["):
        return store, _facts(store, names), pattern
    there = (one for one in store.list() if "/" not in one.name)
    return store, [one for one in there if any(fnmatch.fnmatchcase(one.name, name) for name in names)], pattern


def _dataset_files(store: RemoteStore) -> list[RemoteFacts]:
    """Return the objects of a dataset on a web server, which lists nothing. Raises `SourceError`, `ShardError`."""
    try:
        manifest = manifest_at(RemoteFolder(store.url, store=store))
    except RemoteMissingError:
        raise SourceError(
            f"{store.url}: a web server does not list its files, and there is no {MANIFEST}; give a dataset, or tars "
            "by their names, such as x-{000..099}.tar"
        ) from None
    indices = [name for split in manifest.splits for name in split.index_files]
    return _facts(store, [MANIFEST, *indices, *(shard.file for split in manifest.splits for shard in split.shards)])


def _facts(store: RemoteStore, names: Sequence[str]) -> list[RemoteFacts]:
    found: dict[str, RemoteFacts] = {}

    def ask(number: int) -> None:
        found[names[number]] = store.head(names[number])

    store.in_parallel(ask, len(names))
    return [found[name] for name in names]
