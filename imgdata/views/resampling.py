"""Labels, weights, seed, epoch -> which rows an epoch draws, and how often; a pure function of them.

By class, each class gets a fixed number of draws and goes through its samples in a random order, then in another one,
and continues in the next epoch where the last one ended: no sample is drawn again before all others of its class were.
By sample, the numbers of draws are those of systematic resampling, drawn again in every epoch.
"""

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from imgdata.order.epoch_order import permutation

_CLASS_STREAM, _SAMPLE_STREAM, _PHASE_STREAM = 0x626C636C, 0x626C736D, 0x626C7068
"""Upper halves of stream numbers, apart from those that order epochs."""
_BLOCK = 4
"""Numbers that Philox 4x64 makes at a time; its counter counts these blocks."""


class Resampling(Protocol):
    """The rule by which the epochs of a balanced view are drawn."""

    @property
    def length(self) -> int:
        """Draws of an epoch, E."""

    def rows(self, epoch: int) -> NDArray[np.int64]:
        """Return the rows that `epoch` draws, ascending, each as often as it is drawn: int64 `(E,)`."""

    def drawn_N(self) -> NDArray[np.float64]:  # noqa: N802
        """Return how often each row is drawn in an epoch, on average over the epochs: float64 `(N,)`."""

    def identity(self) -> bytes:
        """Return what, beside the labels, decides the draws."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassResampling:
    """A fixed number of draws for each class."""

    label_N: NDArray[np.int32]
    quota_C: NDArray[np.int64]
    """Draws of each class in an epoch; 0 for a class without samples. Samples without a label are never drawn."""
    seed: int
    row_N: NDArray[np.int64] = field(init=False, repr=False)
    """Rows by class."""
    start_C: NDArray[np.int64] = field(init=False, repr=False)
    """Start of each class in `row_N`, followed by the end of the last class."""

    def __post_init__(self) -> None:
        row_N = np.argsort(self.label_N, kind="stable")
        start_C = np.searchsorted(self.label_N[row_N], np.arange(len(self.quota_C) + 1))
        object.__setattr__(self, "row_N", row_N)
        object.__setattr__(self, "start_C", start_C)

    @property
    def length(self) -> int:
        """Draws of an epoch."""
        return int(self.quota_C.sum())

    def rows(self, epoch: int) -> NDArray[np.int64]:
        """See `Resampling`."""
        drawn = []
        for label in np.flatnonzero(self.quota_C).tolist():
            of_class = self.row_N[self.start_C[label] : self.start_C[label + 1]]
            count = int(self.quota_C[label])
            stream = _CLASS_STREAM << 32 | label
            drawn.append(
                of_class[cycle_draws(len(of_class), first=epoch * count, count=count, seed=self.seed, stream=stream)]
            )
        return np.sort(np.concatenate(drawn))

    def drawn_N(self) -> NDArray[np.float64]:  # noqa: N802
        """See `Resampling`."""
        count_C = np.bincount(self.label_N[self.label_N >= 0], minlength=len(self.quota_C))
        share_C = self.quota_C / np.maximum(count_C, 1)
        return np.where(self.label_N >= 0, share_C[self.label_N], 0.0)

    def identity(self) -> bytes:
        """See `Resampling`."""
        return b"class" + self.quota_C.astype("<i8").tobytes() + self.seed.to_bytes(8, "little")


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleResampling:
    """Draws in proportion to a weight of each sample, each the exact share rounded down or up."""

    weight_N: NDArray[np.float64]
    length: int
    seed: int

    def rows(self, epoch: int) -> NDArray[np.int64]:
        """See `Resampling`.

        Systematic resampling (Kitagawa, J. Comput. Graph. Stat. 5(1), 1996): samples lie on a line in random order,
        each as long as its share of the draws; a grid of step 1 with a random start counts them.
        """
        order_N = permutation(len(self.weight_N), seed=self.seed, stream=_SAMPLE_STREAM << 32 | epoch)
        end_N = np.cumsum(self.drawn_N()[order_N])
        # 53 bits, all that a float holds: more would round to 1 now and then.
        phase = (int(np.random.Philox(key=[self.seed, _PHASE_STREAM << 32 | epoch]).random_raw()) >> 11) / 2**53
        passed_N = np.minimum(np.floor(end_N + phase), self.length).astype(np.int64)
        # The last end is `length` but for rounding.
        passed_N[end_N >= end_N[-1]] = self.length
        return np.sort(np.repeat(order_N, np.diff(passed_N, prepend=0)))

    def drawn_N(self) -> NDArray[np.float64]:  # noqa: N802
        """See `Resampling`."""
        return _shares(self.weight_N, self.length)

    def identity(self) -> bytes:
        """See `Resampling`."""
        numbers = self.length.to_bytes(8, "little") + self.seed.to_bytes(8, "little")
        return b"sample" + numbers + self.weight_N.astype("<f8").tobytes()


def quotas(weight_C: NDArray[np.float64], length: int) -> NDArray[np.int64]:
    """Return `length` draws divided by weight, int64 `(C,)`: largest remainders, the first of equals."""
    exact_C = _shares(weight_C, length)
    quota_C = np.floor(exact_C).astype(np.int64)
    by_rest_C = np.argsort(quota_C - exact_C, kind="stable")
    quota_C[by_rest_C[: length - int(quota_C.sum())]] += 1
    return quota_C


def cycle_draws(num_samples: int, *, first: int, count: int, seed: int, stream: int) -> NDArray[np.int64]:
    """Return draws `first` to `first + count - 1` of an endless sequence of permutations of `range(num_samples)`.

    Permutation number t is ranks of the raw Philox outputs t N to t N + N - 1: any draw costs the same.
    """
    cycle = first // num_samples
    cycles = -(-(first + count) // num_samples) - cycle
    start = cycle * num_samples
    counter = [(start // _BLOCK) >> shift & (2**64 - 1) for shift in (0, 64, 128, 192)]
    philox = np.random.Philox(key=[seed, stream], counter=np.array(counter, np.uint64))
    raw_N = philox.random_raw(start % _BLOCK + cycles * num_samples)[start % _BLOCK :]
    drawn: NDArray[np.int64] = np.argsort(raw_N.reshape(cycles, num_samples), axis=1, kind="stable").ravel()
    return drawn[first - start : first - start + count]


def repeat_numbers(row_E: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how often each entry came before in the ascending `row_E`: 0 for the first of its row, then 1, 2, ..."""
    starts_E = np.concatenate([[True], row_E[1:] != row_E[:-1]]) if len(row_E) else np.empty(0, bool)
    first_E = np.flatnonzero(starts_E)
    repeat_E: NDArray[np.int64] = np.arange(len(row_E)) - first_E[np.cumsum(starts_E) - 1]
    return repeat_E


def _shares(weight: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Return `length` in proportion to the weights, at least one of which is above 0."""
    # By the largest first: a sum or quotient of extreme weights may not be a number.
    relative = weight / weight.max()
    shares: NDArray[np.float64] = relative * (length / math.fsum(relative))
    return shares
