"""A view -> a share of its samples, a number of them, one fold of several, some of each class."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import OptionError
from imgdata.stratify import stratified_split
from imgdata.views.view import View, check_choice, check_seed, make_step, select_rows

SubsetPart = Literal["first", "rest"]
FoldPart = Literal["train", "held"]
_STREAM = 0x70657263
"""Stream of random numbers that separates the draw of `per_class` from others with the same seed."""
_MAX_FOLDS = 255


def subset_fraction(view: View, fraction: float, *, part: SubsetPart = "first", seed: int = 0) -> View:
    """Keep a share of the samples drawn by class, or with `part="rest"` all the others: together they are the view.

    `fraction` above 0 and below 1. Each class gives its share rounded down or up, and the total is rounded to the
    nearest. Raises `OptionError`.
    """
    if not 0 < fraction < 1:
        raise OptionError(f"view: fraction must be above 0 and below 1, got {fraction:g}")
    first_N = _first(view, fraction, part, seed)
    step = make_step("fraction", repr(float(fraction)), part=part, seed=seed)
    return select_rows(view, first_N if part == "first" else ~first_N, step)


def subset_count(view: View, count: int, *, part: SubsetPart = "first", seed: int = 0) -> View:
    """Keep `count` samples drawn by class, or with `part="rest"` all the others: CIFAR-10's 45,000 and 5,000.

    `count` from 1 to one less than there are. Raises `OptionError`.
    """
    total = len(view.position_N)
    if not 0 < count < total:
        raise OptionError(f"view: count must be 1 to {total - 1}, one less than there are samples, got {count}")
    first_N = _first(view, count / total, part, seed)
    step = make_step("count", str(count), part=part, seed=seed)
    return select_rows(view, first_N if part == "first" else ~first_N, step)


def fold(view: View, number: int, folds: int, *, part: FoldPart = "train", seed: int = 0) -> View:
    """Keep the held-out part (`held`) or the rest (`train`) of fold `number` (from 1) of `folds` equal parts, by class.

    Every sample is held out in exactly one fold. 2 to 255 folds. Raises `OptionError`.
    """
    most = min(_MAX_FOLDS, len(view.position_N))
    if not 2 <= folds <= most:
        raise OptionError(f"view: the number of folds must be 2 to {most}, got {folds}")
    if not 1 <= number <= folds:
        raise OptionError(f"view: the fold must be 1 to {folds}, got {number}")
    check_choice("part", part, get_args(FoldPart))
    check_seed(seed)
    fold_N = stratified_split(view.label_N, {str(k): 1 / folds for k in range(folds)}, seed)
    held_N = fold_N == number - 1
    step = make_step("fold", f"{number}/{folds}", part=part, seed=seed)
    return select_rows(view, held_N if part == "held" else ~held_N, step)


def per_class(view: View, count: int, *, seed: int = 0) -> View:
    """Keep up to `count` random samples of each class: all where a class has fewer; none without a label.

    More of them, with the same seed, include the fewer. Raises `OptionError`.
    """
    if count < 1:
        raise OptionError(f"view: per_class must be 1 or more, got {count}")
    check_seed(seed)
    draw_N = np.random.Philox(key=[seed, _STREAM]).random_raw(len(view.label_N))
    order_N = np.lexsort((draw_N, view.label_N))
    label_N = view.label_N[order_N]
    place_N = np.arange(len(label_N)) - np.searchsorted(label_N, label_N)
    kept_N = np.zeros(len(label_N), bool)
    kept_N[order_N[(place_N < count) & (label_N >= 0)]] = True
    return select_rows(view, kept_N, make_step("per_class", str(count), seed=seed))


def _first(view: View, fraction: float, part: str, seed: int) -> NDArray[np.bool_]:
    check_choice("part", part, get_args(SubsetPart))
    check_seed(seed)
    if len(view.position_N) < 2:
        raise OptionError(f"view: one sample can't be cut in two, got {view!r}")
    first_N: NDArray[np.bool_] = stratified_split(view.label_N, {"first": fraction, "rest": 1 - fraction}, seed) == 0
    return first_N
