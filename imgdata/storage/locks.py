"""A path -> the one process, and the one thread of it, that holds the lock there; the system unlocks when it ends.

Several may hold a shared lock at once, and nobody a whole one meanwhile.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_POLL_S = 0.05
_NO_LOCKS = frozenset((errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP))
"""What file systems without locks say: some network and FUSE mounts."""
_HELD: dict[int, int] = {}
"""Descriptors of lock files -> the process that opened them."""


class LockHeldError(Exception):
    """Another process, or another thread of this one, holds the lock."""


@contextlib.contextmanager
def locked(
    path: Path,
    *,
    wait_s: float = 0.0,
    while_waiting: Callable[[], None] = lambda: None,
    remove: bool = False,
    shared: bool = False,
    mode: int = 0o644,
) -> Iterator[int]:
    """Hold the lock file `path` for the block; yields its descriptor, which child processes may inherit.

    With `shared` others may hold it at the same time, shared as well.

    The file and its folder are made where they are missing. A file system without locks is accepted: nothing can be
    locked there. With `remove` the file is gone afterwards.

    Raises `LockHeldError` when the lock isn't free within `wait_s`, what `while_waiting` raises, which is called
    every 50 ms, and `OSError`.
    """
    descriptor = _acquire(path, wait_s, while_waiting, mode, shared)
    try:
        yield descriptor
    finally:
        # A file that stays is harmless; a lock that stays is not, nor one that hides the error of the block.
        if remove:
            with contextlib.suppress(OSError):
                path.unlink()
        _HELD.pop(descriptor, None)
        # Not by closing it alone, which leaves the copies of forks.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _acquire(path: Path, wait_s: float, while_waiting: Callable[[], None], mode: int, shared: bool) -> int:
    _close_those_of_the_parent()
    until = time.monotonic() + wait_s
    while True:
        descriptor = _open(path, mode)
        # Known from here on, so that a fork that is made while this process waits closes its copy.
        _HELD[descriptor] = os.getpid()
        try:
            while not _try_lock(descriptor, shared):
                while_waiting()
                if time.monotonic() >= until:
                    raise LockHeldError(str(path))
                time.sleep(_POLL_S)
            # Who releases a lock may remove its file: what was locked may have no name any more.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
        except BaseException:
            _HELD.pop(descriptor, None)
            os.close(descriptor)
            raise
        _HELD.pop(descriptor, None)
        os.close(descriptor)


def _open(path: Path, mode: int) -> int:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The folder may be removed in between, by a process that ends.
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)


def _try_lock(descriptor: int, shared: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _close_those_of_the_parent() -> None:
    """Close the descriptors that came along through a fork: this process would wait for itself."""
    for descriptor, pid in list(_HELD.items()):
        if pid != os.getpid() and _HELD.pop(descriptor, None) is not None:
            os.close(descriptor)
