"""A case -> processor time of each stage of the CPU backend for one image, on a sample of the split.

The backend itself is run, with more and more to do: read, decode, resize, operators, finish. A stage is what it costs
more than the one before, so the stages add up to the whole.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from imgdata.augment.mix import mix_params
from imgdata.augment.params import BatchParams, params
from imgdata.backends.cpu.backend import CpuBackend
from imgdata.backends.options import LoaderOptions
from imgdata.backends.pillow import crop, operators
from imgdata.backends.protocol import BackendSetup, BatchRequest
from imgdata.backends.shard_files import ShardFiles
from imgdata.errors import ImageError, ShardError
from imgdata.images.decode import refuse_large
from imgdata.images.probe import probe
from imgdata.measure.timing import least_cpu_ms
from imgdata.recipes.functions import BatchApply
from imgdata.recipes.moves import RandomResize, ScaleJitter
from imgdata.recipes.ops import (
    CenterCrop,
    CutMix,
    Cutout,
    FixedCrop,
    HorizontalFlip,
    MixUp,
    MixUpOrCutMix,
    Normalize,
    PadRandomCrop,
    RandomErasing,
    RandomResizedCrop,
    Resize,
    VerticalFlip,
)
from imgdata.recipes.recipe import Recipe

_GEOMETRY = (
    Resize
    | RandomResize
    | RandomResizedCrop
    | CenterCrop
    | FixedCrop
    | PadRandomCrop
    | ScaleJitter
    | HorizontalFlip
    | VerticalFlip
)
_BEHIND = Normalize | RandomErasing | Cutout | MixUp | CutMix | MixUpOrCutMix | BatchApply
_SAMPLE_PIXELS = 64_000_000
"""Pixels of all pictures of a sample: half a second of decoding on one core."""
_LEAST_IMAGES, _MOST_IMAGES = 16, 1024
_WINDOW_BYTES = 2**26
"""Pixels that are decoded at a time, where nothing makes them fewer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageTimes:
    """Processor milliseconds for one image, in one thread."""

    read_ms: float
    """Reading, from the page cache."""
    full_decode_ms: float
    """Decoding the whole picture by simplejpeg or Pillow: what most loaders do, for comparison."""
    decode_ms: float
    """Decoding the part that the recipe needs."""
    resize_ms: float
    """Resizing, with flips. Where the decoder halves the sides, decoding and resizing are one, and this is 0."""
    operators_ms: float
    """Operators that rotate pictures and change colours."""
    finish_ms: float
    """Normalising, painting over, mixing."""
    images: int
    """Images of the sample."""
    mean_bytes: float
    """Mean size of an encoded image."""

    @property
    def total_ms(self) -> float:
        """Milliseconds of all that the loader does for one image."""
        return self.read_ms + self.decode_ms + self.resize_ms + self.operators_ms + self.finish_ms


def draw_sample(setup: BackendSetup, position_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return some positions, evenly spread, without pictures that are bad by the index. Raises `ShardError`."""
    index = setup.split.index
    index.load(("width", "height"))
    pixel_N = index.width_N[position_N].astype(np.int64) * index.height_N[position_N]
    good_M = position_N[(pixel_N > 0) & (pixel_N <= setup.max_pixels)]
    if not len(good_M):
        raise ShardError(f"{index.path}: no image of {setup.split.name} has a size; run `imgdata verify`")
    wanted = int(_SAMPLE_PIXELS / pixel_N[pixel_N > 0].mean())
    count = min(max(wanted, _LEAST_IMAGES), _MOST_IMAGES, len(good_M))
    return good_M[np.linspace(0, len(good_M) - 1, count).round().astype(np.int64)]


def time_stages(setup: BackendSetup, position_M: NDArray[np.int64], *, rounds: int = 3) -> StageTimes:
    """Time the stages on these samples. Raises `ShardError` where none of them can be decoded."""
    options = replace(setup.options, threads=1, device="cpu")
    recipe, in_bytes = options.recipe, replace(options, dtype="uint8", channels_last=True)
    shapes = replace(in_bytes, recipe=Recipe(*(op for op in recipe.ops if isinstance(op, _GEOMETRY))))
    pixels = replace(in_bytes, recipe=Recipe(*(op for op in recipe.ops if not isinstance(op, _BEHIND))))
    files = ShardFiles(setup.split)
    with ExitStack() as stack:

        def cut(
            options: LoaderOptions, change: Callable[[BatchParams], BatchParams] = lambda batch: batch
        ) -> Callable[[], int]:
            one_thread = replace(setup, options=options, pinned=False, buffers=2)
            return _Cut(stack.enter_context(closing(CpuBackend(one_thread))), position_M, change).run

        calls = {
            "read": lambda: _read(files, position_M),
            "full": _FullDecode(files, setup, position_M).run,
            "decode": cut(shapes, _without_resize),
            "resize": cut(shapes),
        }
        if operators.works_on_pixels(recipe):
            calls["operators"] = cut(pixels)
        calls["finish"] = cut(options)
        ms = least_cpu_ms(calls, rounds)
    return _differences(ms, len(position_M), float(setup.split.index.size_N[position_M].mean()))


def _differences(ms: dict[str, float], images: int, mean_bytes: float) -> StageTimes:
    """Return the times of each stage, none below 0, from those of more and more work."""
    # From the end: the whole is what counts, and noise must not make it larger than it is.
    whole = ms["finish"]
    operated = min(whole, ms.get("operators", ms["resize"]))
    resized = min(operated, ms["resize"])
    decoded = min(resized, ms["decode"])
    read = min(decoded, ms["read"])
    return StageTimes(
        read_ms=read,
        full_decode_ms=ms["full"],
        decode_ms=decoded - read,
        resize_ms=resized - decoded,
        operators_ms=operated - resized,
        finish_ms=whole - operated,
        images=images,
        mean_bytes=mean_bytes,
    )


class _Cut:
    """The backend on the sample, each time with the crops of another epoch."""

    def __init__(
        self, backend: CpuBackend, position_M: NDArray[np.int64], change: Callable[[BatchParams], BatchParams]
    ) -> None:
        self._backend, self._position_M, self._change = backend, position_M, change
        self._epoch = 0

    def run(self) -> int:
        """Make all batches; how many images."""
        setup, options = self._backend.setup, self._backend.setup.options
        index, failed = setup.split.index, 0
        for first, last in self._parts():
            position_N = self._position_M[first:last]
            drawn = params(
                options.recipe,
                index.width_N[position_N],
                index.height_N[position_N],
                seed=options.seed,
                epoch=self._epoch,
                position_N=position_N,
            )
            work = BatchRequest(
                epoch=self._epoch,
                params=self._change(drawn),
                position_N=position_N,
                skip_N=np.zeros(last - first, bool),
                mix=mix_params(options.recipe, last - first, seed=options.seed, epoch=self._epoch, offset=first),
            )
            pending = self._backend.start(work)
            failed += len(pending.wait())
            pending.images()
        self._epoch += 1
        if failed == len(self._position_M):
            raise _undecodable(setup)
        return len(self._position_M)

    def _parts(self) -> Iterator[tuple[int, int]]:
        """Begin and end of each batch: as large as the loader's, where that leaves memory."""
        index, setup = self._backend.setup.split.index, self._backend.setup
        largest = 3 * int(index.width_N[self._position_M].max()) * int(index.height_N[self._position_M].max())
        step = max(1, min(setup.options.batch_size, _WINDOW_BYTES // largest))
        count = len(self._position_M)
        return ((first, min(first + step, count)) for first in range(0, count, step))


def _without_resize(batch: BatchParams) -> BatchParams:
    """Return parameters without a resize; the batch is as large as the largest part, the rest stays black."""
    box_N2 = np.ascontiguousarray(batch.box_N4[:, 2:])
    width, height = box_N2.max(axis=0).tolist()
    plain_N = np.zeros(len(batch), bool)
    return replace(
        batch,
        height=height,
        width=width,
        resized_N2=box_N2,
        offset_N2=np.zeros_like(box_N2),
        flip_N=plain_N,
        vflip_N=plain_N,
    )


def _read(files: ShardFiles, position_M: NDArray[np.int64]) -> int:
    lease = files.lease(position_M)
    for number in range(len(position_M)):
        files.read(lease, number)
    return len(position_M)


class _FullDecode:
    """The whole pictures, from bytes that are in memory."""

    def __init__(self, files: ShardFiles, setup: BackendSetup, position_M: NDArray[np.int64]) -> None:
        lease = files.lease(position_M)
        self._setup = setup
        self._data_M = [files.read(lease, number) for number in range(len(position_M))]

    def run(self) -> int:
        """Decode them; how many could be."""
        decoded = sum(map(self._decodes, self._data_M))
        if not decoded:
            raise _undecodable(self._setup)
        return decoded

    def _decodes(self, data: bytes) -> bool:
        try:
            info = probe(data)
            refuse_large(info, self._setup.max_pixels)
            crop.decode(data, info)
        except ImageError:
            return False
        return True


def _undecodable(setup: BackendSetup) -> ShardError:
    return ShardError(
        f"{setup.split.folder}: none of the sampled images of {setup.split.name} can be decoded; run `imgdata verify`"
    )
