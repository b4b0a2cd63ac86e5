"""Positions of a batch -> the columns that were asked for, as tensors and lists."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imgdata.backends.joint.batch import Parts
from imgdata.dataset.columns import Columns
from imgdata.dataset.split import Split
from imgdata.errors import OptionError
from imgdata.loader.delivery import Engine

if TYPE_CHECKING:
    import torch


def check_columns(split: Split, names: Sequence[str]) -> None:
    """Raise `OptionError` where one of `names` is no column of `split`."""
    images = {member.name for member in split.members}
    if any(name in images and name not in split.columns.names for name in names):
        name = next(name for name in names if name in images)
        raise OptionError(f"columns can't hold images, got {name!r}; joint=[{name!r}] brings it with its picture")
    split.columns.check(names)


class BatchColumns:
    """The columns of a loader's batches."""

    def __init__(self, columns: Columns, names: Sequence[str], engine: Engine) -> None:
        self._columns, self._names, self._engine = columns, names, engine

    def of(self, position_N: NDArray[np.int64]) -> "dict[str, torch.Tensor | list[Any] | tuple[Any, ...]]":
        """Return the columns of samples by name, as `Batch.columns` has them. Raises `ShardError`."""
        if not self._names:
            return {}
        return {name: self._values(self._columns.values(name, position_N)) for name in self._names}

    def _values(self, values: NDArray[Any] | list[Any]) -> "torch.Tensor | list[Any]":
        if isinstance(values, np.ndarray):
            return self._engine.moved(_tensor(values))
        return [_tensor(value) if isinstance(value, np.ndarray) else value for value in values]


def joint_columns(
    parts: Parts, engine: Engine, *, several: bool
) -> "dict[str, torch.Tensor | list[Any] | tuple[Any, ...]]":
    """Return what moves with the pictures of a batch, as `Batch.columns` has it: tuples for `several` views."""
    made = {name: tuple(_moved_part(part, engine) for part in views) for name, views in parts.items()}
    return {name: views if several else views[0] for name, views in made.items()}


def _moved_part(part: NDArray[Any] | list[NDArray[Any]], engine: Engine) -> "torch.Tensor | list[torch.Tensor]":
    import torch

    if isinstance(part, np.ndarray):
        return engine.moved(torch.from_numpy(part))
    # One copy to the device for all samples. An array without objects may have another shape behind its first axis.
    full = [one for one in part if len(one)] or part[:1]
    if len({one.shape[1:] for one in full}) > 1:
        return [engine.moved(torch.from_numpy(one)) for one in part]
    whole = engine.moved(_tensor(np.concatenate(full)))
    return list(torch.split(whole, [len(one) for one in part]))


def _tensor(values: NDArray[Any]) -> "torch.Tensor":
    """Return a copy of numbers as a tensor: losses compute in float32, and Apple's GPUs have no float64."""
    import torch

    return torch.from_numpy(values.astype(np.float32) if values.dtype == np.float64 else values.copy())
