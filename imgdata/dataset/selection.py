"""Positions that are kept, ascending -> a file of one bit for each position; rows of a selection -> their positions.

Two billion positions take 16 GB, and their bits 250 MB, of which a batch reads the few pages that it needs. The file is
the bits, the number of kept positions before each block of them, and SHA-256 of both. It is mapped: it lies in the
cache folder, where files are removed and never written to, and all processes of a machine share its pages.
"""

import hashlib
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import ShardError
from imgdata.storage.reading import open_regular

_BLOCK = 512
"""Positions of a block: 8 bytes of counts for 64 bytes of bits."""
_BLOCK_BYTES = _BLOCK // 8
_WINDOW = 1 << 20
"""Positions whose bits are written at once; a multiple of a block."""
_ROWS = 4096
"""Rows that are looked for at once."""
_DIGEST_BYTES = 32
_BITS_VB = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
_ONES = _BITS_VB.sum(axis=1, dtype=np.uint8)
"""Number of bits of each byte."""
_NTH = np.stack([np.pad(np.flatnonzero(bit_B), (0, 8))[:8] for bit_B in _BITS_VB]).astype(np.int64)
"""Place of the first, the second, ... bit of each byte."""


class Selection:
    """Some of the positions 0 to `length` - 1. Picklable where it has a file with a name; safe in threads."""

    def __init__(self, descriptor: int, length: int, path: Path | None = None) -> None:
        """Map an open file, which may be closed then. Raises `ShardError` where it is not what was written."""
        self._path, self._length = path, length
        blocks = -(-length // _BLOCK)
        size = blocks * _BLOCK_BYTES + (blocks + 1) * 8
        if os.fstat(descriptor).st_size != size + _DIGEST_BYTES:
            raise ShardError(f"{path}: damaged selection; remove it, and open the view again")
        data = mmap.mmap(descriptor, size + _DIGEST_BYTES, prot=mmap.PROT_READ)
        mapped = np.frombuffer(data, np.uint8)
        self.digest = hashlib.sha256(memoryview(data)[:size]).hexdigest()
        """SHA-256 of the bits, in hexadecimal."""
        if bytes.fromhex(self.digest) != mapped[size:].tobytes():
            raise ShardError(f"{path}: damaged selection; remove it, and open the view again")
        self._byte_BW = mapped[: blocks * _BLOCK_BYTES].reshape(blocks, _BLOCK_BYTES)
        self._before_B = mapped[blocks * _BLOCK_BYTES : size].view(np.int64)

    def __len__(self) -> int:
        return int(self._before_B[-1])

    def __reduce__(self) -> tuple[Callable[..., "Selection"], tuple[Any, ...]]:
        if self._path is None:
            raise TypeError("a selection that is kept in no file can't be copied to another process")
        return open_selection, (self._path, self._length)

    def positions(self, row_K: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the position of each row, counted from 0, int64 `(K,)`."""
        return _in_slices(self._positions, row_K)

    def rows_before(self, position_K: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many rows come before each of the positions 0 to `length`, int64 `(K,)`."""
        return _in_slices(self._rows_before, position_K)

    def between(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the positions from `start` that are below `stop`, int64, ascending."""
        first = start // 8
        bit_K = np.unpackbits(self._byte_BW.reshape(-1)[first : -(-stop // 8)], bitorder="little")
        found_K: NDArray[np.int64] = np.flatnonzero(bit_K[start - 8 * first : stop - 8 * first]) + start
        return found_K

    def _positions(self, row_K: NDArray[np.int64]) -> NDArray[np.int64]:
        block_K = np.searchsorted(self._before_B, row_K, side="right") - 1
        rest_K = row_K - self._before_B[block_K]
        byte_KW = self._byte_BW[block_K]
        upto_KW = np.cumsum(_ONES[byte_KW], axis=1, dtype=np.int32)
        at_K = (upto_KW <= rest_K[:, None]).sum(axis=1)
        row = np.arange(len(row_K))
        byte_K = byte_KW[row, at_K]
        bit_K = _NTH[byte_K, rest_K - (upto_KW[row, at_K] - _ONES[byte_K])]
        found_K: NDArray[np.int64] = block_K * _BLOCK + at_K * 8 + bit_K
        return found_K

    def _rows_before(self, position_K: NDArray[np.int64]) -> NDArray[np.int64]:
        block_K = position_K // _BLOCK
        inside_K = position_K - block_K * _BLOCK
        # The end of the last block has no bits of its own.
        byte_KW = self._byte_BW[np.minimum(block_K, len(self._byte_BW) - 1)]
        bit_KP = np.unpackbits(byte_KW, axis=1, bitorder="little")
        ones_K = (bit_KP & (np.arange(_BLOCK) < inside_K[:, None])).sum(axis=1, dtype=np.int64)
        rows_K: NDArray[np.int64] = self._before_B[block_K] + ones_K
        return rows_K


class SelectionWriter:
    """Ascending positions, some at a time -> the bytes of a selection of `length` positions."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file, self._length = file, length
        self._start, self._kept_K = 0, np.zeros(_WINDOW, np.uint8)
        self._digest = hashlib.sha256()
        self._counts: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]

    def keep(self, position_K: NDArray[np.int64]) -> None:
        """Keep positions, which are above all before. Raises `OSError`."""
        while len(position_K):
            end = self._start + _WINDOW
            inside = int(np.searchsorted(position_K, end))
            self._kept_K[position_K[:inside] - self._start] = 1
            position_K = position_K[inside:]
            if len(position_K):
                self._flush(_WINDOW)

    def finish(self) -> None:
        """Write what is left, the counts and the hash. Raises `OSError`."""
        while (left := self._length - self._start) > 0:
            self._flush(min(-(-left // _BLOCK) * _BLOCK, _WINDOW))
        self._write(np.cumsum(np.concatenate(self._counts)).astype("<i8").tobytes())
        self._file.write(self._digest.digest())
        self._file.flush()

    def _flush(self, positions: int) -> None:
        kept_K = self._kept_K[:positions]
        self._write(np.packbits(kept_K, bitorder="little").tobytes())
        self._counts.append(kept_K.reshape(-1, _BLOCK).sum(axis=1, dtype=np.int64))
        self._kept_K[:] = 0
        self._start += positions

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)


def open_selection(path: Path, length: int) -> Selection:
    """Return the selection in a file. Raises `ShardError` where it is damaged, `OSError` where it can't be read."""
    descriptor = open_regular(path)
    try:
        return Selection(descriptor, length, path)
    finally:
        os.close(descriptor)


def selection_bytes(length: int) -> int:
    """Return the size of the file of a selection of `length` positions."""
    return -(-length // _BLOCK) * (_BLOCK_BYTES + 8) + 8 + _DIGEST_BYTES


def _in_slices(
    function: Callable[[NDArray[np.int64]], NDArray[np.int64]], value_K: NDArray[np.int64]
) -> NDArray[np.int64]:
    if len(value_K) <= _ROWS:
        return function(value_K)
    return np.concatenate([function(value_K[start : start + _ROWS]) for start in range(0, len(value_K), _ROWS)])
