"""Hashes of 256 bits -> all pairs that differ in few bits, without comparing each with each.

Multi-index hashing (Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", 2012): where
two hashes differ in at most 31 bits, one of their 16 chunks of 16 bits differs in at most one, since 16 times 2 is 32.
So for each chunk only those are compared whose values of it are the same but for one bit; none is missed.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from imgdata import native
from imgdata.auditing.hashes import WORDS, coarse_hashes, distance
from imgdata.auditing.outcome import Progress
from imgdata.devices import own_cores

RADIUS = 31
"""Most bits in which copies of a picture differ."""
MOST = 16
"""Pairs that are kept of a query: those with the lowest numbers."""

_CHUNKS, _CHUNK_BITS = 16, 16
_FEW = 2048  # Hashes of which comparing each with each takes less than to make an index.
_ROWS = 1 << 20  # Queries at a time: 200 MB.
_PIECE = 1 << 15  # Queries between two looks at Ctrl-C: a fraction of a second.
_CANDIDATES = 1 << 19  # Comparisons at a time where there is no compiled module: 60 MB.


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pairs:
    """Hashes that differ in few bits from the whole hash of another picture."""

    owner_P: NDArray[np.int64]
    """Picture whose query it is."""
    query_P: NDArray[np.int64]
    """Which of its queries."""
    target_P: NDArray[np.int64]
    """Picture whose whole hash it is near."""
    distance_P: NDArray[np.uint8]
    """Bits in which they differ."""


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """The first `most` targets of each row so far, ascending."""

    number_RK: NDArray[np.int32]
    distance_RK: NDArray[np.uint8]
    count_R: NDArray[np.int32]


def find_pairs(
    hash_MQ4: NDArray[np.uint64],
    number_C: NDArray[np.int64],
    *,
    symmetric: Sequence[bool],
    most: int = MOST,
    coarse: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
    block_rows: int = _ROWS,
) -> Iterator[Pairs]:
    """Yield, for some pictures at a time, all pairs of a query and another picture's whole hash within `RADIUS`.

    The C pictures are those of rows `number_C`, numbered 0 to C - 1 in the pairs; the hashes may be a mapped file.
    Query 0 is the whole picture's. Of a query that is `symmetric` (near a picture exactly where that picture's is near
    its own) only pairs with lower numbers are found, of others those with any number; the `most` lowest of each. Whole
    hashes should differ from each other: many that are equal cost as many comparisons.

    `coarse` compares `coarse_hashes`: of their chunks a quarter is enough, since they repeat themselves.

    Memory: 80 bytes a picture and 200 MB. `threads` defaults to the cores of this process.
    """
    count, queries = len(number_C), hash_MQ4.shape[1]
    chunks = _CHUNKS // 4 if coarse else _CHUNKS
    form = coarse_hashes if coarse else np.ascontiguousarray
    whole_C4 = form(hash_MQ4[number_C, 0])
    bits = _bits_that_pay(whole_C4, chunks)
    owners = max(1, block_rows // queries)

    def tell(start: int, rows_done: int) -> None:
        if progress is not None:
            progress(start * queries + rows_done, count * queries)

    with ThreadPoolExecutor(threads or len(own_cores())) as pool:
        for start in range(0, count, owners):
            query_R4 = form(hash_MQ4[number_C[start : start + owners]]).reshape(-1, WORDS)
            yield _search_block(whole_C4, query_R4, start, symmetric, most, bits, chunks, pool, partial(tell, start))


def _search_block(
    whole_C4: NDArray[np.uint64],
    query_R4: NDArray[np.uint64],
    start: int,
    symmetric: Sequence[bool],
    most: int,
    bits: int,
    chunks: int,
    pool: ThreadPoolExecutor,
    tell: Callable[[int], None],
) -> Pairs:
    """Return the pairs of the queries of some pictures, the first of which is number `start`."""
    rows, queries = len(query_R4), len(symmetric)
    owner_R = np.repeat(np.arange(start, start + rows // queries), queries)
    limit_R = np.where(np.tile(symmetric, rows // queries), owner_R, len(whole_C4)).astype(np.int32)
    # One more than asked: a picture's own whole hash may be near its queries, and does not count.
    found = _Found(np.zeros((rows, most + 1), np.int32), np.zeros((rows, most + 1), np.uint8), np.zeros(rows, np.int32))
    chunks = chunks if bits else 1
    for chunk in range(chunks):
        _search_chunk(whole_C4, query_R4, limit_R, found, chunk, bits, pool)
        tell(rows * (chunk + 1) // chunks)
    return _pairs(found, owner_R, queries, most)


def _bits_that_pay(whole_C4: NDArray[np.uint64], chunks: int) -> int:
    """Return 16, or 0 where so many hashes have the same chunks that comparing each with each is less work.

    The work is known before it is done: the numbers of hashes with each value of a chunk.
    """
    if len(whole_C4) <= _FEW:
        return 0
    compared = 0
    for chunk in range(chunks):
        count_V = np.bincount(_values(whole_C4, chunk, _CHUNK_BITS), minlength=1 << _CHUNK_BITS).astype(np.float64)
        value_V = np.arange(len(count_V))
        compared += sum(count_V @ count_V[value_V ^ flip] for flip in (0, *(1 << bit for bit in range(_CHUNK_BITS))))
    return _CHUNK_BITS if compared <= float(len(whole_C4)) ** 2 else 0


def _search_chunk(
    whole_C4: NDArray[np.uint64],
    query_R4: NDArray[np.uint64],
    limit_R: NDArray[np.int32],
    found: _Found,
    chunk: int,
    bits: int,
    pool: ThreadPoolExecutor,
) -> None:
    """Add what the rows find by one chunk; all threads have other rows, so none waits for another."""
    value_T = _values(whole_C4, chunk, bits)
    number_T = np.argsort(value_T, kind="stable").astype(np.int32)
    start_V = np.concatenate([[0], np.cumsum(np.bincount(value_T, minlength=1 << bits))]).astype(np.int32)
    target_T4 = whole_C4[number_T]
    # By value, so that the hashes compared with one row are in the cache for the next.
    row_R = np.argsort(_values(query_R4, chunk, bits), kind="stable").astype(np.int32)

    def search(start: int) -> None:
        row_P = row_R[start : start + _PIECE]
        if native.AVAILABLE:
            native.nearest(
                target_T4=target_T4,
                number_T=number_T,
                start_V=start_V,
                query_R4=query_R4,
                limit_R=limit_R,
                found_RK=found.number_RK,
                distance_RK=found.distance_RK,
                count_R=found.count_R,
                row_P=row_P,
                chunk=chunk,
                bits=bits,
                radius=RADIUS,
            )
        else:
            _search_rows(target_T4, number_T, start_V, query_R4, limit_R, found, row_P, chunk, bits)

    work = [pool.submit(search, start) for start in range(0, len(row_R), _PIECE)]
    try:
        for piece in work:
            piece.result()
    finally:
        for piece in work:
            piece.cancel()


def _search_rows(
    target_T4: NDArray[np.uint64],
    number_T: NDArray[np.int32],
    start_V: NDArray[np.int32],
    query_R4: NDArray[np.uint64],
    limit_R: NDArray[np.int32],
    found: _Found,
    row_P: NDArray[np.int32],
    chunk: int,
    bits: int,
) -> None:
    """Do as `native.nearest` does, in NumPy."""
    value_P = _values(query_R4[row_P], chunk, bits).astype(np.int64)
    for flip in (0, *(1 << bit for bit in range(bits))):
        from_P = start_V[value_P ^ flip].astype(np.int64)
        length_P = start_V[(value_P ^ flip) + 1] - from_P
        end_P = np.cumsum(length_P)
        start = 0
        while start < len(row_P):
            # As many rows as have `_CANDIDATES` together; one row at least.
            before = end_P[start - 1] if start else 0
            end = max(start + 1, int(np.searchsorted(end_P, before + _CANDIDATES, side="right")))
            part = slice(start, end)
            of_C = np.repeat(np.arange(start, end), length_P[part])
            at_C = np.arange(len(of_C)) - (end_P[of_C] - length_P[of_C] - before) + from_P[of_C]
            near_C = distance(query_R4[row_P[of_C]], target_T4[at_C])
            keep_C = (near_C <= RADIUS) & (number_T[at_C] < limit_R[row_P[of_C]])
            _merge(found, row_P[of_C[keep_C]], number_T[at_C[keep_C]], near_C[keep_C])
            start = end


def _merge(found: _Found, row_N: NDArray[np.int32], number_N: NDArray[np.int32], near_N: NDArray[np.uint16]) -> None:
    """Keep the lowest numbers of each row, of those that it has and those that are new."""
    if not len(row_N):
        return
    changed_S = np.unique(row_N)
    old_SK = np.arange(found.number_RK.shape[1]) < found.count_R[changed_S, None]
    row_A = np.concatenate([np.repeat(changed_S, found.count_R[changed_S]), row_N])
    number_A = np.concatenate([found.number_RK[changed_S][old_SK], number_N])
    near_A = np.concatenate([found.distance_RK[changed_S][old_SK], near_N.astype(np.uint8)])
    order_A = np.lexsort((number_A, row_A))
    row_A, number_A, near_A = row_A[order_A], number_A[order_A], near_A[order_A]
    new_A = np.ones(len(row_A), np.bool_)
    new_A[1:] = (row_A[1:] != row_A[:-1]) | (number_A[1:] != number_A[:-1])
    row_A, number_A, near_A = row_A[new_A], number_A[new_A], near_A[new_A]
    rank_A = np.arange(len(row_A)) - np.searchsorted(row_A, row_A)
    kept_A = rank_A < found.number_RK.shape[1]
    found.number_RK[row_A[kept_A], rank_A[kept_A]] = number_A[kept_A]
    found.distance_RK[row_A[kept_A], rank_A[kept_A]] = near_A[kept_A]
    found.count_R[changed_S] = np.bincount(np.searchsorted(changed_S, row_A[kept_A]), minlength=len(changed_S))


def _pairs(found: _Found, owner_R: NDArray[np.int64], queries: int, most: int) -> Pairs:
    row_F = np.flatnonzero(found.count_R)
    held_FK = np.arange(most + 1) < found.count_R[row_F, None]
    held_FK &= found.number_RK[row_F] != owner_R[row_F, None]
    held_FK &= np.cumsum(held_FK, axis=1) <= most
    at_P, rank_P = np.nonzero(held_FK)
    row_P = row_F[at_P]
    return Pairs(
        owner_P=owner_R[row_P],
        query_P=row_P % queries,
        target_P=found.number_RK[row_P, rank_P].astype(np.int64),
        distance_P=found.distance_RK[row_P, rank_P],
    )


def _values(hash_N4: NDArray[np.uint64], chunk: int, bits: int) -> NDArray[np.uint16]:
    """Return the lowest `bits` of a chunk of each hash, uint16 `(N,)`: NumPy sorts these in linear time."""
    word, shift = divmod(chunk * _CHUNK_BITS, 64)
    return ((hash_N4[:, word] >> np.uint64(shift)) & np.uint64((1 << bits) - 1)).astype(np.uint16)
