"""A recipe -> torchvision's operators (version 2), which draw their own parameters."""

import io
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode, v2

from imgdata.backends.options import DType
from imgdata.recipes import choices, moves, ops, tones
from imgdata.recipes.recipe import Op, Recipe


def transforms(recipe: Recipe, dtype: DType | None, *, pil: bool) -> v2.Compose:
    """Return the transform from PIL images, or uint8 `(3, H, W)`, to `dtype` `(3, H, W)`.

    For recipes that `Peer.refuses` accepts.
    """
    to_tensor = [v2.PILToTensor()] if pil else []
    return v2.Compose([*operators(recipe), *to_tensor, *finishing(recipe, dtype), *erasing(recipe)])


def operators(recipe: Recipe) -> list[v2.Transform]:
    """Return the operators on single images: uint8 in, uint8 out."""
    return [_operator(op) for op in recipe.ops if not isinstance(op, ops.Normalize | ops.RandomErasing)]


def finishing(recipe: Recipe, dtype: DType | None) -> list[v2.Transform]:
    """Return the operators from uint8 to `dtype`, which take a batch as well as an image."""
    if dtype == "uint8":
        return []
    normalize = recipe.find(ops.Normalize)
    to_dtype = v2.ToDtype(getattr(torch, str(dtype)), scale=True)
    return [to_dtype] if normalize is None else [to_dtype, v2.Normalize(list(normalize.mean), list(normalize.std))]


def erasing(recipe: Recipe) -> list[v2.Transform]:
    """Return the operators on single images that come last."""
    erase = recipe.find(ops.RandomErasing)
    if erase is None:
        return []
    value = list(erase.value) if isinstance(erase.value, tuple) else erase.value
    return [v2.RandomErasing(erase.p, list(erase.scale), list(erase.ratio), value)]


def applied(transform: list[v2.Transform], images: torch.Tensor) -> torch.Tensor:
    """Return what the operators make of an image or a batch, one after the other."""
    for operator in transform:
        images = operator(images)
    return images


def encoded_tensor(data: bytes) -> torch.Tensor:
    """Return encoded bytes as uint8 `(bytes,)`."""
    # A copy: PyTorch takes no read-only memory without a warning.
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def decode_on_host(data: bytes) -> torch.Tensor:
    """Return an encoded image as uint8 `(3, H, W)`, decoded by torchvision, or else by Pillow."""
    try:
        image_CHW: torch.Tensor = decode_image(encoded_tensor(data), ImageReadMode.RGB)
    except RuntimeError:
        # What its decoder doesn't know, such as JPEGs of CMYK.
        with Image.open(io.BytesIO(data)) as opened:
            image_CHW = v2.functional.pil_to_tensor(opened.convert("RGB"))
    return image_CHW


class Decoded:
    """Encoded bytes -> what `transform` makes of the uint8 tensor `(3, H, W)`. Can be pickled."""

    def __init__(self, transform: v2.Compose) -> None:
        self._transform = transform

    def __call__(self, data: bytes) -> Any:
        """Return an encoded image as `(3, H, W)`."""
        return self._transform(decode_on_host(data))


def _operator(op: Op) -> v2.Transform:
    make = _OF_PIXELS.get(type(op))
    if make is not None:
        return make(op)
    match op:
        case ops.RandomResizedCrop():
            made = v2.RandomResizedCrop(_size(op.size), op.scale, op.ratio, InterpolationMode(op.interpolation))
        case ops.Resize():
            made = v2.Resize(_size(op.size), InterpolationMode(op.interpolation))
        case ops.CenterCrop():
            made = v2.CenterCrop(_size(op.size))
        case ops.PadRandomCrop():
            mode = "reflect" if op.mode == "reflect" else "constant"
            made = v2.RandomCrop(_size(op.size), op.padding, padding_mode=mode)
        case moves.RandomResize():
            made = v2.RandomResize(op.min_size, op.max_size, InterpolationMode(op.interpolation))
        case moves.ScaleJitter():
            side = _size(op.size)
            target = (side, side) if isinstance(side, int) else (side[0], side[1])
            jitter = v2.ScaleJitter(target, op.scale, InterpolationMode(op.interpolation))
            made = v2.Compose([jitter, v2.RandomCrop(target, pad_if_needed=True)])
        case ops.HorizontalFlip():
            made = v2.RandomHorizontalFlip(op.p)
        case ops.VerticalFlip():
            made = v2.RandomVerticalFlip(op.p)
        case _:
            raise AssertionError(f"{op!r} must have been refused")
    return made


def _moving(op: Any) -> dict[str, Any]:
    """Return how an operator that moves pixels samples them, and what comes in from outside."""
    return {"interpolation": InterpolationMode(op.interpolation), "fill": _fill(op.fill)}


def _affine(op: moves.Affine) -> v2.Transform:
    moved = v2.RandomAffine(op.degrees, op.translate, op.scale, op.shear, **_moving(op))
    return v2.RandomApply([moved], op.p)


def _size(size: object) -> int | list[int]:
    """Return a size in torchvision's form; one number is the shorter side of `Resize`, and both sides elsewhere."""
    assert isinstance(size, int | tuple)
    return list(size) if isinstance(size, tuple) else size


def _fill(fill: ops.Fill) -> float | list[float]:
    return list(fill) if isinstance(fill, tuple) else fill


_OF_PIXELS: dict[type, Callable[[Any], v2.Transform]] = {
    ops.Grayscale: lambda op: v2.RandomGrayscale(op.p),
    ops.Rotate: lambda op: v2.RandomApply([v2.RandomRotation(list(op.limits), **_moving(op))], op.p),
    ops.ColorJitter: lambda op: v2.RandomApply(
        [v2.ColorJitter(op.brightness, op.contrast, op.saturation, op.hue)], op.p
    ),
    ops.RandAugment: lambda op: v2.RandAugment(op.n, op.m, op.bins, **_moving(op)),
    ops.TrivialAugment: lambda op: v2.TrivialAugmentWide(op.bins, **_moving(op)),
    ops.AutoAugment: lambda op: v2.AutoAugment(AutoAugmentPolicy(op.policy), **_moving(op)),
    moves.Affine: _affine,
    moves.Perspective: lambda op: v2.RandomPerspective(op.distortion, op.p, **_moving(op)),
    tones.GaussianBlur: lambda op: v2.RandomApply([v2.GaussianBlur(op.kernel_size, op.sigma)], op.p),
    tones.Solarize: lambda op: v2.RandomSolarize(op.threshold, op.p),
    tones.Posterize: lambda op: v2.RandomPosterize(op.bits, op.p),
    tones.Equalize: lambda op: v2.RandomEqualize(op.p),
    tones.AutoContrast: lambda op: v2.RandomAutocontrast(op.p),
    tones.Sharpness: lambda op: v2.RandomAdjustSharpness(op.factor, op.p),
    tones.Invert: lambda op: v2.RandomInvert(op.p),
    choices.RandomApply: lambda op: v2.RandomApply([_operator(one) for one in op.ops], op.p),
    choices.RandomChoice: lambda op: v2.RandomChoice(
        [_operator(one) for one in op.ops], None if op.weights is None else list(op.weights)
    ),
    choices.ThreeAugment: lambda op: v2.RandomChoice([_operator(one) for one in op.held()]),
    choices.AugMix: lambda op: v2.AugMix(op.severity, op.width, op.depth, op.alpha, op.all_ops, **_moving(op)),
}
"""Operators on pixels by kind."""
