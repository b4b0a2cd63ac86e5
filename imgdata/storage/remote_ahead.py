"""Ranges of objects, in the order in which they will be read -> their bytes, fetched ahead in large requests."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from imgdata.storage.remote import RemoteStore, joined_ranges

WINDOW_BYTES = 16 * 2**20
"""Bytes of ranges that are fetched together; those of three or four windows are in memory at a time."""
_WINDOW_RANGES = 512

Range = tuple[int, int, int]
"""Number of an object, offset, size."""


class RangesAhead:
    """The ranges of a shard's images, in windows: while one is used, the next is on its way.

    Ranges that lie close together come by one request, so that a shard in the order of its source is a few large
    requests; those of one in another order are fetched side by side. Safe in threads that read in about this order:
    what comes late, when its window is gone, is fetched by itself.
    """

    def __init__(self, store: RemoteStore, names: Sequence[str], etags: Sequence[str], wanted: Sequence[Range]) -> None:
        """Name the objects, their ETags, and the ranges in order; nothing is fetched yet."""
        self._store, self._names, self._etags = store, names, etags
        self._windows = _windows(wanted)
        self._window_of: dict[Range, int] = {}
        for number, window in enumerate(self._windows):
            for one in window:
                self._window_of.setdefault(one, number)
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="imgdata-ahead")
        self._coming: dict[int, Future[dict[Range, bytes]]] = {}
        self._first = 0
        self._lock = threading.Lock()
        self._is_closed = False

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Return the bytes of one of the ranges; fewer where the object ends before. Raises `ShardError`."""
        one = (number, offset, size)
        coming = self._window(self._window_of.get(one, -1))
        if coming is not None:
            return coming.result()[one]
        return self._store.read(self._names[number], offset, size, etag=self._etags[number] or None)

    def close(self) -> None:
        """End all requests; what was fetched is gone."""
        with self._lock:
            self._is_closed = True
            self._coming.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _window(self, number: int) -> "Future[dict[Range, bytes]] | None":
        """Return what fetches a window; the one behind it is begun too, and those long before it are dropped."""
        with self._lock:
            if number < self._first or self._is_closed:
                return None
            # Threads read side by side: some are still in the window before.
            while self._first < number - 1:
                self._coming.pop(self._first, None)
                self._first += 1
            for one in (number, number + 1):
                if one < len(self._windows) and one not in self._coming:
                    self._coming[one] = self._pool.submit(self._fetched, self._windows[one])
            return self._coming[number]

    def _fetched(self, window: Sequence[Range]) -> dict[Range, bytes]:
        settings = self._store.settings
        requests: list[tuple[int, int, int, list[Range]]] = []
        for number in dict.fromkeys(number for number, _, _ in window):
            own = [one for one in window if one[0] == number]
            places = [(offset, size) for _, offset, size in own]
            for start, end, members in joined_ranges(places, gap=settings.gap_bytes, most=settings.part_bytes):
                requests.append((number, start, end, [own[member] for member in members]))
        found: dict[Range, bytes] = {}

        def fetch(i: int) -> None:
            number, start, end, members = requests[i]
            data = self._store.read(self._names[number], start, end - start, etag=self._etags[number] or None)
            for one in members:
                found[one] = data[one[1] - start : one[1] - start + one[2]]

        self._store.in_parallel(fetch, len(requests), given_up=lambda: self._is_closed)
        return found


def _windows(wanted: Sequence[Range]) -> list[list[Range]]:
    windows: list[list[Range]] = []
    room = 0
    for one in wanted:
        if not windows or one[2] > room or len(windows[-1]) == _WINDOW_RANGES:
            windows.append([])
            room = WINDOW_BYTES
        windows[-1].append(one)
        room -= one[2]
    return windows
