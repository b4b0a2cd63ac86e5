"""Settings, what a network takes -> the recipes of training and of validation."""

from pathlib import Path

from imgdata.errors import OptionError
from imgdata.models import ModelInput
from imgdata.recipes import (
    AutoAugment,
    CenterCrop,
    CutMix,
    HorizontalFlip,
    MixUp,
    MixUpOrCutMix,
    Normalize,
    PadRandomCrop,
    Ramp,
    RandAugment,
    RandomErasing,
    RandomResizedCrop,
    Resize,
    Rotate,
    TrivialAugment,
)
from imgdata.recipes.named import read_recipe
from imgdata.recipes.recipe import Op, Recipe
from imgdata.train.defaults import DecidedOptions, Facts

_POLICIES = {"randaugment": RandAugment, "trivialaugment": TrivialAugment, "autoaugment": AutoAugment}
_SMALL_SIDE = 40
_GROWTH = 32
"""Sides of growing pictures are multiples of it, as networks halve them five times."""


def training_recipe(
    options: DecidedOptions, takes: ModelInput, size: int, facts: Facts, one_size: int | None
) -> Recipe:
    """What is done to training pictures; `options` are decided, `size` is the side that the network gets.

    `one_size` is the side of all pictures where they are equal squares. Raises `OptionError`.
    """
    if options.recipe.endswith(".json"):
        return read_recipe(Path(options.recipe))
    kind = recipe_kind(options, facts)
    normalize = Normalize(mean=takes.mean, std=takes.std)
    ops: list[Op] = [
        *_crop(kind, options, takes, size, one_size),
        *([HorizontalFlip()] if options.flip and kind != "plain" else []),
        *([Rotate(degrees=36.0, interpolation="bilinear")] if kind == "classifier" else []),
        *([_POLICIES[options.policy]()] if options.policy != "none" else []),
        normalize,
        *([RandomErasing(p=options.erasing)] if options.erasing else []),
        *_mixing(options),
    ]
    return Recipe(*ops)


def evaluation_recipe(options: DecidedOptions, takes: ModelInput, size: int, facts: Facts, training: Recipe) -> Recipe:
    """What is done to validation pictures: nothing random, and normalised as in `training`.

    The middle of a larger picture for photographs. Pictures of any size fit: predictions are made by it as well.
    """
    kind = recipe_kind(options, facts)
    if kind == "imagenet":
        ops = list(takes.eval_recipe(size).ops[:-1])
    elif kind == "cifar":
        ops = [Resize(size=(size, size), interpolation=takes.interpolation)]
    else:
        ops = _whole(takes, size, one_size=None)
    normalize = training.find(Normalize)
    return Recipe(*ops, *([] if normalize is None else [normalize]))


def recipe_kind(options: DecidedOptions, facts: Facts) -> str:
    """`imagenet`, `cifar`, `classifier` or `plain`; that of validation where the recipe is a file."""
    if options.recipe in ("imagenet", "cifar", "classifier", "plain"):
        return options.recipe
    if options.recipe != "auto" and not options.recipe.endswith(".json"):
        raise OptionError(
            f"recipe must be auto, imagenet, cifar, classifier, plain or a .json file, got {options.recipe!r}"
        )
    if options.model == "cnn":
        return "classifier"
    return "cifar" if facts.side <= _SMALL_SIDE or options.model == "resnet9" else "imagenet"


def _crop(kind: str, options: DecidedOptions, takes: ModelInput, size: int, one_size: int | None) -> list[Op]:
    if options.progressive and kind != "imagenet":
        raise OptionError(f"progressive needs the recipe imagenet, got {kind}: other recipes keep one size")
    if kind == "imagenet":
        return [RandomResizedCrop(size=_growing(options, size), interpolation=takes.interpolation)]
    if kind != "cifar":
        return _whole(takes, size, one_size)
    resize = [] if one_size == size else [Resize(size=(size, size), interpolation=takes.interpolation)]
    return [*resize, PadRandomCrop(size=size, padding=max(1, size // 8), mode="reflect")]


def _whole(takes: ModelInput, size: int, one_size: int | None) -> list[Op]:
    """The picture with its shorter side made `size`, and its middle."""
    resize = [] if one_size == size else [Resize(size=size, interpolation=takes.interpolation)]
    return [*resize, CenterCrop(size=size)]


def _growing(options: DecidedOptions, size: int) -> int | Ramp:
    if not options.progressive:
        return size
    last = int(0.75 * options.epochs)
    start = round(size * 2 / 3 / _GROWTH) * _GROWTH
    if size % _GROWTH or not 0 < start < size or last < 1:
        raise OptionError(
            f"progressive needs a size that is a multiple of {_GROWTH} and at least {2 * _GROWTH}, and 2 epochs or "
            f"more, got {size} and {options.epochs}"
        )
    return Ramp(end_epoch=last, start_size=start, end_size=size, multiple=_GROWTH)


def _mixing(options: DecidedOptions) -> list[Op]:
    if options.mixup and options.cutmix:
        return [MixUpOrCutMix(mixup_alpha=options.mixup, cutmix_alpha=options.cutmix)]
    if options.mixup:
        return [MixUp(alpha=options.mixup)]
    return [CutMix(alpha=options.cutmix)] if options.cutmix else []
