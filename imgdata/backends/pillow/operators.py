"""A window of pixels + one row of `BatchParams` -> the window rotated, changed by its policy, jittered and made gray.

All through Pillow: pixels are exactly those that torchvision's operators make of PIL images.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from imgdata.augment.params import JITTERS, BatchParams
from imgdata.augment.policies import OPS
from imgdata.recipes.ops import AutoAugment, ColorJitter, Fill, Grayscale, RandAugment, Rotate, Sampling, TrivialAugment
from imgdata.recipes.recipe import Recipe

_KINDS = (Rotate, RandAugment, TrivialAugment, AutoAugment, ColorJitter, Grayscale)
_SAMPLINGS = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}
_HUES = 255
"""Steps of Pillow's hue for the whole circle, as torchvision counts them."""


class _Outside(NamedTuple):
    """How a picture is sampled where it is rotated, and what comes in from outside."""

    resampling: Image.Resampling
    color: tuple[int, int, int]


def works_on_pixels(recipe: Recipe) -> bool:
    """Return whether the recipe has operators that are done here."""
    return any(isinstance(op, _KINDS) for op in recipe.ops)


def apply(pixels_HWC: NDArray[np.uint8], params: BatchParams, row: int, recipe: Recipe) -> NDArray[np.uint8]:
    """Apply the operators between flips and `Normalize` to sample `row`, uint8 `(H, W, 3)`.

    The array itself where nothing is to be done; otherwise a new one, read-only.
    """
    if not _changes(params, row):
        return pixels_HWC
    return np.asarray(apply_image(Image.fromarray(pixels_HWC), params, row, recipe))


def apply_image(image: Image.Image, params: BatchParams, row: int, recipe: Recipe) -> Image.Image:
    """Do what `apply` does to Pillow's image in RGB; return another image, or the same one."""
    rotate = recipe.find(Rotate)
    if rotate is not None and params.angle_N[row]:
        image = _turned(image, float(params.angle_N[row]), _outside(rotate.interpolation, rotate.fill))
    policy = recipe.find(RandAugment) or recipe.find(TrivialAugment) or recipe.find(AutoAugment)
    if policy is not None:
        outside = _outside(policy.interpolation, policy.fill)
        for op, strength in zip(params.op_NP[row].tolist(), params.strength_NP[row].tolist(), strict=True):
            if OPS[op] in _MOVES:
                image = _MOVES[OPS[op]](image, strength, outside)
            elif op:
                image = _TONES[OPS[op]](image, strength)
    for column in params.order_N4[row].tolist():
        value = float(params.jitter_N4[row, column])
        if JITTERS[column] == "hue":
            image = _hue_shifted(image, value) if value else image
        elif value != 1.0:
            image = _ENHANCERS[JITTERS[column]](image).enhance(value)
    return image.convert("L").convert("RGB") if params.gray_N[row] else image


def _changes(params: BatchParams, row: int) -> bool:
    return bool(
        params.angle_N[row]
        or params.op_NP[row].any()
        or params.gray_N[row]
        or (params.jitter_N4[row] != _NEUTRAL_4).any()
    )


_NEUTRAL_4 = np.array([0.0 if name == "hue" else 1.0 for name in JITTERS])
_ENHANCERS: dict[str, Callable[[Image.Image], ImageEnhance.Brightness | ImageEnhance.Contrast | ImageEnhance.Color]] = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}


def _outside(interpolation: Sampling, fill: Fill) -> _Outside:
    red, green, blue = fill if isinstance(fill, tuple) else (fill, fill, fill)
    return _Outside(_SAMPLINGS[interpolation], (int(red), int(green), int(blue)))


def _turned(image: Image.Image, degrees: float, outside: _Outside) -> Image.Image:
    return image.rotate(degrees, outside.resampling, fillcolor=outside.color)


def _moved(
    image: Image.Image, outside: _Outside, x: tuple[float, float, float], y: tuple[float, float, float]
) -> Image.Image:
    """Move pixels: `x` and `y` are factors of an output pixel's x and y, and a shift, that say where it comes from."""
    return image.transform(image.size, Image.Transform.AFFINE, (*x, *y), outside.resampling, fillcolor=outside.color)


_MOVES: dict[str, Callable[[Image.Image, float, _Outside], Image.Image]] = {
    "ShearX": lambda image, tangent, outside: _moved(image, outside, (1.0, tangent, 0.0), (0.0, 1.0, 0.0)),
    "ShearY": lambda image, tangent, outside: _moved(image, outside, (1.0, 0.0, 0.0), (tangent, 1.0, 0.0)),
    "TranslateX": lambda image, shift, outside: _moved(image, outside, (1.0, 0.0, -int(shift)), (0.0, 1.0, 0.0)),
    "TranslateY": lambda image, shift, outside: _moved(image, outside, (1.0, 0.0, 0.0), (0.0, 1.0, -int(shift))),
    "Rotate": _turned,
}
_TONES: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "Brightness": lambda image, strength: ImageEnhance.Brightness(image).enhance(1.0 + strength),
    "Color": lambda image, strength: ImageEnhance.Color(image).enhance(1.0 + strength),
    "Contrast": lambda image, strength: ImageEnhance.Contrast(image).enhance(1.0 + strength),
    "Sharpness": lambda image, strength: ImageEnhance.Sharpness(image).enhance(1.0 + strength),
    "Posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "Solarize": lambda image, share: ImageOps.solarize(image, math.ceil(255.0 * share)),
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Invert": lambda image, _: ImageOps.invert(image),
}


def _hue_shifted(image: Image.Image, turns: float) -> Image.Image:
    """Shift the hue in Pillow's HSV by a part of the circle, cut off to whole steps as in torchvision."""
    shift = int(turns * _HUES)
    table = [(step + shift) % 256 for step in range(256)] + 2 * list(range(256))
    return image.convert("HSV").point(table).convert("RGB")
