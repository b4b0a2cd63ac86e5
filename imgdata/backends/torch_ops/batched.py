"""Rows that the host chose + what to do to them -> a batch whose rows were taken, changed and put back on its device.

All that decides how much is done comes from NumPy arrays, so the host never waits for a device: it only adds to the
device's work.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

_CPU_VALUES = 2**20
"""What is worked on at a time: a processor's cache holds it, and its values in float32."""
_DEVICE_VALUES = 2**25
"""222 pictures of 224 x 224; what `change` needs for twice as many is a gigabyte."""

Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Pixels uint8 `(R, C, H, W)`, to be read only, and values of each row `(R, K)` -> new pixels."""


class Step(NamedTuple):
    """One change of some rows."""

    change: Change
    row_R: NDArray[np.int64]
    """Which rows, ascending, none twice."""
    value_RK: NDArray[np.float32] | NDArray[np.float64] | NDArray[np.int64]
    """Arguments of `change` for each row."""


def run(steps: Sequence[Step], images: torch.Tensor) -> torch.Tensor:
    """Do the steps one after the other to uint8 `(N, C, H, W)`, in place; other rows are not touched."""
    steps = [step for step in steps if len(step.row_R)]
    arrays = [array for step in steps for array in (step.row_R, step.value_RK)]
    tensors = upload(arrays, images.device)
    for step, row_R, value_RK in zip(steps, tensors[::2], tensors[1::2], strict=True):
        for part in parts(len(row_R), images):
            rows = _place(step.row_R[part], row_R[part])
            _put(images, rows, step.change(_taken(images, rows), value_RK[part]))
    return images


def upload(arrays: Sequence[NDArray[Any]], device: torch.device) -> list[torch.Tensor]:
    """Return the arrays as tensors on the device; all of one dtype go there in one copy."""
    tensors: dict[int, torch.Tensor] = {}
    for dtype in {array.dtype for array in arrays}:
        which = [number for number, array in enumerate(arrays) if array.dtype == dtype]
        moved = upload_joined([arrays[number] for number in which], device)
        begin = 0
        for number in which:
            shape, size = arrays[number].shape, arrays[number].size
            tensors[number] = moved[begin : begin + size].view(shape)
            begin += size
    return [tensors[number] for number in range(len(arrays))]


def upload_joined(arrays: Sequence[NDArray[Any]], device: torch.device) -> torch.Tensor:
    """Return the values of arrays of one dtype, one array behind the other, as `(V,)` on the device."""
    flat = [array.reshape(-1) for array in arrays]
    if device.type != "cuda":
        return torch.from_numpy(np.concatenate(flat)).to(device)
    # Only from pinned memory does a copy go by itself; PyTorch keeps it until the copy is over.
    dtype = torch.from_numpy(np.empty(0, flat[0].dtype)).dtype
    host = torch.empty(sum(map(len, flat)), dtype=dtype, pin_memory=True)
    np.concatenate(flat, out=host.numpy())
    return host.to(device, non_blocking=True)


def parts(count: int, images: torch.Tensor) -> Iterator[slice]:
    """Cut `count` rows of the size of the batch's into parts that are worked on at a time."""
    values = _CPU_VALUES if images.device.type == "cpu" else _DEVICE_VALUES
    rows = max(1, values // max(1, images[0].numel())) if count else 1
    for begin in range(0, count, rows):
        yield slice(begin, min(begin + rows, count))


def _place(host_R: NDArray[np.int64], row_R: torch.Tensor) -> slice | torch.Tensor:
    """Return how to address the rows: neighbours need not be gathered."""
    first, last = int(host_R[0]), int(host_R[-1])
    return slice(first, last + 1) if last - first + 1 == len(host_R) else row_R


def _taken(images: torch.Tensor, rows: slice | torch.Tensor) -> torch.Tensor:
    """Return the rows, in the batch's order of memory; a view where they are neighbours."""
    if isinstance(rows, slice):
        return images[rows]
    if _is_channels_last(images):
        return images.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)
    return images.index_select(0, rows)


def _put(images: torch.Tensor, rows: slice | torch.Tensor, part: torch.Tensor) -> None:
    images[rows] = part


def _is_channels_last(images: torch.Tensor) -> bool:
    return not images.is_contiguous() and images.is_contiguous(memory_format=torch.channels_last)
