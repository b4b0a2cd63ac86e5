"""Places of samples in an object store -> their bytes: objects that are images, ranges of objects that hold many."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from imgdata.errors import ImageError, SourceError
from imgdata.sample import SampleRef
from imgdata.sources.listing import Reader
from imgdata.sources.readers import LARGE_BYTES, MAX_IMAGE_BYTES, refuse_by_head
from imgdata.sources.zip_members import most_packed, unpacked
from imgdata.storage.file_names import unescape_name
from imgdata.storage.local_paths import UrlPath
from imgdata.storage.remote import RemoteMissingError, RemoteStore
from imgdata.storage.remote_ahead import Range, RangesAhead
from imgdata.storage.remote_client import RemoteFacts
from imgdata.storage.remote_file import RemoteFile

if TYPE_CHECKING:
    import pyarrow.parquet as pq

READS = 8
"""Images of a shard that are asked for at a time, where each is an object."""
_HEAD_BYTES = 4096


def object_state(etag: str) -> int:
    """Return `SampleRef.state` of an object, 0 for one without an ETag."""
    return int(np.uint64(xxhash.xxh3_64_intdigest(etag.encode())).astype(np.int64)) if etag else 0


@dataclass(frozen=True)
class StoreReader:
    """Reader of samples that are objects: `folder / ref.name`, within the URL of the store."""

    store: RemoteStore
    folder: str

    def file(self, ref: SampleRef) -> None:
        """Return None: no file of this machine holds the image."""

    def read(self, ref: SampleRef) -> bytes:
        """Return the whole object.

        Raises `SourceError` when its size or its ETag is not the listed one, `ImageError` where a table names an object
        that was not there when it was listed, and `ShardError`.
        """
        name = f"{self.folder}{unescape_name(ref.name)}"
        try:
            data, facts = self.store.fetch(name)
        except RemoteMissingError:
            if ref.size:
                raise
            raise ImageError("missing", "there is no such object, though a table names it") from None
        if len(data) != ref.size:
            raise SourceError(
                f"{self.store.place(name)}: changed between listing and reading: {ref.size} bytes were listed; wait "
                "until nothing writes to the source, then run the same command again"
            )
        if ref.state and object_state(facts.etag) != ref.state:
            raise SourceError(
                f"{self.store.place(name)}: changed between listing and reading (another ETag); wait until nothing "
                "writes to the source, then run the same command again"
            )
        return data


@dataclass(frozen=True)
class StoreRanges:
    """Reader of samples that are ranges of objects, such as tars, each in the version that was listed.

    Members of ZIP archives begin with a header of their own, at `ref.offset`, and may be compressed.
    """

    store: RemoteStore
    names: tuple[str, ...]
    etags: tuple[str, ...]
    """The version of each object; empty where the store has none."""
    zipped: bool = False
    """Whether the objects are ZIP archives."""
    files: StoreReader | None = None
    """Reader of samples of container 0, where those are objects."""
    coming: RangesAhead | None = field(default=None, compare=False, repr=False)
    """What fetches the samples of a shard ahead."""

    @property
    def containers(self) -> tuple[UrlPath, ...]:
        """The URLs of the objects."""
        return tuple(UrlPath(self.store.place(name)) for name in self.names)

    def file(self, ref: SampleRef) -> None:
        """Return None: no file of this machine holds the image."""

    def read(self, ref: SampleRef) -> bytes:
        """Return the encoded image.

        Raises `SourceError` when the object ends before, `ShardError` for one that has changed or can't be read, and
        `ImageError` for a damaged member of an archive.
        """
        if self.files is not None and not ref.container:
            return self.files.read(ref)
        place = f"{self.store.place(self.names[ref.container])}: {ref.name}"
        if self.zipped:
            if ref.size > MAX_IMAGE_BYTES:
                raise ImageError("too-large", f"{ref.size} bytes, the limit is {MAX_IMAGE_BYTES}")
            return unpacked(self._bytes(ref), ref.size, place)
        if ref.size > LARGE_BYTES:
            refuse_by_head(self._bytes(ref, _HEAD_BYTES), ref.size)
        data = self._bytes(ref)
        if len(data) != ref.size:
            raise SourceError(f"{place} ends at byte {ref.offset + len(data)}, where the object is cut short")
        return data

    def range(self, ref: SampleRef) -> Range:
        """Return what has to be read for a sample."""
        size = most_packed(ref.size) if self.zipped else ref.size
        return ref.container, ref.offset, size

    def _bytes(self, ref: SampleRef, most: int | None = None) -> bytes:
        number, offset, size = self.range(ref)
        if self.coming is not None and ref.size <= LARGE_BYTES:
            return self.coming.read(number, offset, size)
        return self.store.read(self.names[number], offset, most or size, etag=self.etags[number] or None)


@dataclass(frozen=True)
class StoreParquetFiles:
    """Parquet files in a store, each in the version that was listed, for a `ParquetReader`."""

    store: RemoteStore
    facts: Mapping[str, RemoteFacts]
    """Facts of each, by URL."""

    def __call__(self, path: Path) -> "pq.ParquetFile":
        """Return the opened file at a URL. Raises `SourceError`, `ShardError`."""
        # Imported here: workers that read other sources start sooner.
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(RemoteFile(self.store, self.facts[str(path)]))
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{path}: can't read this as Parquet: {error}") from error


def reads_objects(reader: Reader) -> bool:
    """Return whether samples are objects, each of which is a request: then it pays to read several at a time."""
    return isinstance(reader, StoreReader) or (isinstance(reader, StoreRanges) and reader.files is not None)


@contextlib.contextmanager
def reading_ahead(reader: Reader, refs: Sequence[SampleRef]) -> Iterator[Reader]:
    """Yield a reader for `refs` in about this order, which fetches ranges of objects before they are asked for.

    It is `reader` itself where that reads other places.
    """
    if not isinstance(reader, StoreRanges):
        yield reader
        return
    places = (one for ref in refs for one in (ref, *ref.members) if 0 < one.size <= LARGE_BYTES)
    wanted = [reader.range(one) for one in places if reader.files is None or one.container]
    with contextlib.closing(RangesAhead(reader.store, reader.names, reader.etags, wanted)) as coming:
        yield replace(reader, coming=coming)
