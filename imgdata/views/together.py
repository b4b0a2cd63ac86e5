"""Views of several datasets -> one view of all; weights of the datasets -> how often an epoch draws from each."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from imgdata.dataset.joined import JoinedSplit
from imgdata.dataset.targets import Targets
from imgdata.errors import OptionError
from imgdata.sample import ClassName
from imgdata.views.resampling import ClassResampling, quotas
from imgdata.views.view import View

JoinClasses = Literal["joined", "separate"]
"""Classes of several datasets: the same where their ids are, or kept apart."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DatasetResampling(ClassResampling):
    """A fixed number of draws from each dataset, whose samples are gone through in a random order, then in another one.

    `label_N` is the number of each row's dataset, `quota_C` the draws of each in an epoch.
    """

    def identity(self) -> bytes:
        """See `Resampling`; without the seed, which is the loader's and is part of its state."""
        size_D = np.bincount(self.label_N, minlength=len(self.quota_C))
        return b"datasets" + self.quota_C.astype("<i8").tobytes() + size_D.astype("<i8").tobytes()


def joined_view(
    split: JoinedSplit,
    views: Sequence[View],
    *,
    weights: Sequence[float] | None = None,
    classes: JoinClasses = "joined",
    seed: int = 0,
) -> View:
    """Return the samples of all views, of the datasets that `split` joins; with `weights` epochs that draw by them.

    An epoch has as many draws as the views have samples together. Each dataset gets its part of them, rounded by
    largest remainders; all its samples are drawn before one is drawn again, also from epoch to epoch. Raises
    `OptionError`.
    """
    if classes not in get_args(JoinClasses):
        raise OptionError(f"classes must be {' or '.join(get_args(JoinClasses))}, got {classes!r}")
    for view in views:
        if view.resampling is not None:
            raise OptionError(
                f"view of {view.folder}: balance can't be used on one of several datasets; leave it out, or weigh the "
                "datasets with weights"
            )
    names, label_of = _classes(views, classes)
    size_D = np.array([len(view.position_N) for view in views])
    dataset_N = np.repeat(np.arange(len(views), dtype=np.int32), size_D)
    start_D = split.start_D.tolist()
    return View(
        index=split.index,
        folder=split.folder,
        split=split.name,
        classes=names,
        position_N=np.concatenate([view.position_N + start for view, start in zip(views, start_D, strict=True)]),
        label_N=np.concatenate([label_C[view.label_N] for view, label_C in zip(views, label_of, strict=True)]),
        resampling=None if weights is None else _mixture(weights, views, dataset_N, seed),
        targets=_targets(split, views, names),
    )


def _classes(views: Sequence[View], how: JoinClasses) -> tuple[tuple[ClassName, ...], list[NDArray[np.int32]]]:
    """Return the classes of all, and for each view what its labels become, with -1 at the end for none."""
    places: dict[str, int] = {}
    names: list[ClassName] = []
    label_of = []
    for number, view in enumerate(views):
        found = []
        for one in view.classes:
            if how == "separate":
                one = ClassName(f"{number}/{one.id}", f"{view.folder.path.name}/{one.name}")
            if one.id not in places:
                places[one.id] = len(names)
                names.append(one)
            found.append(places[one.id])
        label_of.append(np.array([*found, -1], np.int32))
    return tuple(names), label_of


def _mixture(
    weights: Sequence[float], views: Sequence[View], dataset_N: NDArray[np.int32], seed: int
) -> DatasetResampling:
    try:
        good = len(weights) == len(views) and all(0 < weight < math.inf for weight in weights)
    except TypeError:
        # One number, or texts.
        good = False
    if not good:
        shown = repr(weights) if isinstance(weights, str) or not isinstance(weights, Iterable) else list(weights)
        raise OptionError(f"weights must be {len(views)} numbers above 0, one for each dataset, got {shown}")
    quota_D = quotas(np.array(weights, np.float64), len(dataset_N))
    if not quota_D.all():
        number = int(np.argmin(quota_D))
        raise OptionError(
            f"weights: {views[number].folder} would get none of the {len(dataset_N):,} draws of an epoch with "
            f"{weights[number]:g}; give it a larger weight, or leave it out"
        )
    return DatasetResampling(label_N=dataset_N, quota_C=quota_D, seed=seed)


def _targets(split: JoinedSplit, views: Sequence[View], classes: Sequence[ClassName]) -> Targets | None:
    """Return the targets of all samples, where they are in columns. Raises `OptionError` where they differ in kind."""
    first = views[0]
    for view in views[1:]:
        kinds = [None if one.targets is None else one.targets.target for one in (first, view)]
        if kinds[0] != kinds[1]:
            shown = ["one class each" if one is None else f"{one.kind} ({', '.join(one.columns)})" for one in kinds]
            raise OptionError(
                f"datasets must have one kind of target, got {shown[0]} in {first.folder} and {shown[1]} in "
                f"{view.folder}"
            )
        if kinds[0] is not None and view.classes != first.classes:
            raise OptionError(
                f"datasets with the target {kinds[0].kind!r} must have the same classes in the same order, got others "
                f"in {first.folder} and {view.folder}"
            )
    if first.targets is None:
        return None
    made = Targets(first.targets.target, split.columns, classes)
    for view, start in zip(views, split.start_D.tolist(), strict=True):
        if view.targets is not None:
            made = made.changed({start + position: value for position, value in view.targets.replaced.items()})
    return made
