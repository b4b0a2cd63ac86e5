"""A size or a recipe -> the small recipes whose pixels are compared, one for each line of a table."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from imgdata.augment.params import BatchParams
from imgdata.augment.policies import OPS, strengths
from imgdata.recipes.choices import AugMix, RandomApply, RandomChoice, ThreeAugment
from imgdata.recipes.moves import Affine, Perspective, RandomResize, ScaleJitter
from imgdata.recipes.ops import (
    CenterCrop,
    ColorJitter,
    CutMix,
    Cutout,
    FixedCrop,
    Grayscale,
    HorizontalFlip,
    MixUp,
    Normalize,
    PadRandomCrop,
    RandAugment,
    RandomErasing,
    RandomResizedCrop,
    Resize,
    Rotate,
    VerticalFlip,
)
from imgdata.recipes.presets import IMAGENET_MEAN, IMAGENET_STD
from imgdata.recipes.recipe import Op, Recipe
from imgdata.recipes.tones import AutoContrast, Equalize, GaussianBlur, Invert, Posterize, Sharpness, Solarize

_BINS = 31
_AFFINE = Affine(degrees=30.0, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=10.0)
_WITH_SIGN = range(OPS.index("ShearX"), OPS.index("Sharpness") + 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One line of the comparison."""

    operator: str
    recipe: Recipe
    change: Callable[[BatchParams], BatchParams] = lambda batch: batch
    """Change of the parameters before both compute."""


def operator_cases(size: int) -> list[Case]:
    """Return every operator by itself, with windows of `size` x `size`.

    What works on pixels gets the middle of the picture, not resized: its line shows its own difference alone.
    """
    middle, normalize = CenterCrop(size=size), Normalize(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    # 256 for 224, as everywhere.
    resize, padding = size * 8 // 7, size // 8
    before: list[tuple[str, tuple[Op, ...]]] = [
        ("crop, bilinear", (RandomResizedCrop(size=size),)),
        ("crop, bicubic", (RandomResizedCrop(size=size, interpolation="bicubic"),)),
        ("resize, bilinear", (Resize(size=resize), middle)),
        ("resize, bicubic", (Resize(size=resize, interpolation="bicubic"), middle)),
        ("pad, black", (Resize(size=size), PadRandomCrop(size=size, padding=padding))),
        ("pad, mirrored", (Resize(size=size), PadRandomCrop(size=size, padding=padding, mode="reflect"))),
        ("flip", (middle, HorizontalFlip(p=1.0))),
        ("vertical flip", (middle, VerticalFlip(p=1.0))),
        (
            "fixed crop",
            (
                Resize(size=resize),
                FixedCrop(size=size, place="bottom-right", mirrored=True),
                HorizontalFlip(p=1.0),
            ),
        ),
        ("random resize", (RandomResize(resize, resize + size // 4), middle)),
        ("scale jitter", (ScaleJitter(size=size),)),
        ("turn, nearest", (middle, Rotate(degrees=45.0))),
        ("turn, bilinear", (middle, Rotate(degrees=45.0, interpolation="bilinear"))),
        ("affine, nearest", (middle, _AFFINE)),
        ("affine, bilinear", (middle, replace(_AFFINE, interpolation="bilinear"))),
        ("perspective, nearest", (middle, Perspective(p=1.0, interpolation="nearest"))),
        ("perspective, bilinear", (middle, Perspective(p=1.0))),
    ]
    after: list[tuple[str, tuple[Op, ...]]] = [
        ("jitter brightness", (middle, ColorJitter(brightness=0.4))),
        ("jitter contrast", (middle, ColorJitter(contrast=0.4))),
        ("jitter saturation", (middle, ColorJitter(saturation=0.4))),
        ("jitter hue", (middle, ColorJitter(hue=0.1))),
        ("grayscale", (middle, Grayscale(p=1.0))),
        ("blur", (middle, GaussianBlur(kernel_size=min(23, 2 * size - 1)))),
        ("solarize", (middle, Solarize(threshold=128, p=1.0))),
        ("posterize", (middle, Posterize(bits=4, p=1.0))),
        ("equalize", (middle, Equalize(p=1.0))),
        ("auto contrast", (middle, AutoContrast(p=1.0))),
        ("sharpness", (middle, Sharpness(factor=2.0, p=1.0))),
        ("invert", (middle, Invert(p=1.0))),
        ("apply", (middle, RandomApply((GaussianBlur(kernel_size=5), Solarize(threshold=128)), p=0.8))),
        ("choice", (middle, RandomChoice((Grayscale(p=1.0), Equalize(p=1.0))))),
        ("three augment", (middle, ThreeAugment())),
        ("augmix", (middle, AugMix())),
        ("normalize", (middle, normalize)),
        ("random erasing", (middle, normalize, RandomErasing(p=1.0, value="random"))),
        ("cutout", (middle, normalize, Cutout(size=max(size // 2, 2)))),
        ("mixup", (middle, normalize, MixUp())),
        ("cutmix", (middle, normalize, CutMix())),
    ]
    policy = [
        Case(operator=name, recipe=Recipe(middle, RandAugment(n=1)), change=_always(number))
        for number, name in enumerate(OPS)
        if name != "Identity"
    ]
    return [*_cases(before), *policy, *_cases(after)]


def recipe_cases(recipe: Recipe) -> list[Case]:
    """Return the recipe's crop alone, then with one operator more each time: it shows where a difference comes in."""
    first = 1 + any(isinstance(op, CenterCrop | FixedCrop | PadRandomCrop) for op in recipe.ops[1:2])
    crop = ", ".join(type(op).__name__ for op in recipe.ops[:first])
    names = [crop, *(f"+ {type(op).__name__}" for op in recipe.ops[first:])]
    return [Case(operator=name, recipe=Recipe(*recipe.ops[: first + more])) for more, name in enumerate(names)]


def _cases(recipes: list[tuple[str, tuple[Op, ...]]]) -> list[Case]:
    return [Case(operator=name, recipe=Recipe(*ops)) for name, ops in recipes]


def _always(op: int) -> Callable[[BatchParams], BatchParams]:
    """Apply operation `op` to every sample, at RandAugment's usual strength first, then at others, with both signs."""

    def change(batch: BatchParams) -> BatchParams:
        row_N = np.arange(len(batch))
        strength_N = strengths(_BINS, batch.height, batch.width, wide=False)[op][(9 + 7 * row_N) % _BINS]
        sign_N = np.where((row_N % 2 == 1) & (op in _WITH_SIGN), -1.0, 1.0)
        return replace(batch, op_NP=np.full((len(batch), 1), op), strength_NP=(strength_N * sign_N)[:, None])

    return change
