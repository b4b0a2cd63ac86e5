"""A split, or a view of it -> a view: some of its samples, labels of its own, epochs that draw by weight.

No shard is rewritten: a view holds positions in the split. Every function here is pure, and records itself as a step,
so that a view can be written as text and made again.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from imgdata.dataset.dataset import Dataset
from imgdata.dataset.index import Index, index_id
from imgdata.dataset.lazy_array import MAX_WHOLE, every_position, is_lazy
from imgdata.dataset.parted_index import PartedIndex
from imgdata.dataset.selection import Selection
from imgdata.dataset.targets import Targets
from imgdata.errors import OptionError
from imgdata.order.epoch_order import MAX_EPOCH, MAX_SEED, EpochCache
from imgdata.sample import ClassName
from imgdata.storage.folder import DatasetFolder
from imgdata.views.resampling import Resampling, repeat_numbers
from imgdata.views.text import Step, view_text

PART_POSITIONS = 1 << 18
"""Positions that `View.parts` looks at together: two row groups of an index in parts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """Some samples of a split, in the order of its shards, with labels and classes of their own.

    A **position** counts in the split, a **row** in the view. `len` is an epoch's number of samples: of the rows, or
    what `balance` was asked for.
    """

    index: Index
    """The index of the whole split, unchanged."""
    folder: DatasetFolder
    """Folder of the dataset."""
    split: str
    classes: tuple[ClassName, ...]
    position_N: NDArray[np.int64]
    """Positions in the split of the view's rows, ascending."""
    label_N: NDArray[np.int32]
    """Class index of each row in `classes`; -1 for none."""
    steps: tuple[Step, ...] = ()
    """Steps that made the view."""
    resampling: Resampling | None = None
    """Rule by which epochs draw rows; None where each row is drawn once."""
    targets: Targets | None = None
    """The samples' targets, where they are in columns; None where `label_N` has all that there is."""
    name: str = ""
    """Name of a saved view; empty for others."""
    selection: Selection | None = None
    """The positions of a large view; None where it has all, and of other views."""
    _epochs: EpochCache = field(default_factory=EpochCache, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.position_N) == 0:
            raise OptionError(f"view: nothing is left of split {self.split!r} after {self.expression!r}")
        if not self.is_large:
            self.position_N.flags.writeable = False
            self.label_N.flags.writeable = False

    def __len__(self) -> int:
        return len(self.position_N) if self.resampling is None else self.resampling.length

    def __repr__(self) -> str:
        name = f"{self.name}: " if self.name else ""
        steps = f" | {self.expression}" if self.steps else ""
        return f"<View {name}{self.split}{steps}; {len(self)} samples, {len(self.classes)} classes>"

    @property
    def is_large(self) -> bool:
        """Whether these are more samples than memory holds: positions and labels stay in their files."""
        return is_lazy(self.position_N)

    @property
    def is_of_large(self) -> bool:
        """Whether the split has more samples than memory holds, whatever the view has."""
        return self.index.is_parted and not fits_memory(len(self.index))

    def parts(self) -> Iterator["View"]:
        """Yield the rows in order, some at a time: views whose positions and labels are in memory."""
        if not self.is_large:
            for start in range(0, len(self.position_N), PART_POSITIONS):
                rows = slice(start, start + PART_POSITIONS)
                yield replace(self, position_N=self.position_N[rows], label_N=self.label_N[rows])
            return
        for start in range(0, len(self.index), PART_POSITIONS):
            stop = min(start + PART_POSITIONS, len(self.index))
            position_N = np.arange(start, stop) if self.selection is None else self.selection.between(start, stop)
            if len(position_N):
                yield replace(self, position_N=position_N, label_N=self.index.label_N[position_N], selection=None)

    def labels(self, row_K: NDArray[np.int64], position_K: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the labels of rows whose positions are known, int32 `(K,)`."""
        return self.index.label_N[position_K] if self.is_large else self.label_N[row_K]

    @property
    def expression(self) -> str:
        """The steps as text, which `parse_view` reads."""
        return view_text(self.steps)

    def epoch_rows(self, epoch: int) -> NDArray[np.int64]:
        """Return the rows of `epoch`, ascending, int64 `(E,)`, E = `len(self)`.

        With `balance` some rows come several times, others not at all. An `Order` of `len(self)` samples says in which
        order to take the rows.
        """
        if not 0 <= epoch < MAX_EPOCH:
            raise OptionError(f"epoch must be 0 to 2^32-1, got {epoch}")
        if self.is_large:
            return every_position(len(self))
        if self.resampling is None:
            return self._epochs.get(0, lambda _: np.arange(len(self)))
        return self._epochs.get(epoch, self.resampling.rows)

    def epoch_positions(self, epoch: int) -> NDArray[np.int64]:
        """Return the positions of `epoch` in the split, ascending, int64 `(E,)`."""
        return self.position_N[self.epoch_rows(epoch)]

    def epoch_labels(self, epoch: int) -> NDArray[np.int32]:
        """Return the labels at `epoch_positions`, int32 `(E,)`."""
        return self.label_N[self.epoch_rows(epoch)]

    def epoch_repeats(self, epoch: int) -> NDArray[np.int64]:
        """Return how often each of `epoch_positions` came before in the epoch, int64 `(E,)`: all 0 without `balance`.

        By this number, a sample that is drawn again can be augmented in another way each time.
        """
        return repeat_numbers(self.epoch_rows(epoch))

    @cached_property
    def shard_sizes(self) -> tuple[int, ...]:
        """An epoch's samples in each shard that has any, in order; they sum to `len(self)`.

        With `balance` they differ from epoch to epoch, and here are as many even parts: a window then is a stretch
        of the shards as well, if not cut at their ends.
        """
        if self.is_large and isinstance(self.index, PartedIndex):
            if self.selection is None:
                return self.index.shard_sizes
            rows_S = self.selection.rows_before(np.cumsum([0, *self.index.shard_sizes]))
            return tuple(size for size in np.diff(rows_S).tolist() if size)
        if self.is_of_large and isinstance(self.index, PartedIndex) and self.resampling is None:
            rows_S = np.searchsorted(self.position_N, np.cumsum([0, *self.index.shard_sizes]))
            return tuple(size for size in np.diff(rows_S).tolist() if size)
        shard_N = self.index.shard_N[self.position_N]
        start_S = np.flatnonzero(np.concatenate([[True], shard_N[1:] != shard_N[:-1]]))
        if self.resampling is None:
            return tuple(np.diff(start_S, append=len(shard_N)).tolist())
        parts = min(len(start_S), len(self))
        return tuple(np.diff(np.arange(parts + 1) * len(self) // parts).tolist())

    @cached_property
    def has_unlabelled(self) -> bool:
        """Whether a row has no label."""
        if self.is_large and isinstance(self.index, PartedIndex):
            every = self.index.least("label") >= 0 or (self.selection is not None and self.drawn_C.sum() == len(self))
            return not every
        return bool((self.label_N < 0).any())

    @cached_property
    def drawn_C(self) -> NDArray[np.float64]:  # noqa: N802
        """Samples of each class in an epoch, on average over the epochs, float64 `(C,)`."""
        if self.is_large and self.targets is None:
            size = len(self.classes) + 1
            counted = (np.bincount(part.label_N + 1, minlength=size) for part in self.parts())
            return np.asarray(sum(counted, np.zeros(size, np.int64))[1:], np.float64)
        drawn_N = np.ones(len(self.label_N)) if self.resampling is None else self.resampling.drawn_N()
        if self.targets is not None and self.targets.kind != "regression":
            value_N = drawn_N if self.resampling is not None else None
            return self.targets.counts(self.position_N, value_N)
        labelled_N = self.label_N >= 0
        counts = np.bincount(self.label_N[labelled_N], drawn_N[labelled_N], minlength=len(self.classes))
        return np.asarray(counts, np.float64)

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits of SHA-256 over images, positions, labels, classes and draws of the view.

        Two texts with the same result have the same fingerprint.
        """
        digest = hashlib.sha256(index_id(self.index).encode())
        if self.is_large:
            # With the labels of the index.
            which = "all" if self.selection is None else self.selection.digest
            digest.update(repr([which, len(self)]).encode())
        else:
            digest.update(self.position_N.astype("<i8").tobytes())
            digest.update(self.label_N.astype("<i4").tobytes())
        digest.update(repr([tuple(one) for one in self.classes]).encode())
        digest.update(b"" if self.targets is None else self.targets.identity(self.position_N))
        digest.update(b"" if self.resampling is None else self.resampling.identity())
        return digest.hexdigest()[:32]


def whole(dataset: Dataset, split: str) -> View:
    """Return all samples of a split, as they are. Raises `KeyError` when there is no such split.

    Of a split with an index in parts and more than `MAX_WHOLE` samples, positions and labels stay where they are.
    """
    index = dataset[split].index
    index.load(("label", "shard"))
    is_large = index.is_parted and not fits_memory(len(index))
    return View(
        index=index,
        folder=dataset.folder,
        split=split,
        classes=dataset.classes,
        position_N=every_position(len(index)) if is_large else np.arange(len(index)),
        label_N=index.label_N if is_large else index.label_N.copy(),
        targets=dataset.targets(split),
    )


def fits_memory(samples: int) -> bool:
    """Return whether positions and labels of so many samples are kept in memory."""
    return samples <= MAX_WHOLE


def select_rows(view: View, kept_N: NDArray[np.bool_], step: Step) -> View:
    """Keep the rows where `kept_N` is true; `step` says how they were chosen."""
    check_not_balanced(view, step.name)
    return replace(
        view,
        position_N=view.position_N[kept_N],
        label_N=view.label_N[kept_N],
        steps=(*view.steps, step),
        name="",
    )


def check_not_balanced(view: View, step: str) -> None:
    """Refuse a step after `balance`, which decides on the epochs of all steps before. Raises `OptionError`."""
    if view.resampling is not None:
        raise OptionError(f"view: balance must be the last step, got {step} after it")


def check_in_memory(view: View, step: str) -> None:
    """Refuse a step that takes an array of all rows of a large view. Raises `OptionError`."""
    if view.is_large:
        raise OptionError(
            f"{step}: a view must have at most {MAX_WHOLE:,} samples, since their labels are kept in memory, got "
            f"{len(view):,}; keep fewer before, by where, fraction or count"
        )


def make_step(name: str, value: str, **options: object) -> Step:
    """Return a step of one value, with its options as text."""
    texts: Mapping[str, str] = {option: str(chosen) for option, chosen in options.items()}
    return Step(name=name, values=(value,), options=texts)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise `OptionError` unless `value` is one of `choices`."""
    if value not in choices:
        raise OptionError(f"view: {name} must be {' or '.join(choices)}, got {value!r}")


def check_seed(seed: int) -> None:
    """Raise `OptionError` unless 0 <= seed < 2^63."""
    if not 0 <= seed < MAX_SEED:
        raise OptionError(f"view: seed must be 0 to 2^63-1, got {seed}")
