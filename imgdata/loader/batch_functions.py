"""What functions of the user's make of a finished batch, and what failed in them -> images, or an error with names."""

from typing import TYPE_CHECKING

import numpy as np

from imgdata.augment import philox
from imgdata.augment.philox import Stream
from imgdata.backends.pillow.operators import raised
from imgdata.dataset.index import Index
from imgdata.errors import FunctionError
from imgdata.recipes.functions import BatchApply, name_of
from imgdata.recipes.several import VIEW_KEYS

if TYPE_CHECKING:
    import torch


def applied(op: BatchApply, images: "torch.Tensor", *, seed: int, epoch: int, place: int) -> "torch.Tensor":
    """Return what the function makes of a batch whose first sample is the `place`-th of the epoch.

    Raises `FunctionError`.
    """
    import torch

    name = f"BatchApply({name_of(op.function)})"
    where = f"the batch of epoch {epoch} that begins at its sample {place}"
    generator = torch.Generator(images.device)
    generator.manual_seed(int(philox.raw(seed, epoch, np.array([place]), Stream.BATCH_APPLY, 1)[0, 0]) >> 1)
    try:
        made = op.called(images, generator)
    except Exception as error:
        raise FunctionError(raised(name, error), where=where) from error
    if not isinstance(made, torch.Tensor) or _form(made) != _form(images):
        found = _form(made) if isinstance(made, torch.Tensor) else type(made).__name__
        raise FunctionError(f"{name} must return {_form(images)}, got {found}", where=where)
    return made


def named(error: FunctionError, index: Index) -> FunctionError:
    """Return the error of a sample with its key and shard."""
    assert error.position is not None, "errors of batches have names"
    # Where a view draws samples repeatedly, each time has a number of its own, and so has each view of a picture.
    position = error.position % VIEW_KEYS % len(index)
    key, shard = index.key(position), index.words("shard")[index.shard_N[position]]
    return FunctionError(error.reason, position, f"{key} in {shard}")


def _form(images: "torch.Tensor") -> str:
    return f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)} on {images.device}"
