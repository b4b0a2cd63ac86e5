"""One batch of the CPU backend: work -> pixels in a buffer, row by row, by whichever threads can."""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imgdata.backends import postprocess
from imgdata.backends.cpu.native_rows import NativeJob
from imgdata.backends.ending import Ending
from imgdata.backends.pillow import operators
from imgdata.backends.protocol import Work
from imgdata.backends.shard_files import Lease
from imgdata.backends.threads import Threads
from imgdata.errors import ImageError

if TYPE_CHECKING:
    import torch

    from imgdata.backends.cpu.backend import CpuBackend

Task = Callable[[], None]


class CpuBatch:
    """See `Pending`. The memory is free again when nobody holds the batch, its tensor or a task."""

    def __init__(self, backend: "CpuBackend", work: Work) -> None:
        """Take memory; `begin` starts."""
        setup = backend.setup
        count, height, width = len(work.position_N), work.params.height, work.params.width
        self._shape_NHWC = (count, height, width, 3)
        self._backend, self._setup, self._mix = backend, setup, work.mix
        shape = self._shape_NHWC if setup.channels_last else (count, 3, height, width)
        self._memory = backend.buffers.take(shape, setup.dtype)
        self._pixels_NCHW: NDArray[Any] = self._memory.transpose(0, 3, 1, 2) if setup.channels_last else self._memory
        # One thread, and not the caller's: each that mixes makes PyTorch start threads for it, which don't survive a
        # fork of the thread that has used them. None where there is nothing to mix, or no more.
        self._mixer = None if work.mix.kind == "none" else backend.waiter()
        self._mix_late = False
        self._failed: dict[int, ImageError] = {}
        self._ending = Ending()
        self._job: NativeJob | None = None
        self._unasked: Task | None = None
        self._lock = threading.Lock()
        self._left = 0

    def begin(self, work: Work) -> None:
        """Start on all rows but those to skip, which become black."""
        self._pixels_NCHW[work.skip_N] = self._backend.black_311
        self._start(work, np.arange(len(work.position_N)))

    def wait(self) -> Mapping[int, ImageError]:
        """See `Pending`."""
        unasked, self._unasked = self._unasked, None
        if unasked is not None:
            unasked()
        self._ending.wait()
        failed, self._failed = self._failed, {}
        self._mix_late |= bool(failed)
        return failed

    def redo(self, rows: NDArray[np.int64], work: Work) -> Mapping[int, ImageError]:
        """See `Pending`."""
        self._start(work, rows)
        return self.wait()

    def images(self) -> "torch.Tensor":
        """See `Pending`."""
        if self._mixer is not None:
            self._submit([self._mix_images], self._mixer)
            self.wait()
        return self._tensor()

    def cancel(self) -> None:
        """See `Pending`."""
        self._ending.cancel()
        self._unasked = None
        if self._job is not None:
            self._job.cancel()

    # --- what is to be done ------------------------------------------------------------------------------------

    def _start(self, work: Work, row_N: NDArray[np.int64]) -> None:
        """Begin the samples of `work`, in the rows `row_N` of the batch."""
        # One more, so that nothing is done before all has begun.
        self._expect(1)
        self._run(partial(self._share_out, work, row_N))

    def _share_out(self, work: Work, row_N: NDArray[np.int64]) -> None:
        lease = self._backend.files.lease(work.position_N)
        rows = self._backend.native
        native_N = ~work.skip_N
        if rows is not None:
            native_N &= rows.among(work.position_N)
        else:
            native_N[:] = False
        number_M = np.flatnonzero(native_N)
        if rows is not None and len(number_M):
            apart = self._backend.apart
            windows = self._backend.windows.take(self._shape_NHWC, "uint8") if apart else self._memory
            planar = not (apart or self._setup.channels_last)
            self._job = rows.start(windows, work, lease, number_M, row_N[number_M], planar=planar)
            self._await_native(partial(self._after_native, self._job, windows, work, row_N, number_M, lease))
        self._submit_rows(work, row_N, np.flatnonzero(~native_N & ~work.skip_N), lease)

    def _await_native(self, then: Task) -> None:
        if self._backend.operates or self._backend.erases or self._mixer is not None:
            self._submit([then], self._backend.waiter())
            return
        # There is hardly anything to do: whoever waits for the batch does it, without another thread.
        self._expect(1)
        self._unasked = partial(self._run, then)

    def _after_native(
        self,
        job: NativeJob,
        windows: NDArray[Any],
        work: Work,
        row_N: NDArray[np.int64],
        number_M: NDArray[np.int64],
        lease: Lease,
    ) -> None:
        done_M = job.wait(self._backend.files)
        if self._ending.cancelled:
            return
        finish_row: Callable[[Work, int, int], None] = self._erase
        wanting_M = done_M & work.params.erase_N4[number_M, 2:].all(axis=1)
        if self._backend.operates:
            finish_row, wanting_M = partial(self._operate, windows), done_M
        pairs = zip(number_M[wanting_M].tolist(), row_N[number_M[wanting_M]].tolist(), strict=True)
        self._submit([partial(finish_row, work, number, row) for number, row in pairs])
        self._submit_rows(work, row_N, number_M[~done_M], lease)

    def _submit_rows(self, work: Work, row_N: NDArray[np.int64], number_M: NDArray[np.int64], lease: Lease) -> None:
        tasks = [partial(self._make, work, number, int(row_N[number]), lease) for number in number_M.tolist()]
        self._submit(tasks)

    # --- one row -----------------------------------------------------------------------------------------------

    def _make(self, work: Work, number: int, row: int, lease: Lease) -> None:
        """Sample `number` of `work`, in row `row` of the batch; black where it is bad."""
        try:
            pixels_HWC = self._backend.window(work, number, int(lease.file_N[number]))
        except ImageError as error:
            self._pixels_NCHW[row] = self._backend.black_311
            # Its traceback would hold the batch, which holds it.
            self._failed[row] = error.with_traceback(None)
            return
        postprocess.write(pixels_HWC, self._pixels_NCHW[row], *self._backend.scale_shift)
        self._erase(work, number, row)

    def _operate(self, windows: NDArray[Any], work: Work, number: int, row: int) -> None:
        """The same for a sample whose window the extension has made."""
        window_HWC = windows[row]
        pixels_HWC = operators.apply(window_HWC, work.params, number, self._setup.recipe)
        if pixels_HWC is not window_HWC or windows is not self._memory:
            postprocess.write(pixels_HWC, self._pixels_NCHW[row], *self._backend.scale_shift)
        self._erase(work, number, row)

    def _erase(self, work: Work, number: int, row: int) -> None:
        setup = self._setup
        postprocess.erase(self._pixels_NCHW[row], work.params, number, setup.recipe, seed=setup.seed, epoch=work.epoch)

    def _mix_images(self) -> None:
        self._mixer = None
        postprocess.mix_images(self._tensor(), self._mix)

    def _tensor(self) -> "torch.Tensor":
        import torch

        pixels = torch.from_numpy(self._memory)
        return pixels.permute(0, 3, 1, 2) if self._setup.channels_last else pixels

    # --- tasks, counted ----------------------------------------------------------------------------------------

    def _expect(self, tasks: int) -> None:
        """So many more are to be done before the batch is."""
        with self._lock:
            self._left += tasks

    def _submit(self, tasks: Sequence[Task], threads: Threads | None = None) -> None:
        if not tasks:
            return
        threads = threads or self._backend.rows()
        self._expect(len(tasks))
        for task in tasks:
            threads.submit(partial(self._run, task))

    def _run(self, task: Task) -> None:
        """One task that is expected; after the last one the batch is mixed, or done."""
        try:
            if not self._ending.given_up:
                task()
        except Exception as error:  # Whatever it is, `wait` raises it where the batch is wanted. Not so Ctrl-C.
            self._ending.fail(error)
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if not last:
            return
        # Now it costs the caller nothing. Where rows are bad, others have to take their place first.
        if self._mixer is not None and not (self._failed or self._mix_late or self._ending.given_up):
            self._submit([self._mix_images], self._mixer)
        else:
            self._ending.tell()
