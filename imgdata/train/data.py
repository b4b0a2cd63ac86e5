"""A dataset, settings -> what is trained on and what is validated with, and how large that is."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from imgdata.dataset.dataset import Dataset
from imgdata.dataset.dataset import open as open_dataset
from imgdata.errors import OptionError
from imgdata.train.defaults import Facts
from imgdata.train.options import TrainOptions
from imgdata.views.saved import apply_steps, open_view
from imgdata.views.subsets import subset_count, subset_fraction
from imgdata.views.text import parse_view
from imgdata.views.view import View

_USUAL_NAMES = ("val", "validation", "valid", "dev", "test", "eval")
"""Splits that are validated with where none is named, the first that is there."""
_HELD_OUT = 0.1
"""Share that is kept out where the dataset has one split alone."""


class Views(NamedTuple):
    """What a run sees."""

    train: View
    val: View


def open_views(out: Path, options: TrainOptions) -> Views:
    """The samples to train on and those to validate with. Raises `OptionError`, `ShardError`.

    With `hold_out`, or where the dataset has one split alone, the validation samples are drawn by class from the
    training split, and left out there.
    """
    dataset = open_dataset(out)
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
    """What defaults depend on."""
    side = int(np.median(sides_of(train).min(axis=0)))
    return Facts(samples=len(train), classes=len(train.classes), side=side, gpu=gpu, ranks=ranks)


def one_size(view: View) -> int | None:
    """The side in pixels where all pictures are squares of one size, else None."""
    sides_2N = sides_of(view)
    side = int(sides_2N[0, 0])
    return side if (sides_2N == side).all() else None


def sides_of(view: View) -> np.ndarray:
    """Width and height of the view's pictures in pixels, `(2, N)`."""
    view.index.load(("width", "height"))
    return np.stack([view.index.array(name)[view.position_N] for name in ("width", "height")])


def _open(dataset: Dataset, split: str, view: str | None) -> View:
    if split not in dataset:
        raise OptionError(f"split must be one of {', '.join(dataset)}, got {split!r}")
    return open_view(dataset, split, view or "")


def usual_split(dataset: Dataset, train: str) -> str | None:
    """What is validated with where nothing is said: the first usual split, other than `train`, that has labels."""
    # Those of contests often have none.
    for name in _USUAL_NAMES:
        if name != train and name in dataset and (open_view(dataset, name).label_N >= 0).all():
            return name
    return None


def _hold_out(view: View, size: float, seed: int) -> Views:
    if size < 1:
        return Views(
            subset_fraction(view, size, part="rest", seed=seed), subset_fraction(view, size, part="first", seed=seed)
        )
    count = int(size)
    return Views(subset_count(view, count, part="rest", seed=seed), subset_count(view, count, part="first", seed=seed))


def _check_labels(view: View, option: str) -> None:
    without = int((view.label_N < 0).sum())
    if without:
        raise OptionError(
            f"{option} must have a label for every sample, got {without:,} of {len(view.label_N):,} without in "
            f'{view.split!r}; choose another split, or a view such as "where label>=0"'
        )
