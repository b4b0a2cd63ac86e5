"""A loader's split in an object store -> the split with a cache of shards; an epoch -> the shards that it needs."""

import copy
import os
from collections.abc import Iterator, Sequence

import numpy as np

from imgdata.cgroups import memory_limit
from imgdata.dataset.dataset import Dataset
from imgdata.dataset.split import Split
from imgdata.dataset.split_entry import ShardRecord
from imgdata.errors import OptionError
from imgdata.loader.opened import Opened, Source
from imgdata.loader.planner import Planner
from imgdata.order.epoch_order import Shuffle
from imgdata.storage.cache_folder import cache_limit
from imgdata.storage.joined_remote import JoinedRemoteFolder
from imgdata.storage.remote import is_url
from imgdata.storage.remote_folder import RemoteFolder
from imgdata.storage.shard_cache import ShardCache
from imgdata.storage.shard_parts import RemoteShard
from imgdata.storage.shard_state import CacheSettings, Need
from imgdata.views.view import View

_SPARSE = 0.25
"""Whole shards are fetched for a view that reads at least this share of their bytes."""
_MEMORY_SHARE = 0.25
"""Of the memory of this machine, or of its container, for `memory` without a number."""
_SOME = 2**12
"""Samples of a large split that stand for all of them."""
_LEAST_AHEAD = 4
_STRETCH = 2**16
"""Samples of a rank that are looked at together."""


def usual_shuffle(source: Source | Sequence[Source]) -> Shuffle:
    """Return how samples are shuffled by default: in windows of shards where these, or some, come from a store."""
    if isinstance(source, Dataset | View):
        return "window" if isinstance(source.folder, RemoteFolder) else "global"
    if isinstance(source, Sequence) and not isinstance(source, str):
        return "window" if any(usual_shuffle(one) == "window" for one in source) else "global"
    return "window" if is_url(source) else "global"


def with_cache(opened: Opened, cache: str, window_shards: int) -> Opened:
    """Return what a loader reads, with a cache where its shards come from an object store.

    Raises `OptionError` where the cache could not hold one shard.
    """
    split, kind, limit = opened.split, *_parsed(cache)
    folder = split.folder
    if not isinstance(folder, RemoteFolder | JoinedRemoteFolder) or kind == "off":
        return opened
    records = [shard for shard in split.shard_records if folder.remote(shard.file) is not None]
    stated = kind != "auto" or bool(os.environ.get("IMGDATA_CACHE_GB"))
    bound = limit if limit is not None else _memory() if kind == "memory" else cache_limit()
    if kind == "auto" and (bound == 0 or _is_sparse(split, opened.view, records)):
        return opened
    largest = max(records, key=lambda shard: shard.bytes)
    if largest.bytes > bound:
        if not stated:
            return opened
        raise OptionError(
            f"cache must hold the largest shard, {folder.place(largest.file)} of {largest.bytes / 1e9:.3g} GB, got "
            f"{bound / 1e9:.3g} GB; give more by cache or IMGDATA_CACHE_GB, or cache='off' to read ranges"
        )
    shards = [RemoteShard(name=shard.file, size=shard.bytes, hash=shard.hash, digest=shard.digest) for shard in records]
    settings = CacheSettings(
        memory=kind == "memory",
        limit=bound if kind == "memory" else limit,
        ahead=max(_LEAST_AHEAD, window_shards),
    )
    cached = copy.copy(split)
    cached.cache, cached._files, cached._pool = ShardCache(folder, shards, settings), None, None
    return opened._replace(split=cached)


def shard_needs(planner: Planner, epoch: int, samples: int, total: int) -> Iterator[Sequence[Need]]:
    """Yield which shards the next `total` batches of this rank need, after `samples` samples of `epoch`.

    Stretch by stretch of the epoch, each with its shards in the order in which they are needed.
    """
    order, index = planner.order, planner.index
    names = index.words("shard")
    rank_batch = max(1, order.global_batch // planner.world_size)
    step = max(1, _STRETCH // rank_batch)
    for first in range(0, total, step):
        batches = range(first, min(first + step, total))
        shard_BN = [index.shard_N[planner.positions(epoch, samples + b * order.global_batch)] for b in batches]
        shard_N = np.concatenate(shard_BN)
        batch_N = np.repeat(np.array(batches), [len(one) for one in shard_BN])
        found_S, first_S = np.unique(shard_N, return_index=True)
        _, from_end_S = np.unique(shard_N[::-1], return_index=True)
        last_S = len(shard_N) - 1 - from_end_S
        yield [
            Need(names[found_S[at]], int(batch_N[first_S[at]]), int(batch_N[last_S[at]])) for at in np.argsort(first_S)
        ]


def _parsed(cache: str) -> tuple[str, int | None]:
    """Return the kind of a cache, and its limit in bytes where one is given. Raises `OptionError`."""
    word, _, number = str(cache).partition(":")
    try:
        if not number and word not in ("auto", "disk", "memory", "off"):
            word, number = "disk", word
        limit = int(float(number) * 1e9) if number else None
        if (
            not cache
            or word not in ("disk", "memory", *([] if number else ["auto", "off"]))
            or (limit is not None and limit < 0)
        ):
            raise ValueError
    except (ValueError, OverflowError) as error:
        raise OptionError(
            f"cache must be auto, disk, memory or off, or gigabytes, such as 50, disk:50 or memory:8, got {cache!r}"
        ) from error
    return ("off", None) if limit == 0 else (word, limit)


def _memory() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(_MEMORY_SHARE * min(total, memory_limit() or total))


def _is_sparse(split: Split, view: View, records: Sequence[ShardRecord]) -> bool:
    """Return whether a view reads little of those shards of an object store that it needs."""
    index = split.index
    if len(view.position_N) >= _SPARSE * len(index):
        return False
    shard_N, size_N = index.shard_N[view.position_N], index.array("size")[view.position_N]
    size_of = {shard.file: shard.bytes for shard in records}
    names = index.words("shard")
    needed = [number for number in np.unique(shard_N).tolist() if names[number] in size_of]
    whole = sum(size_of[names[number]] for number in needed)
    return float(size_N[np.isin(shard_N, needed)].sum()) < _SPARSE * whole
