"""Which sample comes when: (number of samples, seed, epoch, rank) -> positions."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import xxhash
from numpy.typing import NDArray

from imgdata.errors import OptionError
from imgdata.order.bijection import scatter

Shuffle = Literal["global", "window", "none"]

MAX_SEED = 2**63
MAX_EPOCH = 2**32
MAX_SORTED = 2**27
"""Samples up to which the order of an epoch is sorted and kept, 8 bytes for each; above, it is a keyed bijection."""
MAX_SAMPLES = 2**40
"""Samples of an epoch."""
UNSHUFFLED_SPLITS = ("val", "test")
"""Splits whose samples are stored in the order in which they were listed."""
_EPOCH_STREAM, _SHARD_STREAM, _WINDOW_STREAM = 0x65706F63, 0x73686172, 0x77696E64
_KEYED_STREAM, _KEYED_WINDOW_STREAM = 0x6B657965, 0x6B657977
"""Upper halves of stream numbers, whose lower halves are epochs: no two draws of one seed are the same."""


def permutation(num_samples: int, *, seed: int, stream: int) -> NDArray[np.int64]:
    """Return A random order of `range(num_samples)`, int64 `(N,)`, that depends on the arguments alone.

    Ranks of the raw 64-bit outputs of Philox 4x64 (Salmon et al., "Parallel random numbers: as easy as
    1, 2, 3", 2011). NumPy keeps the raw stream the same in all versions; what `Generator.permutation`
    makes of it may change, and with it the bytes of every shard.
    """
    return np.argsort(_raw(num_samples, seed, stream), kind="stable").astype(np.int64)


def _raw(count: int, seed: int, stream: int) -> NDArray[np.uint64]:
    # The key as an array: of a list with numbers from 2**63 on NumPy would make floats, and lose bits.
    return np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(count)


def stored_order(num_samples: int, *, split: str, seed: int = 0) -> NDArray[np.int64]:
    """Return the order in which the samples of a split are stored, int64 `(N,)`: shuffled, but for `UNSHUFFLED_SPLITS`.

    The stream is the split's name, so that one split's order does not depend on the others.
    """
    if split in UNSHUFFLED_SPLITS:
        return np.arange(num_samples)
    return permutation(num_samples, seed=seed, stream=xxhash.xxh64_intdigest(split.encode()))


def window_permutation(shard_sizes: tuple[int, ...], *, window_shards: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return an order of all samples, int64 `(N,)`, that reads from at most `window_shards` shards at a time.

    The shards are permuted and cut into windows, as even as can be; each window's samples are permuted. All by one
    sort: the number of the window is the upper part of the sort key, raw Philox outputs the lower.
    """
    num_shards = len(shard_sizes)
    num_windows = -(-num_shards // window_shards)
    shard_at_S = permutation(num_shards, seed=seed, stream=_stream(_SHARD_STREAM, epoch))
    window_S = np.empty(num_shards, np.uint64)
    window_S[shard_at_S] = np.arange(num_shards, dtype=np.uint64) * np.uint64(num_windows) // np.uint64(num_shards)
    raw_N = _raw(sum(shard_sizes), seed, _stream(_WINDOW_STREAM, epoch))
    bits = num_windows.bit_length()
    key_N = np.repeat(window_S << np.uint64(64 - bits), shard_sizes) | (raw_N >> np.uint64(bits))
    return np.argsort(key_N, kind="stable").astype(np.int64)


def window_layout(shard_sizes: NDArray[np.int64], *, window_shards: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the shards in the random order of `window_permutation`, and which places they have: int64 `(5, S)`.

    For each of these shards: its number, the places before it, its window, and where that window begins and ends.
    """
    num_shards = len(shard_sizes)
    num_windows = -(-num_shards // window_shards)
    shard_S = permutation(num_shards, seed=seed, stream=_stream(_SHARD_STREAM, epoch))
    window_S = np.arange(num_shards) * num_windows // num_shards
    end_S = np.cumsum(shard_sizes[shard_S])
    start_S = end_S - shard_sizes[shard_S]
    # A window begins with the first of its shards, and ends where the next one begins.
    first_W = np.searchsorted(window_S, np.arange(num_windows))
    begin_W = np.append(start_S[first_W], end_S[-1])
    return np.stack([shard_S, start_S, window_S, begin_W[window_S], begin_W[window_S + 1]])


class EpochCache:
    """The arrays of the last two epochs asked for: the one that is read, and the one that is read ahead.

    Safe in threads, which at worst make an array twice, and after a fork, since it holds no lock. Copies start empty.
    """

    def __init__(self) -> None:
        self._kept: tuple[tuple[int, NDArray[np.int64]], ...] = ()

    def __reduce__(self) -> tuple[type["EpochCache"], tuple[()]]:
        return type(self), ()

    def get(self, epoch: int, make: Callable[[int], NDArray[np.int64]]) -> NDArray[np.int64]:
        """Return the array of `epoch`, read-only; `make(epoch)` where it isn't known."""
        kept = self._kept
        for known, array in kept:
            if known == epoch:
                return array
        array = make(epoch)
        array.flags.writeable = False
        self._kept = ((epoch, array), *kept[:1])
        return array


@dataclass(frozen=True, kw_only=True)
class Order:
    """The order of a split in every epoch, and its cut into batches: a pure function of these settings.

    An epoch is one sequence of all samples, whatever the number of ranks. A global batch is a stretch of it, and each
    rank takes an equal, contiguous part of that. So a batch is addressed by how many samples came before it.
    """

    num_samples: int
    """Samples of an epoch, N."""
    global_batch: int
    """Samples of one step over all ranks: batch size of a rank times number of ranks."""
    shuffle: Shuffle = "global"
    """`global`: a permutation of all; `window`: shards permuted, then samples inside windows of shards; `none`."""
    seed: int = 0
    """0 to 2^63-1."""
    drop_last: bool = False
    """Leave out the last global batch when it isn't full; otherwise it is padded."""
    shard_sizes: tuple[int, ...] = field(default=(), repr=False)
    """Samples of each shard, in order; needed for `window`."""
    window_shards: int = 16
    """How many shards a window has at most; memory and open files grow with it."""
    max_sorted: int = MAX_SORTED
    """Samples up to which an epoch is a sorted array; that of more is a keyed bijection, another order."""
    _epochs: EpochCache = field(default_factory=EpochCache, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise OptionError(f"num_samples must be 1 or more, got {self.num_samples}; the split or view is empty")
        if self.num_samples > MAX_SAMPLES:
            raise OptionError(
                f"num_samples must be at most {MAX_SAMPLES:,}, got {self.num_samples:,}; make the view shorter"
            )
        if self.global_batch < 1:
            raise OptionError(f"batch_size must be 1 or more, got {self.global_batch}")
        if self.shuffle not in get_args(Shuffle):
            raise OptionError(f"shuffle must be one of {', '.join(get_args(Shuffle))}, got {self.shuffle!r}")
        if not 0 <= self.seed < MAX_SEED:
            raise OptionError(f"seed must be 0 to 2^63-1, got {self.seed}")
        if self.window_shards < 1:
            raise OptionError(f"window_shards must be 1 or more, got {self.window_shards}")
        if (self.shard_sizes or self.shuffle == "window") and sum(self.shard_sizes) != self.num_samples:
            raise OptionError(
                f"shard_sizes must sum to num_samples = {self.num_samples}, got {sum(self.shard_sizes)} "
                f"in {len(self.shard_sizes)} shards"
            )
        if any(size < 1 for size in self.shard_sizes):
            raise OptionError(f"shard_sizes must be 1 or more, got {min(self.shard_sizes)}; leave empty shards out")
        if self.drop_last and self.global_batch > self.num_samples:
            raise OptionError(
                f"batch_size times world_size must be at most {self.num_samples}, the number of samples, with "
                f"drop_last, got {self.global_batch}: no batch would be left; make it smaller, or drop_last false"
            )

    def __len__(self) -> int:
        """Return global batches of an epoch, which are also the steps of every rank."""
        return self.batches_left(0)

    @property
    def most_samples(self) -> int:
        """Samples before the end of an epoch: what a state may say at most."""
        return self.num_samples

    @property
    def unit(self) -> int:
        """Samples of which a state's must be a multiple."""
        return 1

    @property
    def resumes_with(self) -> str:
        """What else must be the same for a state to be resumed, for a message."""
        return ""

    def fingerprint(self, plain: str) -> str:
        """Return a name of the sequence of batches; `plain` is that of the samples' order, which is all that counts."""
        return plain

    def bucket_at(self, epoch: int, offset: int) -> int:
        """Return which shape the batch after the first `offset` samples of `epoch` has: there is one, 0."""
        return 0

    def batches_left(self, offset: int) -> int:
        """Return global batches that remain of an epoch after its first `offset` samples."""
        left = max(self.num_samples - offset, 0)
        return left // self.global_batch if self.drop_last else -(-left // self.global_batch)

    @property
    def is_keyed(self) -> bool:
        """Whether samples are shuffled by a keyed bijection: no epoch is ever held in memory."""
        return self.shuffle != "none" and self.num_samples > self.max_sorted

    def epoch_positions(self, epoch: int) -> NDArray[np.int64]:
        """Return all samples in the order of `epoch` (0 to 2^32-1), int64 `(N,)`, read-only; two epochs are cached.

        Raises `OptionError` where N is more than `MAX_SORTED`: `positions` returns any part.
        """
        _check_epoch(epoch)
        if self.num_samples > MAX_SORTED:
            raise OptionError(
                f"num_samples must be at most {MAX_SORTED:,} for all positions of an epoch, got {self.num_samples:,}; "
                "ask for parts with positions()"
            )
        if self.is_keyed:
            return self.positions(epoch, np.arange(self.num_samples))
        return self._epochs.get(epoch, self._make_epoch)

    def positions(self, epoch: int, place_K: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the samples at places 0 to N - 1 of the order of `epoch` (0 to 2^32-1), int64 `(K,)`."""
        _check_epoch(epoch)
        if self.shuffle == "none":
            return place_K.copy()
        if not self.is_keyed:
            return self._epochs.get(epoch, self._make_epoch)[place_K]
        if self.shuffle == "window":
            return self._window_positions(epoch, place_K)
        return scatter(place_K, self.num_samples, seed=self.seed, stream=_stream(_KEYED_STREAM, epoch))

    def batch(
        self, epoch: int, number: int, rank: int = 0, world_size: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return `batch_at` for global batch `number`, counted from the start of the epoch. Raises `IndexError`."""
        if not 0 <= number < len(self):
            raise IndexError(f"batch must be 0 to {len(self) - 1}, got {number}")
        return self.batch_at(epoch, number * self.global_batch, rank, world_size)

    def batch_at(
        self, epoch: int, offset: int, rank: int = 0, world_size: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return what `rank` takes of the global batch that follows the first `offset` samples of `epoch`.

        Positions int64 `(B,)` and valid bool `(B,)`, B = `global_batch` / `world_size`. Where the epoch ends inside
        the batch, it goes on with the epoch's first samples, with `valid` false. Raises `IndexError` where no batch
        is left, `OptionError` when `world_size` doesn't divide `global_batch`.
        """
        if not 0 <= rank < world_size:
            raise OptionError(f"rank must be 0 to world_size - 1 = {world_size - 1}, got {rank}")
        if self.global_batch % world_size:
            raise OptionError(f"global_batch must be a multiple of world_size {world_size}, got {self.global_batch}")
        if offset < 0 or not self.batches_left(offset):
            raise IndexError(f"no batch after {offset} of {self.num_samples} samples")
        size = self.global_batch // world_size
        place_B = np.arange(size) + (offset + rank * size)
        return self.positions(epoch, place_B % self.num_samples), place_B < self.num_samples

    def _make_epoch(self, epoch: int) -> NDArray[np.int64]:
        if self.shuffle == "none":
            return np.arange(self.num_samples)
        if self.shuffle == "window":
            return window_permutation(self.shard_sizes, window_shards=self.window_shards, seed=self.seed, epoch=epoch)
        return permutation(self.num_samples, seed=self.seed, stream=_stream(_EPOCH_STREAM, epoch))

    def _window_positions(self, epoch: int, place_K: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return samples of windows: the place inside its window goes through the window's own bijection."""
        shard_S, start_S, window_S, begin_S, end_S = self._epochs.get(epoch, self._make_layout)
        at_K = np.searchsorted(start_S, place_K, side="right") - 1
        begin_K = begin_S[at_K]
        place_K = begin_K + scatter(
            place_K - begin_K,
            end_S[at_K] - begin_K,
            seed=self.seed,
            stream=_stream(_KEYED_WINDOW_STREAM, epoch),
            tweak_K=window_S[at_K],
        )
        at_K = np.searchsorted(start_S, place_K, side="right") - 1
        stored_K: NDArray[np.int64] = self._first_S[shard_S[at_K]] + place_K - start_S[at_K]
        return stored_K

    def _make_layout(self, epoch: int) -> NDArray[np.int64]:
        sizes_S = np.array(self.shard_sizes, np.int64)
        return window_layout(sizes_S, window_shards=self.window_shards, seed=self.seed, epoch=epoch)

    @cached_property
    def _first_S(self) -> NDArray[np.int64]:  # noqa: N802
        """First position of each shard, int64 `(S,)`."""
        size_S = np.array(self.shard_sizes, np.int64)
        return np.cumsum(size_S) - size_S


def spread(order: Order) -> float:
    """Return how far the shuffle carries samples, 0 (`none`) to 1 (`global`).

        spread = (E[W] + 1) / (N + 1)

    W is the size of the window that a random sample falls into, and its mean is taken over all orders of the shards.
    Two samples of a window of W lie (W + 1) / 3 apart on average, two of a global shuffle (N + 1) / 3: `spread` is how
    far the samples of one shard get from each other, beside what a global shuffle makes of them.
    """
    if order.shuffle == "none":
        return 0.0
    if order.shuffle == "global":
        return 1.0
    size_S = np.asarray(order.shard_sizes, np.float64)
    num_shards = len(size_S)
    num_windows = -(-num_shards // order.window_shards)
    shards_W = np.diff(-(-np.arange(num_windows + 1) * num_shards // num_windows))
    # How many other shards share a shard's window; each of the others is equally likely to be among them.
    others = float((shards_W * (shards_W - 1)).sum()) / num_shards
    rest_S = order.num_samples - size_S
    window_S = size_S + (others * rest_S / (num_shards - 1) if num_shards > 1 else 0.0)
    return math.fsum(size_S * (window_S + 1)) / (order.num_samples * (order.num_samples + 1))


def _check_epoch(epoch: int) -> None:
    if not 0 <= epoch < MAX_EPOCH:
        raise OptionError(f"epoch must be 0 to 2^32-1, got {epoch}")


def _stream(purpose: int, epoch: int) -> int:
    return purpose << 32 | epoch
