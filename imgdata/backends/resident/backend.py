"""The resident backend: positions and parameters -> a batch, out of pixels that were decoded once and stay in memory.

On the processor batches are made by NumPy, in threads; on a GPU by PyTorch, in a stream of its own.
"""

import atexit
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from imgdata.backends import postprocess
from imgdata.backends.protocol import BackendSetup, BatchRequest
from imgdata.backends.resident import pixel_cache
from imgdata.backends.resident.decoding import Bad
from imgdata.backends.resident.host_store import HostStore
from imgdata.backends.resident.window import kept, num_threads
from imgdata.backends.workers import Completion, Task, Workers, closed
from imgdata.errors import ImageError, OptionError

if TYPE_CHECKING:
    import torch

    from imgdata.backends.resident.device_store import Lane


class Store(Protocol):
    """Kept pixels, and what makes batches of them."""

    def put(self, first: int, pixels_NHWC: NDArray[np.uint8]) -> None:
        """Keep the pictures from position `first` on."""
        ...

    def make(self, work: BatchRequest) -> "torch.Tensor":
        """Return the batch `(N, C, H, W)`, all but mixed; rows to skip are black."""
        ...


class _Loaded:
    """A split that is in memory."""

    def __init__(self, store: Store, bad: Bad, count: int) -> None:
        self.store, self.bad = store, bad
        self.bad_N = np.zeros(count, bool)
        self.bad_N[list(bad)] = True


class ResidentBatch:
    """See `PendingBatch`. At most one task of it is in work at a time."""

    def __init__(self, backend: "ResidentBackend", work: BatchRequest) -> None:
        """Prepare the batch; `begin` starts it."""
        self._backend, self._mix = backend, work.mix
        self._images: torch.Tensor | None = None
        self._mixed = work.mix.kind == "none"
        self._failed: dict[int, ImageError] = {}
        self._completion = Completion()
        self._mark: torch.cuda.Event | None = None

    @property
    def cancelled(self) -> bool:
        """Whether the batch was cancelled."""
        return self._completion.cancelled

    def begin(self, work: BatchRequest) -> None:
        """Start on all rows but those to skip, which become black."""
        self._submit(partial(self._make, work))

    def wait(self) -> Mapping[int, ImageError]:
        """See `PendingBatch`."""
        self._completion.wait()
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
        self._completion.cancel()

    def _make(self, work: BatchRequest) -> bool:
        self._images, self._failed = self._backend.make(work)
        # Where rows are bad, others have to take their place before the batch is mixed.
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
        """Run a task, which returns whether the batch is done; if it is not, another task of it has begun."""
        try:
            if not self.cancelled:
                if not task():
                    return
                self._mark = self._backend.mark()
        except BaseException as error:  # Any error is raised by `wait`, where the batch is needed.
            self._completion.fail(error)
        self._completion.signal()


class ResidentBackend:
    """Makes batches in threads; the first of them decodes the split, or reads what was decoded before."""

    def __init__(self, setup: BackendSetup) -> None:
        """Check the recipe. Raises `OptionError` where no window of the pictures can be kept."""
        window = kept(setup)
        if isinstance(window, str):
            raise OptionError(window)
        self.setup, self._window = setup, window
        self._loaded: _Loaded | None = None
        self._lane: Lane | None = None
        self._workers: Workers[ResidentBatch] = Workers()
        self._loading = threading.Lock()

    def start(self, work: BatchRequest) -> ResidentBatch:
        """See `Backend`; `wait` raises errors of a shard."""
        batch = self._workers.begin(lambda: ResidentBatch(self, work))
        batch.begin(work)
        return batch

    def submit(self, task: Task) -> None:
        """Run `task` in a thread. Raises `OptionError` after `close`."""
        self._workers.pool("batches", num_threads(self.setup)).submit(task)

    def mix(self, task: Task) -> None:
        """Run `task`, which mixes a batch, in the one thread for that. Raises `OptionError` after `close`.

        Each thread that mixes large pictures makes PyTorch start threads for it.
        """
        self._workers.pool("mixer", 1).submit(task)

    def make(self, work: BatchRequest) -> "tuple[torch.Tensor, dict[int, ImageError]]":
        """Return a batch, all but mixed, and its rows that are bad, and so black. Raises `ShardError`."""
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
        """Let PyTorch do the block's work beside the training, where the device can."""
        if self._lane is None:
            yield
            return
        with self._lane():
            yield

    def mark(self) -> "torch.cuda.Event | None":
        """Return an event at the end of what the device was given so far."""
        return None if self._lane is None else self._lane.mark()

    def hand_over(self, images: "torch.Tensor", mark: "torch.cuda.Event | None") -> "torch.Tensor":
        """Return a tensor that was made before `mark`, for use in the caller's current stream."""
        return images if self._lane is None else self._lane.hand_over(images, mark)

    def close(self) -> None:
        """See `Backend`."""
        self._workers.close()
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
        device = self.setup.options.device
        if device == "cpu":
            return HostStore(self.setup, self._window)
        from imgdata.backends.resident.device_store import DeviceStore, Lane

        self._lane = Lane(device)
        with self.lane():
            return DeviceStore(self.setup, self._window)

    def _check_wanted(self) -> None:
        """Raise `OptionError` where every batch was cancelled, or is gone with its loader: decoding can stop."""
        self._workers.check_open()
        if all(batch.cancelled for batch in self._workers.batches()):
            raise closed()


@contextmanager
def _at_exit(function: Callable[[], None]) -> Iterator[None]:
    """Call `function` first where the program ends within the block; not in a fork of it."""
    pid = os.getpid()

    def call() -> None:
        if os.getpid() == pid:
            function()

    atexit.register(call)
    try:
        yield
    finally:
        atexit.unregister(call)
