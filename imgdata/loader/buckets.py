"""Shapes of batches, the sizes of pictures -> the bucket of each, a recipe for each bucket, what is padded and cut off.

Pictures go to the bucket whose aspect ratio is nearest to theirs, by its logarithm, so that few pixels are cut off or
squeezed. All sizes are those of the index: no picture is read.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata import checks
from imgdata.backends.options import LoaderOptions
from imgdata.errors import OptionError
from imgdata.order.bucket_order import BucketOrder
from imgdata.order.epoch_order import Order
from imgdata.recipes.ops import CenterCrop, FixedCrop, PadRandomCrop, RandomResizedCrop, Resize
from imgdata.recipes.recipe import Recipe
from imgdata.recipes.several import Views
from imgdata.views.view import View

RATIOS = (0.5, 0.571, 0.667, 0.75, 0.875, 1.0, 1.143, 1.333, 1.5, 1.75, 2.0)
"""Width over height of the usual buckets."""
_MOST_BUCKETS = 64
_OF_ONE_SHAPE = {
    "resident": ", which keeps a window of one shape of every picture",
    "dali": ", whose pipeline makes one shape",
}
"""Why other backends have no buckets."""
_SIZED = (RandomResizedCrop, Resize, CenterCrop, FixedCrop, PadRandomCrop)


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """Shapes that batches may have: of about one area and several ratios, or given one by one.

    `Buckets(area=224 * 224)`, `Buckets(area=384 * 384, ratios=(0.75, 1, 1.333), multiple_of=16)`,
    `Buckets(sizes=[(192, 256), (224, 224), (256, 192)])`. Raises `OptionError`.
    """

    area: int | None = None
    """Pixels of a picture, about."""
    ratios: tuple[float, ...] = RATIOS
    """Width over height of each bucket."""
    multiple_of: int = 32
    """Number of which all sides are multiples."""
    sizes: tuple[tuple[int, int], ...] = field(default=())
    """(height, width) of each bucket, sorted by ratio; made of the other fields where it isn't given."""

    def __post_init__(self) -> None:
        checks.integer("Buckets.multiple_of", self.multiple_of, 1)
        if (self.area is None) == (not self.sizes):
            raise OptionError("Buckets must have an area, such as 224 * 224, or sizes, such as [(192, 256)]")
        if not isinstance(self.sizes, list | tuple) or not all(isinstance(size, list | tuple) for size in self.sizes):
            raise OptionError(f"Buckets.sizes must be pairs (height, width), got {self.sizes!r}")
        if self.area is not None:
            checks.integer("Buckets.area", self.area, 1)
            if not isinstance(self.ratios, list | tuple):
                raise OptionError(f"Buckets.ratios must be numbers, such as (0.75, 1, 1.333), got {self.ratios!r}")
            for ratio in self.ratios:
                checks.number("Buckets.ratios: a ratio", ratio, 1 / 64, 64)
        sizes = self.sizes or tuple(dict.fromkeys(self._size(float(ratio)) for ratio in self.ratios))
        sizes = tuple(tuple(size) for size in sizes)  # type: ignore[misc]
        if not sizes or len(sizes) > _MOST_BUCKETS:
            raise OptionError(f"Buckets must be 1 to {_MOST_BUCKETS}, got {len(sizes)}")
        for size in sizes:
            if len(size) != 2:
                raise OptionError(f"Buckets.sizes must be pairs (height, width), got {size!r}")
            for side in size:
                checks.integer("Buckets.sizes: a side", side, 1)
        sizes = tuple(sorted(sizes, key=lambda size: (size[1] / size[0], size)))
        for one, other in pairwise(sizes):
            if one[1] * other[0] == other[1] * one[0]:
                raise OptionError(f"Buckets.sizes must have different ratios, got {one} and {other}")
        object.__setattr__(self, "sizes", sizes)

    def _size(self, ratio: float) -> tuple[int, int]:
        assert self.area is not None, "sizes of an area"
        height, width = math.sqrt(self.area / ratio), math.sqrt(self.area * ratio)
        return tuple(max(1, round(side / self.multiple_of)) * self.multiple_of for side in (height, width))  # type: ignore[return-value]

    def of(self, width_N: NDArray[np.int32], height_N: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the bucket of each picture of so many pixels, int64 `(N,)`; of unknown size: as of a square.

        Squares of ratios are compared with products of ratios, which every processor computes alike.
        """
        known_N = (width_N > 0) & (height_N > 0)
        width_N = np.where(known_N, width_N, 1).astype(np.float64)
        height_N = np.where(known_N, height_N, 1).astype(np.float64)
        edges = [(one[1] * other[1]) / (one[0] * other[0]) for one, other in pairwise(self.sizes)]
        return np.searchsorted(np.array(edges, np.float64), width_N * width_N / (height_N * height_N), side="right")


def as_buckets(buckets: Buckets | Sequence[tuple[int, int]] | None) -> Buckets | None:
    """Return a list of sizes as `Buckets`. Raises `OptionError`."""
    if buckets is None or isinstance(buckets, Buckets):
        return buckets
    if not isinstance(buckets, list | tuple) or not all(isinstance(size, list | tuple) for size in buckets):
        raise OptionError(f"buckets must be Buckets(area=...) or a list of (height, width), got {buckets!r}")
    return Buckets(sizes=tuple(tuple(size) for size in buckets))


def bucket_options(options: LoaderOptions) -> LoaderOptions:
    """Return the options for batches of several shapes. Raises `OptionError` for views, or a backend of one shape."""
    if isinstance(options.recipe, Views):
        raise OptionError("buckets can't be used with several views of a picture; use the recipe of one of them")
    if options.backend not in ("auto", "cpu"):
        why = _OF_ONE_SHAPE.get(options.backend, "")
        raise OptionError(
            f"buckets need the backend cpu, which makes batches of any shape, got {options.backend!r}{why}"
        )
    return replace(options, backend="cpu")


def loader_order(buckets: Buckets | None, view: View, options: LoaderOptions, world_size: int) -> Order | BucketOrder:
    """Return the order of a view's epochs, in batches of one bucket where there are buckets. Raises `OptionError`."""
    settings: dict[str, Any] = dict(
        num_samples=len(view),
        global_batch=options.batch_size * world_size,
        shuffle=options.shuffle,
        seed=options.seed,
        drop_last=options.drop_last,
        shard_sizes=view.shard_sizes if options.shuffle == "window" else (),
        window_shards=options.window_shards,
    )
    if buckets is None:
        return Order(**settings)
    if view.resampling is not None:
        raise OptionError(
            "buckets can't be used with a balanced view, whose epochs differ in length by bucket; leave balance out, "
            "or weigh the loss"
        )
    if view.is_large:
        raise OptionError(
            f"buckets can't be used with {len(view):,} samples, whose order no memory holds; keep fewer by a view, "
            "such as fraction"
        )
    position_N = view.position_N
    bucket_N = buckets.of(view.index.width_N[position_N], view.index.height_N[position_N])
    return BucketOrder(**settings, bucket_N=bucket_N, num_buckets=len(buckets.sizes))


def bucket_recipe(recipe: Recipe, size: tuple[int, int]) -> Recipe:
    """Return the recipe for pictures of (height, width). Raises `OptionError` where it can't be.

    The last of its first operators that sets a size sets this one. Ratios of random crops are relative to the bucket's;
    `Resize` before a crop keeps its margin, and both sides then follow the bucket's.
    """
    height, width = size
    ops = list(recipe.ops)
    sized = [place for place, op in enumerate(ops[:2]) if isinstance(op, _SIZED)]
    if not sized:
        raise OptionError("buckets need a recipe that begins with a crop or Resize, which sets the size of the output")
    last = ops[sized[-1]]
    for place in sized:
        op = ops[place]
        if isinstance(op, RandomResizedCrop):
            ratio = width / height
            op = replace(op, size=size, ratio=(op.ratio[0] * ratio, op.ratio[1] * ratio))
        elif isinstance(op, Resize) and op is not last:
            share = _margin(op, last)
            op = replace(op, size=(round(height * share), round(width * share)))
        elif isinstance(op, Resize | CenterCrop | FixedCrop | PadRandomCrop):
            op = replace(op, size=size)
        ops[place] = op
    return Recipe(*ops)


def _margin(resize: Resize, crop: object) -> float:
    """Return how much larger the picture is than the crop; 1 where the recipe doesn't say it by one number."""
    size = getattr(crop, "size", None)
    if isinstance(crop, CenterCrop | FixedCrop) and isinstance(resize.size, int) and isinstance(size, int):
        return max(resize.size / size, 1.0)
    return 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class BucketSummary:
    """What buckets do to the pictures of an epoch; printed, a line for each."""

    sizes: tuple[tuple[int, int], ...]
    """(height, width) of each bucket."""
    samples: tuple[int, ...]
    """Samples of each bucket."""
    batches: tuple[int, ...]
    """Global batches of each bucket in an epoch."""
    global_batch: int
    """Samples of a global batch."""
    cut: float
    """Share of the pictures' area outside the bucket's shape, 0 to 1, on average: cut off, or squeezed."""
    cut_square: float
    """The same share with one square for all."""

    @property
    def shown(self) -> int:
        """Places in the batches of an epoch."""
        return sum(self.batches) * self.global_batch

    @property
    def padding(self) -> float:
        """Share of the places that are padding, 0 to 1."""
        return self.padded / self.shown if self.shown else 0.0

    @property
    def padded(self) -> int:
        """Places that are padding."""
        return sum(
            max(batches * self.global_batch - samples, 0)
            for samples, batches in zip(self.samples, self.batches, strict=True)
        )

    @property
    def dropped(self) -> int:
        """Samples that are left out of an epoch, others in each, where incomplete batches are."""
        return sum(
            max(samples - batches * self.global_batch, 0)
            for samples, batches in zip(self.samples, self.batches, strict=True)
        )

    def __str__(self) -> str:
        lines = [
            f"{height:>5} x {width:<5} {samples:>10,} samples {batches:>8,} batches"
            for (height, width), samples, batches in zip(self.sizes, self.samples, self.batches, strict=True)
        ]
        total = sum(self.samples)
        return "\n".join(
            [
                *lines,
                f"padding {self.padded:,} of {self.shown:,} places ({self.padding:.1%}), left out {self.dropped:,} of "
                f"{total:,} samples; {self.cut:.1%} of the pictures' area is outside the shapes, {self.cut_square:.1%} "
                "with one square",
            ]
        )

    def __repr__(self) -> str:
        return f"<BucketSummary\n{self}>"


def summary(
    buckets: Buckets, order: BucketOrder, width_N: NDArray[np.int32], height_N: NDArray[np.int32]
) -> BucketSummary:
    """Return what `buckets` do to pictures of these sizes."""
    known_N = (width_N > 0) & (height_N > 0)
    ratio_N = width_N[known_N] / height_N[known_N]
    bucket_N = np.array([width / height for height, width in buckets.sizes])[order.bucket_N[known_N]]
    return BucketSummary(
        sizes=buckets.sizes,
        samples=tuple(order.count_B.tolist()),
        batches=tuple(order.batches_B.tolist()),
        global_batch=order.global_batch,
        cut=_outside(ratio_N, bucket_N),
        cut_square=_outside(ratio_N, np.ones(len(ratio_N))),
    )


def _outside(ratio_N: NDArray[np.float64], shape_N: NDArray[np.float64]) -> float:
    """Return the mean share of pictures of `ratio_N` outside the largest window of `shape_N` in them."""
    return float(1 - np.minimum(ratio_N / shape_N, shape_N / ratio_N).mean()) if len(ratio_N) else 0.0
