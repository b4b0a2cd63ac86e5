"""The shards that batches need, in order -> whole shards on this machine, fetched ahead; parts of them meanwhile.

A shard that is begun has a file of its full size. What a batch needs of it is fetched first, in blocks, into their
place; threads fetch the rest in the order in which the epoch needs the shards. So nothing is fetched twice. A shard
that is complete is compared with its hash before it gets its name. What can't be kept is read by ranges, as ever.

    ShardCache: who asks  ->  ShardKeeper: what is open, begun, let go  ->  ShardFetcher: blocks, ahead, verified
"""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgdata.storage.cache_folder import CacheWarning
from imgdata.storage.joined_remote import JoinedRemoteFolder
from imgdata.storage.remote_folder import RemoteFolder
from imgdata.storage.shard_fetching import ShardFetcher
from imgdata.storage.shard_keeping import ShardKeeper
from imgdata.storage.shard_parts import OpenShard, RemoteShard
from imgdata.storage.shard_shelves import DiskShelf, MemoryShelf
from imgdata.storage.shard_state import CacheFacts, CacheSettings, CacheState, Need, size_text

_AGAIN_S = 1.0
"""After so many seconds the cache asks again for room, or for a shard that another process has begun."""
_SYNC_S = 5.0
"""Longest wait for shards that are complete, when the cache is closed."""
_GAP_BLOCKS = 8
"""Missing blocks between two that a batch needs, at most, which come with them: all of a shard comes in the end, and a
request of its own takes as much time of the processor as half a megabyte of another one. Not for the first batch, which
waits for its own blocks alone."""

Task = Callable[[], None]


class _Own(NamedTuple):
    """What a cache has in one process."""

    state: CacheState
    keeper: ShardKeeper
    fetcher: ShardFetcher


class ShardCache:
    """The shards of a split in an object store, as far as they are on this machine. Picklable, and safe in threads.

    Each process has files and threads of its own, which end when nothing is left to fetch; shards on the disk are for
    all.
    """

    def __init__(
        self, folder: RemoteFolder | JoinedRemoteFolder, shards: Sequence[RemoteShard], settings: CacheSettings
    ) -> None:
        """Name the shards; nothing is read yet."""
        self.folder, self.settings = folder, settings
        self.shards = {shard.name: shard for shard in shards}
        self._own_of: dict[int, _Own] = {}
        self._inherited: set[int] = set()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_own_of": {}, "_inherited": set()}

    def __repr__(self) -> str:
        state = self._own().state
        with state.changed:
            shelf, facts = state.shelf, state.facts
            if shelf is None:
                text = "none, ranges are read"
            else:
                count, held = shelf.held()
                text = f"{count} shards, {size_text(held)} of {size_text(shelf.limit)} in {shelf.where}"
        return f"{text}; {facts}" if facts.images else text

    def __del__(self, getpid: Callable[[], int] = os.getpid) -> None:
        if getpid() in self.__dict__.get("_own_of", {}):
            self.close()

    @property
    def facts(self) -> CacheFacts:
        """What this process has asked for and fetched."""
        return self._own().state.facts

    @property
    def where(self) -> str:
        """Where shards are kept, for people; empty once they can't be."""
        shelf = self._own().state.shelf
        return "" if shelf is None else shelf.where

    @property
    def limit(self) -> int:
        """Bytes of shards that may be kept."""
        shelf = self._own().state.shelf
        return 0 if shelf is None else shelf.limit

    def plan(self, passage: Iterator[Sequence[Need]]) -> None:
        """Let shards be fetched in this order: stretches of an epoch, each with the shards in the order of need.

        It takes the place of the order before.
        """
        own = self._own()
        with own.state.changed:
            own.keeper.plan(passage)

    def passed(self, batch: int) -> None:
        """Say that no batch before `batch` is still to be made: shards that no later one needs may be removed."""
        own = self._own()
        with own.state.changed:
            own.keeper.passed(batch)

    def lend(self, ranges_of: Mapping[str, Sequence[tuple[int, int]]]) -> tuple[dict[str, int], list[Task]]:
        """Return descriptors of the shards of which these ranges, `(offset, size)`, can be read from this machine.

        Ranges of other shards are to be read from the store. What is not there yet comes by the tasks that are returned
        as well, to be run in their order, side by side; they raise `NotKeptError` where a shard can't be written here:
        who lends again gets what can be read. `release` has to get each descriptor. Raises `ShardError` for a shard
        that is not the one that `dataset.json` names.
        """
        state, keeper, fetcher = self._own()
        text, state.warning = state.warning, ""
        if text:
            warnings.warn(text, CacheWarning, stacklevel=2)
        found: dict[str, OpenShard] = {}
        wanted: dict[OpenShard, NDArray[np.int64]] = {}
        tasks: list[Task] = []
        hits = images = 0
        with state.changed:
            gap = _GAP_BLOCKS if state.facts.images else 0
            try:
                for name, ranges in ranges_of.items():
                    images += len(ranges)
                    shard = keeper.found(name)
                    if shard is None:
                        continue
                    shard.users += 1
                    found[name] = shard
                    hits += sum(shard.has(*one) for one in ranges)
                    if shard.block_B is None:
                        continue
                    block_W = shard.blocks(ranges)
                    if (lacking := shard.lacking(block_W, fetcher.most_bytes, gap)) or not shard.are_there(block_W):
                        wanted[shard] = block_W
                        tasks += [partial(fetcher.obtain, shard, block_M, gap) for block_M in lacking]
            except BaseException:
                state.first_is_here.set()
                for shard in found.values():
                    shard.users -= 1
                raise
            state.facts = replace(state.facts, images=state.facts.images + images, hits=state.facts.hits + hits)
        if wanted:
            # Last: one thread waits for what others fetch.
            tasks.append(partial(fetcher.settle, wanted))
        return {name: shard.place.file for name, shard in found.items()}, tasks

    def lent(self, seconds: float, num_bytes: int) -> None:
        """Count the seconds for which a batch waited for a store, and the bytes that were read by ranges; fetch on."""
        own = self._own()
        with own.state.changed:
            facts = own.state.facts
            waited_s, fetched = facts.waited_s + seconds, facts.fetched_bytes + num_bytes
            own.state.facts = replace(facts, waited_s=waited_s, fetched_bytes=fetched)
        own.state.first_is_here.set()
        own.fetcher.start()

    def release(self, file: int) -> bool:
        """End the use of a descriptor that was lent; return False for one that was not."""
        own = self._own()
        own.state.first_is_here.set()
        with own.state.changed:
            shard = own.state.by_file.get(file)
            if shard is None:
                return file in self._inherited
            shard.users -= 1
            own.keeper.close_if_unused(shard)
            return True

    def close(self) -> None:
        """Fetch nothing more, and let go of all shards that no batch reads; unfinished ones are removed."""
        own = self._own()
        with own.state.changed:
            own.state.changed.wait_for(lambda: not own.state.syncing, _SYNC_S)
            own.keeper.end()

    def _own(self) -> _Own:
        pid = os.getpid()
        own = self._own_of.get(pid)
        if own is None:
            inherited, self._own_of = self._own_of, {}
            for other in inherited.values():
                self._inherited |= _close_copies(other.state)
            settings = self.settings
            shelf = MemoryShelf(settings.limit or 0) if settings.memory else DiskShelf(settings.limit)
            state = CacheState(shelf)
            keeper = ShardKeeper(self.folder, self.shards, state, ahead=settings.ahead, again_s=_AGAIN_S)
            own = self._own_of.setdefault(pid, _Own(state, keeper, ShardFetcher(keeper)))
        return own


def _close_copies(state: CacheState) -> set[int]:
    """Let go of the descriptors that came along through a fork: the locks of the parent would outlive it.

    Their numbers stay taken, since batches of the parent may be forgotten later; they are returned.
    """
    files = {shard.place.file for shard in state.shards.values()}
    if isinstance(state.shelf, MemoryShelf):
        files |= state.shelf.forget()
    with open(os.devnull, "rb") as nothing:
        for file in files:
            os.dup2(nothing.fileno(), file, inheritable=False)
    return files
