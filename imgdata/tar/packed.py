"""A small tar, compressed with gzip or not -> its members, within a limit of unpacked bytes."""

import contextlib
import gzip
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from imgdata.storage.reading import open_regular

GZIP = b"\x1f\x8b"
"""First bytes of a file that is compressed with gzip."""


_MAX_ENDS = 8


class UnpackError(OSError):
    """An archive unpacks to more than it may, or has a member that can't be read as a file."""


class _Limited:
    """A file for `tarfile` to read from, limited to so many bytes."""

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._left = max_bytes
        self._ends = 0

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer at the end of the file. Raises `UnpackError`."""
        data = self._file.read(size)
        self._left -= len(data)
        self._ends += not data
        if self._ends > _MAX_ENDS:
            # `tarfile` continues to read at the end for as long as a damaged header says.
            raise UnpackError("cut short: a member is longer than the archive")
        if self._left < 0:
            raise UnpackError(f"unpacks to more than {self._max_bytes:,} bytes, which no archive of this kind does")
        return data


@contextlib.contextmanager
def open_packed(path: Path, max_bytes: int) -> Iterator[tarfile.TarFile]:
    """Open the tar at `path` to be read once, from its start to its end.

    Raises `OSError`, `UnpackError` once more than `max_bytes` were unpacked, `EOFError`, `zlib.error` or
    `tarfile.TarError`.
    """
    with open(path, "rb", opener=open_regular) as file:
        compressed = file.read(len(GZIP)) == GZIP
        file.seek(0)
        source = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if compressed else file
        limited = cast(IO[bytes], _Limited(source, max_bytes))
        with tarfile.open(fileobj=limited, mode="r|") as archive:
            yield archive


def read_packed(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Return the bytes of a regular file in `archive`, the member that was read last. Raises `UnpackError`."""
    if member.issparse():
        # A sparse member can expand to terabytes of zeros.
        raise UnpackError(f"{member.name} is a sparse member; make the archive without sparse files")
    file = archive.extractfile(member)
    return b"" if file is None else file.read()
