"""The shards of a split -> how fast they are read: from the disk or an object store, and from the page cache."""

import errno
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgdata.backends.shard_files import ShardFiles
from imgdata.dataset.split import Split
from imgdata.measure.machine.store import StoreRates, time_store
from imgdata.storage.shard_cache import ShardCache

_MOST_BYTES = 2**26
"""Bytes that are read in each way."""
_MOST_SHARDS = 8
_BLOCK = 2**20
_SECONDS = 3.0
"""Time for each way: network file systems may be slow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadRate:
    """One way of reading."""

    mb_per_s: float
    images_per_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class DiskRates:
    """Rates of one split, in as many threads as the loader has."""

    cold: ReadRate | None
    """Images at random places, none of them in the page cache: a first epoch; None where it can't be emptied."""
    cold_in_order: ReadRate | None
    """A shard from its begin on, as with `shuffle="window"`; None without shards as well."""
    warm: ReadRate
    """Rate at random places, from the page cache: later epochs of a dataset that fits."""
    why_not_cold: str | None
    split_bytes: int
    """Bytes of all shards of the split, or of its images where they are not sharded."""
    store: StoreRates | None = None
    """For a split in an object store, from which `cold` has the rate of a batch's ranges, and `cold_in_order` that of
    whole shards; None for one on this machine."""


def time_disk(split: Split, position_M: NDArray[np.int64], threads: int, cache: ShardCache | None = None) -> DiskRates:
    """Read some shards of the split, and the images at these positions in them.

    The shards are dropped from the system's page cache first: any other reader has to wait for the disk once. Where the
    split is in an object store, that is read, past the `cache` that a loader of it has. Raises `ShardError`.
    """
    files = ShardFiles(split)
    shard_M = split.index.shard_N[position_M]
    chosen_S = np.unique(shard_M)[:_MOST_SHARDS]
    taken_M = position_M[np.isin(shard_M, chosen_S)]
    taken_M = taken_M[np.cumsum(split.index.size_N[taken_M]) <= _MOST_BYTES] if len(taken_M) > 1 else taken_M
    lease = files.lease(taken_M)
    reads = [lambda number=number: len(files.read(lease, number)) for number in range(len(taken_M))]
    if files.fetches:
        return _time_store(split, files, taken_M, reads, threads, cache)
    descriptors = sorted(set(lease.file_N.tolist()))
    fault = drop_cache(descriptors, "files" if split.is_loose else "shards")
    cold = in_order = None
    if fault is None:
        cold = _rate(reads, threads)
        drop_cache(descriptors)
        in_order = None if split.is_loose else _in_order(descriptors[0], float(split.index.size_N[taken_M].mean()))
    _rate(reads, threads)
    return DiskRates(
        cold=cold,
        cold_in_order=in_order,
        warm=_rate(reads, threads),
        why_not_cold=fault,
        split_bytes=_split_bytes(split),
    )


def _time_store(
    split: Split,
    files: ShardFiles,
    taken_M: NDArray[np.int64],
    reads: Sequence[Callable[[], int]],
    threads: int,
    cache: ShardCache | None,
) -> DiskRates:
    """Return the rates at which images come from a store: as those of a batch do, and in whole shards."""
    begun = time.perf_counter()
    files.lease(taken_M)
    took = time.perf_counter() - begun
    num_bytes = int(split.index.size_N[taken_M].sum())
    store = time_store(split, cache)
    split_bytes = sum(one.bytes for one in split.shard_records)
    return DiskRates(
        cold=ReadRate(mb_per_s=num_bytes / took / 1e6, images_per_s=len(taken_M) / took),
        cold_in_order=ReadRate(
            mb_per_s=store.mb_per_s, images_per_s=1e6 * store.mb_per_s * len(split.index) / split_bytes
        ),
        warm=_rate(reads, threads),
        why_not_cold=None,
        split_bytes=split_bytes,
        store=store,
    )


def _split_bytes(split: Split) -> int:
    if split.is_loose:
        return int(split.index.size_N.sum())
    return sum(path.stat().st_size for path in split.shards)


def drop_cache(descriptors: Sequence[int], what: str = "shards") -> str | None:
    """Drop open files from the system's page cache; return why that can't be done, None where it was."""
    if not hasattr(os, "posix_fadvise"):
        return "this system has no way to drop a file from its page cache"
    for descriptor in descriptors:
        # What is not on the disk yet can't be given up.
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    kept = [descriptor for descriptor in descriptors if _is_cached(descriptor)]
    if not kept:
        return None
    return f"{len(kept)} of {len(descriptors)} {what} stay in the page cache, although they were to be dropped"


def _is_cached(descriptor: int) -> bool:
    """Return whether the file's first bytes are in memory, without a read of the disk.

    Where the file system can't say, as that in memory can't, they are.
    """
    try:
        return os.preadv(descriptor, [bytearray(4096)], 0, os.RWF_NOWAIT) > 0
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return True


def _rate(reads: Sequence[Callable[[], int]], threads: int) -> ReadRate:
    """Return the rate of so many reads at a time, as far as `_SECONDS` reach."""
    begun = time.perf_counter()

    def run(read: Callable[[], int]) -> int:
        return read() if time.perf_counter() - begun < _SECONDS else 0

    with ThreadPoolExecutor(threads) as pool:
        sizes = [size for size in pool.map(run, reads) if size]
    took = time.perf_counter() - begun
    return ReadRate(mb_per_s=sum(sizes) / took / 1e6, images_per_s=len(sizes) / took)


def _in_order(descriptor: int, image_bytes: float) -> ReadRate:
    begun, done = time.perf_counter(), 0
    while done < _MOST_BYTES and time.perf_counter() - begun < _SECONDS:
        size = len(os.pread(descriptor, _BLOCK, done))
        done += size
        if size < _BLOCK:
            break
    per_s = done / (time.perf_counter() - begun)
    return ReadRate(mb_per_s=per_s / 1e6, images_per_s=per_s / image_bytes)
