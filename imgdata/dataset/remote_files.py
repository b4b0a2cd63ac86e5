"""Positions in a split of a remote dataset -> the bytes of a batch, fetched into files that hold nothing else.

Whoever reads images reads descriptors. So what a batch needs is fetched, in few requests side by side, into one file
without a name in memory, and each image is said to lie so many bytes beside its place in the shard.
"""

import errno
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgdata.dataset.index import Index
from imgdata.errors import ShardError
from imgdata.storage.atomic import pread, pwrite
from imgdata.storage.local_paths import UrlPath
from imgdata.storage.remote import joined_ranges
from imgdata.storage.remote_folder import RemoteFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """Descriptors from which the images of a batch can be read."""

    file_N: NDArray[np.int64]
    """The descriptor that has each image."""
    shift_N: NDArray[np.int64]
    """Bytes that are added to an image's place in its shard to get its place behind that descriptor."""
    descriptors: list[int]
    """All descriptors, to be closed once the batch is made."""


class RemoteShards:
    """The shards of a split in an object store. See `ImageFiles`.

    `hold` is the seam for a cache of shards: of a shard that is on this machine as a whole it would give the file
    itself and a shift of 0, and a range of all others.
    """

    keeps_open = False

    def __init__(self, folder: RemoteFolder, index: Index) -> None:
        self._folder, self._index = folder, index

    def numbers(self, position_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `ImageFiles`."""
        return self._index.shard_N[position_N].astype(np.int64)

    def path(self, number: int) -> UrlPath:
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
        return self._folder.store.head(self._name(number)).size

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
        requests: list[tuple[int, int, int, int]] = []
        shift_N = np.zeros(len(number_N), np.int64)
        total = 0
        for number in np.unique(number_N).tolist():
            row_K = np.flatnonzero(number_N == number)
            ranges = list(zip(offset_N[row_K].tolist(), size_N[row_K].tolist(), strict=True))
            for start, end, members in joined_ranges(ranges, gap=settings.gap_bytes, most=settings.part_bytes):
                requests.append((number, start, end, total))
                shift_N[row_K[members]] = total - start
                total += end - start
        file = unnamed_file()

        def fetch(which: int) -> None:
            number, start, end, place = requests[which]
            data = self.read(number, start, end - start)
            if len(data) < end - start:
                raise ShardError(
                    f"{self.path(number)}: cut short at byte {self.size(number)}, an image ends at byte {end}; write "
                    "the shard again"
                )
            pwrite(file, data, place)

        try:
            os.ftruncate(file, total)
            self._folder.store.in_parallel(fetch, len(requests), given_up=given_up)
        except BaseException:
            os.close(file)
            raise
        return Held(file_N=np.full(len(number_N), file, np.int64), shift_N=shift_N, descriptors=[file])

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
                os.close(descriptor)

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


def unnamed_file() -> int:
    """Return the descriptor of an empty file without a name: in memory where the system can, else on the disk."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("imgdata", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
