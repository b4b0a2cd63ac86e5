"""A window of pixels + one row of `BatchParams` -> the window after the recipe's operators on pixels.

Through Pillow: pixels are exactly those that torchvision's operators make of PIL images. For two of them torchvision
itself makes tensors of PIL images: `GaussianBlur` is `pillow.blur`, and `AugMix` mixes what Pillow makes of each chain.
"""

import math
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from imgdata.augment import augmix, moves
from imgdata.augment.params import JITTERS, BatchParams
from imgdata.augment.policies import OPS
from imgdata.augment.steps import WITH_FIELDS, generator, layout
from imgdata.backends.pillow.blur import blurred
from imgdata.errors import FunctionError
from imgdata.recipes.choices import AugMix
from imgdata.recipes.functions import Apply, name_of
from imgdata.recipes.moves import Affine, Perspective
from imgdata.recipes.ops import AutoAugment, ColorJitter, Grayscale, RandAugment, Rotate, TrivialAugment
from imgdata.recipes.recipe import PixelOp, Recipe
from imgdata.recipes.tones import AutoContrast, Equalize, GaussianBlur, Invert, Posterize, Sharpness, Solarize

_SAMPLINGS = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}
_HUES = 255
"""Steps of Pillow's hue for the whole circle, as torchvision counts them."""


class _Outside(NamedTuple):
    """How a picture is sampled where it is rotated, and what comes in from outside."""

    resampling: Image.Resampling
    color: float | tuple[int, ...]


def works_on_pixels(recipe: Recipe) -> bool:
    """Return whether the recipe has operators that are done here."""
    return bool(recipe.pixel_ops)


def apply(pixels_HWC: NDArray[np.uint8], params: BatchParams, row: int, recipe: Recipe) -> NDArray[np.uint8]:
    """Apply the operators between flips and `Normalize` to sample `row`, uint8 `(H, W, C)` with 1, 3 or 4 channels.

    The array itself where nothing is to be done; otherwise a new one, read-only.
    """
    if not _changes(params, row):
        return pixels_HWC
    made = np.asarray(apply_image(_image(pixels_HWC), params, row, recipe))
    return made if made.ndim == 3 else made[:, :, None]


def apply_image(image: Image.Image, params: BatchParams, row: int, recipe: Recipe) -> Image.Image:
    """Do what `apply` does to Pillow's image in RGB, L, F or RGBA; return another image, or the same one."""
    plan = layout(recipe)
    for op, further in zip(plan.ops, plan.steps, strict=True):
        if isinstance(op, WITH_FIELDS):
            image = _by_fields(image, op, params, row)
        for step in further:
            if params.done_NS[row, step.column]:
                value_V = params.value_NV[row, step.first : step.first + step.values]
                if isinstance(step.op, Apply):
                    image = _applied(image, step.op, value_V, int(params.position_N[row]))
                else:
                    image = _STEPS[type(step.op)](image, step.op, value_V)
    return image


def _applied(image: Image.Image, op: Apply, value_2: NDArray[np.float64], position: int) -> Image.Image:
    """Call the user's function. Raises `FunctionError`."""
    name = f"Apply({name_of(op.function)})"
    # A copy, that the function may change.
    pixels_HWC = np.array(image).reshape(image.height, image.width, -1)
    try:
        made = op.called(pixels_HWC, generator(value_2))
    except Exception as error:
        raise FunctionError(raised(name, error), position) from error
    if not (isinstance(made, np.ndarray) and made.dtype == np.uint8 and made.shape == pixels_HWC.shape):
        raise FunctionError(f"{name} must return {_form(pixels_HWC)}, got {_form(made)}", position)
    return _image(made)


def _image(pixels_HWC: NDArray[Any]) -> Image.Image:
    """Return Pillow's image of the pixels: in L or F where there is one channel."""
    return Image.fromarray(np.ascontiguousarray(pixels_HWC if pixels_HWC.shape[2] > 1 else pixels_HWC[:, :, 0]))


def raised(name: str, error: BaseException) -> str:
    """Return what a function raised, and in which line, for people."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{name} raised {type(error).__name__}: {error} ({Path(frame.filename).name}, line {frame.lineno})"


def _form(made: object) -> str:
    return f"{made.dtype} {made.shape}" if isinstance(made, np.ndarray) else type(made).__name__


def _by_fields(image: Image.Image, op: PixelOp, params: BatchParams, row: int) -> Image.Image:
    """Apply an operator whose draws have fields of their own."""
    if isinstance(op, Rotate):
        if params.angle_N[row]:
            image = _turned(image, float(params.angle_N[row]), _outside(op, image))
    elif isinstance(op, ColorJitter):
        image = _jittered(image, params.order_N4[row], params.jitter_N4[row])
    elif isinstance(op, Grayscale):
        image = _gray(image) if params.gray_N[row] else image
    elif isinstance(op, RandAugment | TrivialAugment | AutoAugment):
        image = _changed(image, op, params.op_NP[row], params.strength_NP[row])
    return image


def _changed(
    image: Image.Image,
    policy: RandAugment | TrivialAugment | AutoAugment | AugMix,
    op_P: NDArray[np.int64],
    strength_P: NDArray[np.float64],
) -> Image.Image:
    """Apply operations of a policy, one after the other."""
    outside = _outside(policy, image)
    for op, strength in zip(op_P.tolist(), strength_P.tolist(), strict=True):
        if OPS[op] in _MOVES:
            image = _MOVES[OPS[op]](image, strength, outside)
        elif op:
            image = _TONES[OPS[op]](image, strength)
    return image


def _jittered(image: Image.Image, order_4: NDArray[np.int64], jitter_4: NDArray[np.float64]) -> Image.Image:
    for column in order_4.tolist():
        value = float(jitter_4[column])
        if JITTERS[column] == "hue":
            image = _hue_shifted(image, value) if value else image
        elif value != 1.0:
            image = _ENHANCERS[JITTERS[column]](image).enhance(value)
    return image


def _gray(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")


def _changes(params: BatchParams, row: int) -> bool:
    return bool(
        params.angle_N[row]
        or params.op_NP[row].any()
        or params.gray_N[row]
        or (params.jitter_N4[row] != _NEUTRAL_4).any()
        or params.done_NS[row].any()
    )


_NEUTRAL_4 = np.array([0.0 if name == "hue" else 1.0 for name in JITTERS])
_ENHANCERS: dict[str, Callable[[Image.Image], ImageEnhance.Brightness | ImageEnhance.Contrast | ImageEnhance.Color]] = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}


def _outside(op: Any, image: Image.Image) -> _Outside:
    """Return how an operator that moves pixels samples this image, and what it fills in."""
    resampling, fill = _SAMPLINGS[op.interpolation], op.fill
    if image.mode in ("L", "F"):
        return _Outside(resampling, int(fill) if image.mode == "L" else float(fill))
    if image.mode == "RGBA":
        return _Outside(resampling, (*map(int, fill), 255) if isinstance(fill, tuple) else (int(fill),) * 4)
    red, green, blue = fill if isinstance(fill, tuple) else (fill, fill, fill)
    return _Outside(resampling, (int(red), int(green), int(blue)))


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


Values = NDArray[np.float64]


def _affine(image: Image.Image, op: Affine, value_6: Values) -> Image.Image:
    outside = _outside(op, image)
    matrix = tuple(moves.affine(value_6[None], image.height, image.width)[0].tolist())
    return image.transform(image.size, Image.Transform.AFFINE, matrix, outside.resampling, fillcolor=outside.color)


def _perspective(image: Image.Image, op: Perspective, value_8: Values) -> Image.Image:
    outside = _outside(op, image)
    matrix = tuple(moves.perspective(value_8[None], image.height, image.width)[0].tolist())
    return image.transform(image.size, Image.Transform.PERSPECTIVE, matrix, outside.resampling, fillcolor=outside.color)


def _held_policy(image: Image.Image, op: RandAugment | TrivialAugment | AutoAugment, value_V: Values) -> Image.Image:
    op_P, strength_P = value_V.reshape(2, -1)
    return _changed(image, op, op_P.astype(np.int64), strength_P)


def _blur(image: Image.Image, op: GaussianBlur, value_1: Values) -> Image.Image:
    pixels_HWC = np.asarray(image).reshape(image.height, image.width, -1)
    return _image(blurred(pixels_HWC, float(value_1[0]), op.kernel_size))


def _augmix(image: Image.Image, op: AugMix, value_V: Values) -> Image.Image:
    """Sum the picture and its chains, each times its share, in float32; fractions are cut off, as in torchvision."""
    op_1WD, strength_1WD, share_1W = augmix.parts(op, value_V[None])
    share_W = share_1W[0].astype(np.float32)
    total_HWC = np.multiply(np.asarray(image), share_W[0], dtype=np.float32)
    for op_D, strength_D, share in zip(op_1WD[0], strength_1WD[0], share_W[1:], strict=True):
        total_HWC += np.multiply(np.asarray(_changed(image, op, op_D, strength_D)), share, dtype=np.float32)
    return Image.fromarray(total_HWC.clip(0, 255).astype(np.uint8))


_STEPS: dict[type, Callable[[Image.Image, Any, Values], Image.Image]] = {
    Rotate: lambda image, op, value: _turned(image, float(value[0]), _outside(op, image)),
    Affine: _affine,
    Perspective: _perspective,
    RandAugment: _held_policy,
    TrivialAugment: _held_policy,
    AutoAugment: _held_policy,
    ColorJitter: lambda image, _, value: _jittered(image, value[:4].astype(np.int64), value[4:]),
    Grayscale: lambda image, _, value: _gray(image),
    GaussianBlur: _blur,
    Solarize: lambda image, op, _: ImageOps.solarize(image, op.threshold),
    Posterize: lambda image, op, _: ImageOps.posterize(image, op.bits),
    Equalize: lambda image, op, _: ImageOps.equalize(image),
    AutoContrast: lambda image, op, _: ImageOps.autocontrast(image),
    Sharpness: lambda image, op, _: ImageEnhance.Sharpness(image).enhance(op.factor),
    Invert: lambda image, op, _: ImageOps.invert(image),
    AugMix: _augmix,
}
"""By kind: image, operator, its values -> the image changed. Values are those of `augment.steps`."""
