"""Batch of pixels, parameters, recipe -> the batch mirrored, turned, changed by its policy, jittered and made gray."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from imgdata.augment.params import JITTERS, BatchParams
from imgdata.augment.policies import OPS
from imgdata.backends.torch_ops import color
from imgdata.backends.torch_ops.affine import MOVES, coefficients, mover
from imgdata.backends.torch_ops.batched import Change, Step, run
from imgdata.recipes.ops import AutoAugment, RandAugment, Rotate, TrivialAugment
from imgdata.recipes.recipe import Recipe

_MOVES = tuple(map(OPS.index, MOVES))
_FACTORS: dict[str, Change] = {
    "Brightness": color.brightness,
    "Color": color.saturation,
    "Contrast": color.contrast,
    "Sharpness": color.sharpness,
}
_TONES: dict[str, Change] = {
    **_FACTORS,
    "Posterize": color.posterize,
    "Solarize": color.solarize,
    "AutoContrast": color.autocontrast,
    "Equalize": color.equalize,
    "Invert": color.invert,
}
_JITTERS: dict[str, Change] = {
    "brightness": color.brightness,
    "contrast": color.contrast,
    "saturation": color.saturation,
    "hue": color.hue,
}


def apply(images: torch.Tensor, params: BatchParams, recipe: Recipe) -> torch.Tensor:
    """Apply everything between flips and `Normalize` to uint8 `(N, 3, H, W)` in any order of memory; return it.

    A row that draws nothing is not touched, and costs nothing.
    """
    height, width = images.shape[2:]
    steps = [*_rotation(params, recipe, height, width), *_policy(params, recipe, height, width), *_colors(params)]
    return run(steps, images)


def flip(images: torch.Tensor, flip_N: NDArray[np.bool_], vflip_N: NDArray[np.bool_]) -> torch.Tensor:
    """Mirror rows of `flip_N` left to right, and of `vflip_N` upside down, in uint8 `(N, C, H, W)`; return it."""
    return run(
        [
            _plain(lambda part, _: part.flip(3), flip_N & ~vflip_N),
            _plain(lambda part, _: part.flip(2), vflip_N & ~flip_N),
            _plain(lambda part, _: part.flip((2, 3)), flip_N & vflip_N),
        ],
        images,
    )


def _plain(change: Change, chosen_N: NDArray[np.bool_]) -> Step:
    row_R = np.flatnonzero(chosen_N)
    return Step(change, row_R, np.zeros((len(row_R), 1), np.float32))


def _rotation(params: BatchParams, recipe: Recipe, height: int, width: int) -> Iterator[Step]:
    rotate = recipe.find(Rotate)
    if rotate is not None:
        row_R = np.flatnonzero(params.angle_N)
        op_R = np.full(len(row_R), OPS.index("Rotate"))
        value_R6 = coefficients(op_R, params.angle_N[row_R], height, width)
        yield Step(mover(rotate.interpolation, rotate.fill), row_R, value_R6)


def _policy(params: BatchParams, recipe: Recipe, height: int, width: int) -> Iterator[Step]:
    policy = recipe.find(RandAugment) or recipe.find(TrivialAugment) or recipe.find(AutoAugment)
    if policy is None:
        return
    move = mover(policy.interpolation, policy.fill)
    for op_N, strength_N in zip(params.op_NP.T, params.strength_NP.T, strict=True):
        row_R = np.flatnonzero(np.isin(op_N, _MOVES))
        yield Step(move, row_R, coefficients(op_N[row_R], strength_N[row_R], height, width))
        for name, change in _TONES.items():
            row_R = np.flatnonzero(op_N == OPS.index(name))
            yield Step(change, row_R, _strengths(name, strength_N[row_R]))


def _strengths(name: str, strength_R: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the operation's argument, float32 `(R, 1)`: a factor, a mask of bits, a threshold."""
    if name in _FACTORS:
        strength_R = 1.0 + strength_R
    elif name == "Posterize":
        strength_R = 256.0 - 2.0 ** (8.0 - np.trunc(strength_R))
    elif name == "Solarize":
        # A whole number, as with Pillow: 51.0000008 would become 51 in float32, and the value 51 be inverted.
        strength_R = np.ceil(255.0 * strength_R)
    return strength_R.astype(np.float32)[:, None]


def _colors(params: BatchParams) -> Iterator[Step]:
    for column_N in params.order_N4.T:
        for column, name in enumerate(JITTERS):
            value_N = params.jitter_N4[:, column]
            row_R = np.flatnonzero((column_N == column) & (value_N != (0.0 if name == "hue" else 1.0)))
            yield Step(_JITTERS[name], row_R, value_N[row_R].astype(np.float32)[:, None])
    yield _plain(color.grayscale, params.gray_N)
