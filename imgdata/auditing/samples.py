"""Views of several splits -> one row of samples, numbered through."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from imgdata.arrow import number_array
from imgdata.auditing.finding import Place
from imgdata.backends.shard_files import ShardFiles
from imgdata.dataset.index import joined_words
from imgdata.errors import OptionError
from imgdata.sample import ClassName
from imgdata.views.view import View

_READ = 64
"""Images that are read at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """The M samples of an audit: those of the first view, then those of the next. A **number** counts in them all."""

    views: tuple[View, ...]
    """One for each split, none balanced."""
    classes: tuple[ClassName, ...]

    def __len__(self) -> int:
        return int(self.start_V[-1])

    @cached_property
    def start_V(self) -> NDArray[np.int64]:  # noqa: N802
        """Number of the first sample of each view, and M, int64 `(V + 1,)`."""
        return np.cumsum([0, *(len(view.position_N) for view in self.views)])

    @cached_property
    def label_M(self) -> NDArray[np.int32]:  # noqa: N802
        """Class index of each sample, -1 for none, int32 `(M,)`."""
        return np.concatenate([view.label_N for view in self.views])

    @cached_property
    def view_M(self) -> NDArray[np.int32]:  # noqa: N802
        """Which of the views each sample is in, int32 `(M,)`."""
        return np.repeat(np.arange(len(self.views), dtype=np.int32), np.diff(self.start_V))

    @cached_property
    def position_M(self) -> NDArray[np.int64]:  # noqa: N802
        """Position of each sample in its split, int64 `(M,)`."""
        return np.concatenate([view.position_N for view in self.views])

    @cached_property
    def _files_V(self) -> tuple[ShardFiles, ...]:  # noqa: N802
        return tuple(ShardFiles(view) for view in self.views)

    def read(self, numbers: Sequence[int]) -> list[bytes]:
        """Return the encoded images of some samples; from several threads as well. Raises `ShardError`."""
        number_K = np.asarray(numbers, np.int64)
        found = [b""] * len(number_K)
        view_K, position_K = self.view_M[number_K], self.position_M[number_K]
        for which in np.unique(view_K).tolist():
            files = self._files_V[which]
            row_R = np.flatnonzero(view_K == which)
            lease = files.lease(position_K[row_R])
            for number, row in enumerate(row_R.tolist()):
                found[row] = files.read(lease, number)
        return found

    def array(self, column: str) -> NDArray[np.generic]:
        """Return a column of numbers of the indices, such as `width` or `xxh64`, `(M,)`."""
        return np.concatenate([view.index.array(column)[view.position_N] for view in self.views])

    def byte_hashes(self, *keys: NDArray[Any]) -> NDArray[np.uint64]:
        """Return a hash for each image that is equal for equal bytes, `(M,)`. Raises `ShardError`, `SourceError`.

        The index of shards has it. Images that are not sharded are read, where `keys`, columns that equal images share,
        and size, width and height are those of another image as well.
        """
        hash_M = self.array("xxh64").astype(np.uint64)
        loose_M = np.concatenate([np.full(len(view.position_N), view.index.is_loose) for view in self.views])
        if not loose_M.any():
            return hash_M
        columns = [*(self.array(name) for name in ("size", "width", "height")), *keys]
        order_M = np.lexsort(columns)
        same_M = np.logical_and.reduce([column[order_M[1:]] == column[order_M[:-1]] for column in columns])
        shared_M = np.concatenate([[False], same_M]) | np.concatenate([same_M, [False]])
        number_K = np.sort(order_M[shared_M & loose_M[order_M]])
        for start in range(0, len(number_K), _READ):
            numbers = number_K[start : start + _READ].tolist()
            hash_M[numbers] = [xxhash.xxh64_intdigest(data) for data in self.read(numbers)]
        return hash_M

    def words(self, column: str) -> tuple[list[str], NDArray[np.int32]]:
        """Return the distinct values of a column of words, such as `format`, and the one of each sample, `(M,)`."""
        words, codes = joined_words((view.index for view in self.views), column)
        parts = [code_N[view.position_N] for view, code_N in zip(self.views, codes, strict=True)]
        return words, np.concatenate(parts)

    def texts(self, column: str, numbers: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Return the keys (`key`) or source names (`source`) of some samples."""
        found: list[str] = [""] * len(numbers)
        number_K = np.asarray(numbers, np.int64)
        view_K = self.view_M[number_K]
        for which, view in enumerate(self.views):
            row_R = np.flatnonzero(view_K == which)
            if len(row_R):
                texts = view.index.column(column).take(number_array(self.position_M[number_K[row_R]])).to_pylist()
                for row, text in zip(row_R.tolist(), texts, strict=True):
                    found[row] = text
        return found

    def places(self, numbers: Sequence[int] | NDArray[np.int64]) -> list[Place]:
        """Return split, key, source name and position of some samples."""
        number_K = np.asarray(numbers, np.int64)
        return [
            Place(self.views[view].split, key, source, position)
            for view, key, source, position in zip(
                self.view_M[number_K].tolist(),
                self.texts("key", number_K),
                self.texts("source", number_K),
                self.position_M[number_K].tolist(),
                strict=True,
            )
        ]


def samples_of(views: Sequence[View]) -> Samples:
    """Return the samples of the views. Raises `OptionError` for a balanced view, and for views of other classes."""
    for view in views:
        if view.resampling is not None:
            raise OptionError(f"an audit needs each sample once, got the balanced {view!r}; leave balance out")
        if view.classes != views[0].classes:
            raise OptionError(f"the views of an audit must have the same classes, got {views[0]!r} and {view!r}")
    return Samples(views=tuple(views), classes=views[0].classes)
