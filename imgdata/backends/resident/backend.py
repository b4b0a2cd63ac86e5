"""The resident backend: positions and parameters -> a batch, out of pixels that were decoded once and stay in memory.

On the processor batches are made by NumPy, in threads; on a GPU by PyTorch, in a stream of its own.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imgdata.backends import postprocess
from imgdata.backends.protocol import BatchRequest
from imgdata.backends.workers import Ending
from imgdata.errors import ImageError

if TYPE_CHECKING:
    import torch


import atexit
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from imgdata.backends.protocol import BackendSetup
from imgdata.backends.resident import pixel_cache
from imgdata.backends.resident.decoding import Bad
from imgdata.backends.resident.host_store import HostStore
from imgdata.backends.resident.window import BUDGET, Kept, kept, num_bytes
from imgdata.backends.workers import Threads, alive, begun, closed
from imgdata.errors import OptionError

if TYPE_CHECKING:
    import torch

    from imgdata.backends.resident.device_store import Lane


class Store(Protocol):
    """Kept pixels, and what makes batches of them."""

    def put(self, first: int, pixels_NHWC: NDArray[np.uint8]) -> None:
        """Keep the pictures from position `first` on."""
        ...

    def make(self, work: BatchRequest) -> "torch.Tensor":
        """The batch `(N, C, H, W)`, all but mixed; rows to skip are black."""
        ...


class _Loaded:
    """A split that is in memory."""

    def __init__(self, store: Store, bad: Bad, count: int) -> None:
        self.store, self.bad = store, bad
        self.bad_N = np.zeros(count, bool)
        self.bad_N[list(bad)] = True


class ResidentBatch:
    """See `PendingBatch`. One task at a time is in work for it."""

    def __init__(self, backend: "ResidentBackend", work: BatchRequest) -> None:
        """`begin` starts."""
        self._backend, self._mix = backend, work.mix
        self._images: torch.Tensor | None = None
        self._mixed = work.mix.kind == "none"
        self._failed: dict[int, ImageError] = {}
        self._ending = Ending()
        self._mark: torch.cuda.Event | None = None

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants it any more."""
        return self._ending.cancelled

    def begin(self, work: BatchRequest) -> None:
        """Start on all rows but those to skip, which become black."""
        self._submit(partial(self._make, work))

    def wait(self) -> Mapping[int, ImageError]:
        """See `PendingBatch`."""
        self._ending.wait()
        failed, self._failed = self._failed, {}
        return failed

    def redo(self, rows: NDArray[np.int64], work: BatchRequest) -> Mapping[int, ImageError]:
        """See `PendingBatch`."""
        self._submit(partial(self._make_again, rows, work))
        return self.wait()

    def images(self) -> "torch.Tensor":
        """See `PendingBatch`."""
        if not self._mixed:
            self._backend.mix(partial(self._run, self._mix_images))
            self.wait()
        return self._backend.hand_over(self._made(), self._mark)

    def cancel(self) -> None:
        """See `PendingBatch`."""
        self._ending.cancel()

    def _make(self, work: BatchRequest) -> bool:
        self._images, self._failed = self._backend.make(work)
        # Where rows are bad, others have to take their place first.
        if self._mixed or self._failed:
            return True
        self._backend.mix(partial(self._run, self._mix_images))
        return False

    def _make_again(self, row_M: NDArray[np.int64], work: BatchRequest) -> bool:
        images, failed = self._backend.make(work)
        self._backend.replace(self._made(), row_M, images)
        self._failed = {int(row_M[number]): error for number, error in failed.items()}
        return True

    def _mix_images(self) -> bool:
        self._mixed = True
        with self._backend.lane():
            postprocess.mix_images(self._made(), self._mix)
        return True

    def _made(self) -> "torch.Tensor":
        assert self._images is not None, "`wait` was not called"
        return self._images

    def _submit(self, task: Callable[[], bool]) -> None:
        self._backend.submit(partial(self._run, task))

    def _run(self, task: Callable[[], bool]) -> None:
        """A task, which says whether the batch is done; otherwise it has begun another one."""
        try:
            if not self.cancelled:
                if not task():
                    return
                self._mark = self._backend.mark()
        except BaseException as error:  # Whatever it is, `wait` raises it where the batch is wanted.
            self._ending.fail(error)
        self._ending.tell()


class ResidentBackend:
    """Makes batches in threads; the first of them decodes the split, or reads what was decoded before."""

    def __init__(self, setup: BackendSetup) -> None:
        """Raises `OptionError` where `refuses` says why."""
        window = kept(setup)
        if isinstance(window, str):
            raise OptionError(window)
        self.setup, self._window = setup, window
        self._loaded: _Loaded | None = None
        self._lane: Lane | None = None
        self._pools: dict[str, Threads] = {}
        self._batches: list[weakref.ref[ResidentBatch]] = []
        self._closed = False
        # Reentrant, since the collector may close a loader that nobody holds anywhere.
        self._lock = threading.RLock()
        self._loading = threading.Lock()

    def start(self, work: BatchRequest) -> ResidentBatch:
        """See `Backend`; what is wrong with a shard is heard from `wait`."""
        batch = ResidentBatch(self, work)
        with self._lock:
            self._check_open()
            self._batches = begun(self._batches, batch)
        batch.begin(work)
        return batch

    def submit(self, task: Callable[[], None]) -> None:
        """Run `task` in a thread. Raises `OptionError` after `close`."""
        self._pool("batches", _num_threads(self.setup)).submit(task)

    def mix(self, task: Callable[[], None]) -> None:
        """Run `task`, which mixes a batch, in the one thread for that. Raises `OptionError` after `close`.

        Each thread that mixes large pictures makes PyTorch start threads for it.
        """
        self._pool("mixer", 1).submit(task)

    def make(self, work: BatchRequest) -> "tuple[torch.Tensor, dict[int, ImageError]]":
        """A batch, all but mixed; which of its rows are bad, and so black. Raises `ShardError`."""
        loaded = self._load()
        failed = {
            row: loaded.bad[int(work.position_N[row])]
            for row in np.flatnonzero(loaded.bad_N[work.position_N] & ~work.skip_N).tolist()
        }
        if failed:
            skip_N = work.skip_N.copy()
            skip_N[list(failed)] = True
            work = replace(work, skip_N=skip_N)
        with self.lane():
            return loaded.store.make(work), failed

    def replace(self, images: "torch.Tensor", row_M: NDArray[np.int64], others: "torch.Tensor") -> None:
        """Put `others` in the place of some rows."""
        import torch

        with self.lane():
            images.index_copy_(0, torch.from_numpy(row_M).to(images.device), others)

    @contextmanager
    def lane(self) -> Iterator[None]:
        """What PyTorch does in the block is done beside the training, where the device can."""
        if self._lane is None:
            yield
            return
        with self._lane():
            yield

    def mark(self) -> "torch.cuda.Event | None":
        """The end of what the device was told so far."""
        return None if self._lane is None else self._lane.mark()

    def hand_over(self, images: "torch.Tensor", mark: "torch.cuda.Event | None") -> "torch.Tensor":
        """A tensor that was made before `mark`, for use in the caller's current stream."""
        return images if self._lane is None else self._lane.hand_over(images, mark)

    def close(self) -> None:
        """See `Backend`."""
        with self._lock:
            self._closed = True
            pools = list(self._pools.values())
        for batch in alive(self._batches):
            batch.cancel()
        for pool in pools:
            pool.close()
        self._loaded = None

    def _load(self) -> _Loaded:
        # One thread loads; the others need what it makes.
        with self._loading:
            loaded = self._loaded
            if loaded is None:
                self._check_wanted()
                # The end of the program stops the threads that decode, and this one would wait for them.
                with _at_exit(self.close):
                    loaded = self._loaded = self._load_now()
        return loaded

    def _load_now(self) -> _Loaded:
        store = self._store()
        with self.lane():
            bad = pixel_cache.fill(self.setup, self._window, store.put, self._check_wanted)
        return _Loaded(store, bad, len(self.setup.split))

    def _store(self) -> Store:
        if self.setup.device == "cpu":
            return HostStore(self.setup, self._window)
        from imgdata.backends.resident.device_store import DeviceStore, Lane

        self._lane = Lane(self.setup.device)
        with self.lane():
            return DeviceStore(self.setup, self._window)

    def _check_wanted(self) -> None:
        """Raises `OptionError` where nobody waits for a batch any more: the loader may be gone."""
        self._check_open()
        if all(batch.cancelled for batch in alive(self._batches)):
            raise closed()

    def _pool(self, name: str, count: int) -> Threads:
        with self._lock:
            self._check_open()
            if name not in self._pools:
                self._pools[name] = Threads(count)
            return self._pools[name]

    def _check_open(self) -> None:
        if self._closed:
            raise closed()


def refuses(setup: BackendSetup) -> str | None:
    """Why the backend can't be used, in one line with the way out; None where it can."""
    window = kept(setup)
    return window if isinstance(window, str) else None


def fits(setup: BackendSetup) -> bool:
    """Whether all that it would keep is at most `BUDGET` bytes; only where it doesn't refuse."""
    window = kept(setup)
    return isinstance(window, Kept) and num_bytes(setup, window) <= BUDGET


def describe(setup: BackendSetup) -> str:
    """What is kept, where, and why it fits; in one line."""
    window = kept(setup)
    if isinstance(window, str):
        return window
    place = "host memory" if setup.device == "cpu" else f"memory of {setup.device}"
    means = f"NumPy, {_threads_text(_num_threads(setup))}" if setup.device == "cpu" else "PyTorch"
    folder = pixel_cache.resident_folder()
    return (
        f"resident: {len(setup.split)} pictures of {window.width} x {window.height} decoded once, "
        f"{num_bytes(setup, window) / 1e6:.1f} MB in {place}, batches by {means}; cached in {folder}"
    )


@contextmanager
def _at_exit(function: Callable[[], None]) -> Iterator[None]:
    """Where the program ends within the block, `function` is called first; not in a fork of it."""
    pid = os.getpid()

    def call() -> None:
        if os.getpid() == pid:
            function()

    atexit.register(call)
    try:
        yield
    finally:
        atexit.unregister(call)


def _num_threads(setup: BackendSetup) -> int:
    """One for each batch in work at most; on a device one is enough, since it only gives orders."""
    return max(1, min(setup.threads, setup.buffers)) if setup.device == "cpu" else 1


def _threads_text(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"
