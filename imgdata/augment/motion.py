"""One row of `BatchParams` -> the moves of pixels that its sample gets behind crop and flips, one after the other.

What moves along with a picture, such as a mask or boxes, gets the same moves.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from imgdata.augment import moves
from imgdata.augment.crops import Floats
from imgdata.augment.params import BatchParams
from imgdata.augment.policies import OPS
from imgdata.augment.steps import WITH_FIELDS, layout
from imgdata.recipes.choices import HOLDERS, AugMix
from imgdata.recipes.moves import Affine, Perspective
from imgdata.recipes.ops import AutoAugment, RandAugment, Rotate, TrivialAugment
from imgdata.recipes.recipe import Recipe

_POLICIES = (RandAugment, TrivialAugment, AutoAugment)
_MOVERS = (Rotate, Affine, Perspective, *_POLICIES, AugMix)


class Move(NamedTuple):
    """One move of all pixels. The size stays."""

    op: Any
    """The operator that says how pixels are sampled, and what comes in from outside."""
    place_K: tuple[float, ...]
    """Where pixels come from, as `augment.moves` has it: (a, b, c, d, e, f), or with (g, h) behind."""
    degrees: float | None = None
    """Angle of a rotation about the middle, counter-clockwise; None for other moves."""

    @property
    def forward_33(self) -> Floats:
        """The matrix that says where a point of the picture comes to, in homogeneous coordinates."""
        matrix = np.eye(3)
        matrix.reshape(-1)[: len(self.place_K)] = self.place_K
        inverse: Floats = np.linalg.inv(matrix).astype(np.float64)
        return inverse


@lru_cache(maxsize=256)
def moves_pixels(recipe: Recipe) -> bool:
    """Return whether an operator of the recipe may move pixels behind crop and flips."""
    return any(isinstance(op, _MOVERS) for op in _leaves(recipe.pixel_ops))


def mixes_moved(recipe: Recipe) -> bool:
    """Return whether an operator of the recipe sums pictures that were moved in different ways."""
    return any(isinstance(op, AugMix) for op in _leaves(recipe.pixel_ops))


def moves_of(recipe: Recipe, params: BatchParams, row: int) -> tuple[Move, ...]:
    """Return the moves of sample `row`. What `AugMix` moves is no move of the whole, and is left out."""
    height, width = params.height, params.width
    found: list[Move] = []
    plan = layout(recipe)
    for op, further in zip(plan.ops, plan.steps, strict=True):
        if isinstance(op, WITH_FIELDS):
            if isinstance(op, Rotate) and params.angle_N[row]:
                found.append(_turn(op, float(params.angle_N[row]), height, width))
            elif isinstance(op, _POLICIES):
                found += _policy(op, params.op_NP[row], params.strength_NP[row], height, width)
        for step in further:
            if not params.done_NS[row, step.column]:
                continue
            value_V = params.value_NV[row, step.first : step.first + step.values]
            if isinstance(step.op, Rotate):
                found.append(_turn(step.op, float(value_V[0]), height, width))
            elif isinstance(step.op, Affine):
                found.append(Move(step.op, tuple(moves.affine(value_V[None], height, width)[0].tolist())))
            elif isinstance(step.op, Perspective):
                found.append(Move(step.op, tuple(moves.perspective(value_V[None], height, width)[0].tolist())))
            elif isinstance(step.op, _POLICIES):
                op_P, strength_P = value_V.reshape(2, -1)
                found += _policy(step.op, op_P, strength_P, height, width)
    return tuple(found)


def _leaves(ops: tuple[Any, ...]) -> list[Any]:
    return [leaf for op in ops for leaf in (_leaves(op.ops) if isinstance(op, HOLDERS) else [op])]


def _turn(op: Any, degrees: float, height: int, width: int) -> Move:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return Move(op, (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y), degrees)


def _policy(op: Any, op_P: Floats, strength_P: Floats, height: int, width: int) -> list[Move]:
    """Return the moves among the operations of a policy."""
    found = []
    for name, strength in zip([OPS[int(number)] for number in op_P], strength_P.tolist(), strict=True):
        if name == "Rotate":
            found.append(_turn(op, strength, height, width))
        elif name == "ShearX":
            found.append(Move(op, (1.0, strength, 0.0, 0.0, 1.0, 0.0)))
        elif name == "ShearY":
            found.append(Move(op, (1.0, 0.0, 0.0, strength, 1.0, 0.0)))
        elif name == "TranslateX":
            found.append(Move(op, (1.0, 0.0, -float(int(strength)), 0.0, 1.0, 0.0)))
        elif name == "TranslateY":
            found.append(Move(op, (1.0, 0.0, 0.0, 0.0, 1.0, -float(int(strength)))))
    return found
