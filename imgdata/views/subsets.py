"""A view -> a share of its samples, a number of them, one fold of several, some of each class."""

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import OptionError
from imgdata.stratify import stratified_split
from imgdata.views.large import ClassDraws, keep_rows
from imgdata.views.text import Step
from imgdata.views.view import View, check_choice, check_seed, make_step, select_rows

SubsetPart = Literal["first", "rest"]
FoldPart = Literal["train", "held"]
_STREAM = 0x70657263
"""Stream of random numbers that separates the draw of `per_class` from others with the same seed."""
_SPLIT_STREAM = 0x6B73706C
"""The same for the splits of a large view."""
_MAX_FOLDS = 255


def subset_fraction(view: View, fraction: float, *, part: SubsetPart = "first", seed: int = 0) -> View:
    """Keep a share of the samples drawn by class, or with `part="rest"` all the others: together they are the view.

    `fraction` above 0 and below 1. Each class gives its share rounded down or up, and the total is rounded to the
    nearest. Raises `OptionError`.
    """
    if not 0 < fraction < 1:
        raise OptionError(f"view: fraction must be above 0 and below 1, got {fraction:g}")
    step = make_step("fraction", repr(float(fraction)), part=part, seed=seed)
    return _first_or_rest(view, fraction, part, seed, step)


def subset_count(view: View, count: int, *, part: SubsetPart = "first", seed: int = 0) -> View:
    """Keep `count` samples drawn by class, or with `part="rest"` all the others: CIFAR-10's 45,000 and 5,000.

    `count` from 1 to one less than there are. Raises `OptionError`.
    """
    total = len(view.position_N)
    if not 0 < count < total:
        raise OptionError(f"view: count must be 1 to {total - 1}, one less than there are samples, got {count}")
    step = make_step("count", str(count), part=part, seed=seed)
    return _first_or_rest(view, count / total, part, seed, step)


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
    fold_of = _split(view, {str(k): 1 / folds for k in range(folds)}, seed)
    step = make_step("fold", f"{number}/{folds}", part=part, seed=seed)
    return keep_rows(view, lambda rows: (fold_of(rows) == number - 1) == (part == "held"), step)


def per_class(view: View, count: int, *, seed: int = 0) -> View:
    """Keep up to `count` random samples of each class: all where a class has fewer; none without a label.

    More of them, with the same seed, include the fewer. Raises `OptionError`.
    """
    if count < 1:
        raise OptionError(f"view: per_class must be 1 or more, got {count}")
    check_seed(seed)
    step = make_step("per_class", str(count), seed=seed)
    if view.is_large:
        draws = ClassDraws(view, seed, _STREAM)
        return keep_rows(view, lambda rows: (draws.of(rows) < count) & (rows.label_N >= 0), step)
    draw_N = np.random.Philox(key=[seed, _STREAM]).random_raw(len(view.label_N))
    order_N = np.lexsort((draw_N, view.label_N))
    label_N = view.label_N[order_N]
    place_N = np.arange(len(label_N)) - np.searchsorted(label_N, label_N)
    kept_N = np.zeros(len(label_N), bool)
    kept_N[order_N[(place_N < count) & (label_N >= 0)]] = True
    return select_rows(view, kept_N, step)


def _first_or_rest(view: View, fraction: float, part: str, seed: int, step: Step) -> View:
    check_choice("part", part, get_args(SubsetPart))
    check_seed(seed)
    if len(view.position_N) < 2:
        raise OptionError(f"view: one sample can't be cut in two, got {view!r}")
    split_of = _split(view, {"first": fraction, "rest": 1 - fraction}, seed)
    return keep_rows(view, lambda rows: split_of(rows) == (0 if part == "first" else 1), step)


def _split(view: View, fractions: Mapping[str, float], seed: int) -> Callable[[View], NDArray[np.integer]]:
    """Return a function of the view, or of its parts in order: which of `fractions` each row is in."""
    if view.is_large:
        return ClassDraws(view, seed, _SPLIT_STREAM).splits(list(fractions.values()))
    split_N = stratified_split(view.label_N, fractions, seed)
    return lambda _: split_N
