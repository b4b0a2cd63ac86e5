"""The shards that batches need, in order -> whole shards on this machine, fetched ahead; parts of them meanwhile.

A shard that is begun has a file of its full size. What a batch needs of it is fetched first, in blocks, into their
place; threads fetch the rest in the order in which the epoch needs the shards. So nothing is fetched twice. A shard
that is complete is compared with its hash before it gets its name. What can't be kept is read by ranges, as ever.
"""

import contextlib
import errno
import hashlib
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from resource import RLIMIT_NOFILE, getrlimit

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import ImgdataError, ShardError
from imgdata.storage.atomic import pwrite
from imgdata.storage.cache_folder import CacheWarning
from imgdata.storage.remote_folder import RemoteFolder
from imgdata.storage.shard_parts import BLOCK, COMING, MISSING, THERE, OpenShard, RemoteShard
from imgdata.storage.shard_shelves import DiskShelf, MemoryShelf, NoRoomError
from imgdata.storage.shard_state import CacheFacts, CacheSettings, CacheState, Need, size_text

FETCHERS = 8
"""Threads that fetch ahead, each with one request at a time."""
_AGAIN_S = 1.0
"""After so many seconds the cache asks again for room, or for a shard that another process has begun."""
_ENDED = 2**62
"""The batch of a cache that is closed."""
_TOO_MANY = frozenset((errno.EMFILE, errno.ENFILE))


class NotKeptError(Exception):
    """A shard that is coming can't be written on this machine: its ranges are to be read from the store."""


Task = Callable[[], None]


class ShardCache:
    """The shards of a split in an object store, as far as they are on this machine. Picklable, and safe in threads.

    Each process has files and threads of its own, which end when nothing is left to fetch; shards on the disk are for
    all.
    """

    def __init__(self, folder: RemoteFolder, shards: Sequence[RemoteShard], settings: CacheSettings) -> None:
        """Name the shards; nothing is read yet."""
        self.folder, self.settings = folder, settings
        self.shards = {shard.name: shard for shard in shards}
        self._states: dict[int, CacheState] = {}
        self._inherited: set[int] = set()
        self._most_open = max(16, getrlimit(RLIMIT_NOFILE)[0] // 4)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_states": {}, "_inherited": set()}

    def __repr__(self) -> str:
        state = self._own()
        with state.changed:
            shelf, facts = state.shelf, state.facts
            if shelf is None:
                text = "none, ranges are read"
            else:
                count, held = shelf.held()
                text = f"{count} shards, {size_text(held)} of {size_text(shelf.limit)} in {shelf.where}"
        return f"{text}; {facts}" if facts.images else text

    def __del__(self, getpid: Callable[[], int] = os.getpid) -> None:
        if getpid() in self.__dict__.get("_states", {}):
            self.close()

    @property
    def facts(self) -> CacheFacts:
        """What this process has asked for and fetched."""
        return self._own().facts

    @property
    def where(self) -> str:
        """Where shards are kept, for people; empty once they can't be."""
        shelf = self._own().shelf
        return "" if shelf is None else shelf.where

    @property
    def limit(self) -> int:
        """Bytes of shards that may be kept."""
        shelf = self._own().shelf
        return 0 if shelf is None else shelf.limit

    def plan(self, passage: Iterator[Sequence[Need]]) -> None:
        """Let shards be fetched in this order: stretches of an epoch, each with the shards in the order of need.

        It takes the place of the order before.
        """
        state = self._own()
        with state.changed:
            state.passage, state.needs, state.batch, state.known = passage, {}, 0, -1
            state.waiting.clear()
            for shard in state.shards.values():
                shard.last = -1
            self._next_stretch(state)
            self._close_unused(state)

    def passed(self, batch: int) -> None:
        """Say that no batch before `batch` is still to be made: shards that no later one needs may be removed."""
        state = self._own()
        with state.changed:
            if state.batch == _ENDED:
                return
            state.batch = max(state.batch, batch)
            while state.known <= state.batch + self.settings.ahead and self._next_stretch(state):
                pass
            self._close_unused(state)

    def lend(self, ranges_of: Mapping[str, Sequence[tuple[int, int]]]) -> tuple[dict[str, int], list[Task]]:
        """Return descriptors of the shards of which these ranges, `(offset, size)`, can be read from this machine.

        Ranges of other shards are to be read from the store. What is not there yet comes by the tasks that are returned
        as well, to be run together; they raise `NotKeptError` where a shard can't be written here: who lends again
        gets what can be read. `release` has to get each descriptor. Raises `ShardError` for a shard that is not the one
        that `dataset.json` names.
        """
        state = self._own()
        text, state.warning = state.warning, ""
        if text:
            warnings.warn(text, CacheWarning, stacklevel=2)
        found: dict[str, OpenShard] = {}
        tasks: list[Task] = []
        hits = images = 0
        with state.changed:
            try:
                for name, ranges in ranges_of.items():
                    images += len(ranges)
                    shard = self._found(state, name)
                    if shard is None:
                        continue
                    shard.users += 1
                    found[name] = shard
                    hits += sum(shard.has(*one) for one in ranges)
                    if shard.block_B is None:
                        continue
                    runs = shard.lacking(shard.blocks(ranges), self._most_bytes)
                    tasks += [partial(self._obtain, state, shard, np.arange(*run)) for run in runs]
            except BaseException:
                for shard in found.values():
                    shard.users -= 1
                raise
            state.facts = replace(state.facts, images=state.facts.images + images, hits=state.facts.hits + hits)
        return {name: shard.place.file for name, shard in found.items()}, tasks

    def lent(self, seconds: float, num_bytes: int) -> None:
        """Count the seconds for which a batch waited for a store, and the bytes that were read by ranges; fetch on."""
        state = self._own()
        with state.changed:
            facts = state.facts
            waited_s, fetched = facts.waited_s + seconds, facts.fetched_bytes + num_bytes
            state.facts = replace(facts, waited_s=waited_s, fetched_bytes=fetched)
        self._start_fetcher(state)

    def release(self, file: int) -> bool:
        """End the use of a descriptor that was lent; return False for one that was not."""
        state = self._own()
        with state.changed:
            shard = state.by_file.get(file)
            if shard is None:
                return file in self._inherited
            shard.users -= 1
            self._close_if_unused(state, shard)
            return True

    def close(self) -> None:
        """Fetch nothing more, and let go of all shards that no batch reads; unfinished ones are removed."""
        state = self._own()
        with state.changed:
            state.passage, state.needs, state.batch = iter(()), {}, _ENDED
            state.waiting.clear()
            state.complete.clear()
            for shard in state.shards.values():
                # At once: the program may end before the last block has come.
                if shard.place.path is not None:
                    shard.place.path.unlink(missing_ok=True)
                    shard.place.path = None
            self._close_unused(state)
            state.changed.notify_all()

    # --- The state of this process. Whoever calls holds `state.changed` ----------------------------------------

    def _own(self) -> CacheState:
        pid = os.getpid()
        state = self._states.get(pid)
        if state is None:
            inherited, self._states = self._states, {}
            for other in inherited.values():
                self._inherited |= _close_copies(other)
            settings = self.settings
            shelf = MemoryShelf(settings.limit or 0) if settings.memory else DiskShelf(settings.limit)
            state = self._states.setdefault(pid, CacheState(shelf))
        return state

    @property
    def _most_bytes(self) -> int:
        return self.folder.store.settings.part_bytes

    def _next_stretch(self, state: CacheState) -> bool:
        stretch = next(state.passage, None)
        if stretch is None:
            return False
        for need in stretch:
            known = state.needs.get(need.name)
            state.needs[need.name] = need if known is None else replace(known, last=need.last)
            state.known = max(state.known, need.last)
            if (shard := state.shards.get(need.name)) is not None:
                shard.last = need.last
            if known is None:
                state.waiting.append(need)
        return True

    def _found(self, state: CacheState, name: str) -> OpenShard | None:
        """Return a shard that is open here, that the shelf has, or that can be begun."""
        shard = state.shards.get(name) or self._opened(state, name)
        if shard is not None and shard.block_B is not None and state.shelf is None:
            return None
        if shard is None and name in state.needs:
            shard = self._begun(state, name)
        if shard is not None and shard.fault is not None:
            raise shard.fault
        return shard

    def _opened(self, state: CacheState, name: str) -> OpenShard | None:
        about = self.shards[name]
        if state.shelf is None or not self._may_open(state) or not (key := self._key(about)):
            return None
        place = state.shelf.open(key, about.size)
        return None if place is None else self._add(state, OpenShard(about, place, None, -1))

    def _begun(self, state: CacheState, name: str) -> OpenShard | None:
        about, now = self.shards[name], time.monotonic()
        if max(state.not_before.get(name, 0.0), state.not_before.get("", 0.0)) > now:
            return None
        if state.shelf is None or not self._may_open(state) or not (key := self._key(about)):
            return None
        place = None
        try:
            place = state.shelf.begin(key, about.size)
        except NoRoomError:
            name = ""
        except OSError as error:
            if error.errno not in _TOO_MANY:
                self._give_up(state, error)
                return None
        if place is None:
            state.not_before[name] = now + _AGAIN_S
            return None
        return self._add(state, OpenShard(about, place, np.zeros(-(-about.size // BLOCK), np.uint8), -1))

    def _may_open(self, state: CacheState) -> bool:
        """Return whether one more file may be open; the oldest shard that no batch reads is closed for it."""
        if len(state.shards) < self._most_open:
            return True
        idle = next((one for one in state.shards.values() if not one.users and one.block_B is None), None)
        if idle is not None:
            self._let_go(state, idle)
        return idle is not None

    def _add(self, state: CacheState, shard: OpenShard) -> OpenShard:
        need = state.needs.get(shard.about.name)
        shard.last = state.batch if need is None else need.last
        state.shards[shard.about.name] = state.by_file[shard.place.file] = shard
        return shard

    def _give_up(self, state: CacheState, error: OSError) -> None:
        """Begin no shard any more: where the disk is full, it is for others to make room."""
        if state.shelf is not None:
            state.warning = (
                f"shards can't be kept in {state.shelf.where} ({error.strerror or error}): they are read by ranges; "
                "free space there, set IMGDATA_CACHE to another disk, or use cache='off'"
            )
        state.shelf = None

    def _close_unused(self, state: CacheState) -> None:
        for shard in list(state.shards.values()):
            self._close_if_unused(state, shard)

    def _close_if_unused(self, state: CacheState, shard: OpenShard) -> None:
        ended = state.batch == _ENDED
        if shard.users or state.shards.get(shard.about.name) is not shard or not (ended or shard.last < state.batch):
            return
        if shard.block_B is not None:
            # What is unfinished is finished, as most of it may be here. A block that is coming has to come first.
            wanted = shard.ahead and state.shelf is not None and shard.fault is None and not ended
            if wanted or (shard.block_B == COMING).any():
                return
        self._let_go(state, shard)

    def _let_go(self, state: CacheState, shard: OpenShard) -> None:
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
        """Return the name of a shard in the cache: that of its bytes, or of its version; empty where it has none."""
        if about.hash != "none":
            return f"{about.hash}-{about.digest}"
        etag = self.folder.version(about.name)
        if not etag:
            return ""
        named = f"{self.folder.store.endpoint or ''} {self.folder.place(about.name)} {etag} {about.size}"
        return f"etag-{hashlib.sha256(named.encode()).hexdigest()}"

    # --- Work. Whoever calls does not hold `state.changed` -----------------------------------------------------

    def _fetch(self, state: CacheState, shard: OpenShard, run: tuple[int, int]) -> None:
        """Fetch the blocks of a run that was claimed. Raises `ShardError`, `OSError`."""
        offset, end = run[0] * BLOCK, min(run[1] * BLOCK, shard.about.size)
        now = MISSING
        try:
            data = self.folder.read(shard.about.name, offset, end - offset)
            if len(data) < end - offset:
                raise ShardError(
                    f"{self.folder.place(shard.about.name)}: cut short at byte {offset + len(data)}, the shard had "
                    f"{shard.about.size} bytes; write the shard again"
                )
            pwrite(shard.place.file, data, offset)
            now = THERE
        finally:
            with state.changed:
                assert shard.block_B is not None
                shard.block_B[slice(*run)] = now
                if now == THERE:
                    state.facts = replace(state.facts, fetched_bytes=state.facts.fetched_bytes + end - offset)
                if shard.is_complete:
                    state.complete.append(shard)
                self._close_if_unused(state, shard)
                state.changed.notify_all()

    def _obtain(self, state: CacheState, shard: OpenShard, wanted: NDArray[np.int64]) -> None:
        """Fetch the blocks that are missing, and wait for those that other threads fetch.

        Raises `ShardError`, and `NotKeptError`.
        """
        while True:
            with state.changed:
                if shard.fault is not None:
                    raise shard.fault
                if shard.block_B is None or (shard.block_B[wanted] == THERE).all():
                    return
                run = shard.claim(wanted, self._most_bytes)
                if run is None:
                    # Each request has an end, and says so.
                    state.changed.wait(_AGAIN_S)
            if run is not None:
                try:
                    self._fetch(state, shard, run)
                except OSError as error:
                    with state.changed:
                        self._give_up(state, error)
                    raise NotKeptError from error

    def _start_fetcher(self, state: CacheState) -> None:
        """Start one more thread, where there may be work for it."""
        with state.changed:
            open_work = state.complete or state.waiting or any(one.lacks for one in state.shards.values())
            if not open_work or state.batch == _ENDED or state.fetchers >= FETCHERS:
                return
            state.fetchers += 1
        # A daemon: a program that ends does not wait for a server.
        threading.Thread(
            target=_fetch_ahead, args=(weakref.ref(self), state), name="imgdata-shards", daemon=True
        ).start()

    def _work(self, state: CacheState) -> bool:
        """Do one piece of work ahead: verify, or fetch a run; return whether there was any."""
        with state.changed:
            complete = state.complete.popleft() if state.complete else None
            if complete is not None:
                complete.users += 1
            task = self._ahead(state) if complete is None else None
        if complete is not None:
            self._verify(state, complete)
        elif task is not None:
            shard, run = task
            self._start_fetcher(state)
            try:
                self._fetch(state, shard, run)
            except ImgdataError:
                # The batch that needs these blocks asks for them once more, and raises what is wrong.
                shard.ahead = False
            except OSError as error:
                shard.ahead = False
                with state.changed:
                    self._give_up(state, error)
        return complete is not None or task is not None

    def _ahead(self, state: CacheState) -> tuple[OpenShard, tuple[int, int]] | None:
        """Return the next run of blocks to fetch: of a shard that was begun, else of the next one."""
        for shard in state.shards.values():
            if (run := shard.claim_ahead(self._most_bytes)) is not None:
                return shard, run
        early = sum(1 for name in state.shards if (one := state.needs.get(name)) and one.first > state.batch)
        while state.waiting:
            need = state.waiting[0]
            if need.first > state.batch and early >= self.settings.ahead:
                return None
            try:
                if need.name not in state.shards and self._opened(state, need.name) is None:
                    new = self._begun(state, need.name)
                    if new is None and (state.shelf is None or state.not_before.get("", 0.0) > time.monotonic()):
                        return None
                    if new is not None and (run := new.claim_ahead(self._most_bytes)) is not None:
                        state.waiting.popleft()
                        return new, run
            except ImgdataError:
                # As above.
                pass
            state.waiting.popleft()
            early += need.first > state.batch
        return None

    def _verify(self, state: CacheState, shard: OpenShard) -> None:
        """Compare a complete shard with its hash, and keep it."""
        fault: ImgdataError | None = None
        try:
            found = shard.digest()
            if found != shard.about.digest:
                fault = ShardError(
                    f"{self.folder.place(shard.about.name)}: not the shard that dataset.json names ({shard.about.hash} "
                    f"is {found[:12]}..., not {shard.about.digest[:12]}...); run `imgdata verify {self.folder}`, and "
                    "write the shard again"
                )
        except OSError as error:
            with state.changed:
                self._give_up(state, error)
        with state.changed:
            shard.users -= 1
            shard.fault = fault
            wanted = state.shards.get(shard.about.name) is shard and state.batch != _ENDED
            if fault is None and state.shelf is not None and wanted:
                try:
                    state.shelf.finish(shard.place)
                    shard.block_B = None
                except OSError as error:
                    self._give_up(state, error)
            self._close_if_unused(state, shard)
            state.changed.notify_all()


def _fetch_ahead(cache_ref: "weakref.ref[ShardCache]", state: CacheState) -> None:
    """Fetch until nothing is left to do, or nobody has the cache any more."""
    try:
        while state.batch != _ENDED:
            cache = cache_ref()
            if cache is None or not cache._work(state):
                return
            del cache
    finally:
        with state.changed:
            state.fetchers -= 1


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
