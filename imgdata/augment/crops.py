"""Picture sizes, draws -> what part of each picture is resized to what, and which window of that is the output.

All arrays have one row per sample; sides and places are whole pixels. The rules, with their rounding, are those of
torchvision's operators (version 2): the same draws give the same boxes.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import OptionError
from imgdata.recipes.moves import RandomResize, ScaleJitter
from imgdata.recipes.ops import CenterCrop, FixedCrop, PadRandomCrop, RandomErasing, RandomResizedCrop, Resize
from imgdata.recipes.sizes import sides_at

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
TRIES = 10
"""How often a random rectangle is drawn until one fits."""
_LN2_HIGH, _LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10


class Geometry(NamedTuple):
    """See `BatchParams`, which has the same fields."""

    box_N4: Ints
    resized_N2: Ints
    offset_N2: Ints


def random_resized(
    crop: RandomResizedCrop, width_N: Ints, height_N: Ints, first_N4: Floats, more: Callable[[Ints], Floats]
) -> Ints:
    """Return boxes (left, top, width, height), int64 `(N, 4)`.

    `first_N4` are draws of area, ratio, top and left; `more(rows)` gives area and ratio of the other nine tries for
    some rows, `(R, 9, 2)`. Where none of ten fits, the box is the largest in the middle whose ratio is allowed.
    """
    most_2N = np.stack([width_N, height_N])
    side_2N, none = _first_fitting(width_N * height_N, 1, most_2N, crop.scale, crop.ratio, first_N4[:, :2], more)
    side_2N[:, none] = _fallback(width_N[none], height_N[none], crop.ratio)
    left_top_2N = (first_N4[:, :1:-1].T * (most_2N - side_2N + 1)).astype(np.int64)
    left_top_2N[:, none] = (most_2N - side_2N)[:, none] // 2
    return np.concatenate([left_top_2N, side_2N]).T


def erased(erasing: RandomErasing, height: int, width: int, first_N4: Floats, more: Callable[[Ints], Floats]) -> Ints:
    """Return boxes (left, top, width, height) in the output, int64 `(N, 4)`; zeros where none of ten tries is small.

    The draws are like those of `random_resized`.
    """
    area_N = np.full(len(first_N4), height * width)
    # Its ratio is height / width, that of the crops width / height; and a box must be smaller, not only fit.
    most_2N = np.repeat([[height - 1], [width - 1]], len(first_N4), axis=1)
    side_2N, none = _first_fitting(area_N, 0, most_2N, erasing.scale, erasing.ratio, first_N4[:, :2], more)
    top_left_2N = (first_N4[:, 2:].T * (most_2N - side_2N + 2)).astype(np.int64)
    box_4N = np.concatenate([top_left_2N[::-1], side_2N[::-1]])
    box_4N[:, none] = 0
    return box_4N.T


def _first_fitting(
    area_N: Ints,
    least: int,
    most_2N: Ints,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    first_N2: Floats,
    more: Callable[[Ints], Floats],
) -> tuple[Ints, Ints]:
    """Return sides of random rectangles, int64 `(2, N)`, and the rows where no try has sides `least` to `most_2N`.

    `scale` is a share of `area_N`; `ratio` is first side / second.
    """
    side_2N = _sides(area_N, scale, ratio, first_N2)
    fits_2N: NDArray[np.bool_] = (side_2N >= least) & (side_2N <= most_2N)
    bad = np.flatnonzero(~fits_2N.all(axis=0))
    if not len(bad):
        return side_2N, bad
    # Most first tries fit, so the other nine are only made where one did not.
    try_2RT = _sides(area_N[bad, None], scale, ratio, more(bad))
    fits_2RT: NDArray[np.bool_] = (try_2RT >= least) & (try_2RT <= most_2N[:, bad, None])
    fits_RT = np.logical_and.reduce(fits_2RT)
    side_2N[:, bad] = try_2RT[:, np.arange(len(bad)), fits_RT.argmax(axis=1)]
    return side_2N, bad[~np.logical_or.reduce(fits_RT, axis=1)]


def _fallback(width_N: Ints, height_N: Ints, ratio: tuple[float, float]) -> tuple[Ints, Ints]:
    """Return width and height of the largest box of an allowed ratio."""
    in_ratio_N = width_N / height_N
    narrow_N, wide_N = in_ratio_N < ratio[0], in_ratio_N > ratio[1]
    w_N = np.where(wide_N, np.maximum(np.rint(height_N * ratio[1]), 1), width_N)
    h_N = np.where(narrow_N, np.maximum(np.rint(width_N / ratio[0]), 1), height_N)
    return w_N.astype(np.int64), h_N.astype(np.int64)


def cut_out(size: int, height: int, width: int, place_N2: Floats) -> Ints:
    """Return boxes (left, top, width, height) of a square about a random pixel, cut off at the edge; int64 `(N, 4)`."""
    side_2 = np.array([height, width])
    middle_N2 = (place_N2 * side_2).astype(np.int64)
    begin_N2 = np.maximum(middle_N2 - size // 2, 0)
    end_N2 = np.minimum(middle_N2 + size // 2, side_2)
    return np.concatenate([begin_N2[:, ::-1], (end_N2 - begin_N2)[:, ::-1]], axis=1)


def random_size(resize: RandomResize, draw_N: Floats) -> Ints:
    """Return the shorter sides that pictures are resized to, int64 `(N,)`; the largest size is not one of them."""
    size_N: Ints = resize.min_size + (draw_N * (resize.max_size - resize.min_size)).astype(np.int64)
    return size_N


def jittered(jitter: ScaleJitter, width_N: Ints, height_N: Ints, draw_N4: Floats, epoch: int) -> tuple[Ints, Ints]:
    """Return `resized_N2` and `offset_N2` of pictures fitted into the output, times a random factor.

    `draw_N4` are draws of factor, top and left. The window lies inside where the picture is larger, and at 0 where it
    is smaller.
    """
    out_2, side_N2 = np.array(sides_at(jitter.size, epoch)[::-1]), np.stack([width_N, height_N], axis=1)
    factor_N = jitter.scale[0] + (jitter.scale[1] - jitter.scale[0]) * draw_N4[:, 0]
    ratio_N = (out_2 / side_N2).min(axis=1) * factor_N
    resized_N2 = np.maximum((side_N2 * ratio_N[:, None]).astype(np.int64), 1)
    spare_N2 = np.maximum(resized_N2 - out_2, 0)
    offset_N2: Ints = (draw_N4[:, 2:0:-1] * (spare_N2 + 1)).astype(np.int64)
    return resized_N2, offset_N2


def whole(
    size_N: Ints | None,
    resize: Resize | None,
    crop: CenterCrop | FixedCrop | PadRandomCrop | None,
    width_N: Ints,
    height_N: Ints,
    epoch: int,
) -> tuple[Ints, Ints]:
    """Return `resized_N2` and `offset_N2` of the middle or another place of whole pictures, int64 `(N, 2)`.

    `size_N` are shorter sides that were drawn. `PadRandomCrop` gets its offset from `random_offset`; here it is 0.
    """
    side_N2 = np.stack([width_N, height_N], axis=1)
    if size_N is not None:
        side_N2 = size_N[:, None] * side_N2 // side_N2.min(axis=1, keepdims=True)
    elif resize is not None:
        side_N2 = _resized(resize, side_N2, epoch)
    if not isinstance(crop, CenterCrop | FixedCrop):
        return side_N2, np.zeros_like(side_N2)
    spare_N2 = side_N2 - np.array(sides_at(crop.size, epoch)[::-1])
    # Halves to even, as Python rounds. A picture that is too small has the smaller half of its margins before it.
    middle_N2 = np.where(spare_N2 >= 0, np.rint(spare_N2 / 2).astype(np.int64), -(-spare_N2 // 2))
    return side_N2, middle_N2 if isinstance(crop, CenterCrop) else _placed(crop, spare_N2, middle_N2)


def _placed(crop: FixedCrop, spare_N2: Ints, middle_N2: Ints) -> Ints:
    """Return left and top of a crop at a fixed place, int64 `(N, 2)`, with `spare_N2` pixels beside and above."""
    offset_N2 = middle_N2
    if crop.place != "middle":
        vertical, horizontal = crop.place.split("-")
        share_2 = np.array([horizontal == "right", vertical == "bottom"], np.int64)
        offset_N2 = np.where(spare_N2 >= 0, spare_N2 * share_2, middle_N2)
    if crop.mirrored:
        offset_N2 = np.stack([spare_N2[:, 0] - offset_N2[:, 0], offset_N2[:, 1]], axis=1)
    return offset_N2


def random_offset(crop: PadRandomCrop, resized_N2: Ints, place_N2: Floats, position_N: Ints, epoch: int) -> Ints:
    """Return left and top of the window, int64 `(N, 2)`, negative in the margin; `place_N2` are draws of top and left.

    Raises `OptionError` for a picture that is too small to be cut, or to be mirrored.
    """
    spare_N2 = resized_N2 + 2 * crop.padding - np.array(sides_at(crop.size, epoch)[::-1])
    least = crop.padding + 1 if crop.mode == "reflect" and crop.padding else 1
    bad = np.flatnonzero((spare_N2 < 0).any(axis=1) | (resized_N2 < least).any(axis=1))
    if len(bad):
        width, height = resized_N2[bad[0]]
        raise OptionError(
            f"{crop!r} must have pictures large enough to cut and mirror, got {width}x{height} (width x height) at "
            f"position {position_N[bad[0]]}; put Resize before it"
        )
    offset_N2: Ints = (place_N2[:, ::-1] * (spare_N2 + 1)).astype(np.int64) - crop.padding
    return offset_N2


def _resized(resize: Resize, side_N2: Ints, epoch: int) -> Ints:
    size = sides_at(resize.size, epoch)
    if isinstance(resize.size, tuple):
        return np.broadcast_to(np.array(size[::-1]), side_N2.shape).copy()
    # The longer side is cut off, not rounded: int(size * long / short).
    resized_N2: Ints = size[0] * side_N2 // side_N2.min(axis=1, keepdims=True)
    return resized_N2


def _sides(area: Ints, scale: tuple[float, float], ratio: tuple[float, float], draw_2: Floats) -> Ints:
    """Return both sides of rectangles of random area and ratio, int64 `(2, ...)`; draws `(..., 2)`, areas to match."""
    low, high = math.log(ratio[0]), math.log(ratio[1])
    part = area * (scale[0] + (scale[1] - scale[0]) * draw_2[..., 0])
    quotient = exp(low + (high - low) * draw_2[..., 1])
    return np.rint(np.sqrt([part * quotient, part / quotient])).astype(np.int64)


def exp(x: Floats) -> Floats:
    """Return e**x, to the last bits, from sums and products alone.

    `np.exp` differs in its last bit from processor to processor, and now and then that would be another box.
    """
    turns = np.rint(x / (_LN2_HIGH + _LN2_LOW))
    rest = (x - turns * _LN2_HIGH) - turns * _LN2_LOW
    total = np.ones_like(rest)
    for factor in range(13, 0, -1):  # |rest| < 0.35: the next term of the series is below 1e-17.
        total *= rest
        total /= factor
        total += 1.0
    return np.ldexp(total, turns.astype(np.int32))
