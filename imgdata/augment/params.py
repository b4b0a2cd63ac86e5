"""(recipe, picture sizes, seed, epoch, positions) -> `BatchParams`: all that is random, and all geometry, of a batch.

The seam between recipes and backends. What is not random (interpolations, fill values, mean and deviation, the value of
erased pixels) a backend reads from the recipe.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.augment import crops, philox, policies, steps
from imgdata.augment.crops import Floats, Geometry, Ints
from imgdata.augment.philox import Stream
from imgdata.augment.steps import NEUTRAL as _NEUTRAL
from imgdata.augment.steps import ORDERS as _ORDERS
from imgdata.errors import OptionError
from imgdata.recipes.moves import RandomResize, ScaleJitter
from imgdata.recipes.ops import (
    AutoAugment,
    CenterCrop,
    ColorJitter,
    Cutout,
    FixedCrop,
    Grayscale,
    HorizontalFlip,
    PadRandomCrop,
    RandAugment,
    RandomErasing,
    RandomResizedCrop,
    Resize,
    Rotate,
    TrivialAugment,
    VerticalFlip,
)
from imgdata.recipes.recipe import Recipe

JITTERS = ("brightness", "contrast", "saturation", "hue")
"""What the numbers in `order_N4` and the columns of `jitter_N4` mean."""
_Draws = dict[tuple[Stream, int], Floats]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class BatchParams:
    """What happens to each of N samples: geometry and flips, operators on pixels in the recipe's order, rectangles.

    Arrays are read-only and C-contiguous.

    Geometry: the part `box_N4` of the picture is resized to `resized_N2`, antialiased, its filter never reaching out of
    the box; the output is the window of `height` x `width` pixels at `offset_N2` of the result. In numbers, the middle
    of output pixel x lies at `left + (x + offset + 0.5) * width_of_box / width_resized` of the picture's own
    coordinates. Only what the window needs has to be made. Pixels of the window outside the resized picture are black,
    or mirrored (`PadRandomCrop.mode`). So `RandomResizedCrop` has a crop as its box and no offset, `Resize` and
    `CenterCrop` the whole picture as box and an offset, and torchvision's pixels come out of both.
    """

    height: int
    """Of all outputs, in pixels."""
    width: int
    """Of all outputs, in pixels."""
    position_N: Ints
    """Positions of the samples, int64 `(N,)`."""
    box_N4: Ints
    """(left, top, width, height) of the part that is used, in pixels of the picture, int64 `(N, 4)`."""
    resized_N2: Ints
    """(width, height) that it is resized to, int64 `(N, 2)`; the same as the box's where nothing is resized."""
    offset_N2: Ints
    """(left, top) of the output in the resized part, int64 `(N, 2)`; negative where margins come in."""
    flip_N: NDArray[np.bool_]
    """Left and right change places, bool `(N,)`."""
    vflip_N: NDArray[np.bool_]
    """Top and bottom change places, bool `(N,)`."""
    angle_N: Floats
    """Turn about the middle in degrees, counter-clockwise, float64 `(N,)`; 0: none."""
    op_NP: Ints
    """Operations of the policy, one after the other, numbers in `policies.OPS`, int64 `(N, P)`; 0: none."""
    strength_NP: Floats
    """Their strengths with sign, float64 `(N, P)`; units at `policies.OPS`."""
    order_N4: Ints
    """Order in which the colours are jittered: numbers in `JITTERS`, int64 `(N, 4)`."""
    jitter_N4: Floats
    """Factors of brightness, contrast and saturation, and shift of the hue in turns, float64 `(N, 4)`; columns are
    those of `JITTERS`, whatever the order. A factor of 1, and a shift of 0, is left out."""
    gray_N: NDArray[np.bool_]
    """Colour is taken out, bool `(N,)`."""
    erase_N4: Ints
    """(left, top, width, height) in the output that is painted over, int64 `(N, 4)`; width or height 0: none. It comes
    after `Normalize`, and is not mirrored or turned with the picture."""
    done_NS: NDArray[np.bool_]
    """Which of the further steps on pixels each sample gets, bool `(N, S)`: those of `augment.steps.layout`."""
    value_NV: Floats
    """The values of those steps, float64 `(N, V)`."""

    def __len__(self) -> int:
        return len(self.position_N)


def params(
    recipe: Recipe,
    width_N: NDArray[np.integer],
    height_N: NDArray[np.integer],
    *,
    seed: int,
    epoch: int,
    position_N: NDArray[np.integer],
) -> BatchParams:
    """Return what happens to the samples at `position_N` in `epoch`; widths and heights are in pixels, `(N,)`.

    A row depends on its own position and size, the seed and the epoch alone: it is the same in any batch, on any rank
    and thread. `seed` and `epoch` are from 0 to 2**63 - 1. Raises `OptionError` for what the recipe can't be used on.
    """
    position_N, width_N, height_N = (np.array(a, np.int64) for a in (position_N, width_N, height_N))
    _check(seed, epoch, position_N, width_N, height_N)
    height, width = recipe.output_size(epoch)
    draws = _draw(recipe, seed, epoch, position_N)
    geometry = _geometry(recipe, width_N, height_N, draws, seed, epoch, position_N)
    flip_N, vflip_N, angle_N = _turns(recipe, draws, len(position_N))
    op_NP, strength_NP = _policy(recipe, draws, height, width, len(position_N))
    order_N4, jitter_N4, gray_N = _colors(recipe, draws, len(position_N))
    done_NS, value_NV = steps.draw(recipe, height, width, seed=seed, epoch=epoch, position_N=position_N)
    arrays = {
        "position_N": position_N,
        "box_N4": geometry.box_N4,
        "resized_N2": geometry.resized_N2,
        "offset_N2": geometry.offset_N2,
        "flip_N": flip_N,
        "vflip_N": vflip_N,
        "angle_N": angle_N,
        "op_NP": op_NP,
        "strength_NP": strength_NP,
        "order_N4": order_N4,
        "jitter_N4": jitter_N4,
        "gray_N": gray_N,
        "erase_N4": _erased(recipe, draws, height, width, seed, epoch, position_N),
        "done_NS": done_NS,
        "value_NV": value_NV,
    }
    return BatchParams(height=height, width=width, **{name: _fixed(array) for name, array in arrays.items()})


def _fixed(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array as C code can read it, and read-only."""
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array


def erasing_noise(seed: int, epoch: int, position: int, height: int, width: int) -> NDArray[np.float32]:
    """Return Gaussian noise (mean 0, deviation 1) for an erased rectangle, float32 `(3, height, width)`.

    One of 65,536 values, up to 4.3, which are all as likely. A pure function of its arguments, like all else here.
    """
    count = 3 * height * width
    word_W = philox.raw_of_one(seed, epoch, position, Stream.NOISE, -(-count // 4))
    # Four draws of 16 bits in each word, the lowest first, on any machine.
    draw_D = word_W.astype("<u8").view("<u2")[:count]
    noise_D: NDArray[np.float32] = _normal_quantiles().take(draw_D)
    return noise_D.reshape(3, height, width)


@cache
def _normal_quantiles() -> NDArray[np.float32]:
    """Return the middles of 65,536 equally likely parts of the normal distribution, float32 `(65536,)`, in 50 ms."""
    normal, parts = NormalDist(), 2**16
    return np.array([normal.inv_cdf((part + 0.5) / parts) for part in range(parts)], np.float32)


def _check(seed: int, epoch: int, position_N: Ints, width_N: Ints, height_N: Ints) -> None:
    for name, value in (("seed", seed), ("epoch", epoch)):
        if not 0 <= value < 2**63:
            raise OptionError(f"{name} must be from 0 to 2**63 - 1, got {value}")
    if not (position_N.ndim == 1 and position_N.shape == width_N.shape == height_N.shape):
        raise OptionError(
            "positions, widths and heights must be arrays of one axis and the same length, got shapes "
            f"{position_N.shape}, {width_N.shape} and {height_N.shape}"
        )
    if position_N.min(initial=0) < 0:
        raise OptionError(f"positions must be at least 0, got {position_N.min()}")
    bad = np.flatnonzero((width_N < 1) | (height_N < 1))
    if len(bad):
        raise OptionError(
            f"widths and heights must be at least 1, got {width_N[bad[0]]}x{height_N[bad[0]]} at position "
            f"{position_N[bad[0]]}; its index was made without looking into the pictures: build it again"
        )


def _draw(recipe: Recipe, seed: int, epoch: int, position_N: Ints) -> _Draws:
    """Return the numbers that every sample needs, by stream and block, float64 `(N, 4)` each, from one call."""
    policy = _policy_of(recipe)
    needs: list[tuple[Stream, int, bool]] = [
        (Stream.RESIZE, 0, _has(recipe, RandomResize, ScaleJitter)),
        (Stream.CROP, 0, _has(recipe, RandomResizedCrop, PadRandomCrop)),
        (Stream.TURN, 0, _has(recipe, HorizontalFlip, VerticalFlip, Rotate)),
        (Stream.JITTER, 0, _has(recipe, ColorJitter)),
        (Stream.COLOR, 0, _has(recipe, ColorJitter, Grayscale, RandomErasing)),
        (Stream.ERASE, 0, _has(recipe, RandomErasing, Cutout)),
        *((Stream.POLICY, slot, True) for slot in range(policies.slots(policy) if policy else 0)),
    ]
    wanted = [(stream, block) for stream, block, needed in needs if needed]
    if not wanted:
        return {}
    return dict(zip(wanted, philox.uniform_blocks(seed, epoch, position_N, wanted), strict=True))


def _has(recipe: Recipe, *kinds: type) -> bool:
    return any(isinstance(op, kinds) for op in recipe.ops)


def _policy_of(recipe: Recipe) -> policies.Policy | None:
    return recipe.find(RandAugment) or recipe.find(TrivialAugment) or recipe.find(AutoAugment)


def _geometry(
    recipe: Recipe, width_N: Ints, height_N: Ints, draws: _Draws, seed: int, epoch: int, position_N: Ints
) -> Geometry:
    random_crop = recipe.find(RandomResizedCrop)
    if random_crop is not None:
        more = _more(Stream.CROP, seed, epoch, position_N)
        box_N4 = crops.random_resized(random_crop, width_N, height_N, draws[Stream.CROP, 0], more)
        side_N2 = np.tile(np.array(recipe.output_size(epoch)[::-1]), (len(position_N), 1))
        return Geometry(box_N4, side_N2, np.zeros_like(side_N2))
    zero_N = np.zeros_like(width_N)
    whole_N4 = np.stack([zero_N, zero_N, width_N, height_N], axis=1)
    jitter, resize = recipe.find(ScaleJitter), recipe.find(RandomResize)
    if jitter is not None:
        return Geometry(whole_N4, *crops.jittered(jitter, width_N, height_N, draws[Stream.RESIZE, 0], epoch))
    crop = recipe.find(CenterCrop) or recipe.find(FixedCrop) or recipe.find(PadRandomCrop)
    size_N = None if resize is None else crops.random_size(resize, draws[Stream.RESIZE, 0][:, 0])
    resized_N2, offset_N2 = crops.whole(size_N, recipe.find(Resize), crop, width_N, height_N, epoch)
    if isinstance(crop, PadRandomCrop):
        offset_N2 = crops.random_offset(crop, resized_N2, draws[Stream.CROP, 0][:, 2:], position_N, epoch)
    return Geometry(whole_N4, resized_N2, offset_N2)


def _turns(recipe: Recipe, draws: _Draws, count: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Floats]:
    draw_N4 = draws.get((Stream.TURN, 0), np.zeros((count, 4)))
    flip, vflip, rotate = recipe.find(HorizontalFlip), recipe.find(VerticalFlip), recipe.find(Rotate)
    angle_N = np.zeros(count)
    if rotate is not None:
        low, high = rotate.limits
        angle_N = np.where(draw_N4[:, 2] < rotate.p, low + (high - low) * draw_N4[:, 3], 0.0)
    return draw_N4[:, 0] < (flip.p if flip else 0.0), draw_N4[:, 1] < (vflip.p if vflip else 0.0), angle_N


def _policy(recipe: Recipe, draws: _Draws, height: int, width: int, count: int) -> tuple[Ints, Floats]:
    policy = _policy_of(recipe)
    if policy is None:
        return np.zeros((count, 0), np.int64), np.zeros((count, 0))
    draw_PN4 = np.stack([draws[Stream.POLICY, slot] for slot in range(policies.slots(policy))])
    return policies.choose(policy, draw_PN4, height, width)


def _colors(recipe: Recipe, draws: _Draws, count: int) -> tuple[Ints, Floats, NDArray[np.bool_]]:
    draw_N4 = draws.get((Stream.COLOR, 0), np.zeros((count, 4)))
    jitter, gray = recipe.find(ColorJitter), recipe.find(Grayscale)
    gray_N = draw_N4[:, 2] < (gray.p if gray else 0.0)
    if jitter is None:
        return np.tile(_ORDERS[0], (count, 1)), np.tile(np.array(_NEUTRAL), (count, 1)), gray_N
    low_4, high_4 = np.array(jitter.limits).T
    factor_N4 = low_4 + (high_4 - low_4) * draws[Stream.JITTER, 0]
    factor_N4[draw_N4[:, 0] >= jitter.p] = _NEUTRAL
    return _ORDERS[(draw_N4[:, 1] * len(_ORDERS)).astype(np.int64)], factor_N4, gray_N


def _erased(recipe: Recipe, draws: _Draws, height: int, width: int, seed: int, epoch: int, position_N: Ints) -> Ints:
    box_N4 = np.zeros((len(position_N), 4), np.int64)
    cutout, erasing = recipe.find(Cutout), recipe.find(RandomErasing)
    if cutout is not None:
        return crops.cut_out(cutout.size, height, width, draws[Stream.ERASE, 0][:, 2:])
    if erasing is not None:
        rows = np.flatnonzero(draws[Stream.COLOR, 0][:, 3] < erasing.p)
        more = _more(Stream.ERASE, seed, epoch, position_N[rows])
        box_N4[rows] = crops.erased(erasing, height, width, draws[Stream.ERASE, 0][rows], more)
    return box_N4


def _more(stream: Stream, seed: int, epoch: int, position_N: Ints) -> Callable[[Ints], Floats]:
    """Return the function that draws area and ratio of a box's further tries for some rows, float64 `(R, 9, 2)`."""
    further = crops.TRIES - 1

    def more(rows: Ints) -> Floats:
        return philox.uniform(seed, epoch, position_N[rows], stream, 2 * further, first=4).reshape(-1, further, 2)

    return more
