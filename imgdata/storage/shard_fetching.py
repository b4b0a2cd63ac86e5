"""The blocks that batches wait for, and those of shards to come -> fetched, in the order of need, and verified.

No method of `ShardFetcher` may be called by whoever holds `state.changed`: they wait for a store.
"""

import os
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import ImgdataError, ShardError
from imgdata.storage.atomic import pwrite
from imgdata.storage.shard_keeping import ENDED, ShardKeeper
from imgdata.storage.shard_parts import BLOCK, MISSING, THERE, OpenShard

FETCHERS = 8
"""Threads that fetch ahead, each with one request at a time."""
_FIRST_S = 10.0
"""Longest wait of other batches for the first one, in seconds."""
Wanted = Mapping[OpenShard, NDArray[np.int64]]
"""Shards, and the blocks of each that a batch needs."""


class NotKeptError(Exception):
    """A shard that is coming can't be written on this machine: its ranges are to be read from the store."""


class ShardFetcher:
    """Fetches for one cache in one process; its threads end once nothing is left to fetch, or it is forgotten."""

    def __init__(self, keeper: ShardKeeper) -> None:
        self._keeper = keeper

    @property
    def most_bytes(self) -> int:
        """Bytes of one request, at most."""
        return self._keeper.folder.store.settings.part_bytes

    def obtain(self, shard: OpenShard, wanted: NDArray[np.int64], gap: int) -> None:
        """Fetch those of the blocks that are missing, with up to `gap` missing blocks between them.

        Blocks that other threads fetch are theirs: see `settle`. The first batch has no `gap`, and the others wait for
        it. Raises `ShardError`, and `NotKeptError`.
        """
        state = self._keeper.state
        if gap:
            state.first_is_here.wait(_FIRST_S)
        while shard.fault is None and shard.misses(wanted):
            with state.changed:
                run = shard.claim(wanted, self.most_bytes, gap)
            if run is not None:
                self._fetch_wanted(shard, run)

    def settle(self, wanted: Wanted) -> None:
        """Wait until all of the blocks are there; fetch those that nobody does. Raises what `obtain` raises."""
        state = self._keeper.state
        for shard, block_W in wanted.items():
            while True:
                with state.changed:
                    if shard.fault is not None:
                        raise shard.fault
                    if shard.block_B is None or (shard.block_B[block_W] == THERE).all():
                        break
                    run = shard.claim(block_W, self.most_bytes)
                    if run is None:
                        # Each request has an end, and says so.
                        state.changed.wait(self._keeper.again_s)
                if run is not None:
                    self._fetch_wanted(shard, run)

    def start(self) -> None:
        """Start one more thread that fetches ahead, where there may be work for it."""
        state = self._keeper.state
        with state.changed:
            open_work = state.complete or state.waiting or any(one.lacks for one in state.shards.values())
            if not open_work or state.batch == ENDED or state.fetchers >= FETCHERS:
                return
            state.fetchers += 1
        # A daemon: a program that ends does not wait for a server.
        threading.Thread(
            target=_fetch_ahead, args=(weakref.ref(self), self._keeper), name="imgdata-shards", daemon=True
        ).start()

    def work(self) -> bool:
        """Do one piece of work ahead: verify, or fetch a run; return whether there was any."""
        state = self._keeper.state
        with state.changed:
            complete = state.complete.popleft() if state.complete else None
            if complete is not None:
                complete.users += 1
            task = self._ahead() if complete is None else None
        if complete is not None:
            self._verify(complete)
        elif task is not None:
            shard, run = task
            self.start()
            try:
                self._fetch(shard, run)
            except ImgdataError:
                # The batch that needs these blocks asks for them once more, and raises what is wrong.
                shard.ahead = False
            except OSError as error:
                shard.ahead = False
                with state.changed:
                    self._keeper.give_up(error)
        return complete is not None or task is not None

    def _fetch_wanted(self, shard: OpenShard, run: tuple[int, int]) -> None:
        """Do what `_fetch` does, for a batch. Raises `ShardError`, and `NotKeptError`."""
        try:
            self._fetch(shard, run)
        except OSError as error:
            with self._keeper.state.changed:
                self._keeper.give_up(error)
            raise NotKeptError from error

    def _fetch(self, shard: OpenShard, run: tuple[int, int]) -> None:
        """Fetch the blocks of a run that was claimed. Raises `ShardError`, `OSError`."""
        keeper, about = self._keeper, shard.about
        offset, end = run[0] * BLOCK, min(run[1] * BLOCK, about.size)
        now = MISSING
        try:
            data = keeper.folder.read(about.name, offset, end - offset)
            if len(data) < end - offset:
                raise ShardError(
                    f"{keeper.folder.place(about.name)}: cut short at byte {offset + len(data)}, the shard had "
                    f"{about.size} bytes; write the shard again"
                )
            pwrite(shard.place.file, data, offset)
            now = THERE
        finally:
            state = keeper.state
            with state.changed:
                assert shard.block_B is not None
                shard.block_B[slice(*run)] = now
                if now == THERE:
                    state.facts = replace(state.facts, fetched_bytes=state.facts.fetched_bytes + end - offset)
                if shard.is_complete:
                    state.complete.append(shard)
                keeper.close_if_unused(shard)
                state.changed.notify_all()

    def _ahead(self) -> tuple[OpenShard, tuple[int, int]] | None:
        """Return the next run of blocks to fetch: of a shard that was begun, else of the next one."""
        keeper, state = self._keeper, self._keeper.state
        for shard in state.shards.values():
            if (run := shard.claim_ahead(self.most_bytes)) is not None:
                return shard, run
        early = sum(1 for name in state.shards if (one := state.needs.get(name)) and one.first > state.batch)
        while state.waiting:
            need = state.waiting[0]
            if need.first > state.batch and early >= keeper.ahead:
                return None
            try:
                if need.name not in state.shards and keeper.opened(need.name) is None:
                    new = keeper.begun(need.name)
                    if new is None and (state.shelf is None or state.not_before.get("", 0.0) > time.monotonic()):
                        return None
                    if new is not None and (run := new.claim_ahead(self.most_bytes)) is not None:
                        state.waiting.popleft()
                        return new, run
            except ImgdataError:
                # As above.
                pass
            state.waiting.popleft()
            early += need.first > state.batch
        return None

    def _verify(self, shard: OpenShard) -> None:
        """Compare a complete shard with its hash, and keep it."""
        keeper, state, about = self._keeper, self._keeper.state, shard.about
        fault: ImgdataError | None = None
        try:
            found = shard.digest()
            if found != about.digest:
                fault = ShardError(
                    f"{keeper.folder.place(about.name)}: not the shard that dataset.json names ({about.hash} is "
                    f"{found[:12]}..., not {about.digest[:12]}...); run `imgdata verify {keeper.folder}`, and write "
                    "the shard again"
                )
            state.syncing.add(about.name)
            if fault is None:
                # Before the shelf does so, while nobody else gets on.
                os.fsync(shard.place.file)
        except OSError as error:
            with state.changed:
                keeper.give_up(error)
        with state.changed:
            state.syncing.discard(about.name)
            shard.users -= 1
            shard.fault = fault
            wanted = state.shards.get(about.name) is shard and state.batch != ENDED
            if fault is None and state.shelf is not None and wanted:
                try:
                    state.shelf.finish(shard.place)
                    shard.block_B = None
                except OSError as error:
                    keeper.give_up(error)
            keeper.close_if_unused(shard)
            state.changed.notify_all()


def _fetch_ahead(fetcher_ref: "weakref.ref[ShardFetcher]", keeper: ShardKeeper) -> None:
    """Fetch until nothing is left to do, or nobody has the cache any more."""
    state = keeper.state
    try:
        while state.batch != ENDED:
            fetcher = fetcher_ref()
            if fetcher is None or not fetcher.work():
                return
            del fetcher
    finally:
        with state.changed:
            state.fetchers -= 1
