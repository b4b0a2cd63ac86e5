"""A target, the columns that hold it -> what a network has to say of samples, as numbers.

Images of one class each have their class index in the index, and nothing here. Other targets are read from columns: the
classes that an image has (`multi-label`), a share for each class (`soft`), or numbers (`regression`).
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from imgdata.dataset.columns import Columns
from imgdata.dataset.target import Target, TargetKind
from imgdata.errors import OptionError, ShardError
from imgdata.sample import ClassName

_ROWS = 4096


class Targets:
    """The targets of a split's samples: float32 `(N, C)` for classes, `(N,)` for a number, `(N, D)` for several.

    Values are read when they are first asked for. Picklable.
    """

    def __init__(self, target: Target, columns: Columns, classes: Sequence[ClassName]) -> None:
        """Prepare the targets in `columns`; `classes` are the dataset's."""
        self.target = target
        self.classes = tuple(classes)
        self._columns = columns
        self._changed: dict[int, NDArray[np.float32]] = {}
        self._sparse: _Sparse | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sparse": None}

    @property
    def kind(self) -> TargetKind:
        """The target's kind."""
        return self.target.kind

    @property
    def of_classes(self) -> bool:
        """Whether the values are of classes, and not numbers to predict."""
        return self.kind != "regression"

    @property
    def width(self) -> int:
        """Number of outputs that a network needs: classes, or numbers."""
        if self.kind != "regression":
            return len(self.classes)
        return max(1, math.prod(self.values(np.zeros(1, np.int64)).shape[1:]))

    def values(self, position_N: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the targets at positions of the split; a number that is missing is NaN. Raises `ShardError`."""
        value_N = self._values(position_N)
        if self._changed:
            for row, position in enumerate(position_N.tolist()):
                if position in self._changed:
                    value_N[row] = self._changed[position]
        return value_N

    def counts(self, position_N: NDArray[np.int64], weight_N: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Return how many samples have each class, `(C,)`; of soft targets the sum of shares. Raises `ShardError`.

        `weight_N` says how often each sample counts; once, without it.
        """
        total_C = np.zeros(len(self.classes))
        for start in range(0, len(position_N), _ROWS):
            value_NC = np.nan_to_num(self.values(position_N[start : start + _ROWS])).astype(np.float64)
            weight = np.ones(len(value_NC)) if weight_N is None else weight_N[start : start + _ROWS]
            total_C += weight @ value_NC
        return total_C

    def missing(self, position_N: NDArray[np.int64]) -> int:
        """Return how many samples have a target that isn't known. Raises `ShardError`."""
        return sum(
            int(np.isnan(self.values(position_N[start : start + _ROWS])).reshape(len(part), -1).any(axis=1).sum())
            for start in range(0, len(position_N), _ROWS)
            if len(part := position_N[start : start + _ROWS])
        )

    def parsed(self, cell: str) -> NDArray[np.float32]:
        """Return the target that a text means: `cat;dog`, `0.5`, `0.1;0.9`. Raises `OptionError`."""
        parts = [part.strip() for part in cell.split(";") if part.strip()]
        if self.kind == "multi-label":
            return self._of_classes(parts)
        shape = self._values(np.zeros(1, np.int64)).shape[1:]
        try:
            numbers = np.array([float(part) for part in parts], np.float32)
        except ValueError:
            numbers = np.full(0, np.nan, np.float32)
        if len(numbers) != math.prod(shape) or not np.isfinite(numbers).all():
            wanted = f"{math.prod(shape)} numbers separated by ;" if shape else "a number"
            raise OptionError(f"a target must be {wanted}, got {cell!r}")
        return numbers.reshape(shape)

    def changed(self, values: Mapping[int, NDArray[np.float32]]) -> "Targets":
        """Return the same targets but for those at some positions."""
        made = Targets(self.target, self._columns, self.classes)
        made._changed = {**self._changed, **values}
        made._sparse = self._sparse
        return made

    @property
    def replaced(self) -> Mapping[int, NDArray[np.float32]]:
        """Targets in place of those in the columns, by position."""
        return self._changed

    def identity(self, position_N: NDArray[np.int64]) -> bytes:
        """Return what tells these targets from others, for a fingerprint. Raises `ShardError`."""
        digest = hashlib.sha256(repr(self.target).encode())
        for start in range(0, len(position_N), _ROWS):
            digest.update(self.values(position_N[start : start + _ROWS]).astype("<f4").tobytes())
        return digest.digest()

    def _values(self, position_N: NDArray[np.int64]) -> NDArray[np.float32]:
        names = self.target.columns
        if len(names) > 1:
            found = np.stack([self._numbers(name, position_N) for name in names], axis=1)
            return self._present(found) if self.kind == "multi-label" else found
        if self.kind == "multi-label":
            if self._sparse is None:
                self._sparse = self._classes_of_all()
            return self._sparse.rows(position_N, len(self.classes))
        found = self._numbers(names[0], position_N)
        if self.kind == "soft" and found.shape[1:] != (len(self.classes),):
            raise self._unfit(f"must be lists of {len(self.classes)} shares, one for each class")
        return found

    def _numbers(self, name: str, position_N: NDArray[np.int64]) -> NDArray[np.float32]:
        found = self._columns.values(name, position_N)
        if not isinstance(found, np.ndarray):
            raise self._unfit("must be numbers, or lists of numbers of one length", name)
        return found.astype(np.float32)

    @staticmethod
    def _present(value_NC: NDArray[np.float32]) -> NDArray[np.float32]:
        # Where there is no number, and for -1 as in CelebA, the class is absent.
        return (value_NC > 0).astype(np.float32)

    def _of_classes(self, parts: Sequence[str]) -> NDArray[np.float32]:
        place = {name: number for number, one in reversed(list(enumerate(self.classes))) for name in (one.name, one.id)}
        value_C = np.zeros(len(self.classes), np.float32)
        for part in parts:
            if part not in place:
                raise OptionError(f"a label must be one of the {len(place)} ids or names of classes, got {part!r}")
            value_C[place[part]] = 1
        return value_C

    def _classes_of_all(self) -> "_Sparse":
        """Return the classes of all samples of the split."""
        name = self.target.columns[0]
        column = self._columns.arrow(name)
        if pa.types.is_string(column.type):
            # A column of one class each.
            column = pa.chunked_array([pa.array([[] if text is None else [text] for text in column.to_pylist()])])
        if not (pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)):
            raise self._unfit("must be lists of classes", name)
        lists = pa.concat_arrays(column.chunks)
        length_N = np.array([size or 0 for size in lists.value_lengths().to_pylist()], np.int64)
        items = lists.flatten()
        if pa.types.is_string(items.type):
            encoded = items.dictionary_encode()
            place = {one.id: number for number, one in enumerate(self.classes)}
            code_W = np.array([place.get(word, -1) for word in encoded.dictionary.to_pylist()], np.int64)
            class_E = code_W[np.asarray(encoded.indices.to_pylist(), np.int64)] if len(items) else code_W[:0]
        else:
            class_E = np.asarray(items.to_pylist(), np.float64).astype(np.int64)
        if len(class_E) and not (class_E.min() >= 0 and class_E.max() < len(self.classes)):
            wrong = int(np.argmax((class_E < 0) | (class_E >= len(self.classes))))
            raise self._unfit(f"must be of the {len(self.classes)} classes, got {items[wrong].as_py()!r}", name)
        return _Sparse(class_E.astype(np.int32), np.concatenate([np.zeros(1, np.int64), np.cumsum(length_N)]))

    def _unfit(self, what: str, name: str | None = None) -> ShardError:
        return ShardError(
            f"{self._columns.place}: the {self.kind} target in column {name or self.target.columns[0]!r} {what}; "
            "`imgdata inspect` shows the columns"
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Sparse:
    """The classes of each sample, one after the other."""

    class_E: NDArray[np.int32]
    start_N: NDArray[np.int64]
    """First of each sample's classes in `class_E`, and the end of the last."""

    def rows(self, position_N: NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
        value_NC = np.zeros((len(position_N), num_classes), np.float32)
        start_N, count_N = self.start_N[position_N], self.start_N[position_N + 1] - self.start_N[position_N]
        row_E = np.repeat(np.arange(len(position_N)), count_N)
        within_E = np.arange(len(row_E)) - np.repeat(np.cumsum(count_N) - count_N, count_N)
        value_NC[row_E, self.class_E[np.repeat(start_N, count_N) + within_E]] = 1
        return value_NC
