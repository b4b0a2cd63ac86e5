"""The DALI backend: positions and parameters -> batches on a device, by one pipeline.

Threads read the bytes. The pipeline decodes the part of a picture that its crop needs, resizes, cuts the window and
flips it, and normalises where nothing comes in between; operators on pixels are `torch_ops`. What DALI doesn't take
is cut on the host and put in its place.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.dlpack import from_dlpack

from imgdata.backends import postprocess, torch_ops
from imgdata.backends.dali import available
from imgdata.backends.dali.crop_probe import crop_decode_is_safe
from imgdata.backends.dali.geometry import Shape
from imgdata.backends.dali.held_tensors import Held
from imgdata.backends.dali.options import DaliOptions, dali_options
from imgdata.backends.dali.pipeline import GraphSpec
from imgdata.backends.dali.pipeline_run import Means, Part, failures
from imgdata.backends.dali.pipeline_thread import Line
from imgdata.backends.dali.undecodable import Known
from imgdata.backends.pillow import operators
from imgdata.backends.protocol import BackendSetup, BatchRequest
from imgdata.backends.shard_files import ShardFiles
from imgdata.backends.torch_ops.batched import upload
from imgdata.backends.workers import Completion, Threads, Workers, closed
from imgdata.dataset.index import index_id
from imgdata.dataset.lazy_array import MAX_WHOLE
from imgdata.errors import ImageError
from imgdata.recipes.moves import ScaleJitter
from imgdata.recipes.ops import (
    CenterCrop,
    FixedCrop,
    HorizontalFlip,
    Normalize,
    PadRandomCrop,
    VerticalFlip,
)
from imgdata.recipes.recipe import Recipe
from imgdata.storage.cache_folder import cache_folder

_READERS = 4
"""Threads that read, and cut what DALI doesn't take, at most."""
Task = Callable[[], Any]


class DaliBatch:
    """See `PendingBatch`."""

    def __init__(self, backend: "DaliBackend", work: BatchRequest) -> None:
        """Prepare the batch; `begin` starts it."""
        self._backend, self._work = backend, work
        self._row_N = np.arange(len(work.position_N))
        self._images: torch.Tensor | None = None
        self._mixed = work.mix.kind == "none"
        self._completion = Completion()
        self._part: Part | None = None

    def begin(self) -> None:
        """Start on all rows but those to skip, which become black."""
        self._start(self._work, self._row_N)

    def wait(self) -> Mapping[int, ImageError]:
        """See `PendingBatch`."""
        self._completion.wait()
        part = self._part
        if part is None:
            # Cancelled by another thread, right now.
            raise closed()
        if self._backend.finisher is None:
            # Here, not before: it goes into the stream of the thread that takes the batch.
            self._finish(part)
        self._part = None
        return failures(part, self._row_N)

    def redo(self, rows: NDArray[np.int64], work: BatchRequest) -> Mapping[int, ImageError]:
        """See `PendingBatch`."""
        self._start(work, rows)
        return self.wait()

    def images(self) -> torch.Tensor:
        """See `PendingBatch`."""
        assert self._images is not None, "images() comes behind wait()"
        if not self._mixed:
            self._mixed = True
            self._run(partial(postprocess.mix_images, self._images, self._work.mix))
            self._completion.wait()
        return self._images

    def cancel(self) -> None:
        """See `PendingBatch`."""
        self._completion.cancel()
        part, self._part = self._part, None
        if part is not None:
            part.cancel()

    # --- steps -------------------------------------------------------------------------------------------------

    def _start(self, work: BatchRequest, row_N: NDArray[np.int64]) -> None:
        self._row_N = row_N
        self._part = part = Part(self._backend.means, work, self._through)
        if self._completion.cancelled:
            part.cancel()
        part.begin()

    def _through(self, part: Part) -> None:
        """Finish a part whose rows were made, or pass on its fault; called by any thread."""
        if part.fault is not None:
            self._completion.fail(part.fault)
        if part.fault or part.cancelled or self._backend.finisher is None:
            self._completion.signal()
        else:
            self._run(partial(self._finish, part))

    def _finish(self, part: Part) -> None:
        """Put the part's finished rows into the batch."""
        device_id = self._backend.spec.device_id
        # What is pinned takes memory of the current device; -1 changes nothing.
        with torch.cuda.device(-1 if device_id is None else device_id):
            images = self._backend.finished(part)
            if self._images is None:
                self._images = images
            else:
                put_rows(self._images, self._row_N, images)

    def _run(self, task: Task) -> None:
        """Do it; on the processor in a thread for that.

        PyTorch starts threads for each thread that has much to do, and they don't survive a fork of it.
        """
        finisher = self._backend.finisher
        if finisher is None:
            self._guard(task)
        else:
            finisher.submit(partial(self._guard, task))

    def _guard(self, task: Task) -> None:
        try:
            if not self._completion.cancelled:
                task()
        except BaseException as error:  # Any error is raised where the batch is needed.
            self._completion.fail(error)
        self._completion.signal()


def put_rows(images: torch.Tensor, row_K: NDArray[np.int64], pixels: torch.Tensor | NDArray[Any]) -> None:
    """Put `(K, C, H, W)`, or one value for all of the rows, into `(N, C, H, W)`; the host does not wait for a GPU.

    On the processor by NumPy: waking PyTorch's threads takes longer than copying a few rows.
    """
    if images.device.type == "cpu":
        images.numpy()[row_K] = np.asarray(pixels)
        return
    (rows,) = upload([row_K], images.device)
    images[rows] = pixels if isinstance(pixels, torch.Tensor) else upload([pixels], images.device)[0]


class DaliBackend:
    """Makes batches by DALI. Safe in threads."""

    def __init__(self, setup: BackendSetup) -> None:
        """Open the shards' index. Raises `OptionError` for settings of DALI that have no meaning."""
        options = dali_options(setup.options.dali_options)
        setup.split.index.load(("shard", "offset", "size", "width", "height", "format"))
        self.setup = setup
        self.spec = spec = _spec(setup, options)
        self.files = ShardFiles(setup.split)
        self.known = Known(_known_file(setup, spec))
        self._workers: Workers[DaliBatch] = Workers()
        # On a GPU all is done in the stream of the thread that takes the batch.
        self.finisher = self._workers.pool("finisher", 1) if setup.options.device == "cpu" else None
        self._held = self._workers.once("held", Held)
        self.means = Means(
            setup=setup,
            spec=spec,
            files=self.files,
            known=self.known,
            readers=partial(_readers, self._workers, setup.options.threads),
            enqueue=partial(_enqueue, self._workers, spec, options.depth),
        )
        self._operates = operators.works_on_pixels(setup.options.recipe)
        self._scale_shift = postprocess.scale_shift(setup.options.recipe)
        self._kept_factors: tuple[torch.Tensor, torch.Tensor] | None = None

    def start(self, work: BatchRequest) -> DaliBatch:
        """See `Backend`; `wait` raises errors of a shard."""
        batch = self._workers.begin(lambda: DaliBatch(self, work))
        batch.begin()
        return batch

    def finished(self, part: Part) -> torch.Tensor:
        """Return all rows of a part, `(N, C, H, W)`, with all that follows the flips done; bad rows are black."""
        options, params = self.setup.options, part.work.params
        tensor = from_dlpack(part.pixels)
        images = tensor.permute(0, 3, 1, 2) if self.spec.channels_last else tensor
        self._put_windows(images, part)
        if self._operates:
            images = torch_ops.apply(images, params, options.recipe)
            dtype = getattr(torch, options.dtype)
            images = torch_ops.normalise(images, *self._factors(images.device), dtype, options.channels_last)
        images = torch_ops.erase(images, params, options.recipe, options.seed, part.work.epoch)
        dead = np.flatnonzero(part.work.skip_N).tolist() + list(part.failed)
        if dead:
            dead_D = np.array(sorted(set(dead)))
            put_rows(images, dead_D, postprocess.black(options.recipe, options.dtype).astype(options.dtype))
        return self._own(images, tensor, part) if images.device.type == "cuda" else images

    def close(self) -> None:
        """See `Backend`."""
        self._workers.close()

    def _factors(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scale and shift on the device, copied once: the copy is through before any stream uses them."""
        if self._kept_factors is None:
            scale_3, shift_3 = self._scale_shift
            self._kept_factors = torch.tensor(scale_3, device=device), torch.tensor(shift_3, device=device)
        return self._kept_factors

    def _put_windows(self, images: torch.Tensor, part: Part) -> None:
        """Put the rows that the host made into the batch, as DALI would have made them."""
        if not part.windows:
            return
        rows = sorted(part.windows)
        dtype = "uint8" if self._operates else self.setup.options.dtype
        host_KCHW = np.empty((len(rows), *images.shape[1:]), dtype)
        for window_CHW, row in zip(host_KCHW, rows, strict=True):
            postprocess.write(part.windows[row], window_CHW, *self._scale_shift)
        put_rows(images, np.array(rows), host_KCHW)

    def _own(self, images: torch.Tensor, tensor: torch.Tensor, part: Part) -> torch.Tensor:
        """Return the batch in PyTorch's memory, copied in the caller's stream; hold DALI's until it was read.

        A copy inside the GPU is a thousandth of a decode.
        """
        if images.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr():
            images = images.clone()
        self._held.until_read((tensor, part.pixels), images.device)
        part.pixels = None
        return images


def _readers(workers: Workers[DaliBatch], threads: int) -> Threads:
    return workers.pool("readers", min(threads, _READERS))


def _enqueue(workers: Workers[DaliBatch], spec: GraphSpec, depth: int, part: Part) -> None:
    workers.once("pipeline", lambda: Line(spec, depth)).put(part)


def _spec(setup: BackendSetup, options: DaliOptions) -> GraphSpec:
    recipe = setup.options.recipe
    device_id = _device_id(setup.options.device)
    # Operators on pixels are between the flips and `Normalize`.
    operates = operators.works_on_pixels(recipe)
    normalize = recipe.find(Normalize)
    mean_3 = np.array(normalize.mean if normalize else (0.0, 0.0, 0.0)) * 255
    std_3 = np.array(normalize.std if normalize else (1.0, 1.0, 1.0)) * 255
    crop_decode = options.crop_decode
    if crop_decode is None:
        crop_decode = device_id is None or crop_decode_is_safe(device_id)
    return GraphSpec(
        batch_size=setup.options.batch_size,
        threads=setup.options.threads,
        device_id=device_id,
        shape=_shape(recipe),
        flips=recipe.find(HorizontalFlip) is not None,
        vflips=recipe.find(VerticalFlip) is not None,
        dtype="uint8" if operates else setup.options.dtype,
        channels_last=operates or setup.options.channels_last,
        mean_3=(float(mean_3[0]), float(mean_3[1]), float(mean_3[2])),
        std_3=(float(std_3[0]), float(std_3[1]), float(std_3[2])),
        crop_decode=crop_decode,
        hw_decoder_load=options.decoder_load(setup.options.threads),
        largest_2=_largest(setup) if options.preallocate else None,
    )


_USUAL = 0.999
"""Share of the pictures for which decoders take memory at once; for larger ones their memory grows."""
_LOOKED_AT = 65_536
"""Pictures that are looked at, of a split whose columns no memory holds."""
_HINT_PIXELS = 25_000_000
"""Largest picture for which they do: the engine takes it for each of its share of a batch."""


def _largest(setup: BackendSetup) -> tuple[int, int] | None:
    """Return width and height of the largest usual picture that DALI may get; the index may be wrong about bad ones."""
    index = setup.split.index
    if not len(index):
        return None
    some: Any = slice(None)
    if len(index) > MAX_WHOLE:
        some = np.linspace(0, len(index) - 1, _LOOKED_AT).astype(np.int64)
    width_N, height_N = index.width_N[some].astype(np.int64), index.height_N[some]
    pixels_N = width_N * height_N
    is_jpeg_N = np.array([word == "jpeg" for word in index.words("format")])[index.array("format")[some]]
    usual_N = np.flatnonzero(is_jpeg_N & (pixels_N > 0) & (pixels_N <= setup.max_pixels))
    usual_N = usual_N[np.argsort(pixels_N[usual_N], kind="stable")][: math.ceil(len(usual_N) * _USUAL)]
    usual_N = usual_N[pixels_N[usual_N] <= _HINT_PIXELS]
    return (int(width_N[usual_N[-1]]), int(height_N[usual_N[-1]])) if len(usual_N) else None


def _known_file(setup: BackendSetup, spec: GraphSpec) -> Path:
    decoder = "cpu" if spec.device_id is None else "gpu-crop" if spec.crop_decode else "gpu"
    return cache_folder() / f"dali-{available.load().__version__}-{decoder}-{index_id(setup.split.index)}.jsonl"


def _shape(recipe: Recipe) -> Shape:
    return Shape(
        resizes=recipe.resampling is not None,
        radius=2 if recipe.resampling == "bicubic" else 1,
        margins=recipe.find(PadRandomCrop) is not None
        or recipe.find(ScaleJitter) is not None
        or (recipe.resampling is None and any(isinstance(op, CenterCrop | FixedCrop) for op in recipe.ops)),
        mirrored=recipe.mirrors_margins,
    )


def _device_id(device: str) -> int | None:
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return None
    return int(number) if number else torch.cuda.current_device()
