"""Members -> a USTAR archive on the disk, and the hash of its bytes."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from imgdata.dataset.manifest import HashKind
from imgdata.shards.hashing import new_hash
from imgdata.tar.archive import BLOCK, END_OF_ARCHIVE, ustar_header

BLOCK_BYTES = 1 << 20
"""Bytes that are hashed and written at once. Measured: blocks of 4 MB leave the processor's cache, smaller ones cost
calls."""

_PADDING = bytes(BLOCK)


class TarFile:
    """A USTAR archive written from start to end, through two blocks of memory that are used again and again.

    While one is filled, threads hash and write the other, in calls long enough that Python's lock is no matter. Whoever
    fills `block` from `used` on, in place of `add`, sets `used` behind the last byte.
    """

    def __init__(self, path: Path, hash: HashKind, *, block_bytes: int = BLOCK_BYTES) -> None:
        self.used = 0
        """Bytes of `block` that are filled."""
        self.block = memoryview(bytearray(block_bytes))
        """Next bytes of the archive."""
        self.block_at = 0
        """Position of `block` in the archive."""
        self._other = memoryview(bytearray(block_bytes))
        self._hash = new_hash(hash)
        # sha256 takes twice as long as writing: it has a thread of its own. What is fast is done while in the cache.
        self._apart = hash == "sha256"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._threads = ThreadPoolExecutor(2 if self._apart else 1)
        self._working: list[Future[None]] = []

    def __enter__(self) -> "TarFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()
        os.close(self._descriptor)

    @property
    def position(self) -> int:
        """Bytes of the archive so far."""
        return self.block_at + self.used

    def add(self, name: bytes, data: bytes) -> int:
        """Append a member; returns the position of its first data byte."""
        offset = self.position + BLOCK
        self._append(ustar_header(name, len(data)))
        self._append(data)
        self._append(_PADDING[: -len(data) % BLOCK])
        return offset

    def finish(self) -> str:
        """Write the end marker, sync the file; returns the hash of all its bytes in hexadecimal."""
        self._append(END_OF_ARCHIVE)
        self.flush()
        self._wait()
        os.fsync(self._descriptor)
        return self._hash.hexdigest()

    def flush(self) -> None:
        """Hand `block` to the threads, and take the other one when they have done with it."""
        self._wait()
        full = self.block[: self.used]
        if self._apart:
            self._working = [self._threads.submit(self._hash.update, full), self._threads.submit(self._write, full)]
        else:
            self._working = [self._threads.submit(self._hash_and_write, full)]
        self.block, self._other = self._other, self.block
        self.block_at += self.used
        self.used = 0

    def _append(self, data: bytes | bytearray) -> None:
        left = memoryview(data)
        while left:
            room = len(self.block) - self.used
            part = left[:room]
            self.block[self.used : self.used + len(part)] = part
            self.used += len(part)
            left = left[len(part) :]
            if self.used == len(self.block):
                self.flush()

    def _wait(self) -> None:
        working, self._working = self._working, []
        # Both have to be done with the block before an error of one is raised.
        errors = [error for future in working if (error := future.exception()) is not None]
        if errors:
            raise errors[0]

    def _hash_and_write(self, block: memoryview) -> None:
        self._hash.update(block)
        self._write(block)

    def _write(self, block: memoryview) -> None:
        while block:
            block = block[os.write(self._descriptor, block) :]
