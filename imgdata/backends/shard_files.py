"""Positions of a batch -> open files to read them from, fetched where they are remote; bytes of a sample."""

import errno
import os
import resource
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from imgdata.backends.buffers import Loans
from imgdata.dataset.files import image_files
from imgdata.dataset.members import member_columns
from imgdata.dataset.remote_files import RemoteShards
from imgdata.dataset.split import Split
from imgdata.errors import ImgdataError, ShardError
from imgdata.storage.atomic import pread
from imgdata.views.view import View

LEAST_FILES = 16
"""Files that stay open however low the process's limit is."""


class Lease:
    """Files that stay open as long as this lives."""

    def __init__(
        self,
        position_N: NDArray[np.int64],
        file_N: NDArray[np.int64],
        shift_N: NDArray[np.int64],
        member: str = "",
    ) -> None:
        self.position_N = position_N
        """The samples."""
        self.file_N = file_N
        """The descriptor of each sample's file."""
        self.shift_N = shift_N
        """Bytes from a sample's offset in its shard, as the index has it, to its place in that file: 0 for a shard."""
        self.member = member
        """The further image of the samples that is read; empty for their pictures."""


class ShardFiles:
    """The shards of a split, or of the split of a view.

    From half the process's limit of open files on, the longest unused is closed for others. The limit is raised where
    those in use alone need more: it is 1,024 by default, and three batches of samples from all over 1,000 shards may be
    in work. Not mapped into memory: a shard that was cut short would end the process. Threads make leases one at a
    time; a lease may end in any thread.
    """

    def __init__(self, split: Split | View) -> None:
        index = split.index
        index.load(("shard", "offset", "size"))
        self._index = index
        self._files = image_files(split.folder, index, split.cache if isinstance(split, Split) else None)
        self._store = self._files if isinstance(self._files, RemoteShards) else None
        self._open: OrderedDict[int, int] = OrderedDict()
        self._users: Counter[int] = Counter()
        self._loans: Loans[list[int]] = Loans()
        self._fetched: Counter[int] = Counter()
        """Descriptors of what was fetched, and how many leases have each."""
        half = max(LEAST_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._limit = half if self._files.keeps_open else LEAST_FILES
        self._lock = threading.Lock()

    @property
    def fetches(self) -> bool:
        """Whether a lease waits until its samples have come from a store."""
        return self._store is not None

    def lease(
        self, position_N: NDArray[np.int64], member: str = "", given_up: Callable[[], bool] | None = None
    ) -> Lease:
        """Open the files of these samples. Raises `ShardError`, and `SourceError` for loose files that have changed.

        With the name of a `member` that further image of the samples is read. Where the shards are remote, this waits
        until the images are on this machine, or raises `ShardError` once `given_up` says that they are not needed.
        """
        if self._store is not None:
            return self._fetched_lease(self._store, position_N, member, given_up)
        shard_S, place_N = np.unique(self._files.numbers(position_N, member), return_inverse=True)
        shards = shard_S.tolist()
        with self._lock:
            for ended in self._loans.fetch():
                self._end(ended)
            # In use from the start: none of them is closed for another.
            for shard in shards:
                self._users[shard] += 1
            file_N, shift_N = np.zeros((2, len(position_N)), np.int64)
            lease = Lease(position_N, file_N, shift_N, member)
            self._loans.lend(shards, lease)
            lease.file_N[:] = np.array([self._file(shard) for shard in shards], np.int64)[place_N]
        return lease

    def _fetched_lease(
        self, files: RemoteShards, position_N: NDArray[np.int64], member: str, given_up: Callable[[], bool] | None
    ) -> Lease:
        offset_N, size_N = (self._index.array(column)[position_N] for column in _place_columns(member))
        held = files.hold(files.numbers(position_N, member), offset_N, size_N, given_up)
        lease = Lease(position_N, held.file_N, held.shift_N, member)
        with self._lock:
            for ended in self._loans.fetch():
                self._end(ended)
            self._fetched.update(held.descriptors)
            self._loans.lend(held.descriptors, lease)
        return lease

    def read(self, lease: Lease, number: int) -> bytes:
        """Return the encoded image of sample `number` of a lease. Raises `ShardError`."""
        position, file = int(lease.position_N[number]), int(lease.file_N[number])
        offset, size = self._place(position, lease.member)
        try:
            data = pread(file, size, offset + int(lease.shift_N[number]))
        except OSError as error:
            raise self.unreadable(position, error, lease.member) from error
        if len(data) != size:
            raise self.cut_short(position, lease.member)
        return data

    def unreadable(self, position: int, error: OSError, member: str = "") -> ImgdataError:
        """Return what to raise where the system can't read a sample's file, or that of a member of it."""
        return self._unreadable(self._number(position, member), error)

    def cut_short(self, position: int, member: str = "") -> ImgdataError:
        """Return what to raise where a file ends before a sample, or a member of it, does."""
        key = self._index.key(position)
        return self._files.cut_short(self._number(position, member), key, sum(self._place(position, member)))

    def _place(self, position: int, member: str) -> tuple[int, int]:
        """Return the first byte and the number of bytes of an image."""
        offset, size = _place_columns(member)
        return int(self._index.array(offset)[position]), int(self._index.array(size)[position])

    def _number(self, position: int, member: str = "") -> int:
        return int(self._files.numbers(np.array([position]), member)[0])

    def _unreadable(self, shard: int, error: OSError) -> ImgdataError:
        if error.errno == errno.EMFILE:
            return ShardError(
                f"{self._files.path(shard)}: too many open files; raise the limit (`ulimit -n`), or use a smaller "
                "batch_size, fewer shards or shuffle='window'"
            )
        return self._files.unreadable(shard, error)

    def _end(self, shards: list[int]) -> None:
        """Count the users of these files down, and forget files that nobody uses or keeps."""
        if self._store is not None:
            for fetched in shards:
                self._fetched[fetched] -= 1
                self._store.release(fetched)
            return
        self._users.subtract(shards)
        if self._files.keeps_open:
            return
        for shard in shards:
            if not self._users[shard]:
                del self._users[shard]
                if (file := self._open.pop(shard, None)) is not None:
                    os.close(file)

    def _file(self, shard: int) -> int:
        file = self._open.get(shard)
        if file is None:
            if len(self._open) >= self._limit:
                self._close_one()
            try:
                file = self._open[shard] = _opened(partial(self._files.open, shard))
            except OSError as error:
                raise self._unreadable(shard, error) from error
        self._open.move_to_end(shard)
        return file

    def _close_one(self) -> None:
        for shard, file in self._open.items():
            if not self._users[shard]:
                del self._open[shard]
                os.close(file)
                return

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # Leases may live on, but are not read from any more. When the program ends the name `os` may be gone.
        while self._open:
            close(self._open.popitem()[1])
        if self._store is None:
            return
        for fetched, users in self._fetched.items():
            for _ in range(users):
                self._store.release(fetched)


def _place_columns(member: str) -> tuple[str, str]:
    """Return the columns of the index that say where an image begins, and how many bytes it has."""
    offset, size, *_ = member_columns(member) if member else ("offset", "size")
    return offset, size


def _opened(open_file: Callable[[], int]) -> int:
    try:
        return open_file()
    except OSError as error:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if error.errno != errno.EMFILE or soft == hard:
            raise
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return open_file()
