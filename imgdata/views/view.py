"""A split, or a view of it -> a view: some of its samples, labels of its own, epochs that draw by weight.

No shard is rewritten: a view holds positions in the split. Every function here is pure, and records itself as a step,
so that a view can be written as text and made again.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from imgdata.dataset.dataset import Dataset
from imgdata.dataset.index import Index
from imgdata.errors import OptionError
from imgdata.order.epoch_order import MAX_EPOCH, MAX_SEED, EpochCache
from imgdata.sample import ClassName
from imgdata.stratify import stratified_split
from imgdata.views.resampling import Resampling, repeat_numbers
from imgdata.views.text import Step, view_text

SubsetPart = Literal["first", "rest"]
FoldPart = Literal["train", "held"]
_STREAM = 0x70657263
"""Keeps the draw of `per_class` apart from others with the same seed."""
_MAX_FOLDS = 255


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """Some samples of a split, in the order of its shards, with labels and classes of their own.

    A **position** counts in the split, a **row** in the view. `len` is an epoch's number of samples: of the rows, or
    what `balance` was asked for.
    """

    index: Index
    """The index of the whole split, unchanged."""
    split: str
    classes: tuple[ClassName, ...]
    position_N: NDArray[np.int64]
    """Positions in the split of the view's rows, ascending."""
    label_N: NDArray[np.int32]
    """Class index of each row in `classes`; -1 for none."""
    steps: tuple[Step, ...] = ()
    """How the view was made."""
    resampling: Resampling | None = None
    """How epochs draw rows; None where each is drawn once."""
    name: str = ""
    """Of a saved view."""
    _epochs: EpochCache = field(default_factory=EpochCache, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.position_N) == 0:
            raise OptionError(f"view: nothing is left of split {self.split!r} after {self.expression!r}")
        self.position_N.flags.writeable = False
        self.label_N.flags.writeable = False

    def __len__(self) -> int:
        return len(self.position_N) if self.resampling is None else self.resampling.length

    def __repr__(self) -> str:
        name = f"{self.name}: " if self.name else ""
        steps = f" | {self.expression}" if self.steps else ""
        return f"<View {name}{self.split}{steps}; {len(self)} samples, {len(self.classes)} classes>"

    @property
    def expression(self) -> str:
        """The steps as text, which `parse_view` reads."""
        return view_text(self.steps)

    def epoch_rows(self, epoch: int) -> NDArray[np.int64]:
        """The rows of `epoch`, ascending, int64 `(E,)`, E = `len(self)`; with `balance` some twice, others not at all.

        An `Order` of `len(self)` samples says in which order to take them.
        """
        if not 0 <= epoch < MAX_EPOCH:
            raise OptionError(f"epoch must be 0 to 2^32-1, got {epoch}")
        if self.resampling is None:
            return self._epochs.get(0, lambda _: np.arange(len(self)))
        return self._epochs.get(epoch, self.resampling.rows)

    def epoch_positions(self, epoch: int) -> NDArray[np.int64]:
        """The positions of `epoch` in the split, ascending, int64 `(E,)`."""
        return self.position_N[self.epoch_rows(epoch)]

    def epoch_labels(self, epoch: int) -> NDArray[np.int32]:
        """The labels at `epoch_positions`, int32 `(E,)`."""
        return self.label_N[self.epoch_rows(epoch)]

    def epoch_repeats(self, epoch: int) -> NDArray[np.int64]:
        """How often each of `epoch_positions` came before in the epoch, int64 `(E,)`: 0 everywhere without `balance`.

        With it, the same sample can be augmented in another way each time.
        """
        return repeat_numbers(self.epoch_rows(epoch))

    @cached_property
    def shard_sizes(self) -> tuple[int, ...]:
        """An epoch's samples in each shard that has any, in order; they sum to `len(self)`.

        With `balance` they differ from epoch to epoch, and here are as many even parts: a window then is a stretch
        of the shards as well, if not cut at their ends.
        """
        shard_N = self.index.shard_N[self.position_N]
        start_S = np.flatnonzero(np.concatenate([[True], shard_N[1:] != shard_N[:-1]]))
        if self.resampling is None:
            return tuple(np.diff(start_S, append=len(shard_N)).tolist())
        parts = min(len(start_S), len(self))
        return tuple(np.diff(np.arange(parts + 1) * len(self) // parts).tolist())

    @cached_property
    def drawn_C(self) -> NDArray[np.float64]:  # noqa: N802
        """Samples of each class in an epoch, on average over the epochs, float64 `(C,)`."""
        drawn_N = np.ones(len(self.label_N)) if self.resampling is None else self.resampling.drawn_N()
        labelled_N = self.label_N >= 0
        counts = np.bincount(self.label_N[labelled_N], drawn_N[labelled_N], minlength=len(self.classes))
        return np.asarray(counts, np.float64)

    @cached_property
    def fingerprint(self) -> str:
        """Names what the view shows: 32 hex digits of SHA-256 over images, positions, labels, classes, draws.

        Two texts that come to the same have the same one.
        """
        digest = hashlib.sha256(index_id(self.index).encode())
        digest.update(self.position_N.astype("<i8").tobytes())
        digest.update(self.label_N.astype("<i4").tobytes())
        digest.update(repr([tuple(one) for one in self.classes]).encode())
        digest.update(b"" if self.resampling is None else self.resampling.identity())
        return digest.hexdigest()[:32]


def whole(dataset: Dataset, split: str) -> View:
    """All samples of a split, as they are. Raises `KeyError` when there is no such split."""
    index = dataset[split].index
    index.load(("label", "shard"))
    return View(
        index=index,
        split=split,
        classes=dataset.classes,
        position_N=np.arange(len(index)),
        label_N=index.label_N.copy(),
    )


def index_id(index: Index) -> str:
    """Names a split's contents: 32 hex digits of SHA-256 over the hashes of its images, in order, and their labels."""
    index.load(("xxh64", "label"))
    digest = hashlib.sha256(index.xxh64_N.astype("<u8").tobytes())
    digest.update(index.label_N.astype("<i4").tobytes())
    return digest.hexdigest()[:32]


def subset_fraction(view: View, fraction: float, *, part: SubsetPart = "first", seed: int = 0) -> View:
    """A share of the samples drawn by class, or with `part="rest"` all the others: together they are the view.

    `fraction` above 0 and below 1. Each class gives its share rounded down or up, and the total is rounded to the
    nearest (`imgdata.stratify.split_counts`). Raises `OptionError`.
    """
    if not 0 < fraction < 1:
        raise OptionError(f"view: fraction must be above 0 and below 1, got {fraction:g}")
    first_N = _first(view, fraction, part, seed)
    step = _step("fraction", repr(float(fraction)), part=part, seed=seed)
    return select_rows(view, first_N if part == "first" else ~first_N, step)


def subset_count(view: View, count: int, *, part: SubsetPart = "first", seed: int = 0) -> View:
    """`count` samples drawn by class, or with `part="rest"` all the others: CIFAR-10's 45,000 and 5,000.

    `count` from 1 to one less than there are. Raises `OptionError`.
    """
    total = len(view.position_N)
    if not 0 < count < total:
        raise OptionError(f"view: count must be 1 to {total - 1}, one less than there are samples, got {count}")
    first_N = _first(view, count / total, part, seed)
    step = _step("count", str(count), part=part, seed=seed)
    return select_rows(view, first_N if part == "first" else ~first_N, step)


def fold(view: View, number: int, folds: int, *, part: FoldPart = "train", seed: int = 0) -> View:
    """Of `folds` equal parts drawn by class, number `number` (from 1) is held out: it (`held`) or the rest (`train`).

    Every sample is held out in exactly one fold. 2 to 255 folds. Raises `OptionError`.
    """
    most = min(_MAX_FOLDS, len(view.position_N))
    if not 2 <= folds <= most:
        raise OptionError(f"view: the number of folds must be 2 to {most}, got {folds}")
    if not 1 <= number <= folds:
        raise OptionError(f"view: the fold must be 1 to {folds}, got {number}")
    _check_choice("part", part, get_args(FoldPart))
    _check_seed(seed)
    fold_N = stratified_split(view.label_N, {str(k): 1 / folds for k in range(folds)}, seed)
    held_N = fold_N == number - 1
    step = _step("fold", f"{number}/{folds}", part=part, seed=seed)
    return select_rows(view, held_N if part == "held" else ~held_N, step)


def per_class(view: View, count: int, *, seed: int = 0) -> View:
    """Up to `count` random samples of each class: all where a class has fewer; none without a label.

    More of them, with the same seed, include the fewer. Raises `OptionError`.
    """
    if count < 1:
        raise OptionError(f"view: per_class must be 1 or more, got {count}")
    _check_seed(seed)
    draw_N = np.random.Philox(key=[seed, _STREAM]).random_raw(len(view.label_N))
    order_N = np.lexsort((draw_N, view.label_N))
    label_N = view.label_N[order_N]
    place_N = np.arange(len(label_N)) - np.searchsorted(label_N, label_N)
    kept_N = np.zeros(len(label_N), bool)
    kept_N[order_N[(place_N < count) & (label_N >= 0)]] = True
    return select_rows(view, kept_N, _step("per_class", str(count), seed=seed))


def select_rows(view: View, kept_N: NDArray[np.bool_], step: Step) -> View:
    """The rows where `kept_N` is true; `step` says how they were chosen."""
    check_not_balanced(view, step.name)
    return replace(
        view,
        position_N=view.position_N[kept_N],
        label_N=view.label_N[kept_N],
        steps=(*view.steps, step),
        name="",
    )


def check_not_balanced(view: View, step: str) -> None:
    """`balance` decides on the epochs of all that came before, so nothing can follow it. Raises `OptionError`."""
    if view.resampling is not None:
        raise OptionError(f"view: balance must be the last step, got {step} after it")


def class_weights(
    view: View, method: Literal["balanced", "effective"] = "balanced", *, beta: float = 0.999
) -> NDArray[np.float64]:
    """A weight of each class for a weighted loss, float64 `(C,)`; 0 for classes without samples.

    n is the number of labelled samples, n_c that of class c, C the number of classes that have any; with a balanced
    view, of an epoch.

    - `balanced`: n / (C n_c), scikit-learn's `compute_class_weight("balanced")`: the mean over the samples is 1.
    - `effective`: proportional to (1 - beta) / (1 - beta^n_c), the inverse of the effective number of samples (Cui et
      al., "Class-balanced loss based on effective number of samples", CVPR 2019), scaled to sum to C. `beta` from 0
      (all equal) to below 1.

    Raises `OptionError` when nothing is labelled.
    """
    _check_choice("method", method, ("balanced", "effective"))
    if not 0 <= beta < 1:
        raise OptionError(f"class_weights: beta must be 0 or more and below 1, got {beta:g}")
    drawn_C = view.drawn_C
    used_C = drawn_C > 0
    if not used_C.any():
        raise OptionError(f"class_weights: no sample of {view!r} has a label")
    weight_C: NDArray[np.float64] = np.zeros(len(drawn_C))
    if method == "balanced":
        weight_C[used_C] = drawn_C.sum() / (used_C.sum() * drawn_C[used_C])
        return weight_C
    # 1 - beta^n without losing digits where beta is near 1.
    weight_C[used_C] = 1.0 if beta == 0 else 1 / -np.expm1(drawn_C[used_C] * np.log(beta))
    weight_C *= used_C.sum() / weight_C.sum()
    return weight_C


def _first(view: View, fraction: float, part: str, seed: int) -> NDArray[np.bool_]:
    _check_choice("part", part, get_args(SubsetPart))
    _check_seed(seed)
    if len(view.position_N) < 2:
        raise OptionError(f"view: one sample can't be cut in two, got {view!r}")
    first_N: NDArray[np.bool_] = stratified_split(view.label_N, {"first": fraction, "rest": 1 - fraction}, seed) == 0
    return first_N


def _step(name: str, value: str, **options: object) -> Step:
    texts: Mapping[str, str] = {option: str(chosen) for option, chosen in options.items()}
    return Step(name=name, values=(value,), options=texts)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise OptionError(f"view: {name} must be {' or '.join(choices)}, got {value!r}")


def _check_seed(seed: int) -> None:
    if not 0 <= seed < MAX_SEED:
        raise OptionError(f"view: seed must be 0 to 2^63-1, got {seed}")
