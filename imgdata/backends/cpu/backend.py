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

from imgdata.backends import postprocess
from imgdata.backends.cpu.native_rows import NativeJob
from imgdata.backends.pillow import operators
from imgdata.backends.protocol import BatchRequest
from imgdata.backends.shard_files import Lease
from imgdata.backends.workers import Ending, Threads
from imgdata.errors import ImageError

if TYPE_CHECKING:
    import torch


import weakref

import PIL

from imgdata import native
from imgdata.backends.buffers import Buffers
from imgdata.backends.cpu.native_rows import NativeRows
from imgdata.backends.pillow import crop
from imgdata.backends.protocol import BackendSetup
from imgdata.backends.protocol import memory as batch_memory
from imgdata.backends.shard_files import ShardFiles
from imgdata.backends.workers import alive, begun, closed
from imgdata.recipes.ops import Cutout, RandomErasing

Task = Callable[[], None]


class CpuBatch:
    """See `PendingBatch`. The memory is free again when nobody holds the batch, its tensor or a task."""

    def __init__(self, backend: "CpuBackend", work: BatchRequest) -> None:
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

    def begin(self, work: BatchRequest) -> None:
        """Start on all rows but those to skip, which become black."""
        self._pixels_NCHW[work.skip_N] = self._backend.black_311
        self._start(work, np.arange(len(work.position_N)))

    def wait(self) -> Mapping[int, ImageError]:
        """See `PendingBatch`."""
        unasked, self._unasked = self._unasked, None
        if unasked is not None:
            unasked()
        self._ending.wait()
        failed, self._failed = self._failed, {}
        self._mix_late |= bool(failed)
        return failed

    def redo(self, rows: NDArray[np.int64], work: BatchRequest) -> Mapping[int, ImageError]:
        """See `PendingBatch`."""
        self._start(work, rows)
        return self.wait()

    def images(self) -> "torch.Tensor":
        """See `PendingBatch`."""
        if self._mixer is not None:
            self._submit([self._mix_images], self._mixer)
            self.wait()
        return self._tensor()

    def cancel(self) -> None:
        """See `PendingBatch`."""
        self._ending.cancel()
        self._unasked = None
        if self._job is not None:
            self._job.cancel()

    # --- what is to be done ------------------------------------------------------------------------------------

    def _start(self, work: BatchRequest, row_N: NDArray[np.int64]) -> None:
        """Begin the samples of `work`, in the rows `row_N` of the batch."""
        # One more, so that nothing is done before all has begun.
        self._expect(1)
        self._run(partial(self._share_out, work, row_N))

    def _share_out(self, work: BatchRequest, row_N: NDArray[np.int64]) -> None:
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
        work: BatchRequest,
        row_N: NDArray[np.int64],
        number_M: NDArray[np.int64],
        lease: Lease,
    ) -> None:
        done_M = job.wait(self._backend.files)
        if self._ending.cancelled:
            return
        finish_row: Callable[[BatchRequest, int, int], None] = self._erase
        wanting_M = done_M & work.params.erase_N4[number_M, 2:].all(axis=1)
        if self._backend.operates:
            finish_row, wanting_M = partial(self._operate, windows), done_M
        pairs = zip(number_M[wanting_M].tolist(), row_N[number_M[wanting_M]].tolist(), strict=True)
        self._submit([partial(finish_row, work, number, row) for number, row in pairs])
        self._submit_rows(work, row_N, number_M[~done_M], lease)

    def _submit_rows(
        self, work: BatchRequest, row_N: NDArray[np.int64], number_M: NDArray[np.int64], lease: Lease
    ) -> None:
        tasks = [partial(self._make, work, number, int(row_N[number]), lease) for number in number_M.tolist()]
        self._submit(tasks)

    # --- one row -----------------------------------------------------------------------------------------------

    def _make(self, work: BatchRequest, number: int, row: int, lease: Lease) -> None:
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

    def _operate(self, windows: NDArray[Any], work: BatchRequest, number: int, row: int) -> None:
        """The same for a sample whose window the extension has made."""
        window_HWC = windows[row]
        pixels_HWC = operators.apply(window_HWC, work.params, number, self._setup.recipe)
        if pixels_HWC is not window_HWC or windows is not self._memory:
            postprocess.write(pixels_HWC, self._pixels_NCHW[row], *self._backend.scale_shift)
        self._erase(work, number, row)

    def _erase(self, work: BatchRequest, number: int, row: int) -> None:
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


class CpuBackend:
    """Makes batches in threads. Safe in threads."""

    def __init__(self, setup: BackendSetup) -> None:
        """Start the extension's threads, where it was built. Others start when they are first needed."""
        self.setup = setup
        self.buffers = Buffers(keep=setup.buffers, pinned_for=setup.device if setup.pinned else None)
        self.windows = Buffers(keep=setup.buffers)
        self.scale_shift = postprocess.scale_shift(setup.recipe)
        self.black_311 = postprocess.black(setup.recipe, setup.dtype)
        self.operates = operators.works_on_pixels(setup.recipe)
        self.apart = _apart(setup)
        self.erases = bool(setup.recipe.find(RandomErasing) or setup.recipe.find(Cutout))
        self.files = ShardFiles(setup.split)
        self.native = NativeRows(setup) if _uses_native(setup) else None
        self._pools: dict[str, Threads] = {}
        self._batches: list[weakref.ref[CpuBatch]] = []
        self._closed = False
        # Reentrant, since the collector may close a loader that nobody holds anywhere.
        self._lock = threading.RLock()

    def start(self, work: BatchRequest) -> CpuBatch:
        """See `Backend`; what is wrong with a shard is heard from `wait`."""
        with self._lock:
            self._check_open()
            batch = CpuBatch(self, work)
            self._batches = begun(self._batches, batch)
        batch.begin(work)
        return batch

    def rows(self) -> Threads:
        """The threads for what Pillow does."""
        return self._pool("rows", self.setup.threads)

    def waiter(self) -> Threads:
        """One thread that waits for the extension where there is something to do to its rows, in their order."""
        return self._pool("waiter", 1)

    def window(self, work: BatchRequest, number: int, file: int) -> NDArray[np.uint8]:
        """Sample `number` of `work` up to where it is normalised, uint8 `(H, W, 3)`. Raises `ImageError`."""
        setup, index = self.setup, self.setup.split.index
        position = int(work.position_N[number])
        image = crop.cut_image(
            self.files.read(position, file),
            size=(int(index.width_N[position]), int(index.height_N[position])),
            format=index.words("format")[index.array("format")[position]],
            params=work.params,
            row=number,
            recipe=setup.recipe,
            max_pixels=setup.max_pixels,
        )
        if self.operates:
            image = operators.apply_image(image, work.params, number, setup.recipe)
        return np.asarray(image)

    def close(self) -> None:
        """See `Backend`."""
        with self._lock:
            self._closed = True
            pools = list(self._pools.values())
        for batch in alive(self._batches):
            batch.cancel()
        for pool in pools:
            pool.close()
        if self.native is not None:
            self.native.close()

    def _pool(self, name: str, count: int) -> Threads:
        with self._lock:
            self._check_open()
            if name not in self._pools:
                self._pools[name] = Threads(count)
            return self._pools[name]

    def _check_open(self) -> None:
        if self._closed:
            raise closed()


def memory(setup: BackendSetup, epoch: int) -> int:
    """Bytes that the batches of `epoch` take together, at most, unless the caller keeps more of them."""
    return batch_memory(setup, epoch, apart=_apart(setup))


def _apart(setup: BackendSetup) -> bool:
    """Whether the extension's pixels need a place of their own, in bytes, for the operators that come after it.

    A batch of bytes in their order is itself the place.
    """
    in_place = setup.dtype == "uint8" and setup.channels_last
    return _uses_native(setup) and operators.works_on_pixels(setup.recipe) and not in_place


def _uses_native(setup: BackendSetup) -> bool:
    return native.AVAILABLE and not setup.exact


def describe(setup: BackendSetup) -> str:
    """What does the work, and why; in one line."""
    pillow = f"Pillow{'-SIMD' if '.post' in PIL.__version__ else ''} {PIL.__version__}"
    threads = f"{setup.threads} thread{'s' if setup.threads > 1 else ''}"
    if setup.exact:
        return f"cpu: {pillow}, {threads}; exact pixels were asked for, and the native extension rounds differently"
    if not native.AVAILABLE:
        return (
            f"cpu: {pillow}, {threads}; the native extension was not built: install gcc and the headers of "
            "libjpeg-turbo, and imgdata again"
        )
    formats = setup.split.index.words("format")
    if "jpeg" not in formats:
        return f"cpu: {pillow}, {threads}; the native extension reads JPEG, and the images are {', '.join(formats)}"
    others = "" if formats == ["jpeg"] else f", {pillow} for {', '.join(word for word in formats if word != 'jpeg')}"
    on_pixels = f", {pillow} for operators on pixels" if operators.works_on_pixels(setup.recipe) else ""
    return (
        f"cpu: native extension (libjpeg-turbo {native.libjpeg_version()}, {native.SIMD[-1]}), {threads}"
        f"{others}{on_pixels}"
    )
