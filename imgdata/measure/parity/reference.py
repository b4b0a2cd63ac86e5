"""A decoded picture + one row of `BatchParams` -> the result of torchvision's operators (version 2).

The reference that pixels are compared with: it shares the parameters with the backends and nothing else. A picture is a
PIL image or a uint8 tensor `(3, H, W)`: torchvision has other code for each, whose pixels differ.
"""

import math
from typing import TYPE_CHECKING, Any

import torch

from imgdata.augment.mix import MixParams
from imgdata.augment.params import JITTERS, BatchParams, erasing_noise
from imgdata.augment.policies import OPS
from imgdata.errors import MissingExtraError
from imgdata.recipes.ops import (
    AutoAugment,
    Cutout,
    Fill,
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
    made = _colored(_operated(_cut(picture, params, row, recipe), params, row, recipe), params, row)
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
    crop, resize, pad = recipe.find(RandomResizedCrop), recipe.find(Resize), recipe.find(PadRandomCrop)
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
    elif crop is None:
        picture = functional.center_crop(picture, size)
    picture = functional.horizontal_flip(picture) if params.flip_N[row] else picture
    return functional.vertical_flip(picture) if params.vflip_N[row] else picture


def _operated(picture: Any, params: BatchParams, row: int, recipe: Recipe) -> Any:
    rotate = recipe.find(Rotate)
    if rotate is not None and params.angle_N[row]:
        angle, mode = float(params.angle_N[row]), _MODES[rotate.interpolation]
        picture = functional.rotate(picture, angle, mode, fill=_fill(rotate.fill))
    policy = recipe.find(RandAugment) or recipe.find(TrivialAugment) or recipe.find(AutoAugment)
    if policy is not None:
        for op, strength in zip(params.op_NP[row].tolist(), params.strength_NP[row].tolist(), strict=True):
            picture = _policy_op(picture, OPS[op], strength, _MODES[policy.interpolation], _fill(policy.fill))
    return picture


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


def _colored(picture: Any, params: BatchParams, row: int) -> Any:
    for column in params.order_N4[row].tolist():
        value, name = float(params.jitter_N4[row, column]), JITTERS[column]
        if value != (0.0 if name == "hue" else 1.0):
            picture = _JITTERS[name](picture, value)
    return functional.rgb_to_grayscale(picture, num_output_channels=3) if params.gray_N[row] else picture


def _fill(fill: Fill) -> list[float]:
    return list(fill) if isinstance(fill, tuple) else [fill] * 3
