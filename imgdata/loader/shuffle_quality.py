"""A split or view, batch size -> how mixed the classes of a batch are, for every way of shuffling."""

import math
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.dataset.split import Split
from imgdata.errors import OptionError
from imgdata.order.epoch_order import Order, Shuffle, permutation, spread
from imgdata.views.view import View

BUFFER_SAMPLES = 1000
"""The usual buffer of webdataset's `shuffle`."""
POOR = 0.9
"""A share of the ideal below which a shuffle is warned of: batches of shuffled shards come nearer in any mode."""
_CHANCE_SIGMAS = 4
"""And no warning of what random batches could have shown: few and small batches vary."""
_SHARD_STREAM, _SLOT_STREAM, _REST_STREAM = 0x62756673, 0x62756662, 0x62756672
_CHECKED_BATCHES = 64
_LARGE_SAMPLE = 4096
"""Labels that are read of a split that isn't held in memory, to know how many classes a random batch has."""


class ShuffleWarning(UserWarning):
    """The shards are sorted by class, and the shuffle in use does not undo that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffleRow:
    """One way of shuffling."""

    shuffle: str
    """`global`, `window of K shards`, `none` or `buffer of N samples`."""
    classes_per_batch: float
    """Distinct classes in a batch, mean over the full batches."""
    of_ideal: float
    """The same over that of random batches."""
    spread: float | None
    """How far samples are carried (`imgdata.order.epoch_order.spread`); None for the buffer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffleQuality:
    """Every way of shuffling beside random batches."""

    samples: int
    batch_size: int
    classes: int
    """Classes that have samples."""
    ideal: float
    """Expected distinct classes of a batch drawn at random without repeats."""
    rows: tuple[ShuffleRow, ...]

    def __str__(self) -> str:
        head = f"{self.samples} samples, {self.classes} classes, batches of {self.batch_size}: {self.ideal:.2f} classes"
        lines = [f"{head} in a random batch", f"{'shuffle':<28}{'classes/batch':>14}{'of ideal':>10}{'spread':>8}"]
        for row in self.rows:
            far = "" if row.spread is None else f"{row.spread:.3f}"
            lines.append(f"{row.shuffle:<28}{row.classes_per_batch:>14.2f}{row.of_ideal:>10.1%}{far:>8}".rstrip())
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def shuffle_quality(
    source: Split | View,
    batch_size: int,
    *,
    shuffle: Shuffle | None = None,
    window_shards: int = 16,
    buffer: int = BUFFER_SAMPLES,
    seed: int = 0,
    epoch: int = 0,
) -> ShuffleQuality:
    """Compare `global`, `window`, `none` and a shuffle buffer by the distinct classes in the batches of one epoch.

    The buffer is that of loaders which stream: shards in random order, then every sample that comes in takes the place
    of a random one of `buffer` samples, which goes out. Samples without a label count as one class more.
    Warns with `ShuffleWarning` when `shuffle`, the mode in mind, is `window` or `none` and reaches less than
    `POOR` of the ideal, beyond chance, as it does when the shards are sorted by class. Raises `OptionError`.
    """
    if buffer < 1:
        raise OptionError(f"buffer must be 1 or more, got {buffer}")
    label_N, shard_sizes = _labels(source, epoch)
    orders = _orders(len(label_N), batch_size, shard_sizes, window_shards, seed)
    size = orders["none"].global_batch
    ideal = expected_classes(np.bincount(label_N + 1), size)
    rows = {}
    for mode, order in orders.items():
        found = mean_classes(label_N[order.epoch_positions(epoch)], size)
        name = f"window of {window_shards} shards" if mode == "window" else mode
        rows[mode] = ShuffleRow(
            shuffle=name, classes_per_batch=found, of_ideal=found / ideal, spread=round(spread(order), 6)
        )
    streamed = mean_classes(label_N[buffer_order(shard_sizes, buffer, seed, epoch)], size)
    rows["buffer"] = ShuffleRow(
        shuffle=f"buffer of {buffer} samples", classes_per_batch=streamed, of_ideal=streamed / ideal, spread=None
    )
    if shuffle is not None:
        if shuffle not in orders:
            raise OptionError(f"shuffle must be one of {', '.join(orders)}, got {shuffle!r}")
        _warn(shuffle, rows[shuffle].classes_per_batch, label_N, size, len(label_N) // size)
    return ShuffleQuality(
        samples=len(label_N),
        batch_size=batch_size,
        classes=len(np.unique(label_N)),
        ideal=ideal,
        rows=tuple(rows.values()),
    )


def check_shuffle(view: View, order: Order, epoch: int = 0) -> None:
    """Warn with `ShuffleWarning` when `order` leaves the batches of `view` poor in classes.

    Looks at some batches over the epoch only, and at none where the shuffle is `global`: cheap enough for every start.
    """
    if order.shuffle == "global":
        return
    size = min(order.global_batch, len(view))
    full = len(view) // size
    batch_M = np.unique(np.linspace(0, full - 1, min(full, _CHECKED_BATCHES)).astype(np.int64))
    place_K = (batch_M[:, None] * size + np.arange(size)).ravel()
    epoch_N = view.epoch_rows(epoch)
    chosen_K = view.label_N[epoch_N[order.positions(epoch, place_K)]]
    if view.is_large:
        # Batches drawn from a sample of the samples are batches drawn from all of them.
        some = max(_LARGE_SAMPLE, 4 * size)
        label_N = view.label_N[np.linspace(0, len(view) - 1, some).astype(np.int64)]
    else:
        label_N = view.label_N[epoch_N]
    _warn(order.shuffle, mean_classes(chosen_K, size), label_N, size, len(batch_M))


def expected_classes(count_C: NDArray[np.integer], batch_size: int) -> float:
    """Return expected number of distinct classes among `batch_size` of n samples drawn without repeats, n_c of class c.

        sum over c of 1 - C(n - n_c, B) / C(n, B)

    The quotient is the product of 1 - n_c / (n - i) for i < B: summed as logarithms, nothing overflows or cancels.
    """
    chance_U, times_U = _chances(count_C, batch_size)
    return float(chance_U @ times_U)


def _chances(count_C: NDArray[np.integer], batch_size: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return how likely a class is in a random batch, and how many classes are as likely."""
    total = int(count_C.sum())
    # Many classes have the same count.
    size_U, times_U = np.unique(count_C[count_C > 0], return_counts=True)
    place_B = np.arange(batch_size)
    # With more draws than there are other samples, the class is certain.
    chances = [
        1.0 if batch_size > total - size else -np.expm1(np.log1p(-size / (total - place_B)).sum())
        for size in size_U.tolist()
    ]
    return np.array(chances), times_U


def mean_classes(label_N: NDArray[np.integer], batch_size: int) -> float:
    """Return distinct labels in a batch, mean over the full batches of `label_N` in its order."""
    full = len(label_N) // batch_size
    label_MB = np.sort(label_N[: full * batch_size].reshape(full, batch_size), axis=1)
    return float(1 + (label_MB[:, 1:] != label_MB[:, :-1]).sum() / full)


def buffer_order(shard_sizes: Iterable[int], buffer: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order in which a shuffle buffer of `buffer` samples gives out randomly ordered shards, int64 `(N,)`.

    The buffer is full before the first sample goes out, which is the best case: webdataset starts with less.
    """
    size_S = np.fromiter(shard_sizes, np.int64)
    start_S = np.cumsum(size_S) - size_S
    shard_S = permutation(len(size_S), seed=seed, stream=_SHARD_STREAM << 32 | epoch)
    incoming = np.concatenate([np.arange(start_S[shard], start_S[shard] + size_S[shard]) for shard in shard_S])
    held = incoming[:buffer].tolist()
    slots = np.random.Philox(key=[seed, _SLOT_STREAM << 32 | epoch]).random_raw(len(incoming) - len(held))
    outgoing = []
    for position, slot in zip(incoming[buffer:].tolist(), (slots % np.uint64(buffer)).tolist(), strict=True):
        outgoing.append(held[slot])
        held[slot] = position
    rest = permutation(len(held), seed=seed, stream=_REST_STREAM << 32 | epoch)
    return np.concatenate([np.array(outgoing, np.int64), np.array(held, np.int64)[rest]])


def _labels(source: Split | View, epoch: int) -> tuple[NDArray[np.int32], tuple[int, ...]]:
    if isinstance(source, View):
        return source.epoch_labels(epoch), source.shard_sizes
    index = source.index
    index.load(("label", "shard"))
    start_S = np.flatnonzero(np.concatenate([[True], index.shard_N[1:] != index.shard_N[:-1]])[: len(index)])
    return index.label_N, tuple(np.diff(start_S, append=len(index)).tolist())


def _orders(
    num_samples: int, batch_size: int, shard_sizes: tuple[int, ...], window_shards: int, seed: int
) -> dict[str, Order]:
    modes: tuple[Shuffle, ...] = ("global", "window", "none")
    return {
        mode: Order(
            num_samples=num_samples,
            # A batch larger than the split holds all of it.
            global_batch=min(batch_size, max(num_samples, 1)),
            shuffle=mode,
            seed=seed,
            shard_sizes=shard_sizes,
            window_shards=window_shards,
        )
        for mode in modes
    }


def _warn(shuffle: Shuffle, found: float, label_N: NDArray[np.int32], batch_size: int, batches: int) -> None:
    chance_U, times_U = _chances(np.bincount(label_N + 1), batch_size)
    ideal = float(chance_U @ times_U)
    # Which classes are in a batch is negatively correlated: the sum of their variances is an upper bound.
    deviation = math.sqrt(float((chance_U * (1 - chance_U)) @ times_U) / batches)
    if shuffle != "global" and found < min(POOR * ideal, ideal - _CHANCE_SIGMAS * deviation):
        warnings.warn(
            f"shuffle={shuffle!r} gives batches {found / ideal:.0%} of the classes that random batches have: the "
            "shards are sorted by class; use shuffle='global', or shard the dataset again with shuffling",
            ShuffleWarning,
            stacklevel=3,
        )
