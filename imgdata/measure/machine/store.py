"""The shards of a split in an object store -> how long a request takes, how many bytes come, how many may be kept."""

import shutil
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from imgdata.dataset.split import Split
from imgdata.storage.cache_folder import existing_folder
from imgdata.storage.folder import DatasetFolder
from imgdata.storage.remote_folder import RemoteFolder
from imgdata.storage.shard_cache import ShardCache
from imgdata.storage.shard_fetching import FETCHERS

_SMALL_BYTES = 512
_SMALL_READS = 5
_MOST_BYTES = 2**26
"""Bytes of shards that are read."""
_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreRates:
    """What a store gives, and what of a split may be kept of it."""

    url: str
    latency_ms: float
    """Milliseconds of a request for a few bytes, the median."""
    mb_per_s: float
    """Bytes of whole shards in 10^6 for each second, with as many requests at a time as the cache makes."""
    requests: int
    """That number of requests."""
    shard_bytes: int
    """Bytes of the largest shard."""
    cache: str
    """Where shards are kept; empty where they are not."""
    cache_bytes: int
    """Bytes of shards that may be kept."""
    free_bytes: int
    """Free space on the disk of the cache folder."""


def is_remote(folder: DatasetFolder) -> bool:
    """Return whether a dataset is in an object store."""
    return isinstance(folder, RemoteFolder)


def time_store(split: Split, cache: ShardCache | None) -> StoreRates:
    """Read some shards of a split in an object store, past the `cache` that a loader has. Raises `ShardError`."""
    folder, records = split.folder, split.shard_records
    assert isinstance(folder, RemoteFolder)
    first = records[0].file
    # The first request connects.
    folder.read(first, 0, _SMALL_BYTES)
    latency_s = statistics.median(_seconds(folder, first) for _ in range(_SMALL_READS))
    part = folder.store.settings.part_bytes
    pieces = [
        (one.file, offset, min(part, one.bytes - offset)) for one in records for offset in range(0, one.bytes, part)
    ]
    begun, planned = time.perf_counter(), 0
    chosen = []
    for piece in pieces:
        if planned >= _MOST_BYTES:
            break
        chosen.append(piece)
        planned += piece[2]

    def read(piece: tuple[str, int, int]) -> int:
        return len(folder.read(*piece)) if time.perf_counter() - begun < _SECONDS else 0

    with ThreadPoolExecutor(FETCHERS) as pool:
        done = sum(pool.map(read, chosen))
    took = time.perf_counter() - begun
    return StoreRates(
        url=str(folder),
        latency_ms=1000 * latency_s,
        mb_per_s=done / took / 1e6,
        requests=min(FETCHERS, len(chosen)),
        shard_bytes=max(one.bytes for one in records),
        cache="" if cache is None else cache.where,
        cache_bytes=0 if cache is None else cache.limit,
        free_bytes=shutil.disk_usage(existing_folder()).free,
    )


def _seconds(folder: RemoteFolder, name: str) -> float:
    begun = time.perf_counter()
    folder.read(name, 0, _SMALL_BYTES)
    return time.perf_counter() - begun
