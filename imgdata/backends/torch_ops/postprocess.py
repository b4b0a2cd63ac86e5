"""Batch of pixels -> the finished batch: normalised in the type that is wanted, rectangles painted over."""

import numpy as np
import torch
from numpy.typing import NDArray

from imgdata.augment.params import BatchParams, erasing_noise
from imgdata.backends.postprocess import as_bytes
from imgdata.backends.torch_ops.batched import parts, upload
from imgdata.recipes.ops import Cutout, RandomErasing
from imgdata.recipes.recipe import Recipe

_SMALL_PIXELS = 2048
"""Up to here a picture is read in less time than it takes to begin another rectangle: 4 us."""


def normalise(
    images: torch.Tensor,
    scale_3: NDArray[np.float32],
    shift_3: NDArray[np.float32],
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    """uint8 `(N, 3, H, W)` -> a new tensor of `dtype`: value * scale + shift in float32, rounded once.

    `finish.scale_shift` makes the two from a recipe. uint8 stays as it is; then it may be the tensor itself.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    if dtype == torch.uint8:
        return images.contiguous(memory_format=layout)
    scale, shift = (value[:, None, None] for value in upload([scale_3, shift_3], images.device))
    finished = torch.empty(images.shape, dtype=dtype, device=images.device, memory_format=layout)
    for part in parts(len(images), images):
        pixels = images[part]
        if images.device.type == "cpu":
            # A third of the time, with the copy: processors are slow where the innermost axis has three values.
            pixels = pixels.contiguous()
        finished[part] = pixels.mul(scale).add_(shift)
    return finished


def erase(images: torch.Tensor, params: BatchParams, recipe: Recipe, seed: int, epoch: int) -> torch.Tensor:
    """Paint over the rectangles of finished pixels `(N, 3, H, W)` of any type, in place; also returned.

    Values are those of `finish.erase`. Noise is made by the host.
    """
    erasing = recipe.find(RandomErasing) or recipe.find(Cutout)
    row_R = np.flatnonzero((params.erase_N4[:, 2:] > 0).all(axis=1))
    if erasing is None or not len(row_R):
        return images
    is_bytes = images.dtype == torch.uint8
    if erasing.value == "random":
        noise = [_noise(params, row, seed, epoch) for row in row_R.tolist()]
        _paint(images, params, row_R, [as_bytes(value, recipe) for value in noise] if is_bytes else noise)
        return images
    value_C11 = np.broadcast_to(np.array(erasing.value, np.float32), images.shape[1])[:, None, None]
    if is_bytes:
        value_C11 = as_bytes(value_C11, recipe)
    if images.shape[2] * images.shape[3] <= _SMALL_PIXELS:
        _fill(images, params, value_C11)
    else:
        _paint(images, params, row_R, [value_C11])
    return images


def _noise(params: BatchParams, row: int, seed: int, epoch: int) -> NDArray[np.float32]:
    _, _, width, height = params.erase_N4[row].tolist()
    return erasing_noise(seed, epoch, int(params.position_N[row]), height, width)


def _paint(
    images: torch.Tensor, params: BatchParams, row_R: NDArray[np.int64], values: list[NDArray[np.float32]]
) -> None:
    """Rectangle by rectangle: of each row its own values, or of all the only ones."""
    tensors = upload(values, images.device)
    for number, row in enumerate(row_R.tolist()):
        left, top, width, height = params.erase_N4[row].tolist()
        images[row, :, top : top + height, left : left + width] = tensors[number % len(tensors)]


def _fill(images: torch.Tensor, params: BatchParams, value_C11: NDArray[np.float32]) -> None:
    """All rectangles at once."""
    (box_N4,) = upload([params.erase_N4], images.device)
    left, top, width, height = box_N4.unsqueeze(2).unbind(1)
    x_W, y_H = (torch.arange(images.shape[axis], device=images.device) for axis in (3, 2))
    across = (x_W >= left).logical_and_(x_W < left + width)
    down = (y_H >= top).logical_and_(y_H < top + height)
    inside = across.unsqueeze(1).logical_and(down.unsqueeze(2))
    for channel, value in enumerate(value_C11.reshape(-1).tolist()):
        images[:, channel].masked_fill_(inside, value)
