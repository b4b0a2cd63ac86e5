"""Readers that several sources share: a file for each sample, or ranges of larger files."""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from imgdata.errors import ImageError, SourceError
from imgdata.images.probe import looks_like_an_image, probe
from imgdata.sample import SampleRef
from imgdata.sources.listing import Reader
from imgdata.storage.atomic import FilePool, pread
from imgdata.storage.file_names import unescape_name
from imgdata.storage.reading import open_regular

LARGE_BYTES = 64 * 2**20
"""Size in bytes above which the head of an image is checked before the whole image is read."""
MAX_IMAGE_BYTES = 2**31 - 1024
"""Most bytes of one encoded image."""
_HEAD_BYTES = 4096
LEADS_NOWHERE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG))
"""Error numbers of a file that does not exist; other errors may be temporary."""


def refuse_by_head(head: bytes, size: int) -> None:
    """Raise `ImageError` for a large file that is no image by its first bytes, or larger than any image may be."""
    if not looks_like_an_image(head):
        probe(head)
    if size > MAX_IMAGE_BYTES:
        raise ImageError("too-large", f"{size} bytes, the limit is {MAX_IMAGE_BYTES}")


@runtime_checkable
class PlainReader(Reader, Protocol):
    """Reader of images that lie in files byte for byte, so that they can be read without it."""

    def start(self, ref: SampleRef) -> int | None:
        """Return the first byte of `ref` in its `file`; None where the whole file is the image."""
        ...


@dataclass(frozen=True)
class FileReader:
    """Reader of samples that are files: `root / ref.name`."""

    root: Path

    def file(self, ref: SampleRef) -> str:
        """Return the path of the file of `ref`."""
        return f"{self.root}/{unescape_name(ref.name)}"

    def start(self, ref: SampleRef) -> None:
        """Return None: the file is the image."""

    def read(self, ref: SampleRef) -> bytes:
        """Return the whole file.

        Raises `OSError`, `SourceError` when its size is not the listed one, and `ImageError` where a table names a
        file that was not there when it was listed.
        """
        path = self.file(ref)
        try:
            descriptor = open_regular(path)
        except OSError as error:
            if not ref.size and error.errno in LEADS_NOWHERE:
                raise ImageError("missing", "there is no such file, though a table names it") from error
            raise
        try:
            if ref.size > LARGE_BYTES:
                refuse_by_head(pread(descriptor, _HEAD_BYTES, 0), ref.size)
            # Read one byte more than listed, to notice a file that has grown since.
            data = os.read(descriptor, ref.size + 1)
            if len(data) < ref.size:
                # One call may read less on some network disks.
                while len(data) <= ref.size and (more := os.read(descriptor, ref.size + 1 - len(data))):
                    data += more
        except OSError as error:
            # The error of a descriptor has no path.
            raise OSError(error.errno, error.strerror, path) from error
        finally:
            os.close(descriptor)
        if len(data) != ref.size:
            raise SourceError(
                f"{path}: changed between listing and reading: {ref.size} bytes were listed; wait until nothing writes "
                "to the source, then run the same command again"
            )
        return data


class RangeReader:
    """Reader of samples that are byte ranges of `containers` (tars, blobs)."""

    def __init__(self, containers: Sequence[Path]) -> None:
        self._files = FilePool(containers)

    @property
    def containers(self) -> tuple[Path, ...]:
        """The files that hold the samples."""
        return self._files.paths

    def file(self, ref: SampleRef) -> Path:
        """Return the path of the container of `ref`."""
        return self._files.paths[ref.container]

    def start(self, ref: SampleRef) -> int:
        """Return the first byte of `ref` in its container."""
        return ref.offset

    def read(self, ref: SampleRef) -> bytes:
        """Return the bytes from `ref.offset` on. Raises `OSError`, and `SourceError` when the container ends before."""
        path = self._files.paths[ref.container]
        try:
            if ref.size > LARGE_BYTES:
                refuse_by_head(self._files.read(ref.container, ref.offset, _HEAD_BYTES), ref.size)
            data = self._files.read(ref.container, ref.offset, ref.size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        if len(data) != ref.size:
            raise SourceError(
                f"{path}: ends inside {ref.name} (byte {ref.offset + len(data)}); the file is cut short or changed"
            )
        return data
