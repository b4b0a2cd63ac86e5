"""Batch of pixels -> the finished batch: normalised to the requested type, rectangles painted over."""

import numpy as np
import torch
from numpy.typing import NDArray

from imgdata.augment.params import BatchParams
from imgdata.backends.postprocess import erase_value, erased_rows, erases_noise
from imgdata.backends.torch_ops.batched import parts, upload
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
    """Return uint8 `(N, 3, H, W)` as a tensor of `dtype`: value * scale + shift in float32, rounded once.

    `scale_shift` of `backends.postprocess` makes the two from a recipe. uint8 stays as it is, maybe the same tensor.
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

    Values are those of `imgdata.backends.postprocess.erase_value`. Noise is made by the host.
    """
    row_R = erased_rows(params)
    if not len(row_R):
        return images
    in_bytes, noise = images.dtype == torch.uint8, erases_noise(recipe)
    values = [
        erase_value(params, row, recipe, seed=seed, epoch=epoch, in_bytes=in_bytes)
        for row in (row_R if noise else row_R[:1]).tolist()
    ]
    if not noise and images.shape[2] * images.shape[3] <= _SMALL_PIXELS:
        _fill(images, params, values[0])
    else:
        _paint(images, params, row_R, values)
    return images


def _paint(
    images: torch.Tensor, params: BatchParams, row_R: NDArray[np.int64], values: list[NDArray[np.float32]]
) -> None:
    """Paint rectangle by rectangle: `values` has those of each row, or one for all."""
    tensors = upload(values, images.device)
    for number, row in enumerate(row_R.tolist()):
        left, top, width, height = params.erase_N4[row].tolist()
        images[row, :, top : top + height, left : left + width] = tensors[number % len(tensors)]


def _fill(images: torch.Tensor, params: BatchParams, value_C11: NDArray[np.float32]) -> None:
    """Paint all rectangles at once."""
    (box_N4,) = upload([params.erase_N4], images.device)
    left, top, width, height = box_N4.unsqueeze(2).unbind(1)
    x_W, y_H = (torch.arange(images.shape[axis], device=images.device) for axis in (3, 2))
    across = (x_W >= left).logical_and_(x_W < left + width)
    down = (y_H >= top).logical_and_(y_H < top + height)
    inside = across.unsqueeze(1).logical_and(down.unsqueeze(2))
    for channel, value in enumerate(value_C11.reshape(-1).tolist()):
        images[:, channel].masked_fill_(inside, value)
