"""Boxes, keypoints and the fields beside them, as a dataset has them -> those of each sample of a batch, moved."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.augment.crops import Floats
from imgdata.backends.joint.boxes import is_left, moved_boxes, moved_points
from imgdata.backends.joint.parts import BOXES, KEYPOINTS, Joint
from imgdata.backends.protocol import BatchRequest
from imgdata.dataset.columns import Columns
from imgdata.errors import ImageError
from imgdata.recipes.recipe import Recipe

Objects = Mapping[str, NDArray[Any]]
"""The objects of a sample by field: `boxes` `(M, 4)`, `keypoints` `(M, K, 3)`, others `(M,)`."""


def read_objects(joint: Joint, columns: Columns, position_N: NDArray[np.int64]) -> list[Objects | ImageError]:
    """Return the objects of samples as stored, or what is wrong with them. Raises `ShardError`."""
    values = {name: columns.values(name, position_N) for name in joint.fields}
    return [_checked(joint, {name: value[row] for name, value in values.items()}) for row in range(len(position_N))]


def move_objects(joint: Joint, found: Sequence[Objects], work: BatchRequest, recipe: Recipe) -> list[Objects]:
    """Return the objects that are left of each sample of `work`, in pixels of the output."""
    moved = [dict(one) for one in found]
    if joint.keypoints:
        for one, points in zip(moved, _moved_keypoints([one[KEYPOINTS] for one in found], work, recipe), strict=True):
            one[KEYPOINTS] = points
    if joint.boxes:
        count_N = [len(one[BOXES]) for one in found]
        row_B = np.repeat(np.arange(len(found)), count_N)
        box_B4 = moved_boxes(np.concatenate([one[BOXES] for one in found]), row_B, work.params, recipe)
        left_B, ends = is_left(box_B4), np.cumsum(count_N)[:-1]
        for one, box_M4, left_M in zip(moved, np.split(box_B4, ends), np.split(left_B, ends), strict=True):
            one[BOXES] = box_M4.astype(np.float32)
            for name in one:
                one[name] = one[name][left_M]
    return list(moved)


def no_objects(joint: Joint) -> Objects:
    """Return the fields of a sample without any object."""
    return {name: _array(name, None) for name in joint.fields}


def _moved_keypoints(found: Sequence[Floats], work: BatchRequest, recipe: Recipe) -> list[NDArray[np.float32]]:
    """Return the keypoints `(M, K, 3)` of each sample, moved; K may differ from sample to sample."""
    count_N = [point_MK3.size // 3 for point_MK3 in found]
    row_P = np.repeat(np.arange(len(found)), count_N)
    point_P3 = np.concatenate([point_MK3.reshape(-1, 3) for point_MK3 in found])
    moved_P3 = moved_points(point_P3, row_P, work.params, recipe).astype(np.float32)
    parts = np.split(moved_P3, np.cumsum(count_N)[:-1])
    return [part.reshape(point_MK3.shape) for part, point_MK3 in zip(parts, found, strict=True)]


def _checked(joint: Joint, values: Mapping[str, Any]) -> Objects | ImageError:
    found: dict[str, NDArray[Any]] = {}
    try:
        for name, value in values.items():
            found[name] = _array(name, value)
    except (ValueError, TypeError, OverflowError):
        return ImageError("corrupt", f"{name} of the json member must be {_MEANT.get(name, _MEANT_BY_BOX)}")
    counts = {name: len(value) for name, value in found.items()}
    if len(set(counts.values())) > 1:
        named = ", ".join(f"{count} {name}" for name, count in counts.items())
        return ImageError("corrupt", f"the json member must have as many of each, got {named}")
    return found


def _array(name: str, value: Any) -> NDArray[Any]:
    value = [] if value is None or (isinstance(value, float) and np.isnan(value)) else value
    if name == BOXES:
        return _finite(np.asarray(value, np.float64).reshape(-1, 4))
    if name == KEYPOINTS:
        points = _finite(np.asarray(value, np.float64))
        return points.reshape(len(points), -1, 3) if points.size else np.zeros((len(points), 0, 3))
    array = np.asarray(value)
    if not array.size:
        return np.zeros(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iufb":
        raise ValueError
    return array.astype(np.int64) if array.dtype.kind in "iu" else array.astype(np.float32)


def _finite(values: Floats) -> Floats:
    if not np.isfinite(values).all():
        raise ValueError
    return values


_MEANT = {
    BOXES: "a list of [left, top, right, bottom]",
    KEYPOINTS: "a list of objects, each a list of [x, y, visibility]",
}
_MEANT_BY_BOX = "a list with a number for each box"
