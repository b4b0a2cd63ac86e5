"""A shard that comes in blocks -> which are there, which to ask for, the hash of the whole."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from imgdata.errors import ImgdataError
from imgdata.storage.atomic import pread
from imgdata.storage.shard_shelves import Place

BLOCK = 64 * 2**10
"""Bytes that are fetched at least: ranges that are no further apart are one request anyway."""
MISSING, COMING, THERE = 0, 1, 2
"""What a block is."""
_HASH_BYTES = 2**22


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteShard:
    """What `dataset.json` says of a shard."""

    name: str
    size: int
    hash: str = "none"
    """`sha256`, `xxh128` or `none`."""
    digest: str = ""


@dataclass(eq=False, slots=True)
class OpenShard:
    """A shard that is open here: whole, or begun."""

    about: RemoteShard
    place: Place
    block_B: NDArray[np.uint8] | None
    """What each block is; None for a whole shard."""
    last: int
    """The last batch that needs it, as far as is known."""
    users: int = 0
    """Batches that read from it now."""
    ahead: bool = True
    """Whether what is missing is fetched before a batch asks for it."""
    fault: ImgdataError | None = None
    """What to raise for whoever wants it."""

    @property
    def is_complete(self) -> bool:
        """Whether all blocks are there, of a shard that is not yet kept."""
        return self.block_B is not None and bool((self.block_B == THERE).all())

    @property
    def lacks(self) -> bool:
        """Whether blocks are missing that are to be fetched ahead."""
        return self.block_B is not None and self.ahead and bool((self.block_B == MISSING).any())

    def blocks(self, ranges: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
        """Return the blocks in which the ranges `(offset, size)` lie, ascending; none beyond the end of the shard."""
        assert self.block_B is not None
        wanted = np.zeros(len(self.block_B), bool)
        for offset, size in ranges:
            wanted[offset // BLOCK : -(-(offset + size) // BLOCK)] = True
        return np.flatnonzero(wanted)

    def has(self, offset: int, size: int) -> bool:
        """Return whether a range is there."""
        if self.block_B is None:
            return True
        return bool((self.block_B[offset // BLOCK : -(-(offset + size) // BLOCK)] == THERE).all())

    def are_there(self, wanted: NDArray[np.int64]) -> bool:
        """Return whether all of the blocks are there."""
        return self.block_B is None or bool((self.block_B[wanted] == THERE).all())

    def misses(self, wanted: NDArray[np.int64]) -> bool:
        """Return whether one of the blocks is missing, and not coming either."""
        block_B = self.block_B
        return block_B is not None and bool((block_B[wanted] == MISSING).any())

    def lacking(self, wanted: NDArray[np.int64], most_bytes: int, gap: int = 0) -> list[NDArray[np.int64]]:
        """Return the blocks that are missing in groups of one request each; see `claim` for `gap`."""
        if self.block_B is None:
            return []
        missing = wanted[self.block_B[wanted] == MISSING]
        found = runs(self._bridged(missing, gap), max(1, most_bytes // BLOCK))
        return [missing[slice(*np.searchsorted(missing, one))] for one in found]

    def claim(self, wanted: NDArray[np.int64], most_bytes: int, gap: int = 0) -> tuple[int, int] | None:
        """Let the first of those blocks that are missing be coming; return them as a run, or None where none is.

        Up to `gap` other blocks between two of them belong to the run, where all of these are missing as well. Who
        claims a run has to fetch it, or say that it is missing again.
        """
        if self.block_B is None:
            return None
        missing = wanted[self.block_B[wanted] == MISSING]
        if not len(missing):
            return None
        run = runs(self._bridged(missing, gap), max(1, most_bytes // BLOCK))[0]
        self.block_B[slice(*run)] = COMING
        return run

    def _bridged(self, missing: NDArray[np.int64], gap: int) -> NDArray[np.int64]:
        """Return the missing blocks with those between them, where at most `gap` are, and all of them missing."""
        if not gap or len(missing) < 2:
            return missing
        assert self.block_B is not None
        others = np.concatenate([[0], np.cumsum(self.block_B != MISSING)])
        between = np.diff(missing) - 1
        joined = (between > 0) & (between <= gap) & (others[missing[1:]] == others[missing[:-1] + 1])
        more = [np.arange(missing[at] + 1, missing[at + 1]) for at in np.flatnonzero(joined)]
        return np.sort(np.concatenate([missing, *more]))

    def claim_ahead(self, most_bytes: int) -> tuple[int, int] | None:
        """Do what `claim` does, of all blocks, where they are to be fetched ahead."""
        if self.block_B is None or not self.ahead or self.fault is not None:
            return None
        missing = self.block_B == MISSING
        first = int(missing.argmax())
        if not missing[first]:
            return None
        others = ~missing[first : first + max(1, most_bytes // BLOCK)]
        run = first, first + (int(others.argmax()) if others.any() else len(others))
        self.block_B[slice(*run)] = COMING
        return run

    def digest(self) -> str:
        """Return the hash of the bytes that are here; empty for a shard that `dataset.json` has no hash of."""
        if self.about.hash == "none":
            return ""
        hashed = hashlib.sha256() if self.about.hash == "sha256" else xxhash.xxh3_128()
        for offset in range(0, self.about.size, _HASH_BYTES):
            hashed.update(pread(self.place.file, min(_HASH_BYTES, self.about.size - offset), offset))
        return hashed.hexdigest()


def runs(block_M: NDArray[np.int64], most: int) -> list[tuple[int, int]]:
    """Return ascending numbers of blocks as runs `(first, end)` of neighbours, at most `most` long."""
    if not len(block_M):
        return []
    starts = np.flatnonzero(np.diff(block_M, prepend=-2) != 1)
    ends = np.append(starts[1:], len(block_M))
    return [
        (at, min(at + most, int(block_M[end - 1]) + 1))
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        for at in range(int(block_M[start]), int(block_M[end - 1]) + 1, most)
    ]
