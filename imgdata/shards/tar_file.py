"""Members -> a USTAR archive on the disk, and the hash of its bytes."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imgdata.dataset.manifest import HashKind
from imgdata.native.copying import FULL, LEFT, NOT_WRITTEN, Block, SamplesToCopy, TarHash, copy_samples, makes_tar_hash
from imgdata.shards.hashing import new_hash
from imgdata.tar.archive import BLOCK, END_OF_ARCHIVE, ustar_header

BLOCK_BYTES = 1 << 20
"""Bytes that are hashed and written at once. Measured: blocks of 4 MB leave the processor's cache, smaller ones cost
calls."""

_PADDING = bytes(BLOCK)


class TarFile:
    """A USTAR archive written from start to end, through two blocks of memory that are used again and again.

    Where there is a spare core, threads hash and write one block while the other is filled; elsewhere whoever fills a
    block also hashes and writes it, while it is in the processor's cache.
    """

    def __init__(
        self,
        path: Path,
        hash: HashKind,
        *,
        has_spare_core: Callable[[], bool] = lambda: True,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self._used = 0
        """Bytes of `_block` that are filled."""
        size = max(block_bytes - block_bytes % BLOCK, BLOCK)
        self._block = memoryview(bytearray(size))
        """Next bytes of the archive."""
        self._block_at = 0
        """Position of `_block` in the archive."""
        self._other = memoryview(bytearray(size))
        self._has_spare_core = has_spare_core
        self._hash = TarHash(hash) if makes_tar_hash(hash) else new_hash(hash)
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
        return self._block_at + self._used

    def add(self, name: bytes, data: bytes) -> int:
        """Append a member; returns the position of its first data byte."""
        offset = self.position + BLOCK
        self._append(ustar_header(name, len(data)))
        self._append(data)
        self._append(_PADDING[: -len(data) % BLOCK])
        return offset

    def copy(
        self, samples: SamplesToCopy, found_N6: NDArray[np.int64], *, first: int, max_pixels: int
    ) -> tuple[int, bool]:
        """Append samples from `first` on by `imgdata.native.copying`, as many as it takes at once.

        Returns the first that is not done, and whether that one is left to Python. Raises `OSError`.
        """
        hash, tar = self._hash, -1
        if not isinstance(hash, TarHash):
            hash = TarHash("none")
        elif not self._has_spare_core():
            self._wait()
            tar = self._descriptor
        block = Block(self._block, self._used, self._block_at, hash, tar)
        copied = copy_samples(samples, found_N6, first=first, block=block, max_pixels=max_pixels)
        self._used, self._block_at = copied.used, copied.position
        if copied.outcome == NOT_WRITTEN:
            raise OSError(copied.error, os.strerror(copied.error))
        if copied.outcome == FULL:
            self._flush()
        return copied.done, copied.outcome == LEFT

    def finish(self) -> str:
        """Write the end marker, sync the file; returns the hash of all its bytes in hexadecimal."""
        self._append(END_OF_ARCHIVE)
        self._flush()
        self._wait()
        os.fsync(self._descriptor)
        return self._hash.hexdigest()

    def _flush(self) -> None:
        """Hash and write the block, or let threads do it while the other one is filled."""
        self._wait()
        full = self._block[: self._used]
        self._block_at += self._used
        self._used = 0
        if not self._has_spare_core():
            self._hash_and_write(full)
            return
        if self._apart:
            self._working = [self._threads.submit(self._hash.update, full), self._threads.submit(self._write, full)]
        else:
            self._working = [self._threads.submit(self._hash_and_write, full)]
        self._block, self._other = self._other, self._block

    def _append(self, data: bytes | bytearray) -> None:
        left = memoryview(data)
        while left:
            room = len(self._block) - self._used
            part = left[:room]
            self._block[self._used : self._used + len(part)] = part
            self._used += len(part)
            left = left[len(part) :]
            if self._used == len(self._block):
                self._flush()

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
