"""The CPU backend: positions and parameters -> a batch in memory, by the host's cores.

JPEGs in colour or gray are the compiled extension's, from the file to the finished pixels. All else goes row by row
through Pillow: other formats, what the extension refuses, operators on pixels; everything where it was not built.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imgdata import native
from imgdata.backends import postprocess
from imgdata.backends.buffers import Buffers
from imgdata.backends.cpu.native_rows import NativeJob, NativeRows, crops_of, needs_windows, uses_native
from imgdata.backends.pillow import crop, operators
from imgdata.backends.protocol import BackendSetup, BatchRequest
from imgdata.backends.shard_files import Lease, ShardFiles
from imgdata.backends.workers import Completion, Task, Threads, Workers
from imgdata.errors import ImageError
from imgdata.recipes.ops import Cutout, RandomErasing

if TYPE_CHECKING:
    import torch


class CpuBatch:
    """See `PendingBatch`. Its memory is reused when the batch, its tensor and its tasks are no longer referenced.

    The states of a batch; sections below have their names::

        begin, redo
            v
         BEGUN        shards are opened, rows are shared out
            |----------------------------.
            v                            v
         NATIVE ROWS                  PILLOW ROWS      other formats; all where the extension can't be used
         the extension decodes        decoded, cut, operated on, normalised, erased; black where the picture is bad
            |----- refused rows -------> |
            v                            |
         FINISHED ROWS                   |
         operated on, erased             |
            |----------------------------'
            v
         COUNTED      the last task of all rows
            |---- rows are bad ----> SIGNALLED, `wait` returns them; `redo` begins again for these rows
            v
         MIXED        by one thread, where the recipe mixes; behind a `redo` only when `images` asks for it
            v
         SIGNALLED    `wait` returns

    Tasks of all states count (`_left`), so that a batch is signalled exactly once for each `begin` and `redo`. An error
    of any task, or `cancel`, leaves out what is not begun: the count still reaches 0.
    """

    def __init__(self, backend: "CpuBackend", work: BatchRequest) -> None:
        """Take memory; `begin` starts."""
        options = backend.setup.options
        count, height, width = len(work.position_N), work.params.height, work.params.width
        self._shape_NHWC = (count, height, width, options.channels)
        self._backend, self._options, self._mix = backend, options, work.mix
        shape = self._shape_NHWC if options.channels_last else (count, options.channels, height, width)
        self._memory = backend.buffers.take(shape, options.dtype)
        self._pixels_NCHW: NDArray[Any] = self._memory.transpose(0, 3, 1, 2) if options.channels_last else self._memory
        # One thread, and not the caller's: each thread that mixes makes PyTorch start threads for it, which don't
        # survive a fork of the thread that has used them. None where there is nothing to mix, or no more.
        self._mixer = None if work.mix.kind == "none" else backend.waiter()
        self._mix_late = False
        self._failed: dict[int, ImageError] = {}
        self._completion = Completion()
        self._job: NativeJob | None = None
        self._deferred: Task | None = None
        self._lock = threading.Lock()
        self._left = 0

    def begin(self, work: BatchRequest, begun: "Begun") -> None:
        """Start on all rows but those to skip, which become black."""
        self._pixels_NCHW[work.skip_N] = self._backend.black_311
        self._begin_rows(work, np.arange(len(work.position_N)), begun)

    def crops(self, work: BatchRequest) -> native.Crops:
        """Return what the extension has to make of the samples of `work`, and where it goes."""
        apart = self._backend.apart
        windows = self._backend.windows.take(self._shape_NHWC, "uint8") if apart else self._memory
        planar = not (apart or self._options.channels_last)
        return crops_of(self._options.recipe, windows, work.params, planar=planar)

    def wait(self) -> Mapping[int, ImageError]:
        """See `PendingBatch`."""
        deferred, self._deferred = self._deferred, None
        if deferred is not None:
            deferred()
        self._completion.wait()
        failed, self._failed = self._failed, {}
        self._mix_late |= bool(failed)
        return failed

    def redo(self, rows: NDArray[np.int64], work: BatchRequest) -> Mapping[int, ImageError]:
        """See `PendingBatch`."""
        self._begin_rows(work, rows, Begun([(self, work)], rows, self._backend))
        return self.wait()

    def images(self) -> "torch.Tensor":
        """See `PendingBatch`."""
        if self._mixer is not None:
            self._submit([self._mix_images], self._mixer)
            self.wait()
        return self._tensor()

    def cancel(self) -> None:
        """See `PendingBatch`."""
        self._completion.cancel()
        self._deferred = None
        if self._job is not None:
            self._job.cancel()

    @property
    def is_abandoned(self) -> bool:
        """Whether the rest of the work can be left out."""
        return self._completion.abandoned

    # --- BEGUN -------------------------------------------------------------------------------------------------

    def _begin_rows(self, work: BatchRequest, row_N: NDArray[np.int64], begun: "Begun") -> None:
        """Begin the samples of `work`, in the rows `row_N` of the batch."""
        # Sharing out counts as a task of its own, so that the count doesn't reach 0 before all rows have begun.
        share_out = partial(self._share_out, work, row_N, begun)
        if self._backend.files.fetches:
            # It waits for a store. Several batches wait at a time, and the caller does not.
            self._submit([share_out], self._backend.fetchers())
            return
        self._expect(1)
        self._run(share_out)

    def _share_out(self, work: BatchRequest, row_N: NDArray[np.int64], begun: "Begun") -> None:
        lease, native_N, job, windows = begun.of(self)
        if job is not None:
            self._begin_native_rows(work, row_N, np.flatnonzero(native_N), lease, job, windows)
        self._begin_pillow_rows(work, row_N, np.flatnonzero(~native_N & ~work.skip_N), lease)

    # --- NATIVE ROWS -------------------------------------------------------------------------------------------

    def _begin_native_rows(
        self,
        work: BatchRequest,
        row_N: NDArray[np.int64],
        number_M: NDArray[np.int64],
        lease: Lease,
        job: NativeJob,
        windows: NDArray[Any],
    ) -> None:
        """Let a thread wait for the extension, which has samples `number_M` of `work`."""
        self._job = job
        finish = partial(self._finish_native_rows, job, windows, work, row_N, number_M, lease)
        # Of a batch that is fetched, the one who waits for it may have looked for something left to do already.
        fetched = self._backend.files.fetches
        if fetched or self._backend.operates or self._backend.erases or self._mixer is not None:
            self._submit([finish], self._backend.waiter())
            return
        # There is hardly anything left to do: the thread that waits for the batch does it, without another thread.
        self._expect(1)
        self._deferred = partial(self._run, finish)

    def _finish_native_rows(
        self,
        job: NativeJob,
        windows: NDArray[Any],
        work: BatchRequest,
        row_N: NDArray[np.int64],
        number_M: NDArray[np.int64],
        lease: Lease,
    ) -> None:
        """Wait for the extension; finish the rows that it made, and pass those that it refused to Pillow."""
        done_M = job.wait(self._backend.files)
        if self._completion.cancelled:
            return
        finish_row: Callable[[BatchRequest, int, int], None] = self._erase
        unfinished_M = done_M & work.params.erase_N4[number_M, 2:].all(axis=1)
        if self._backend.operates:
            finish_row, unfinished_M = partial(self._operate, windows), done_M
        pairs = zip(number_M[unfinished_M].tolist(), row_N[number_M[unfinished_M]].tolist(), strict=True)
        self._submit([partial(finish_row, work, number, row) for number, row in pairs])
        self._begin_pillow_rows(work, row_N, number_M[~done_M], lease)

    # --- FINISHED ROWS -----------------------------------------------------------------------------------------

    def _operate(self, windows: NDArray[Any], work: BatchRequest, number: int, row: int) -> None:
        """Apply the operators to the extension's window of sample `number` of `work`, normalise it and erase in it."""
        window_HWC = windows[row]
        pixels_HWC = operators.apply(window_HWC, work.params, number, self._options.recipe)
        if pixels_HWC is not window_HWC or windows is not self._memory:
            postprocess.write(pixels_HWC, self._pixels_NCHW[row], *self._backend.scale_shift)
        self._erase(work, number, row)

    def _erase(self, work: BatchRequest, number: int, row: int) -> None:
        options = self._options
        postprocess.erase(
            self._pixels_NCHW[row], work.params, number, options.recipe, seed=options.seed, epoch=work.epoch
        )

    # --- PILLOW ROWS -------------------------------------------------------------------------------------------

    def _begin_pillow_rows(
        self, work: BatchRequest, row_N: NDArray[np.int64], number_M: NDArray[np.int64], lease: Lease
    ) -> None:
        self._submit([partial(self._make_row, work, number, int(row_N[number]), lease) for number in number_M.tolist()])

    def _make_row(self, work: BatchRequest, number: int, row: int, lease: Lease) -> None:
        """Make row `row` of the batch of sample `number` of `work`; black where the picture is bad."""
        try:
            pixels_HWC = self._backend.window(work, number, lease)
        except ImageError as error:
            self._pixels_NCHW[row] = self._backend.black_311
            # The error's traceback would reference the batch, which references the error.
            self._failed[row] = error.with_traceback(None)
            return
        postprocess.write(pixels_HWC, self._pixels_NCHW[row], *self._backend.scale_shift)
        self._erase(work, number, row)

    # --- COUNTED -----------------------------------------------------------------------------------------------

    def _expect(self, tasks: int) -> None:
        """Count so many tasks more, which have to be run before the batch is done."""
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
        """Run one task that was counted; after the last one the batch is mixed, or signalled."""
        try:
            if not self._completion.abandoned:
                task()
        except Exception as error:  # Any error is raised by `wait`, where the batch is needed. Ctrl-C is not.
            self._completion.fail(error)
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if not last:
            return
        # Mixing costs the caller nothing now. Where rows are bad, others have to take their place first.
        if self._mixer is not None and not (self._failed or self._mix_late or self._completion.abandoned):
            self._submit([self._mix_images], self._mixer)
        else:
            self._completion.signal()

    # --- MIXED -------------------------------------------------------------------------------------------------

    def _mix_images(self) -> None:
        self._mixer = None
        postprocess.mix_images(self._tensor(), self._mix)

    def _tensor(self) -> "torch.Tensor":
        import torch

        pixels = torch.from_numpy(self._memory)
        return pixels.permute(0, 3, 1, 2) if self._options.channels_last else pixels


class Begun:
    """What several views of the same samples begin together, and one alone: files, and the extension's work.

    Made by the first batch that asks, so that an error of a shard is an error of each batch.
    """

    def __init__(
        self, views: Sequence[tuple[CpuBatch, BatchRequest]], row_N: NDArray[np.int64], backend: "CpuBackend"
    ) -> None:
        """Prepare the rows `row_N` of the batches."""
        self._views, self._row_N, self._backend = views, row_N, backend
        self._made: tuple[Lease, NDArray[np.bool_], NativeJob | None, list[native.Crops]] | None = None
        # Views of remote samples ask from several threads.
        self._lock = threading.Lock()

    def of(self, batch: CpuBatch) -> tuple[Lease, NDArray[np.bool_], NativeJob | None, NDArray[Any]]:
        """Return open files, which samples the extension makes, its work, and where it puts those of `batch`."""
        with self._lock:
            self._made = self._made or self._make()
        lease, native_N, job, crops = self._made
        number = next(number for number, (one, _) in enumerate(self._views) if one is batch)
        return lease, native_N, job, crops[number].images if crops else np.empty(0)

    def _is_given_up(self) -> bool:
        return all(batch.is_abandoned for batch, _ in self._views)

    def _make(self) -> tuple[Lease, NDArray[np.bool_], NativeJob | None, list[native.Crops]]:
        work, backend = self._views[0][1], self._backend
        lease = backend.files.lease(work.position_N, given_up=self._is_given_up)
        native_N = backend.by_native(work)
        number_M = np.flatnonzero(native_N)
        if backend.native is None or not len(number_M):
            return lease, native_N, None, []
        crops = [one.crops(its_work) for one, its_work in self._views]
        return lease, native_N, backend.native.start(crops, work, lease, number_M, self._row_N[number_M]), crops


class CpuBackend:
    """Makes batches in threads. Safe in threads."""

    def __init__(self, setup: BackendSetup, beside: "CpuBackend | None" = None) -> None:
        """Start the extension's threads, where it was built. Others start when they are first needed.

        A further view of the same pictures has the files and threads of the backend `beside` it.
        """
        options = setup.options
        self.setup = setup
        self.buffers = Buffers(keep=setup.buffers, pinned_for=options.device if setup.pinned else None)
        self.windows = Buffers(keep=setup.buffers)
        self.scale_shift = postprocess.scale_shift(options.recipe, options.channels)
        self.black_311 = postprocess.black(options.recipe, options.dtype, options.channels)
        self.operates = operators.works_on_pixels(options.recipe)
        self.apart = needs_windows(setup)
        self.erases = bool(options.recipe.find(RandomErasing) or options.recipe.find(Cutout))
        self.files: ShardFiles = ShardFiles(setup.split) if beside is None else beside.files
        self._workers: Workers[CpuBatch] = Workers() if beside is None else beside._workers
        self.native = self._workers.once("native", lambda: NativeRows(setup)) if uses_native(setup) else None

    def start(self, work: BatchRequest) -> CpuBatch:
        """See `Backend`; `wait` raises errors of a shard."""
        return start_together([self], [work])[0]

    def prepare(self, work: BatchRequest) -> CpuBatch:
        """Return a batch that nothing was begun of."""
        return self._workers.begin(lambda: CpuBatch(self, work))

    def rows(self) -> Threads:
        """Return the threads for rows that Pillow makes."""
        return self._workers.pool("rows", self.setup.options.threads)

    def waiter(self) -> Threads:
        """Return the one thread that waits for the extension, in the order of the batches, and that mixes."""
        return self._workers.pool("waiter", 1)

    def fetchers(self) -> Threads:
        """Return the threads that wait for a store, one for each batch in work."""
        return self._workers.pool("fetchers", self.setup.options.prefetch + 1)

    def by_native(self, work: BatchRequest) -> NDArray[np.bool_]:
        """Return which samples of `work` the extension may make, bool `(N,)`."""
        if self.native is None:
            return np.zeros(len(work.position_N), bool)
        native_N: NDArray[np.bool_] = ~work.skip_N & self.native.among(work.position_N)
        return native_N

    def window(self, work: BatchRequest, number: int, lease: Lease) -> NDArray[Any]:
        """Return sample `number` of `work` up to where it is normalised, uint8 `(H, W, C)`. Raises `ImageError`.

        A gray picture of 16 bits whose depth is kept is float32, 0 to 255.
        """
        setup, index = self.setup, self.setup.split.index
        recipe, position = setup.options.recipe, int(work.position_N[number])
        image = crop.cut_image(
            self.files.read(lease, number),
            size=(int(index.width_N[position]), int(index.height_N[position])),
            format=index.words("format")[index.array("format")[position]],
            params=work.params,
            row=number,
            recipe=recipe,
            max_pixels=setup.max_pixels,
            exact=setup.options.exact,
            channels=setup.options.channels,
            deep=setup.options.deep,
        )
        if self.operates:
            image = operators.apply_image(image, work.params, number, recipe)
        pixels = np.asarray(image)
        return pixels if pixels.ndim == 3 else pixels[:, :, None]

    def close(self) -> None:
        """See `Backend`."""
        self._workers.close()


def start_together(backends: Sequence[CpuBackend], works: Sequence[BatchRequest]) -> tuple[CpuBatch, ...]:
    """Begin a batch of the same samples by each backend; each picture is read and decoded once by the extension."""
    views = [(backend.prepare(work), work) for backend, work in zip(backends, works, strict=True)]
    begun = Begun(views, np.arange(len(works[0].position_N)), backends[0])
    for batch, work in views:
        batch.begin(work, begun)
    return tuple(batch for batch, _ in views)
