"""Positions in a split of a remote dataset -> the bytes of a batch, fetched into files that hold nothing else.

Whoever reads images reads descriptors. So what a batch needs is fetched, in few requests side by side, into one file
without a name in memory, and each image is said to lie so many bytes beside its place in the shard.
"""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imgdata.dataset.index import Index
from imgdata.errors import ShardError
from imgdata.storage.atomic import pread, pwrite
from imgdata.storage.joined_remote import JoinedRemoteFolder
from imgdata.storage.reading import open_regular, unnamed_file
from imgdata.storage.remote import joined_ranges
from imgdata.storage.remote_folder import RemoteFolder
from imgdata.storage.shard_cache import ShardCache
from imgdata.storage.shard_fetching import NotKeptError


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """Descriptors from which the images of a batch can be read."""

    file_N: NDArray[np.int64]
    """The descriptor that has each image."""
    shift_N: NDArray[np.int64]
    """Bytes that are added to an image's place in its shard to get its place behind that descriptor."""
    descriptors: list[int]
    """All descriptors, for `RemoteShards.release` once the batch is made."""


class RemoteShards:
    """The shards of a split of which all, or some of several datasets, are in object stores. See `ImageFiles`.

    Of a shard that the cache has, or that comes into it, `hold` gives the cache's file, and a range of all others.
    """

    keeps_open = False

    def __init__(
        self, folder: RemoteFolder | JoinedRemoteFolder, index: Index, cache: ShardCache | None = None
    ) -> None:
        self._folder, self._index, self._cache = folder, index, cache

    def numbers(self, position_N: NDArray[np.int64], member: str = "") -> NDArray[np.int64]:
        """See `ImageFiles`."""
        return self._index.shard_N[position_N].astype(np.int64)

    def path(self, number: int) -> Path:
        """See `ImageFiles`."""
        return self._folder.place(self._name(number))

    def open(self, number: int) -> int:
        """See `ImageFiles`: a copy of the whole shard, in memory."""
        file = unnamed_file()
        pwrite(file, self._folder.read(self._name(number)), 0)
        return file

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Return `size` bytes of a shard by one request; fewer where it ends before. Raises `ShardError`."""
        return self._folder.read(self._name(number), offset, size)

    def size(self, number: int) -> int:
        """Return the size of a shard in bytes. Raises `ShardError`."""
        return self._folder.size(self._name(number))

    def hold(
        self,
        number_N: NDArray[np.int64],
        offset_N: NDArray[np.int64],
        size_N: NDArray[np.int64],
        given_up: Callable[[], bool] | None = None,
    ) -> Held:
        """Fetch `size_N` bytes at `offset_N` of the shards `number_N`; see `RemoteStore.in_parallel` for `given_up`.

        Raises `ShardError`.
        """
        settings = self._folder.store.settings
        rows_of = {number: np.flatnonzero(number_N == number) for number in np.unique(number_N).tolist()}
        ranges_of = {
            number: list(zip(offset_N[row_K].tolist(), size_N[row_K].tolist(), strict=True))
            for number, row_K in rows_of.items()
        }
        cached, tasks = self._lend(ranges_of)
        cached |= self._open_here(ranges_of, list(cached.values()))
        requests: list[tuple[int, int, int, int]] = []
        file_N, shift_N = np.zeros((2, len(number_N)), np.int64)
        total = 0
        for number, row_K in rows_of.items():
            if number in cached:
                file_N[row_K] = cached[number]
                continue
            ranges = ranges_of[number]
            for start, end, members in joined_ranges(ranges, gap=settings.gap_bytes, most=settings.part_bytes):
                requests.append((number, start, end, total))
                shift_N[row_K[members]] = total - start
                total += end - start

        lock, ended = threading.Lock(), False

        def fetch(number: int, start: int, end: int, place: int) -> None:
            data = self.read(number, start, end - start)
            if len(data) < end - start:
                raise ShardError(
                    f"{self.path(number)}: cut short at byte {self.size(number)}, an image ends at byte {end}; write "
                    "the shard again"
                )
            with lock:
                # Behind an error of another request the file may be closed, and its number be another file's.
                if not ended:
                    pwrite(own, data, place)

        descriptors = list(cached.values())
        begun = time.perf_counter()
        try:
            if requests:
                own = unnamed_file()
                descriptors.append(own)
                os.ftruncate(own, total)
                file_N[~np.isin(number_N, list(cached))] = own
            tasks += [partial(fetch, *request) for request in requests]
            if tasks:
                self._folder.store.in_parallel(
                    lambda number: tasks[number](), len(tasks), given_up=given_up, threads=settings.small_requests
                )
        except BaseException as error:
            with lock:
                ended = True
            for descriptor in descriptors:
                self.release(descriptor)
            if isinstance(error, NotKeptError):
                # The cache has given up what it could not write, and lends it no more.
                return self.hold(number_N, offset_N, size_N, given_up)
            raise
        if self._cache is not None:
            self._cache.lent(time.perf_counter() - begun if tasks else 0.0, total)
        return Held(file_N=file_N, shift_N=shift_N, descriptors=descriptors)

    def release(self, descriptor: int) -> None:
        """End the use of a descriptor that `hold` gave."""
        if self._cache is None or not self._cache.release(descriptor):
            os.close(descriptor)

    def _lend(self, ranges_of: dict[int, list[tuple[int, int]]]) -> tuple[dict[int, int], list[Callable[[], None]]]:
        """Return the descriptors of shards that the cache has, by number, and what has to be done before."""
        if self._cache is None:
            return {}, []
        number_of = {name: number for number in ranges_of if (name := self._name(number)) in self._cache.shards}
        found, tasks = self._cache.lend({name: ranges_of[number] for name, number in number_of.items()})
        return {number_of[name]: file for name, file in found.items()}, tasks

    def _open_here(self, numbers: Iterable[int], lent: list[int]) -> dict[int, int]:
        """Return descriptors of those shards that are on this machine, by number.

        Raises `ShardError`, once all of them are let go, and those that were `lent`.
        """
        found: dict[int, int] = {}
        if isinstance(self._folder, RemoteFolder):
            return found
        for number in numbers:
            if self._folder.remote(self._name(number)) is None:
                try:
                    found[number] = open_regular(self.path(number))
                except OSError as error:
                    for descriptor in (*lent, *found.values()):
                        self.release(descriptor)
                    raise self.unreadable(number, error) from error
        return found

    def read_all(
        self, number_N: NDArray[np.int64], offset_N: NDArray[np.int64], size_N: NDArray[np.int64]
    ) -> list[bytes]:
        """Return `size_N` bytes at `offset_N` of the shards `number_N`, fetched together. Raises `ShardError`."""
        held = self.hold(number_N, offset_N, size_N)
        try:
            rows = zip(held.file_N.tolist(), size_N.tolist(), (offset_N + held.shift_N).tolist(), strict=True)
            return [pread(file, size, place) for file, size, place in rows]
        finally:
            for descriptor in held.descriptors:
                self.release(descriptor)

    def unreadable(self, number: int, error: OSError) -> ShardError:
        """See `ImageFiles`."""
        if error.errno == errno.EMFILE:
            return ShardError(f"{self.path(number)}: too many open files; raise the limit (`ulimit -n`)")
        return ShardError(f"{self.path(number)}: {error.strerror or error}; run the same command again")

    def cut_short(self, number: int, key: str, end: int) -> ShardError:
        """See `ImageFiles`."""
        return ShardError(f"{self.path(number)}: cut short, {key} ends at byte {end}; write the shard again")

    def _name(self, number: int) -> str:
        return self._index.words("shard")[number]
