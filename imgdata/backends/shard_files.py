"""Positions of a batch -> open files to read them from; bytes at a position."""

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
from imgdata.dataset.dataset import Split
from imgdata.dataset.files import image_files
from imgdata.errors import ImgdataError, ShardError
from imgdata.storage.atomic import pread
from imgdata.views.view import View

LEAST_FILES = 16
"""Files that stay open however low the process's limit is."""


class Lease:
    """Files that stay open as long as this lives."""

    def __init__(self, file_N: NDArray[np.int64]) -> None:
        self.file_N = file_N
        """The descriptor of each sample's shard."""


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
        self._files = image_files(split.folder, index)
        self._open: OrderedDict[int, int] = OrderedDict()
        self._users: Counter[int] = Counter()
        self._loans: Loans[list[int]] = Loans()
        half = max(LEAST_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._limit = half if self._files.keeps_open else LEAST_FILES
        self._lock = threading.Lock()

    def lease(self, position_N: NDArray[np.int64]) -> Lease:
        """Open the files of these samples. Raises `ShardError`, and `SourceError` for loose files that have changed."""
        shard_S, place_N = np.unique(self._files.numbers(position_N), return_inverse=True)
        shards = shard_S.tolist()
        with self._lock:
            for ended in self._loans.fetch():
                self._end(ended)
            # In use from the start: none of them is closed for another.
            for shard in shards:
                self._users[shard] += 1
            lease = Lease(np.zeros(len(position_N), np.int64))
            self._loans.lend(shards, lease)
            lease.file_N[:] = np.array([self._file(shard) for shard in shards], np.int64)[place_N]
        return lease

    def read(self, position: int, file: int) -> bytes:
        """Return the encoded image at `position`, from `file` of a lease. Raises `ShardError`."""
        offset, size = int(self._index.offset_N[position]), int(self._index.size_N[position])
        try:
            data = pread(file, size, offset)
        except OSError as error:
            raise self.unreadable(position, error) from error
        if len(data) != size:
            raise self.cut_short(position)
        return data

    def unreadable(self, position: int, error: OSError) -> ImgdataError:
        """Return what to raise where the system can't read a sample's file."""
        return self._unreadable(self._number(position), error)

    def cut_short(self, position: int) -> ImgdataError:
        """Return what to raise where a file ends before a sample does."""
        key = self._index.column("key")[position].as_py()
        end = int(self._index.offset_N[position]) + int(self._index.size_N[position])
        return self._files.cut_short(self._number(position), key, end)

    def _number(self, position: int) -> int:
        return int(self._files.numbers(np.array([position]))[0])

    def _unreadable(self, shard: int, error: OSError) -> ImgdataError:
        if error.errno == errno.EMFILE:
            return ShardError(
                f"{self._files.path(shard)}: too many open files; raise the limit (`ulimit -n`), or use a smaller "
                "batch_size, fewer shards or shuffle='window'"
            )
        return self._files.unreadable(shard, error)

    def _end(self, shards: list[int]) -> None:
        """Count the users of these files down, and forget files that nobody uses or keeps."""
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


def _opened(open_file: Callable[[], int]) -> int:
    try:
        return open_file()
    except OSError as error:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if error.errno != errno.EMFILE or soft == hard:
            raise
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return open_file()
