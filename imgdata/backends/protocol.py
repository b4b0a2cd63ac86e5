"""What a loader asks of a backend, and what it gets back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from imgdata.augment.mix import MixParams
from imgdata.augment.params import BatchParams
from imgdata.dataset.dataset import Split
from imgdata.errors import ImageError
from imgdata.recipes.recipe import Recipe

if TYPE_CHECKING:
    import torch

DType = Literal["uint8", "float16", "bfloat16", "float32"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class BackendSetup:
    """What stays the same for all batches of a loader."""

    split: Split
    recipe: Recipe
    seed: int
    device: str
    """Where the images are wanted; the CPU backend makes them in the host's memory all the same."""
    batch_size: int
    """Samples of a batch, N."""
    dtype: DType
    """Of the images: float ones are normalised by the recipe's `Normalize`, or 0 to 1 without."""
    channels_last: bool
    """Memory in the order N, H, W, C instead of N, C, H, W; the shape is `(N, C, H, W)` either way."""
    pinned: bool
    """Memory that a GPU can copy in the background."""
    threads: int
    buffers: int
    """Batches that exist at a time: those in work, the one handed out, the one before it."""
    max_pixels: int
    """Larger pictures are refused."""
    exact: bool = False
    """Pictures are decoded whole and resized by Pillow, as torchvision does it, and not by the compiled extension."""
    dali_options: Mapping[str, object] = field(default_factory=dict)
    """See `imgdata.backends.dali.options`."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class BatchRequest:
    """One rank's part of a global batch, before a byte is read."""

    epoch: int
    params: BatchParams
    """Of N samples; `params.position_N` may be no positions in the split where a view draws samples repeatedly."""
    position_N: NDArray[np.int64]
    """Positions in the split."""
    skip_N: NDArray[np.bool_]
    """Rows that are known to be bad: they are not read, and get what black pixels become (`finish.black`)."""
    mix: MixParams


def memory(setup: BackendSetup, epoch: int, *, apart: bool = False) -> int:
    """Bytes that the batches of `epoch` take together, at most, unless the caller keeps more of them.

    `apart`: before a batch is finished its pixels have a place of their own, in bytes.
    """
    height, width = setup.recipe.output_size(epoch)
    value = {"uint8": 1, "float16": 2, "bfloat16": 2, "float32": 4}[setup.dtype] + apart
    return setup.buffers * setup.batch_size * 3 * height * width * value


class PendingBatch(Protocol):
    """A batch that is being made."""

    def wait(self) -> Mapping[int, ImageError]:
        """Until all rows are done; the rows that could not be, which are black, with the reason.

        Raises `ShardError`, for a shard that can't be opened too, and `OptionError` when the backend was closed.
        """
        ...

    def redo(self, rows: NDArray[np.int64], work: BatchRequest) -> Mapping[int, ImageError]:
        """Put the samples of `work`, one for each of `rows`, in their place; which of `rows` failed again.

        `work.mix` is not looked at. Raises as `wait` does.
        """
        ...

    def images(self) -> "torch.Tensor":
        """The pixels `(N, C, H, W)`, once `wait` and every `redo` are over; mixed where the recipe says so."""
        ...

    def cancel(self) -> None:
        """Nobody wants it any more: stop as soon as may be, and let go of its memory. A `wait` in a thread ends."""
        ...


class Backend(Protocol):
    """Executes batches, several at a time. Nothing runs before the first `start`."""

    def start(self, work: BatchRequest) -> PendingBatch:
        """Begin a batch, and return at once. Raises `OptionError` after `close`."""
        ...

    def close(self) -> None:
        """Stop all threads; may be called twice."""
        ...


BackendName = Literal["auto", "cpu", "dali", "resident"]
