"""Boxes and keypoints of pictures + `BatchParams` -> where they are in the output.

The arithmetic is that of torchvision's operators on `BoundingBoxes` and `KeyPoints` (version 2): a box that was rotated
is the smallest upright one around its corners, cut off at the edges after each move; a mirrored keypoint counts pixels
from the other edge, from 0.
"""

import numpy as np
from numpy.typing import NDArray

from imgdata.augment.crops import Floats, Ints
from imgdata.augment.motion import Move, moves_of, moves_pixels
from imgdata.augment.params import BatchParams
from imgdata.recipes.recipe import Recipe

LEAST_SIDE = 1.0
"""Pixels that a box has to keep along both sides: torchvision's `SanitizeBoundingBoxes`."""
_CORNERS = np.array([[0, 1], [2, 1], [2, 3], [0, 3]])


def moved_boxes(box_B4: Floats, row_B: Ints, params: BatchParams, recipe: Recipe) -> Floats:
    """Return boxes (left, top, right, bottom) in pixels of the output, float64 `(B, 4)`; `row_B` are their samples."""
    point_B22 = np.array(box_B4, np.float64).reshape(-1, 2, 2)
    size_B12 = params.box_N4[row_B, None, 2:]
    point_B22 = (point_B22 - params.box_N4[row_B, None, :2]).clip(0, size_B12)
    point_B22 = point_B22 * (params.resized_N2[row_B, None] / size_B12) - params.offset_N2[row_B, None]
    side_2 = np.array([params.width, params.height])
    point_B22 = point_B22.clip(0, side_2)
    for axis, flip_N in enumerate((params.flip_N, params.vflip_N)):
        rows = flip_N[row_B]
        point_B22[rows, :, axis] = side_2[axis] - point_B22[rows, ::-1, axis]
    moved_B4 = point_B22.reshape(-1, 4)
    for row, moves in _moves(row_B, params, recipe).items():
        here = row_B == row
        for move in moves:
            corner_M42 = moved_B4[here][:, _CORNERS]
            corner_M42 = _at(move, corner_M42.reshape(-1, 2)).reshape(-1, 4, 2)
            hull_M4 = np.concatenate([corner_M42.min(axis=1), corner_M42.max(axis=1)], axis=1)
            moved_B4[here] = hull_M4.clip(0, np.tile(side_2, 2))
    return moved_B4


def is_left(box_B4: Floats) -> NDArray[np.bool_]:
    """Return which boxes still are boxes, bool `(B,)`."""
    kept_B: NDArray[np.bool_] = np.logical_and.reduce(box_B4[:, 2:] - box_B4[:, :2] >= LEAST_SIDE, axis=1)
    return kept_B


def moved_points(point_P3: Floats, row_P: Ints, params: BatchParams, recipe: Recipe) -> Floats:
    """Return points (x, y, visibility) in pixels of the output, float64 `(P, 3)`; all 0 where they are not visible."""
    xy_P2, seen_P3 = np.array(point_P3[:, :2], np.float64), np.array(point_P3, np.float64)
    left_top_P2, size_P2 = params.box_N4[row_P, :2], params.box_N4[row_P, 2:]
    xy_P2 = (xy_P2 - left_top_P2) * (params.resized_N2[row_P] / size_P2) - params.offset_N2[row_P]
    side_2 = np.array([params.width, params.height])
    for axis, flip_N in enumerate((params.flip_N, params.vflip_N)):
        rows = flip_N[row_P]
        xy_P2[rows, axis] = side_2[axis] - 1 - xy_P2[rows, axis]
    inside_P = _inside(xy_P2, side_2)
    for row, moves in _moves(row_P, params, recipe).items():
        here = row_P == row
        for move in moves:
            xy_P2[here] = _at(move, xy_P2[here])
            inside_P[here] = np.logical_and(inside_P[here], _inside(xy_P2[here], side_2))
    seen_P3[:, :2] = xy_P2
    seen_P3[~(inside_P & (seen_P3[:, 2] > 0))] = 0
    return seen_P3


def _inside(xy_P2: Floats, side_2: Ints) -> NDArray[np.bool_]:
    inside_P: NDArray[np.bool_] = np.logical_and.reduce((xy_P2 >= 0) & (xy_P2 < side_2), axis=1)
    return inside_P


def _moves(row_P: Ints, params: BatchParams, recipe: Recipe) -> dict[int, tuple[Move, ...]]:
    """Return the moves of each sample that has any."""
    if not moves_pixels(recipe):
        return {}
    found = {row: moves_of(recipe, params, row) for row in np.unique(row_P).tolist()}
    return {row: moves for row, moves in found.items() if moves}


def _at(move: Move, xy_P2: Floats) -> Floats:
    """Return where points come to."""
    matrix_33 = move.forward_33
    homogeneous_P3 = np.concatenate([xy_P2, np.ones((len(xy_P2), 1))], axis=1) @ matrix_33.T
    moved_P2: Floats = homogeneous_P3[:, :2] / homogeneous_P3[:, 2:]
    return moved_P2
