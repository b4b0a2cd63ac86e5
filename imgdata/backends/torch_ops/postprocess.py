"""Batch of pixels -> the finished batch: normalised to the requested type, rectangles painted over."""

import numpy as np
import torch
from numpy.typing import NDArray

from imgdata.augment.params import BatchParams
from imgdata.backends.postprocess import erase_value, erased_rows, erases_noise
from imgdata.backends.torch_ops.batched import parts, upload, upload_joined
from imgdata.recipes.recipe import Recipe


def normalise(
    images: torch.Tensor,
    scale_3: NDArray[np.float32] | torch.Tensor,
    shift_3: NDArray[np.float32] | torch.Tensor,
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    """Return uint8 `(N, 3, H, W)` as a tensor of `dtype`: value * scale + shift in float32, rounded once.

    `scale_shift` of `backends.postprocess` makes the two from a recipe; tensors of them must be on the images' device,
    which spares each batch a copy. uint8 stays as it is, maybe the same tensor.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    if dtype == torch.uint8:
        return images.contiguous(memory_format=layout)
    if not (isinstance(scale_3, torch.Tensor) and isinstance(shift_3, torch.Tensor)):
        scale_3, shift_3 = upload([np.asarray(scale_3), np.asarray(shift_3)], images.device)
    scale, shift = scale_3[:, None, None], shift_3[:, None, None]
    finished = torch.empty(images.shape, dtype=dtype, device=images.device, memory_format=layout)
    for part in parts(len(images), images):
        pixels = images[part]
        if images.device.type == "cpu":
            # A third of the time, with the copy: processors are slow where the innermost axis has three values.
            pixels = pixels.contiguous()
        # The sum is float32, and is rounded as it is stored.
        torch.add(pixels.mul(scale), shift, out=finished[part])
    return finished


def erase(images: torch.Tensor, params: BatchParams, recipe: Recipe, seed: int, epoch: int) -> torch.Tensor:
    """Paint over the rectangles of finished pixels `(N, C, H, W)` of any type, in place; also returned.

    Values are those of `imgdata.backends.postprocess.erase_value`. Noise is made by the host.
    """
    row_R = erased_rows(params)
    if not len(row_R):
        return images
    in_bytes, noise = images.dtype == torch.uint8, erases_noise(recipe)
    values = [
        erase_value(params, row, recipe, seed=seed, epoch=epoch, in_bytes=in_bytes, channels=images.shape[1])
        for row in (row_R if noise else row_R[:1]).tolist()
    ]
    if _one_by_one(images.device):
        _paint(images, params, row_R, values)
    elif noise:
        _fill_noise(images, params, row_R, values)
    else:
        _fill(images, params, values[0])
    return images


def _one_by_one(device: torch.device) -> bool:
    """Return whether rectangles are painted one after the other: on a processor that is least work.

    On a GPU an operation takes longer to begin than to be done: a millisecond for 256 pictures.
    """
    return device.type == "cpu"


def _paint(
    images: torch.Tensor, params: BatchParams, row_R: NDArray[np.int64], values: list[NDArray[np.float32]]
) -> None:
    """Paint rectangle by rectangle: `values` has those of each row, or one for all."""
    tensors = upload(values, images.device)
    for number, row in enumerate(row_R.tolist()):
        left, top, width, height = params.erase_N4[row].tolist()
        images[row, :, top : top + height, left : left + width] = tensors[number % len(tensors)]


def _fill(images: torch.Tensor, params: BatchParams, value_311: NDArray[np.float32]) -> None:
    """Paint all rectangles at once: the host works out which columns and rows they have."""
    left_N1, top_N1, width_N1, height_N1 = params.erase_N4.T[:, :, None].astype(np.int32)
    y_H, x_W = (np.arange(side, dtype=np.int32) for side in images.shape[2:])
    across_NW, down_NH = upload(
        [(left_N1 <= x_W) & (x_W < left_N1 + width_N1), (top_N1 <= y_H) & (y_H < top_N1 + height_N1)], images.device
    )
    inside = across_NW[:, None, None].logical_and(down_NH[:, None, :, None])
    values = value_311.reshape(-1).tolist()
    if len(set(values)) == 1:
        images.masked_fill_(inside, values[0])
        return
    for channel, value in enumerate(values):
        images[:, channel : channel + 1].masked_fill_(inside, value)


def _fill_noise(
    images: torch.Tensor, params: BatchParams, row_R: NDArray[np.int64], values: list[NDArray[np.float32]]
) -> None:
    """Put each row's own values into its rectangle, all at once: value by value, each with its place."""
    box_R4 = params.erase_N4[row_R].astype(np.int64)
    pixels_R = box_R4[:, 2] * box_R4[:, 3]
    first_R = 3 * (pixels_R.cumsum() - pixels_R)
    (table_R7,) = upload([np.column_stack([row_R, 3 * pixels_R, first_R, pixels_R, box_R4[:, :3]])], images.device)
    value_V = upload_joined(values, images.device)
    # How many there are is known: otherwise the host would have to ask.
    table_V7 = table_R7.repeat_interleave(table_R7[:, 1], 0, output_size=len(value_V))
    row_V, _, first_V, pixels_V, left_V, top_V, width_V = table_V7.unbind(1)
    number_V = torch.arange(len(value_V), device=images.device).sub_(first_V)
    channel_V, pixel_V = number_V.div(pixels_V, rounding_mode="floor"), number_V.remainder(pixels_V)
    y_V, x_V = pixel_V.div(width_V, rounding_mode="floor").add_(top_V), pixel_V.remainder(width_V).add_(left_V)
    images[row_V, channel_V, y_V, x_V] = value_V.to(images.dtype)
