"""One owner at a time for an output folder."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from imgdata.errors import OutputError
from imgdata.files import output_error


@contextlib.contextmanager
def folder_lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path` for the block; the kernel lets go of it when the process dies.

    Raises `OutputError` when another process holds it.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise output_error(error, path) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise OutputError(
                f"{path.parent.parent}: another imgdata run is writing here; wait until it ends, or end it"
            ) from error
        # A run that ends removes its lock file: what was locked may have no name any more.
        if _has_name(descriptor, path):
            break
        os.close(descriptor)
    try:
        yield
    finally:
        os.close(descriptor)


def _has_name(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
