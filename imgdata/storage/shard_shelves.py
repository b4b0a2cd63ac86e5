"""The key of a shard -> its file on this machine: kept on the disk for all processes, or in the memory of this one.

On the disk the system's file locks say what is in use, so that nothing is stale after a crash: who reads a shard holds
a shared lock on its file, who fetches one holds a whole lock on its unfinished file, and who makes room holds that of
the folder.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from imgdata.storage.atomic import sync_folder
from imgdata.storage.cache_folder import cache_entries, cache_folder, cache_limit
from imgdata.storage.locks import LockHeldError, locked
from imgdata.storage.reading import unnamed_file

FOLDER = "shards"
"""Folder in the cache folder."""
_WHOLE, _UNFINISHED = ".tar", ".tmp"
_ABANDONED_S = 3600.0
_WAIT_S = 10.0
"""Longest wait for another process that makes room, in seconds."""


@dataclass(eq=False, slots=True)
class Place:
    """The file of one shard, open: `file` is its descriptor."""

    key: str
    size: int
    file: int
    path: Path | None = None
    """Its name while it is unfinished; None in memory, and for a whole one."""


class NoRoomError(Exception):
    """The shelf is full of shards that are in use."""


class Shelf(Protocol):
    """Where shards are kept. Used by one thread at a time."""

    where: str
    """For people."""
    limit: int
    """Bytes that it may hold."""

    def open(self, key: str, size: int) -> Place | None:
        """Return a whole shard, which stays until `close`; None where there is none."""
        ...

    def begin(self, key: str, size: int) -> Place | None:
        """Return an empty file of `size` bytes for a shard; None where another process has one, or has begun it.

        Raises `NoRoomError`, and `OSError`, also where the disk is full.
        """
        ...

    def finish(self, place: Place) -> None:
        """Keep a shard that is complete and verified; it stays open. Raises `OSError`."""
        ...

    def abandon(self, place: Place) -> None:
        """Remove an unfinished shard."""
        ...

    def close(self, place: Place) -> None:
        """End the use of a whole shard, which may be removed from then on."""
        ...

    def held(self) -> tuple[int, int]:
        """Return how many whole shards there are, and their bytes."""
        ...


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    size: int
    used_s: float


class DiskShelf:
    """Shards in the cache folder, for all processes of this machine. See `Shelf`."""

    def __init__(self, limit: int | None) -> None:
        """Name the folder; with `limit` None shards share the limit of the cache folder with all else in it."""
        self._own_limit = limit
        self.limit = cache_limit() if limit is None else limit
        self.folder = cache_folder() / FOLDER
        self.where = str(self.folder)

    def open(self, key: str, size: int) -> Place | None:
        """See `Shelf`."""
        path = self.folder / f"{key}{_WHOLE}"
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            # Who has a whole lock is about to remove it. A file of another size was not written by imgdata.
            if _try_lock(file, fcntl.LOCK_SH) is not False and os.fstat(file).st_size == size and _is_at(file, path):
                _touch(path)
                return Place(key, size, file)
        except OSError:
            pass
        os.close(file)
        return None

    def begin(self, key: str, size: int) -> Place | None:
        """See `Shelf`."""
        path = self.folder / f"{key}{_UNFINISHED}"
        with self._alone() as alone:
            if not alone or (self.folder / f"{key}{_WHOLE}").exists():
                return None
            if not self._make_room(size):
                raise NoRoomError
            try:
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            except FileExistsError:
                # Those of processes that were killed are gone by now: another process has begun this one.
                return None
            try:
                _try_lock(file, fcntl.LOCK_EX)
                _reserve(file, size)
            except BaseException:
                path.unlink(missing_ok=True)
                os.close(file)
                raise
        return Place(key, size, file, path)

    def finish(self, place: Place) -> None:
        """See `Shelf`: a crash leaves the whole file, or none of that name."""
        assert place.path is not None
        os.fsync(place.file)
        os.replace(place.path, place.path.with_suffix(_WHOLE))
        place.path = None
        _try_lock(place.file, fcntl.LOCK_SH)
        sync_folder(self.folder)

    def abandon(self, place: Place) -> None:
        """See `Shelf`."""
        if place.path is not None:
            with contextlib.suppress(OSError):
                place.path.unlink()

    def close(self, place: Place) -> None:
        """See `Shelf`."""
        _touch(self.folder / f"{place.key}{_WHOLE}")
        # All of it was synced when it was finished.
        with contextlib.suppress(OSError):
            os.close(place.file)

    def held(self) -> tuple[int, int]:
        """See `Shelf`."""
        whole = [entry for entry in self._entries() if entry.path.suffix == _WHOLE]
        return len(whole), sum(entry.size for entry in whole)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Hold the folder's lock for the block; false where another process has had it for too long."""
        try:
            with locked(self.folder / "room.lock", wait_s=_WAIT_S):
                yield True
        except LockHeldError:
            yield False

    def _make_room(self, size: int) -> bool:
        """Remove the shards that were used least recently, and that nobody uses, until `size` bytes are free.

        None is removed where that would not be enough.
        """
        entries = []
        for entry in self._entries():
            if entry.path.suffix == _UNFINISHED and _is_unused(entry.path):
                entry.path.unlink(missing_ok=True)
            else:
                entries.append(entry)
        too_many = sum(entry.size for entry in entries) + self._others() + size - self.limit
        chosen = []
        for entry in sorted(entries, key=lambda entry: entry.used_s):
            if too_many <= 0:
                break
            if entry.path.suffix == _WHOLE and _is_unused(entry.path):
                chosen.append(entry)
                too_many -= entry.size
        if too_many > 0:
            return False
        for entry in chosen:
            entry.path.unlink(missing_ok=True)
        return True

    def _others(self) -> int:
        """Return the bytes of what else counts against the limit."""
        if self._own_limit is not None:
            return 0
        return sum(entry.num_bytes for entry in cache_entries() if entry.files[0].parent != self.folder)

    def _entries(self) -> list[_Entry]:
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as files:
            for file in files:
                if file.name.endswith((_WHOLE, _UNFINISHED)):
                    # Another process may have removed it.
                    with contextlib.suppress(OSError):
                        facts = file.stat()
                        found.append(_Entry(Path(file.path), facts.st_size, facts.st_mtime))
        return found


@dataclass(eq=False)
class MemoryShelf:
    """Shards in the memory of this process, in files without names: they end with it. See `Shelf`."""

    limit: int
    where: str = "memory"
    _kept: dict[str, Place] = field(default_factory=dict)
    """Whole shards, those that were used last at the end."""
    _used: set[str] = field(default_factory=set)
    _bytes: int = 0

    def open(self, key: str, size: int) -> Place | None:
        """See `Shelf`."""
        if key in self._used or key not in self._kept:
            return None
        kept = self._kept[key] = self._kept.pop(key)
        self._used.add(key)
        return kept

    def begin(self, key: str, size: int) -> Place | None:
        """See `Shelf`."""
        if key in self._used or key in self._kept:
            return None
        unused = [one for one in self._kept.values() if one.key not in self._used]
        if self._bytes - sum(one.size for one in unused) + size > self.limit:
            raise NoRoomError
        while self._bytes + size > self.limit:
            oldest = self._kept.pop(unused.pop(0).key)
            self._bytes -= oldest.size
            os.close(oldest.file)
        file = unnamed_file()
        os.ftruncate(file, size)
        self._bytes += size
        self._used.add(key)
        return Place(key, size, file)

    def finish(self, place: Place) -> None:
        """See `Shelf`."""
        self._kept[place.key] = place

    def abandon(self, place: Place) -> None:
        """See `Shelf`."""
        self._bytes -= place.size
        self._used.discard(place.key)

    def close(self, place: Place) -> None:
        """See `Shelf`."""
        self._used.discard(place.key)

    def held(self) -> tuple[int, int]:
        """See `Shelf`."""
        return len(self._kept), sum(place.size for place in self._kept.values())

    def forget(self) -> set[int]:
        """Return the descriptors of all shards, which are no longer kept: a fork has copies of them."""
        kept, self._kept = self._kept, {}
        return {place.file for place in kept.values()}

    def __del__(self) -> None:
        while self._kept:
            os.close(self._kept.popitem()[1].file)


def _try_lock(file: int, kind: int) -> bool | None:
    """Return whether the file is locked now; None where the file system has no locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_unused(path: Path) -> bool:
    """Return whether no process has a lock on the file; without locks, whether it was not used for an hour."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        free = _try_lock(file, fcntl.LOCK_EX)
        return time.time() - os.fstat(file).st_mtime > _ABANDONED_S if free is None else free
    finally:
        os.close(file)


def _is_at(file: int, path: Path) -> bool:
    return os.path.samestat(os.fstat(file), os.stat(path))


def _touch(path: Path) -> None:
    """Let the file count as used now; one in a folder of another user stays as it is."""
    with contextlib.suppress(OSError):
        os.utime(path)


def _reserve(file: int, size: int) -> None:
    """Give the file its size, and its space where the system can: a full disk is found here. Raises `OSError`."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    os.ftruncate(file, size)
