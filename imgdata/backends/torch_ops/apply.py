"""Batch of pixels, parameters, recipe -> the batch mirrored, and changed by the recipe's operators on pixels."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from imgdata.augment import augmix, moves
from imgdata.augment.params import JITTERS, BatchParams
from imgdata.augment.policies import OPS, Policy
from imgdata.augment.steps import WITH_FIELDS, layout
from imgdata.backends.pillow.blur import kernels
from imgdata.backends.torch_ops import color
from imgdata.backends.torch_ops.affine import MOVES, coefficients, mover, warper
from imgdata.backends.torch_ops.batched import Change, Step, parts, run, upload
from imgdata.recipes.choices import AugMix
from imgdata.recipes.moves import Affine, Perspective
from imgdata.recipes.ops import AutoAugment, ColorJitter, Grayscale, RandAugment, Rotate, TrivialAugment
from imgdata.recipes.recipe import PixelOp, Recipe
from imgdata.recipes.tones import AutoContrast, Equalize, GaussianBlur, Invert, Posterize, Sharpness, Solarize

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
Rows = NDArray[np.int64]
Values = NDArray[np.float64]


def apply(images: torch.Tensor, params: BatchParams, recipe: Recipe) -> torch.Tensor:
    """Apply everything between flips and `Normalize` to uint8 `(N, 3, H, W)` in any order of memory; return it.

    A row that draws nothing is not touched, and costs nothing.
    """
    size = params.height, params.width
    steps: list[Step] = []
    plan = layout(recipe)
    for op, further in zip(plan.ops, plan.steps, strict=True):
        if isinstance(op, WITH_FIELDS):
            steps += _by_fields(op, params, size)
        for one in further:
            row_R = np.flatnonzero(params.done_NS[:, one.column])
            value_RV = params.value_NV[row_R, one.first : one.first + one.values]
            if isinstance(one.op, AugMix):
                images, steps = run(steps, images), []
                _mix_chains(images, one.op, row_R, value_RV)
            else:
                steps += _STEPS[type(one.op)](one.op, row_R, value_RV, size)
    return run(steps, images)


def flip(images: torch.Tensor, flip_N: NDArray[np.bool_], vflip_N: NDArray[np.bool_]) -> torch.Tensor:
    """Mirror rows of `flip_N` left to right, and of `vflip_N` upside down, in uint8 `(N, C, H, W)`; return it."""
    return run(
        [
            _plain(lambda part, _: part.flip(3), np.flatnonzero(flip_N & ~vflip_N)),
            _plain(lambda part, _: part.flip(2), np.flatnonzero(vflip_N & ~flip_N)),
            _plain(lambda part, _: part.flip((2, 3)), np.flatnonzero(flip_N & vflip_N)),
        ],
        images,
    )


def _by_fields(op: PixelOp, params: BatchParams, size: tuple[int, int]) -> Iterator[Step]:
    """Return the steps of an operator whose draws have fields of their own."""
    if isinstance(op, Rotate):
        row_R = np.flatnonzero(params.angle_N)
        yield from _rotation(op, row_R, params.angle_N[row_R, None], size)
    elif isinstance(op, ColorJitter):
        yield from _jitter(np.arange(len(params)), params.order_N4, params.jitter_N4)
    elif isinstance(op, Grayscale):
        yield _plain(color.grayscale, np.flatnonzero(params.gray_N))
    elif isinstance(op, RandAugment | TrivialAugment | AutoAugment):
        yield from _policy(op, np.arange(len(params)), params.op_NP, params.strength_NP, size)


def _plain(change: Change, row_R: Rows, value: float = 0.0) -> Step:
    """Return a change of some rows that all have one value."""
    return Step(change, row_R, np.full((len(row_R), 1), value, np.float32))


def _rotation(op: Rotate, row_R: Rows, angle_R1: Values, size: tuple[int, int]) -> Iterator[Step]:
    value_R6 = coefficients(np.full(len(row_R), OPS.index("Rotate")), angle_R1[:, 0], *size)
    yield Step(mover(op.interpolation, op.fill), row_R, value_R6)


def _policy(
    policy: Policy | AugMix, row_R: Rows, op_RP: Rows, strength_RP: Values, size: tuple[int, int]
) -> Iterator[Step]:
    move = mover(policy.interpolation, policy.fill)
    for op_R, strength_R in zip(op_RP.T, strength_RP.T, strict=True):
        which = np.flatnonzero(np.isin(op_R, _MOVES))
        yield Step(move, row_R[which], coefficients(op_R[which], strength_R[which], *size))
        for name, change in _TONES.items():
            which = np.flatnonzero(op_R == OPS.index(name))
            yield Step(change, row_R[which], _strengths(name, strength_R[which]))


def _strengths(name: str, strength_R: Values) -> NDArray[np.float32]:
    """Return the operation's argument, float32 `(R, 1)`: a factor, a mask of bits, a threshold."""
    if name in _FACTORS:
        strength_R = 1.0 + strength_R
    elif name == "Posterize":
        strength_R = 256.0 - 2.0 ** (8.0 - np.trunc(strength_R))
    elif name == "Solarize":
        # A whole number, as with Pillow: 51.0000008 would become 51 in float32, and the value 51 be inverted.
        strength_R = np.ceil(255.0 * strength_R)
    return strength_R.astype(np.float32)[:, None]


def _jitter(row_R: Rows, order_R4: Rows, jitter_R4: Values) -> Iterator[Step]:
    for column_R in order_R4.T:
        for column, name in enumerate(JITTERS):
            value_R = jitter_R4[:, column]
            which = np.flatnonzero((column_R == column) & (value_R != (0.0 if name == "hue" else 1.0)))
            yield Step(_JITTERS[name], row_R[which], value_R[which].astype(np.float32)[:, None])


def _mix_chains(images: torch.Tensor, op: AugMix, row_R: Rows, value_RV: Values) -> None:
    """Put the shares of the picture and of its chains into rows, in place; fractions are cut off, as in torchvision."""
    size = images.shape[2], images.shape[3]
    op_RWD, strength_RWD, share_RW = augmix.parts(op, value_RV)
    for part in parts(len(row_R), images):
        host_P = row_R[part]
        row_P, share_PW = upload([host_P, share_RW[part].astype(np.float32)], images.device)
        own = images.index_select(0, row_P)
        total = own * share_PW[:, 0, None, None, None]
        for chain in range(op.width):
            chain_PD, strength_PD = op_RWD[part, chain], strength_RWD[part, chain]
            steps = list(_policy(op, np.arange(len(host_P)), chain_PD, strength_PD, size))
            total.add_(run(steps, own.clone()) * share_PW[:, chain + 1, None, None, None])
        images[row_P] = total.clamp_(0.0, 255.0).to(torch.uint8)


def _warped(op: Any, row_R: Rows, value_RV: Values, size: tuple[int, int]) -> Iterator[Step]:
    places = moves.affine if isinstance(op, Affine) else moves.perspective
    yield Step(warper(op.interpolation, op.fill), row_R, places(value_RV, *size))


def _held_policy(op: Any, row_R: Rows, value_RV: Values, size: tuple[int, int]) -> Iterator[Step]:
    op_RP, strength_RP = np.split(value_RV, 2, axis=1)
    return _policy(op, row_R, op_RP.astype(np.int64), strength_RP, size)


def _held_jitter(op: Any, row_R: Rows, value_R8: Values, size: tuple[int, int]) -> Iterator[Step]:
    return _jitter(row_R, value_R8[:, :4].astype(np.int64), value_R8[:, 4:])


def _blur(op: GaussianBlur, row_R: Rows, value_R1: Values, size: tuple[int, int]) -> Iterator[Step]:
    yield Step(color.blur, row_R, kernels(value_R1[:, 0], op.kernel_size))


def _tone(change: Change, value: Callable[[Any], float] = lambda op: 0.0) -> Callable[..., Iterator[Step]]:
    """Return the steps of an operator whose value is that of its settings."""
    return lambda op, row_R, *_: iter([_plain(change, row_R, value(op))])


_STEPS: dict[type, Callable[[Any, Rows, Values, tuple[int, int]], Iterator[Step]]] = {
    Rotate: _rotation,
    Affine: _warped,
    Perspective: _warped,
    **dict.fromkeys((RandAugment, TrivialAugment, AutoAugment), _held_policy),
    ColorJitter: _held_jitter,
    Grayscale: _tone(color.grayscale),
    GaussianBlur: _blur,
    Solarize: _tone(color.solarize, lambda op: float(np.ceil(op.threshold))),
    Posterize: _tone(color.posterize, lambda op: 256.0 - 2.0 ** (8 - op.bits)),
    Equalize: _tone(color.equalize),
    AutoContrast: _tone(color.autocontrast),
    Sharpness: _tone(color.sharpness, lambda op: op.factor),
    Invert: _tone(color.invert),
}
"""By kind: operator, rows, their values `(R, V)`, (height, width) -> steps. Values are those of `augment.steps`."""
