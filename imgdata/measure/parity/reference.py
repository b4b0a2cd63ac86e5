"""A decoded picture + one row of `BatchParams` -> the result of torchvision's operators (version 2).

The reference that pixels are compared with: it shares the parameters with the backends and nothing else. A picture is a
PIL image or a uint8 tensor `(3, H, W)`: torchvision has other code for each, whose pixels differ.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from imgdata.augment import augmix
from imgdata.augment.mix import MixParams
from imgdata.augment.params import JITTERS, BatchParams, erasing_noise
from imgdata.augment.policies import OPS
from imgdata.augment.steps import generator, layout
from imgdata.errors import MissingExtraError
from imgdata.recipes.choices import AugMix
from imgdata.recipes.functions import Apply
from imgdata.recipes.moves import Affine, Perspective, RandomResize, ScaleJitter
from imgdata.recipes.ops import (
    PLACES,
    AutoAugment,
    ColorJitter,
    Cutout,
    Fill,
    FixedCrop,
    Grayscale,
    Normalize,
    PadRandomCrop,
    RandAugment,
    RandomErasing,
    RandomResizedCrop,
    Resize,
    Rotate,
    TrivialAugment,
)
from imgdata.recipes.recipe import Recipe
from imgdata.recipes.tones import AutoContrast, Equalize, GaussianBlur, Invert, Posterize, Sharpness, Solarize

try:
    from torchvision.transforms import InterpolationMode, v2
    from torchvision.transforms.v2 import functional
except ImportError as error:
    raise MissingExtraError("comparing with torchvision needs it: pip install 'imgdata[train]'") from error

if TYPE_CHECKING:
    from PIL.Image import Image

_MODES = {
    "nearest": InterpolationMode.NEAREST,
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
}


def window(picture: "Image | torch.Tensor", params: BatchParams, row: int, recipe: Recipe) -> torch.Tensor:
    """Return the picture as it is before values become floats, uint8 `(3, H, W)`."""
    made = _operated(_cut(picture, params, row, recipe), params, row, recipe)
    window_CHW: torch.Tensor = made if isinstance(made, torch.Tensor) else functional.pil_to_tensor(made)
    return window_CHW


def finished(
    window_CHW: torch.Tensor, params: BatchParams, row: int, recipe: Recipe, *, seed: int, epoch: int
) -> torch.Tensor:
    """Return float32 `(3, H, W)` from 0 to 1, or normalised, with its rectangle painted over."""
    made: torch.Tensor = functional.to_dtype(window_CHW, torch.float32, scale=True)
    normalize = recipe.find(Normalize)
    if normalize is not None:
        made = functional.normalize(made, list(normalize.mean), list(normalize.std))
    erasing = recipe.find(RandomErasing) or recipe.find(Cutout)
    left, top, width, height = params.erase_N4[row].tolist()
    if erasing is None or not width or not height:
        return made
    if erasing.value == "random":
        value = torch.from_numpy(erasing_noise(seed, epoch, int(params.position_N[row]), height, width))
    else:
        value = torch.tensor(erasing.value).reshape(-1, 1, 1)
    made = functional.erase(made, top, left, height, width, value)
    return made


def mixed(images: torch.Tensor, mix: MixParams) -> torch.Tensor:
    """Return float32 `(N, 3, H, W)`, mixed by `v2.MixUp` or `v2.CutMix`, whose partner is always the row before."""
    if mix.kind == "none":
        return images
    operator = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[mix.kind](num_classes=1)
    left, top, width, height = mix.box_4
    numbers = {"lam": mix.lam, "box": (left, top, left + width, top + height)}
    pairs = [
        operator.transform(torch.stack([image, images[partner]]), {"labels": None, "batch_size": 2, **numbers})[0]
        for image, partner in zip(images, mix.partner_N.tolist(), strict=True)
    ]
    return torch.stack(pairs)


def _cut(picture: Any, params: BatchParams, row: int, recipe: Recipe) -> Any:
    size = [params.height, params.width]
    crop, pad, jitter = recipe.find(RandomResizedCrop), recipe.find(PadRandomCrop), recipe.find(ScaleJitter)
    resize = recipe.find(Resize) or recipe.find(RandomResize) or jitter
    if crop is not None:
        left, top, width, height = params.box_N4[row].tolist()
        mode = _MODES[crop.interpolation]
        picture = functional.resized_crop(picture, top, left, height, width, size, mode, antialias=True)
    if resize is not None:
        whole = params.resized_N2[row].tolist()[::-1]
        picture = functional.resize(picture, whole, _MODES[resize.interpolation], antialias=True)
    if pad is not None:
        mode = "reflect" if pad.mode == "reflect" else "constant"
        left, top = (params.offset_N2[row] + pad.padding).tolist()
        picture = functional.crop(functional.pad(picture, [pad.padding], padding_mode=mode), top, left, *size)
    elif jitter is not None:
        left, top = params.offset_N2[row].tolist()
        picture = functional.crop(picture, top, left, *size)
    elif (fixed := recipe.find(FixedCrop)) is not None:
        picture = _fixed(picture, fixed, params, row)
    elif crop is None:
        picture = functional.center_crop(picture, size)
    picture = functional.horizontal_flip(picture) if params.flip_N[row] else picture
    return functional.vertical_flip(picture) if params.vflip_N[row] else picture


def _fixed(picture: Any, crop: FixedCrop, params: BatchParams, row: int) -> Any:
    """Return one of five crops; of those of the mirror image the one that becomes it."""
    size, (height, width) = [params.height, params.width], functional.get_size(picture)
    if height < size[0] or width < size[1]:
        # torchvision has no crops of it.
        left, top = params.offset_N2[row].tolist()
        return functional.crop(picture, top, left, *size)
    number = PLACES.index(crop.place)
    if not crop.mirrored:
        return functional.five_crop(picture, size)[number]
    return functional.horizontal_flip(functional.five_crop(functional.horizontal_flip(picture), size)[number])


def _operated(picture: Any, params: BatchParams, row: int, recipe: Recipe) -> Any:
    plan = layout(recipe)
    for op, further in zip(plan.ops, plan.steps, strict=True):
        if isinstance(op, Rotate) and params.angle_N[row]:
            picture = functional.rotate(
                picture, float(params.angle_N[row]), _MODES[op.interpolation], fill=_fill(op.fill)
            )
        elif isinstance(op, RandAugment | TrivialAugment | AutoAugment):
            picture = _policy(picture, op, params.op_NP[row].tolist(), params.strength_NP[row].tolist())
        elif isinstance(op, ColorJitter):
            picture = _jittered(picture, params.order_N4[row].tolist(), params.jitter_N4[row].tolist())
        elif isinstance(op, Grayscale) and params.gray_N[row]:
            picture = functional.rgb_to_grayscale(picture, num_output_channels=3)
        for step in further:
            if params.done_NS[row, step.column]:
                value_V = params.value_NV[row, step.first : step.first + step.values].tolist()
                picture = _STEPS[type(step.op)](picture, step.op, value_V)
    return picture


def _policy(picture: Any, policy: Any, op_P: list[int], strength_P: list[float]) -> Any:
    for op, strength in zip(op_P, strength_P, strict=True):
        picture = _policy_op(picture, OPS[op], strength, _MODES[policy.interpolation], _fill(policy.fill))
    return picture


def _augmix(picture: Any, op: AugMix, value_V: list[float]) -> torch.Tensor:
    """Do what the end of `v2.AugMix.forward` does, which makes a tensor of every picture."""
    picture = picture if isinstance(picture, torch.Tensor) else functional.pil_to_tensor(picture)
    op_1WD, strength_1WD, share_1W = augmix.parts(op, np.array(value_V)[None])
    mix = float(share_1W[0, 0]) * picture
    for op_D, strength_D, share in zip(op_1WD[0].tolist(), strength_1WD[0].tolist(), share_1W[0, 1:], strict=True):
        mix.add_(float(share) * _policy(picture, op, op_D, strength_D))
    mixed_CHW: torch.Tensor = mix.to(torch.uint8)
    return mixed_CHW


def _perspective(picture: Any, op: Perspective, value_8: list[float]) -> Any:
    height, width = functional.get_size(picture)
    corners = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
    moved = [[int(x), int(y)] for x, y in zip(value_8[::2], value_8[1::2], strict=True)]
    return functional.perspective(picture, corners, moved, _MODES[op.interpolation], _fill(op.fill))


def _affine(picture: Any, op: Affine, value_6: list[float]) -> Any:
    angle, x, y, scale, shear_x, shear_y = value_6
    return functional.affine(
        picture, angle, [int(x), int(y)], scale, [shear_x, shear_y], _MODES[op.interpolation], _fill(op.fill)
    )


def _applied(picture: Any, op: Apply, value_2: list[float]) -> Any:
    is_tensor = isinstance(picture, torch.Tensor)
    pixels_HWC = picture.permute(1, 2, 0).numpy() if is_tensor else np.array(picture)
    made_HWC = op.called(np.ascontiguousarray(pixels_HWC), generator(np.array(value_2)))
    made_CHW = torch.from_numpy(np.ascontiguousarray(made_HWC)).permute(2, 0, 1)
    return made_CHW if is_tensor else functional.to_pil_image(made_CHW)


_STEPS: dict[type, Any] = {
    Rotate: lambda picture, op, value: functional.rotate(
        picture, value[0], _MODES[op.interpolation], fill=_fill(op.fill)
    ),
    Affine: _affine,
    Perspective: _perspective,
    **dict.fromkeys(
        (RandAugment, TrivialAugment, AutoAugment),
        lambda picture, op, value: _policy(
            picture, op, [int(one) for one in value[: len(value) // 2]], value[len(value) // 2 :]
        ),
    ),
    ColorJitter: lambda picture, _, value: _jittered(picture, [int(one) for one in value[:4]], value[4:]),
    Grayscale: lambda picture, *_: functional.rgb_to_grayscale(picture, num_output_channels=3),
    GaussianBlur: lambda picture, op, value: functional.gaussian_blur(picture, [op.kernel_size] * 2, [value[0]] * 2),
    Solarize: lambda picture, op, _: functional.solarize(picture, op.threshold),
    Posterize: lambda picture, op, _: functional.posterize(picture, op.bits),
    Equalize: lambda picture, *_: functional.equalize(picture),
    AutoContrast: lambda picture, *_: functional.autocontrast(picture),
    Sharpness: lambda picture, op, _: functional.adjust_sharpness(picture, op.factor),
    Invert: lambda picture, *_: functional.invert(picture),
    Apply: _applied,
    AugMix: _augmix,
}


def _policy_op(picture: Any, op: str, strength: float, mode: InterpolationMode, fill: list[float]) -> Any:
    if op in ("ShearX", "ShearY"):
        degrees = math.degrees(math.atan(strength))
        shear = [degrees, 0.0] if op == "ShearX" else [0.0, degrees]
        return functional.affine(picture, 0.0, [0, 0], 1.0, shear, mode, fill, [0, 0])
    if op in ("TranslateX", "TranslateY"):
        shift = [int(strength), 0] if op == "TranslateX" else [0, int(strength)]
        return functional.affine(picture, 0.0, shift, 1.0, [0.0, 0.0], mode, fill)
    if op == "Rotate":
        return functional.rotate(picture, strength, mode, fill=fill)
    if op in _FACTORS:
        return _FACTORS[op](picture, 1.0 + strength)
    if op == "Posterize":
        return functional.posterize(picture, int(strength))
    if op == "Solarize":
        return functional.solarize(picture, 255.0 * strength)
    return _PLAIN[op](picture)


_FACTORS = {
    "Brightness": functional.adjust_brightness,
    "Color": functional.adjust_saturation,
    "Contrast": functional.adjust_contrast,
    "Sharpness": functional.adjust_sharpness,
}
_PLAIN = {
    "Identity": lambda picture: picture,
    "AutoContrast": functional.autocontrast,
    "Equalize": functional.equalize,
    "Invert": functional.invert,
}
_JITTERS = {
    "brightness": functional.adjust_brightness,
    "contrast": functional.adjust_contrast,
    "saturation": functional.adjust_saturation,
    "hue": functional.adjust_hue,
}


def _jittered(picture: Any, order_4: list[int], jitter_4: list[float]) -> Any:
    for column in order_4:
        value, name = jitter_4[column], JITTERS[column]
        if value != (0.0 if name == "hue" else 1.0):
            picture = _JITTERS[name](picture, value)
    return picture


def _fill(fill: Fill) -> list[float]:
    return list(fill) if isinstance(fill, tuple) else [fill] * 3
