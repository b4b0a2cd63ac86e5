"""Boxes, sizes and windows of `BatchParams` -> the arguments of DALI's decoder, resize and slice, as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgdata.augment.params import BatchParams

PLACEHOLDER_SIDE = 8
"""Pixels of the picture that stands in for one that DALI doesn't get."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Which operators the pipeline has; the recipe decides."""

    resizes: bool
    radius: int
    """Reach of the filter in pixels: 1 linear, 2 cubic."""
    margins: bool
    """Windows may reach out of the picture, or are cut without a resize."""
    mirrored: bool
    """Margins show the picture mirrored; otherwise they are black."""


def geometry(params: BatchParams, placeholder_N: NDArray[np.bool_], shape: Shape) -> dict[str, NDArray[np.generic]]:
    """Return inputs by name, each `(N, 2)`: in (x, y), except for those of resize, which are (y, x).

    `anchor` and `extent` are the part that is decoded: of the box what the window needs, with the reach of the filter.
    `size` is what `roi_start` to `roi_end` of that part become. The window begins at `start` of the result, and has
    `window` pixels. Rows of `placeholder_N` get a whole picture of `PLACEHOLDER_SIDE`.
    """
    window_2 = np.array([params.width, params.height])
    box_N2, extent_N2 = params.box_N4[:, :2].copy(), params.box_N4[:, 2:].copy()
    resized_N2, offset_N2 = params.resized_N2.copy(), params.offset_N2.copy()
    box_N2[placeholder_N] = offset_N2[placeholder_N] = 0
    extent_N2[placeholder_N] = PLACEHOLDER_SIDE
    resized_N2[placeholder_N] = window_2 if shape.resizes else PLACEHOLDER_SIDE
    first_N2, last_N2 = _needed(offset_N2, resized_N2, window_2, shape)
    arrays: dict[str, NDArray[np.generic]] = {}
    if shape.resizes:
        scale_N2 = extent_N2 / resized_N2
        from_N2, to_N2 = first_N2 * scale_N2, last_N2 * scale_N2
        # One more than the filter reaches: neither rounding of its ends may matter.
        reach_N2 = shape.radius * np.maximum(scale_N2, 1.0) + 1.0
        low_N2 = np.maximum(np.floor(from_N2 - reach_N2), 0).astype(np.int64)
        high_N2 = np.minimum(np.ceil(to_N2 + reach_N2), extent_N2).astype(np.int64)
        arrays["size"] = _yx(last_N2 - first_N2)
        arrays["roi_start"], arrays["roi_end"] = _yx(from_N2 - low_N2), _yx(to_N2 - low_N2)
    else:
        low_N2, high_N2 = first_N2, last_N2
    arrays["anchor"], arrays["extent"] = _xy(box_N2 + low_N2), _xy(high_N2 - low_N2)
    if shape.margins:
        arrays["start"] = _xy(offset_N2 - first_N2)
        arrays["window"] = _xy(np.broadcast_to(window_2, offset_N2.shape))
    return arrays


def _needed(
    offset_N2: NDArray[np.int64], resized_N2: NDArray[np.int64], window_2: NDArray[np.int64], shape: Shape
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and last pixels of the resized picture that are needed: all where margins are mirrored."""
    first_N2 = np.clip(offset_N2, 0, resized_N2 - 1)
    last_N2 = np.clip(offset_N2 + window_2, first_N2 + 1, resized_N2)
    if shape.mirrored:
        outside_N2 = (offset_N2 < 0) | (offset_N2 + window_2 > resized_N2)
        first_N2, last_N2 = np.where(outside_N2, 0, first_N2), np.where(outside_N2, resized_N2, last_N2)
    return first_N2, last_N2


def _xy(value_N2: NDArray[np.int64]) -> NDArray[np.int32]:
    return np.ascontiguousarray(value_N2, np.int32)


def _yx(value_N2: NDArray[np.generic]) -> NDArray[np.float32]:
    return np.ascontiguousarray(value_N2[:, ::-1], np.float32)
