"""How to read some values of a column, and how all of them -> an array that stays in its file until it is needed.

`column[position_N]` reads what is asked for. Everything else that NumPy does with an array reads the whole column,
where its rows may be held in memory, and is refused above that: no code that was written for arrays has to know.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from imgdata.errors import OptionError
from imgdata.order.epoch_order import MAX_SORTED

MAX_WHOLE = MAX_SORTED
"""Rows up to which a whole column is read into memory: 1 GiB at 8 bytes each."""


class LazyArray(np.lib.mixins.NDArrayOperatorsMixin):
    """A column of N values. Picklable where its functions are."""

    ndim = 1

    def __init__(
        self,
        name: str,
        length: int,
        dtype: DTypeLike,
        *,
        some: Callable[[NDArray[np.int64]], NDArray[Any]],
        whole: Callable[[], NDArray[Any]],
    ) -> None:
        """Take how values at positions are read, int64 `(K,)`, and how all are; `name` is the column, for messages."""
        self._name, self._length = name, length
        self.dtype = np.dtype(dtype)
        self._some, self._whole = some, whole

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"<{self._name}: {self._length} values of {self.dtype}, read when they are asked for>"

    @property
    def shape(self) -> tuple[int]:
        """`(N,)`."""
        return (self._length,)

    @property
    def size(self) -> int:
        """Number of values."""
        return self._length

    def __getitem__(self, place: Any) -> Any:
        """Return a value, those of a slice, or those at positions; a mask needs the whole column."""
        if isinstance(place, slice):
            return self._some(np.arange(*place.indices(self._length)))
        place_K = np.asarray(place)
        if place_K.dtype == bool:
            return self._all()[place_K]
        found_K = self._some(np.where(place_K < 0, place_K + self._length, place_K).astype(np.int64).reshape(-1))
        return found_K.reshape(place_K.shape) if place_K.ndim else found_K[0]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return self._all().astype(self.dtype if dtype is None else dtype, copy=bool(copy))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        arrays = [one._all() if isinstance(one, LazyArray) else one for one in inputs]
        return getattr(ufunc, method)(*arrays, **options)

    def __getattr__(self, name: str) -> Any:
        # What an array has beside these: `astype`, `sum`, `tolist`.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._all(), name)

    def _all(self) -> NDArray[Any]:
        if self._length > MAX_WHOLE:
            raise OptionError(
                f"{self._name}: this needs the whole column of {self._length:,} samples in memory, and at most "
                f"{MAX_WHOLE:,} are read; ask for some positions, or make a dataset of fewer samples"
            )
        return self._whole()


def lazy_array(
    name: str,
    length: int,
    dtype: DTypeLike,
    *,
    some: Callable[[NDArray[np.int64]], NDArray[Any]],
    whole: Callable[[], NDArray[Any]],
) -> NDArray[Any]:
    """Return a `LazyArray` as what it stands for: an array."""
    return cast("NDArray[Any]", LazyArray(name, length, dtype, some=some, whole=whole))


def every_position(length: int) -> NDArray[np.int64]:
    """Return the positions 0 to `length` - 1 as an array that takes no memory."""
    return lazy_array("positions", length, np.int64, some=_same, whole=partial(np.arange, length))


def is_lazy(array: NDArray[Any]) -> bool:
    """Return whether an array stays in its file."""
    return isinstance(array, LazyArray)


def _same(position_K: NDArray[np.int64]) -> NDArray[np.int64]:
    return position_K
