"""The shards that a process has open, begins and lets go, by the order in which its batches need them.

All methods of `ShardKeeper` are for whoever holds `state.changed`, and wait for no request of a shard's bytes.
"""

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from resource import RLIMIT_NOFILE, getrlimit

import numpy as np

from imgdata.storage.joined_remote import JoinedRemoteFolder
from imgdata.storage.remote_folder import RemoteFolder
from imgdata.storage.shard_parts import BLOCK, COMING, OpenShard, RemoteShard
from imgdata.storage.shard_shelves import NoRoomError
from imgdata.storage.shard_state import CacheState, Need

ENDED = 2**62
"""The batch of a cache that is closed."""
_TOO_MANY = frozenset((errno.EMFILE, errno.ENFILE))


class ShardKeeper:
    """What is open of the shards of one cache, in one process."""

    def __init__(
        self,
        folder: RemoteFolder | JoinedRemoteFolder,
        shards: Mapping[str, RemoteShard],
        state: CacheState,
        *,
        ahead: int,
        again_s: float,
    ) -> None:
        """Open nothing yet; see `CacheSettings` for `ahead`.

        After `again_s` seconds the shelf is asked again for room, or for a shard that another process has begun.
        """
        self.folder, self.shards, self.state, self.ahead, self.again_s = folder, shards, state, ahead, again_s
        self._most_open = max(16, getrlimit(RLIMIT_NOFILE)[0] // 4)

    def plan(self, passage: Iterator[Sequence[Need]]) -> None:
        """Begin a new order: stretches of an epoch, each with the shards in the order of need."""
        state = self.state
        state.passage, state.needs, state.batch, state.known = passage, {}, 0, -1
        state.waiting.clear()
        for shard in state.shards.values():
            shard.last = -1
        self._next_stretch()
        self._close_unused()

    def passed(self, batch: int) -> None:
        """Let go of what no batch from `batch` on needs."""
        state = self.state
        if state.batch == ENDED:
            return
        state.batch = max(state.batch, batch)
        while state.known <= state.batch + self.ahead and self._next_stretch():
            pass
        self._close_unused()

    def end(self) -> None:
        """Let go of all that no batch reads, and begin nothing more."""
        state = self.state
        state.passage, state.needs, state.batch = iter(()), {}, ENDED
        state.waiting.clear()
        state.complete.clear()
        for shard in state.shards.values():
            # At once: the program may end before the last block has come.
            if shard.place.path is not None:
                shard.place.path.unlink(missing_ok=True)
                shard.place.path = None
        self._close_unused()
        state.changed.notify_all()

    def _next_stretch(self) -> bool:
        state = self.state
        stretch = next(state.passage, None)
        if stretch is None:
            return False
        for need in stretch:
            state.known = max(state.known, need.last)
            if need.name not in self.shards:
                # Of several datasets some may be on this machine.
                continue
            known = state.needs.get(need.name)
            state.needs[need.name] = need if known is None else replace(known, last=need.last)
            if (shard := state.shards.get(need.name)) is not None:
                shard.last = need.last
            if known is None:
                state.waiting.append(need)
        return True

    def found(self, name: str) -> OpenShard | None:
        """Return a shard that is open here, that the shelf has, or that can be begun."""
        state = self.state
        shard = state.shards.get(name) or self.opened(name)
        if shard is not None and shard.block_B is not None and state.shelf is None:
            return None
        if shard is None and name in state.needs:
            shard = self.begun(name)
        if shard is not None and shard.fault is not None:
            raise shard.fault
        return shard

    def opened(self, name: str) -> OpenShard | None:
        """Return a shard that the shelf has; None where it has not."""
        state = self.state
        about = self.shards[name]
        if state.shelf is None or not self._may_open() or not (key := self._key(about)):
            return None
        place = state.shelf.open(key, about.size)
        return None if place is None else self._add(OpenShard(about, place, None, -1))

    def begun(self, name: str) -> OpenShard | None:
        """Return a shard of which no byte is here yet; None where another process has begun it, or room is lacking."""
        state = self.state
        about, now = self.shards[name], time.monotonic()
        if max(state.not_before.get(name, 0.0), state.not_before.get("", 0.0)) > now:
            return None
        if state.shelf is None or not self._may_open() or not (key := self._key(about)):
            return None
        place = None
        try:
            place = state.shelf.begin(key, about.size)
        except NoRoomError:
            name = ""
        except OSError as error:
            if error.errno not in _TOO_MANY:
                self.give_up(error)
                return None
        if place is None:
            state.not_before[name] = now + self.again_s
            return None
        return self._add(OpenShard(about, place, np.zeros(-(-about.size // BLOCK), np.uint8), -1))

    def _may_open(self) -> bool:
        """Return whether one more file may be open; the oldest shard that no batch reads is closed for it."""
        state = self.state
        if len(state.shards) < self._most_open:
            return True
        idle = next((one for one in state.shards.values() if not one.users and one.block_B is None), None)
        if idle is not None:
            self._let_go(idle)
        return idle is not None

    def _add(self, shard: OpenShard) -> OpenShard:
        state = self.state
        need = state.needs.get(shard.about.name)
        shard.last = state.batch if need is None else need.last
        state.shards[shard.about.name] = state.by_file[shard.place.file] = shard
        return shard

    def give_up(self, error: OSError) -> None:
        """Begin no shard any more: where the disk is full, it is for others to make room."""
        state = self.state
        if state.shelf is not None:
            state.warning = (
                f"shards can't be kept in {state.shelf.where} ({error.strerror or error}): they are read by ranges; "
                "free space there, set IMGDATA_CACHE to another disk, or use cache='off'"
            )
        state.shelf = None

    def _close_unused(self) -> None:
        state = self.state
        for shard in list(state.shards.values()):
            self.close_if_unused(shard)

    def close_if_unused(self, shard: OpenShard) -> None:
        """Let go of a shard that no batch reads, now or later."""
        state = self.state
        ended = state.batch == ENDED
        if shard.users or state.shards.get(shard.about.name) is not shard or not (ended or shard.last < state.batch):
            return
        if shard.block_B is not None:
            # What is unfinished is finished, as most of it may be here. A block that is coming has to come first.
            wanted = shard.ahead and state.shelf is not None and shard.fault is None and not ended
            if wanted or (shard.block_B == COMING).any():
                return
        self._let_go(shard)

    def _let_go(self, shard: OpenShard) -> None:
        state = self.state
        del state.shards[shard.about.name], state.by_file[shard.place.file]
        if shard.block_B is None and state.shelf is not None:
            state.shelf.close(shard.place)
            return
        if shard.block_B is not None:
            if state.shelf is not None:
                state.shelf.abandon(shard.place)
            elif shard.place.path is not None:
                with contextlib.suppress(OSError):
                    shard.place.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.close(shard.place.file)

    def _key(self, about: RemoteShard) -> str:
        return shard_key(self.folder, about)


def shard_key(folder: RemoteFolder | JoinedRemoteFolder, about: RemoteShard) -> str:
    """Return the name of a shard in the cache: that of its bytes, or of its version; empty where it has none."""
    if about.hash != "none":
        return f"{about.hash}-{about.digest}"
    place = folder.remote(about.name)
    assert place is not None, "shards on this machine are not kept a second time"
    owner, name = place
    etag = owner.version(name)
    if not etag:
        return ""
    named = f"{owner.store.endpoint or ''} {owner.place(name)} {etag} {about.size}"
    return f"etag-{hashlib.sha256(named.encode()).hexdigest()}"
