"""Which sample comes when, where each batch has samples of one bucket: an order of epochs -> batches of one shape.

The samples of an epoch keep the order that `Order` gives them; each bucket collects its own, and a global batch comes
when its last sample does. So batches are a function of (number of samples, seed, epoch), and equal on all ranks.
"""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import OptionError
from imgdata.order.epoch_order import EpochCache, Order


@dataclass(frozen=True, kw_only=True)
class BucketOrder(Order):
    """The order of a split, cut into global batches that hold samples of one bucket.

    Every sample comes once an epoch. The last samples of a bucket, fewer than a global batch, are left out with
    `drop_last`; otherwise the bucket's first samples fill the batch up, with `valid` false. These batches are the last
    ones of the epoch.
    """

    bucket_N: NDArray[np.int64] = field(compare=False, repr=False)
    """Bucket of each sample, 0 to the number of buckets - 1, int64 `(N,)`."""
    num_buckets: int
    """Number of buckets; some may be empty."""
    _cuts: EpochCache = field(default_factory=EpochCache, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_samples > self.max_sorted:
            raise OptionError(
                f"buckets must have at most {self.max_sorted:,} samples, since their order is kept in memory, "
                f"got {self.num_samples:,}; make the view shorter"
            )
        if len(self.bucket_N) != self.num_samples:
            raise OptionError(f"bucket_N must have {self.num_samples} samples, got {len(self.bucket_N)}")
        if not len(self):
            raise OptionError(
                f"batch_size times world_size must be at most {int(self.count_B.max())}, the samples of the largest "
                f"bucket, with drop_last, got {self.global_batch}; make it smaller, or drop_last false"
            )

    @cached_property
    def count_B(self) -> NDArray[np.int64]:  # noqa: N802
        """Samples of each bucket, `(B,)`."""
        return np.bincount(self.bucket_N, minlength=self.num_buckets)

    @cached_property
    def batches_B(self) -> NDArray[np.int64]:  # noqa: N802
        """Global batches of each bucket in an epoch, `(B,)`."""
        whole_B: NDArray[np.int64] = self.count_B // self.global_batch
        return whole_B if self.drop_last else -(-self.count_B // self.global_batch)

    @property
    def most_samples(self) -> int:
        """Samples before the end of an epoch, padding included: what a state may say at most."""
        return len(self) * self.global_batch

    def batches_left(self, offset: int) -> int:
        """Return global batches that remain of an epoch after its first `offset` samples, padding included."""
        return max(int(self.batches_B.sum()) - -(-offset // self.global_batch), 0)

    def bucket_at(self, epoch: int, offset: int) -> int:
        """Return the bucket of the global batch after the first `offset` samples. Raises `IndexError`."""
        first = int(self._batch(epoch, offset)[0])
        return int(self.bucket_N[first])

    def batch_at(
        self, epoch: int, offset: int, rank: int = 0, world_size: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return what `rank` takes of that global batch, as `Order.batch_at` does. Raises `IndexError`, `OptionError`.

        `offset` counts whole global batches, padding included.
        """
        if not 0 <= rank < world_size:
            raise OptionError(f"rank must be 0 to world_size - 1 = {world_size - 1}, got {rank}")
        if self.global_batch % world_size:
            raise OptionError(f"global_batch must be a multiple of world_size {world_size}, got {self.global_batch}")
        size = self.global_batch // world_size
        place_B = self._batch(epoch, offset)[rank * size : (rank + 1) * size]
        return np.where(place_B < 0, ~place_B, place_B), place_B >= 0

    @property
    def unit(self) -> int:
        """Samples of which a state's must be a multiple: those of a global batch."""
        return self.global_batch

    @property
    def resumes_with(self) -> str:
        """What else must be the same for a state to be resumed, for a message."""
        return (
            f", with other buckets, or with other global batches than {self.global_batch} (batch_size times ranks), on "
            "which the order of buckets depends"
        )

    def fingerprint(self, plain: str) -> str:
        """Return a name of the sequence of batches; `plain` is that of the samples' order.

        Buckets and the size of a global batch decide which samples came before a place, so all are part of it.
        """
        digest = hashlib.sha256(json.dumps([plain, self.global_batch, self.drop_last, self.num_buckets]).encode())
        digest.update(self.bucket_N.astype("<i4").tobytes())
        return digest.hexdigest()[:32]

    def _batch(self, epoch: int, offset: int) -> NDArray[np.int64]:
        """Return the places of a global batch; `~place` for padding."""
        if offset < 0 or offset % self.global_batch or not self.batches_left(offset):
            raise IndexError(
                f"offset must be a multiple of {self.global_batch} below {self.most_samples}, got {offset}"
            )
        place_KG = self._cuts.get(epoch, self._cut).reshape(-1, self.global_batch)
        batch_G: NDArray[np.int64] = place_KG[offset // self.global_batch]
        return batch_G

    def _cut(self, epoch: int) -> NDArray[np.int64]:
        """Return the places of all global batches of an epoch, one after the other; `~place` for padding."""
        place_N, size = self.epoch_positions(epoch), self.global_batch
        order_N = np.argsort(self.bucket_N[place_N], kind="stable")
        rows, ends = [np.empty((0, size), np.int64)], [np.empty(0, np.int64)]
        for bucket, order_M in enumerate(np.split(order_N, np.cumsum(self.count_B)[:-1])):
            whole = len(order_M) // size * size
            rows.append(place_N[order_M[:whole]].reshape(-1, size))
            ends.append(order_M[size - 1 : whole : size])
            if len(order_M) > whole and not self.drop_last:
                rest = place_N[order_M[whole:]]
                padding = np.resize(place_N[order_M], size - len(rest))
                rows.append(np.concatenate([rest, ~padding])[None])
                ends.append(np.array([self.num_samples + bucket]))
        return np.concatenate(rows)[np.argsort(np.concatenate(ends), kind="stable")].ravel()
