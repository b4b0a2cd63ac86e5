"""Paths -> bytes at offsets, and bytes -> files that are whole or not there."""

import contextlib
import ctypes
import errno
import os
import resource
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from imgdata.errors import OutputError
from imgdata.storage.reading import open_regular

JOB_FOLDER = ".imgdata"
"""Folder inside the output in which a running job keeps its state and temporary files."""


@contextlib.contextmanager
def whole_file(path: Path, *, is_shared: bool = False) -> Iterator[Path]:
    """Yield a temporary file to fill; it gets the name `path` afterwards, synced, or is removed.

    It is in the job folder where there is one, else hidden beside `path`. With `is_shared` any threads and machines may
    write the same file at a time. Raises `OutputError`.
    """
    job = path.parent / JOB_FOLDER
    own = f"{os.getpid()}-{secrets.token_hex(4)}" if is_shared else str(os.getpid())
    temporary = job / f"{path.name}.tmp" if job.is_dir() else path.parent / f".{path.name}.{own}.tmp"
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise output_error(error, path) from error
    finally:
        # The error that brought us here matters more; what is left behind is removed by the next run.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a crash leaves the old file or the new one, never a part.

    Raises `OutputError`.
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def output_error(error: OSError, path: Path) -> OutputError:
    """Return the error that says what an `OSError` while writing `path` means, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"{path}: no space left on the disk; free some and run the same command again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{path}: can't be written ({error.strerror}); choose a folder you may write to")
    return OutputError(f"{path}: can't be written: {error.strerror or error}")


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make all files and names below `folder` last through a power cut. Raises `OSError`.

    Linux does so for the whole file system at once, which takes seconds where a million small files take hours.
    """
    try:
        sync_all = ctypes.CDLL(None, use_errno=True).syncfs
    except AttributeError:
        for path in sorted(folder.rglob("*"), reverse=True):
            sync_folder(path)
        sync_folder(folder)
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if sync_all(descriptor) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), os.fspath(folder))
    finally:
        os.close(descriptor)


_LARGE = 1 << 24


def pread(descriptor: int, size: int, offset: int) -> bytes:
    """Return `size` bytes at `offset`, fewer only at the file's end: one call may give less than asked."""
    if size > _LARGE:
        # Space is made for all of it before anything is read.
        size = min(size, max(os.fstat(descriptor).st_size - offset, 0))
    data = os.pread(descriptor, size, offset)
    while len(data) < size and (more := os.pread(descriptor, size - len(data), offset + len(data))):
        data += more
    return data


def pwrite(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`: one call may write less than asked. Raises `OSError`."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


class FilePool:
    """Random reads from many files. Picklable, and safe to use from threads and after a fork.

    Keeps up to half the process's file limit open; files beyond that are opened for each read, so no
    descriptor is ever closed under a thread that still reads from it.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._descriptors: dict[int, int] = {}
        self._limit = max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)

    def __reduce__(self) -> tuple[type["FilePool"], tuple[tuple[Path, ...]]]:
        """Return how to unpickle the pool: descriptors stay in the process that opened them."""
        return type(self), (self.paths,)

    def read(self, file: int, offset: int, size: int) -> bytes:
        """Return `size` bytes at `offset` of `paths[file]`; fewer when the file ends before. Raises `OSError`."""
        descriptor = self._descriptors.get(file)
        if descriptor is not None:
            return pread(descriptor, size, offset)
        descriptor = open_regular(self.paths[file])
        try:
            data = pread(descriptor, size, offset)
        except OSError:
            os.close(descriptor)
            raise
        if len(self._descriptors) >= self._limit or self._descriptors.setdefault(file, descriptor) != descriptor:
            os.close(descriptor)
        return data

    def descriptors(self) -> Mapping[int, int]:
        """Return the descriptors that stay open until `close`, by the number of their file."""
        return self._descriptors

    def read_each(self, files: Sequence[int], offsets: Sequence[int], size: int) -> bytes:
        """Return `size` bytes at each offset of its file, joined; fewer where a file ends before. Raises `OSError`.

        The system is told all places in open files before the first is read: a disk is asked for them together.
        """
        places = [(self._descriptors.get(file), offset) for file, offset in zip(files, offsets, strict=True)]
        for descriptor, offset in places if hasattr(os, "posix_fadvise") else ():
            if descriptor is not None:
                os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_WILLNEED)
        found = b"".join(
            [
                self.read(file, offset, size) if descriptor is None else os.pread(descriptor, size, offset)
                for file, (descriptor, offset) in zip(files, places, strict=True)
            ]
        )
        if len(found) == size * len(offsets):
            return found
        # One call may give less than asked.
        return b"".join([self.read(file, offset, size) for file, offset in zip(files, offsets, strict=True)])

    def close(self) -> None:
        """Close what is open; a later read opens again."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # When the program ends the name `os` may be gone.
        while self._descriptors:
            close(self._descriptors.popitem()[1])
