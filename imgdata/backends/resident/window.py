"""A split and a recipe -> which window of each picture is kept, all of one size; or why none can be."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgdata.augment import crops
from imgdata.augment.params import BatchParams
from imgdata.backends.protocol import BackendSetup
from imgdata.dataset.lazy_array import MAX_WHOLE
from imgdata.recipes.moves import RandomResize, ScaleJitter
from imgdata.recipes.ops import CenterCrop, FixedCrop, PadRandomCrop, RandomResizedCrop, Resize
from imgdata.recipes.recipe import Recipe
from imgdata.recipes.sizes import Ramp, Schedule

BUDGET = 2**30
"""Bytes that kept pixels may take, margins included, where the backend was not asked for by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What is kept of each picture: all of the recipe's geometry that is the same in every epoch."""

    recipe: Recipe
    """What makes it of the picture; nothing in it is random."""
    height: int
    width: int
    padding: int = 0
    """Margins all round from which windows may be cut, in pixels."""
    mirrored: bool = False
    """The margins are the picture mirrored; otherwise they are black."""
    channels: int = 3
    moves: bool = False
    """Windows are cut at random places; otherwise what is kept is the window."""


def kept(setup: BackendSetup) -> Kept | str:
    """Return what is kept of each picture of a loader's split, or in one line why no such window exists."""
    recipe = setup.options.recipe
    if setup.split.index.is_parted and len(setup.split) > MAX_WHOLE:
        return _refusal(f"there are {len(setup.split):,} of them")
    if recipe.find(RandomResizedCrop) is not None:
        return _refusal("RandomResizedCrop cuts another part of the picture each time")
    for kind in (RandomResize, ScaleJitter):
        if recipe.find(kind) is not None:
            return _refusal(f"{kind.__name__} resizes it by another factor each time")
    resize, pad = recipe.find(Resize), recipe.find(PadRandomCrop)
    crop = pad or recipe.find(CenterCrop) or recipe.find(FixedCrop)
    if any(isinstance(op.size, Schedule | Ramp) for op in (resize, crop) if op is not None):
        return _refusal("a size that changes by epoch needs other pixels of each picture")
    if pad is None:
        height, width = recipe.output_size(0)
        fixed = [op for op in recipe.ops if isinstance(op, Resize | CenterCrop | FixedCrop)]
        return Kept(recipe=Recipe(*fixed), height=height, width=width, channels=setup.options.channels)
    side_M2 = _sides(setup, resize)
    if not len(side_M2) or (side_M2 != side_M2[0]).any():
        # Of a million pictures this takes most of a second: only for the message.
        side_S2 = np.unique(side_M2, axis=0)
        found = " and ".join(f"{width} x {height}" for width, height in side_S2[:2].tolist()) or "none of a known size"
        return _refusal(
            f"pictures must be of one size where PadRandomCrop cuts, got {found}",
            "put Resize(size=(height, width)) first",
        )
    width, height = side_M2[0].tolist()
    whole = CenterCrop(size=(height, width)) if resize is None else _exact(resize, height, width)
    return Kept(
        recipe=Recipe(whole),
        height=height,
        width=width,
        padding=pad.padding,
        mirrored=recipe.mirrors_margins,
        channels=setup.options.channels,
        moves=True,
    )


def num_bytes(setup: BackendSetup, window: Kept) -> int:
    """Return the bytes of all that is kept of a split, with the margins at both sides."""
    return len(setup.split) * window.height * (window.width + 2 * window.padding) * window.channels


def num_threads(setup: BackendSetup) -> int:
    """Return how many threads make batches: one for each batch in work at most; on a GPU one, which only submits."""
    return max(1, min(setup.options.threads, setup.buffers)) if setup.options.device == "cpu" else 1


def usable(setup: BackendSetup) -> NDArray[np.bool_]:
    """Return which pictures have a size in the index, and one that is allowed, bool `(N,)`."""
    index = setup.split.index
    index.load(("width", "height"))
    width_N, height_N = index.width_N.astype(np.int64), index.height_N
    usable_N: NDArray[np.bool_] = (width_N >= 1) & (height_N >= 1) & (width_N * height_N <= setup.max_pixels)
    return usable_N


def _sides(setup: BackendSetup, resize: Resize | None) -> NDArray[np.int64]:
    """Return (width, height) of the pictures as they are cut, `(M, 2)`, without those that can't be used.

    One row where they are all resized to the same.
    """
    if resize is not None and isinstance(resize.size, tuple):
        height, width = resize.size
        return np.array([[width, height]])
    usable_N, index = usable(setup), setup.split.index
    width_M, height_M = index.width_N[usable_N].astype(np.int64), index.height_N[usable_N].astype(np.int64)
    return crops.whole(None, resize, None, width_M, height_M, 0)[0]


def _exact(resize: Resize, height: int, width: int) -> Resize:
    return Resize(size=(height, width), interpolation=resize.interpolation)


def _refusal(reason: str, way_out: str = "") -> str:
    ways_out = " or ".join(filter(None, (way_out, "use backend='cpu'")))
    return f"backend 'resident' keeps one window of each picture, but {reason}; {ways_out}"


class Places(NamedTuple):
    """Where the windows of N samples lie in the kept pixels. Margins are inside, or -1 where they are black."""

    row_NH: NDArray[np.int64]
    """The kept row that each row of the output shows, bottom up where top and bottom change places."""
    left_N: NDArray[np.int64]
    """The first column, counted from the left end of the margin: never negative."""


def places(params: BatchParams, window: Kept) -> Places:
    """Return rows and first columns of all windows."""
    count, height = len(params), params.height
    if not window.moves:
        row_NH, left_N = np.tile(np.arange(height), (count, 1)), np.zeros(count, np.int64)
    else:
        row_NH = mirrored_or_outside(params.offset_N2[:, 1:] + np.arange(height), window.height, window.mirrored)
        left_N = params.offset_N2[:, 0] + window.padding
    if params.vflip_N.any():
        row_NH[params.vflip_N] = row_NH[params.vflip_N, ::-1]
    return Places(row_NH, left_N)


def mirrored_or_outside(place: NDArray[np.int64], side: int, mirrored: bool) -> NDArray[np.int64]:
    """Return which of the `side` pixels each place along a side shows, places in margins included; -1 for black.

    A mirrored margin doesn't show the edge's pixel again.
    """
    if mirrored:
        last = side - 1
        place = last - np.abs(last - np.abs(place))
        return place
    return np.where((place >= 0) & (place < side), place, -1)
