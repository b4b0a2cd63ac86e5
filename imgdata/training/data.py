"""A dataset, settings -> the views to train on and to validate with, and the recipes of both."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imgdata.dataset.dataset import Dataset
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
from imgdata.recipes.presets import read_recipe
from imgdata.recipes.recipe import Op, Recipe
from imgdata.training.defaults import DecidedOptions, Facts, are_letters
from imgdata.training.options import RECIPES, TrainOptions
from imgdata.views.saved import apply_steps, open_view
from imgdata.views.subsets import subset_count, subset_fraction
from imgdata.views.text import parse_view
from imgdata.views.view import View

VALIDATION_NAMES = ("val", "validation", "valid", "dev", "eval")
"""Names of splits to choose the best epoch by, where none is named; the first that is there."""
EVALUATION_NAMES = ("val", "validation", "valid", "dev", "test", "eval")
"""Names of splits to evaluate with where none is named; runs of imgdata 0.1 also chose their best epoch by them."""
_HELD_OUT = 0.1
"""Share of the training samples that is held out where the dataset has no split to validate with."""
_POLICIES = {"randaugment": RandAugment, "trivialaugment": TrivialAugment, "autoaugment": AutoAugment}
_SMALL_SIDE = 40
_GROWTH = 32
"""Divisor of the sides of growing pictures, since networks halve the sides five times."""


class Views(NamedTuple):
    """The samples of a run."""

    train: View
    val: View


def choose_validation(dataset: Dataset, options: TrainOptions) -> TrainOptions:
    """Return `options` with `val_split` or `hold_out` set, so that they name the samples to validate with.

    A split named `test` is for the end: no epoch is chosen by it unless `val_split` says so.
    """
    if options.val_split is not None or options.hold_out is not None:
        return options
    usual = usual_split(dataset, options.split, VALIDATION_NAMES)
    if usual is not None:
        return replace(options, val_split=usual)
    return replace(options, val_split=options.split) if options.val_view else replace(options, hold_out=_HELD_OUT)


def open_views(dataset: Dataset, options: TrainOptions) -> Views:
    """Return the samples to train on and those to validate with. Raises `OptionError`, `ShardError`.

    With `hold_out` the validation samples are drawn by class from the training split, and left out there. Options
    without `val_split` and `hold_out` are those of a run that was saved before `choose_validation` was there.
    """
    train = _open(dataset, options.split, options.view)
    val_split = options.val_split or (None if options.hold_out else usual_split(dataset, options.split))
    if val_split is not None or options.val_view is not None:
        val = _open(dataset, val_split or options.split, options.val_view)
    else:
        train, val = _hold_out(train, options.hold_out or _HELD_OUT, options.seed)
    if options.balance:
        train = apply_steps(train, parse_view(f"balance,seed={options.seed}"))
    _check_labels(train, "split")
    _check_labels(val, "val_split")
    if train.classes != val.classes:
        raise OptionError(
            f"val_view must have the {len(train.classes)} classes that are trained on, got {len(val.classes)} or other "
            "ones; give both view and val_view the same relabel step"
        )
    return Views(train, val)


def facts_of(train: View, *, gpu: bool, ranks: int = 1) -> Facts:
    """Return the facts that defaults depend on."""
    numbers = train.targets is not None and not train.targets.of_classes
    return Facts(
        samples=len(train),
        classes=len(train.classes),
        side=int(np.median(sides_of(train).min(axis=0))),
        gpu=gpu,
        ranks=ranks,
        letters=not numbers and are_letters(train.classes),
    )


def one_size(view: View) -> int | None:
    """Return the side in pixels where all pictures are squares of one size, else None."""
    sides_2N = sides_of(view)
    side = int(sides_2N[0, 0])
    return side if (sides_2N == side).all() else None


def sides_of(view: View) -> np.ndarray:
    """Return width and height of the view's pictures in pixels, `(2, N)`."""
    view.index.load(("width", "height"))
    return np.stack([view.index.array(name)[view.position_N] for name in ("width", "height")])


def _open(dataset: Dataset, split: str, view: str | None) -> View:
    if split not in dataset:
        raise OptionError(f"split must be one of {', '.join(dataset)}, got {split!r}")
    return open_view(dataset, split, view or "")


def usual_split(dataset: Dataset, train: str, names: Sequence[str] = EVALUATION_NAMES) -> str | None:
    """Return the first split of these names, other than `train`, whose samples all have labels; else None."""
    # Test splits of competitions often have no labels.
    for name in names:
        if name != train and name in dataset and not _without_target(open_view(dataset, name)):
            return name
    return None


def _hold_out(view: View, size: float, seed: int) -> Views:
    if size < 1:
        return Views(
            subset_fraction(view, size, part="rest", seed=seed), subset_fraction(view, size, part="first", seed=seed)
        )
    count = int(size)
    return Views(subset_count(view, count, part="rest", seed=seed), subset_count(view, count, part="first", seed=seed))


def _without_target(view: View) -> int:
    """Return how many samples have neither a class nor another target."""
    return int((view.label_N < 0).sum()) if view.targets is None else view.targets.missing(view.position_N)


def _check_labels(view: View, option: str) -> None:
    without = _without_target(view)
    if without:
        way = 'a view such as "where label>=0"' if view.targets is None else "leave these out by a view (exclude,file=)"
        raise OptionError(
            f"{option} must have a label for every sample, got {without:,} of {len(view.label_N):,} without in "
            f"{view.split!r}; choose another split, or {way}"
        )


def training_recipe(
    options: DecidedOptions, takes: ModelInput, size: int, facts: Facts, one_size: int | None
) -> Recipe:
    """Return the recipe of training pictures; `size` is the side that the network gets.

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
    """Return the recipe of validation pictures: nothing random, and normalized as in `training`.

    For photographs the recipe cuts out the middle. It takes pictures of any size, as predictions use the recipe too.
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
    """Return `imagenet`, `cifar`, `classifier` or `plain`; for validation alone where the recipe is a file."""
    name = options.recipe.removesuffix("_train")
    if name in RECIPES:
        return name
    if options.recipe != "auto" and not options.recipe.endswith(".json"):
        raise OptionError(f"recipe must be auto, {', '.join(RECIPES)} or a .json file, got {options.recipe!r}")
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
    """Return operators that make the shorter side `size`, and cut out the middle."""
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
