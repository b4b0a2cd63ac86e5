"""Windows of pixels -> the batch: copied or normalised into its buffer, painted over, mixed with each other."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imgdata.augment.mix import MixParams
from imgdata.augment.params import BatchParams, erasing_noise
from imgdata.recipes.ops import Cutout, Normalize, RandomErasing
from imgdata.recipes.recipe import Recipe

if TYPE_CHECKING:
    import torch

_MIX_ROWS = 8
"""Samples that a processor mixes at a time; what is needed besides is three times as many, at most, in float32."""
_MIX_VALUES = 2**25
"""What a device mixes at a time, since each part is some orders to it: 222 pictures of 224 x 224."""


def scale_shift(recipe: Recipe, channels: int = 3) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return float32 `(C,)` scale and shift: value * scale + shift is `Normalize` of 0 to 255; without it, 0 to 1."""
    normalize = recipe.find(Normalize)
    if normalize is None:
        return np.full(channels, 1 / 255, np.float32), np.zeros(channels, np.float32)
    mean_3, std_3 = np.array(normalize.mean), np.array(normalize.std)
    return (1.0 / (255.0 * std_3)).astype(np.float32), (-mean_3 / std_3).astype(np.float32)


def black(recipe: Recipe, dtype: str, channels: int = 3) -> NDArray[np.float32]:
    """Return what black pixels become in a batch of `dtype`, float32 `(C, 1, 1)`, for samples that are skipped."""
    _, shift_C = scale_shift(recipe, channels)
    return (np.zeros_like(shift_C) if dtype in ("uint8", "uint16") else shift_C)[:, None, None]


def write(
    pixels_HWC: NDArray[Any],
    out_CHW: NDArray[Any],
    scale_3: NDArray[np.float32],
    shift_3: NDArray[np.float32],
) -> None:
    """Put uint8 `(H, W, C)`, or float32 from 0 to 255, into `out_CHW` `(C, H, W)`, whose memory may have any order.

    uint8 is copied; float32 becomes value * scale + shift, and float16 that, rounded once; uint16 is 0 to 65535.
    """
    if out_CHW.dtype == np.uint8:
        out_CHW.transpose(1, 2, 0)[...] = pixels_HWC
        return
    if out_CHW.dtype == np.uint16:
        out_CHW.transpose(1, 2, 0)[...] = np.rint(pixels_HWC * np.float32(257)).clip(0, 65535)
        return
    # Channel by channel: a loop over three values is what NumPy is slowest at.
    for channel, out_HW in enumerate(out_CHW):
        value_HW, scale, shift = pixels_HWC[:, :, channel], scale_3[channel], shift_3[channel]
        if out_CHW.dtype == np.float32:
            np.multiply(value_HW, scale, out=out_HW)
            np.add(out_HW, shift, out=out_HW)
        elif value_HW.dtype != np.uint8:
            out_HW[...] = value_HW * scale + shift
        else:
            # Of 256 values rather than of all: processors are slow to make float16, 0.26 ms for 224 x 224.
            table_V = (np.arange(256, dtype=np.float32) * scale + shift).astype(out_CHW.dtype)
            np.take(table_V, value_HW, out=out_HW, mode="clip")


def erase(out_CHW: NDArray[Any], params: BatchParams, row: int, recipe: Recipe, *, seed: int, epoch: int) -> None:
    """Paint over the rectangle of sample `row` in its finished pixels `(C, H, W)`, if it has one."""
    left, top, width, height = params.erase_N4[row].tolist()
    if width and height:
        value_CHW = erase_value(
            params, row, recipe, seed=seed, epoch=epoch, in_bytes=out_CHW.dtype == np.uint8, channels=len(out_CHW)
        )
        out_CHW[:, top : top + height, left : left + width] = value_CHW


def erase_batch(batch_NCHW: NDArray[Any], params: BatchParams, recipe: Recipe, *, seed: int, epoch: int) -> None:
    """Do `erase` for every sample of `(N, C, H, W)`: a value that all have is worked out once.

    A loop, since a picture's rectangle takes 0.6 us, and a mask of the whole batch more.
    """
    row_R = erased_rows(params)
    if not len(row_R):
        return
    if erases_noise(recipe):
        for row in row_R.tolist():
            erase(batch_NCHW[row], params, row, recipe, seed=seed, epoch=epoch)
        return
    in_bytes = batch_NCHW.dtype == np.uint8
    channels = batch_NCHW.shape[1]
    value_311 = erase_value(params, 0, recipe, seed=seed, epoch=epoch, in_bytes=in_bytes, channels=channels)
    value_311 = value_311.astype(batch_NCHW.dtype)
    # NumPy fills with one number in half the time.
    value: Any = value_311[0, 0, 0] if (value_311 == value_311[0]).all() else value_311
    for row, (left, top, width, height) in zip(row_R.tolist(), params.erase_N4[row_R].tolist(), strict=True):
        batch_NCHW[row, :, top : top + height, left : left + width] = value


def erased_rows(params: BatchParams) -> NDArray[np.int64]:
    """Return the rows with a rectangle that is painted over, int64 `(R,)`."""
    row_R: NDArray[np.int64] = np.flatnonzero((params.erase_N4[:, 2:] > 0).all(axis=1))
    return row_R


def erases_noise(recipe: Recipe) -> bool:
    """Return whether each rectangle has values of its own; otherwise one value, or one a channel, is that of all."""
    return _erasing(recipe).value == "random"


def erase_value(
    params: BatchParams, row: int, recipe: Recipe, *, seed: int, epoch: int, in_bytes: bool, channels: int = 3
) -> NDArray[np.float32]:
    """Return what the rectangle of sample `row` becomes, float32 `(C, 1, 1)`, or `(3, height, width)` of noise.

    Values are in the units of the batch: after `Normalize`, or 0 to 1 without it; 0 to 255 in a uint8 batch. Only
    where the recipe normalises, but the batch is `in_bytes`, it gets what becomes that value when it is normalised.
    """
    value = _erasing(recipe).value
    if value == "random":
        _, _, width, height = params.erase_N4[row].tolist()
        value_CHW = erasing_noise(seed, epoch, int(params.position_N[row]), height, width)
    else:
        # The loader has checked that there is one value where channels are not three.
        value_CHW = np.broadcast_to(np.array(value, np.float32), channels)[:, None, None]
    return as_bytes(value_CHW, recipe) if in_bytes else value_CHW


def _erasing(recipe: Recipe) -> RandomErasing | Cutout:
    erasing = recipe.find(RandomErasing) or recipe.find(Cutout)
    assert erasing is not None, "parameters erase, the recipe does not"
    return erasing


def as_bytes(value_CHW: NDArray[np.float32], recipe: Recipe) -> NDArray[np.float32]:
    """Return the values for a uint8 batch that become `value_CHW` when the recipe's `Normalize` is applied.

    Float32 of any size behind the channels: whole numbers, 0 to 255.
    """
    if recipe.find(Normalize) is not None:
        scale_3, shift_3 = scale_shift(recipe)
        value_CHW = (value_CHW - shift_3[:, None, None]) / scale_3[:, None, None]
    return np.rint(value_CHW).clip(0, 255)


def mix_images(images: "torch.Tensor", params: MixParams) -> "torch.Tensor":
    """Mix `(N, C, H, W)` of any dtype, device and memory format in place, and return it.

    uint8 is blended in float32 and rounded to the nearest, halves to even.
    """
    import torch

    if params.kind == "none":
        return images
    left, top, width, height = params.box_4
    region = images[:, :, top : top + height, left : left + width] if params.kind == "cutmix" else images
    on_cpu = images.device.type == "cpu"
    rows = _MIX_ROWS if on_cpu else max(_MIX_ROWS, _MIX_VALUES // max(1, images[0].numel()))
    for begin, end in _closed_parts(params.partner_N, rows):
        part, row_M = region[begin:end], torch.from_numpy(params.partner_N[begin:end] - begin)
        if images.device.type == "cuda":
            # Only from pinned memory does a copy go by itself.
            row_M = row_M.pin_memory()
        # A copy: what is read here is overwritten below.
        other = _taken(part, row_M.to(images.device, non_blocking=images.device.type == "cuda"))
        if params.kind == "cutmix":
            part.copy_(other)
        elif images.dtype == torch.uint8:
            part.copy_(torch.lerp(part.float(), other.float(), 1.0 - params.lam).round_())
        else:
            part.lerp_(other, 1.0 - params.lam)
    return images


def soft_labels(labels: "torch.Tensor", params: MixParams, num_classes: int) -> "torch.Tensor":
    """Return float32 `(N, num_classes)` of labels int64 `(N,)`: `lam` for the own class, the rest for the partner's.

    A sample without a label (-1) adds nothing, so its row sums to less than 1.
    """
    import torch

    partner = labels[torch.from_numpy(params.partner_N).to(labels.device)]
    soft = torch.zeros(len(labels), num_classes, dtype=torch.float32, device=labels.device)
    for label, share in ((labels, params.lam), (partner, 1.0 - params.lam)):
        soft.scatter_add_(1, label.clamp(min=0)[:, None], (share * (label >= 0).float())[:, None])
    return soft


def mixed_targets(
    value_N: NDArray[np.float32], skip_N: NDArray[np.bool_], params: MixParams, *, of_classes: bool
) -> NDArray[np.float32]:
    """Return targets float32 `(N, ...)` mixed as the pictures are: `lam` of the own one, the rest of the partner's.

    Zhang et al., "mixup", 2018, for numbers as for classes. A picture that was skipped is black: it adds nothing of a
    class, and leaves numbers as they are.
    """
    if params.kind == "none":
        return value_N
    shape = (-1, *(1 for _ in value_N.shape[1:]))
    if of_classes:
        value_N = np.where(skip_N.reshape(shape), np.float32(0), value_N)
        other_N = value_N[params.partner_N]
    else:
        other_N = np.where(skip_N[params.partner_N].reshape(shape), value_N, value_N[params.partner_N])
    lam = np.float32(params.lam)
    return (lam * value_N + (np.float32(1) - lam) * other_N).astype(np.float32)


def _taken(part: "torch.Tensor", row_M: "torch.Tensor") -> "torch.Tensor":
    """Return `part[row_M]`; indexing takes 2 to 20 times as long on a processor, and 8 ms to begin in a new thread."""
    if part.stride(1) < part.stride(3):  # Channels last: so that pieces of memory stay whole.
        return part.permute(0, 2, 3, 1).index_select(0, row_M).permute(0, 3, 1, 2)
    return part.index_select(0, row_M)


def _closed_parts(partner_N: NDArray[np.int64], rows: int) -> list[tuple[int, int]]:
    """Return ranges of about `rows` rows whose partners lie in the same range, so that each can be mixed by itself."""
    end_N = np.flatnonzero(np.maximum.accumulate(partner_N) == np.arange(len(partner_N))) + 1
    parts, begin = [], 0
    for end in end_N.tolist():
        if end - begin >= rows or end == len(partner_N):
            parts.append((begin, end))
            begin = end
    return parts
