"""Pixels + a strength for each row -> pixels with other colours, each where it was.

Formulas and roundings are those of torchvision's operators for uint8 tensors (version 2 of its transforms): results are
cut off, not rounded, to whole numbers. Where it sums two products without rounding the second, both are rounded here,
as every device can: such values may be a step apart.
"""

import torch

_HUE_SCALE = 255.999 / 255.0
"""torchvision multiplies values from 0 to 1 by 255.999, and cuts off."""


def brightness(part: torch.Tensor, factor_R1: torch.Tensor) -> torch.Tensor:
    """Return values times a factor."""
    return _to_uint8(part.mul(_per_row(factor_R1)))


def contrast(part: torch.Tensor, factor_R1: torch.Tensor) -> torch.Tensor:
    """Multiply distances from the mean gray of the picture by a factor."""
    # A sum of integers, which has one result in any order.
    sum_R111 = _gray(part).to(torch.uint8).sum(dim=(1, 2, 3), keepdim=True, dtype=torch.int64)
    mean_R111 = sum_R111.float().div_(part.shape[2] * part.shape[3])
    return _blended(part, mean_R111, factor_R1)


def saturation(part: torch.Tensor, factor_R1: torch.Tensor) -> torch.Tensor:
    """Multiply distances from the own gray by a factor."""
    return _blended(part, _gray(part).floor_(), factor_R1)


def sharpness(part: torch.Tensor, factor_R1: torch.Tensor) -> torch.Tensor:
    """Multiply distances from a blurred picture by a factor; the outermost pixels stay.

    The blur is the mean of 3 x 3 pixels with the middle one counted five times. A thirteenth of whole numbers never
    lies in the middle between two, so any sum of floats would round alike.
    """
    if min(part.shape[2:]) <= 2:
        return part.clone()
    value = part.to(torch.int16)
    row_sum = value[:, :, :-2] + value[:, :, 1:-1] + value[:, :, 2:]
    box_sum = row_sum[..., :-2] + row_sum[..., 1:-1] + row_sum[..., 2:]
    inner = value[:, :, 1:-1, 1:-1]
    blurred = box_sum.add_(inner, alpha=4).mul(1.0 / 13.0).round_()
    sharp = blurred.sub_(inner).mul_(1.0 - _per_row(factor_R1)).add_(inner)
    changed = part.clone()
    changed[:, :, 1:-1, 1:-1] = _to_uint8(sharp)
    return changed


def hue(part: torch.Tensor, turns_R1: torch.Tensor) -> torch.Tensor:
    """Shift colours along the circle by a part of it.

    A channel is max - (max - min) * clamp(2 - d, 0, 1), where d is the distance of the hue, in sixths of a turn, from
    the one opposite to that channel's own: HSV (Smith, "Color gamut transform pairs", 1978), read backwards.
    """
    value = part.float()
    red, green, blue = value.unbind(1)
    most = torch.maximum(torch.maximum(red, green), blue)
    least = torch.minimum(torch.minimum(red, green), blue)
    reach = most - least
    divisor = reach.clamp(min=1.0)
    by_blue = (red - green).div_(divisor).add_(4.0)
    by_green = (blue - red).div_(divisor).add_(2.0)
    by_red = (green - blue).div_(divisor)
    sixths = torch.where(red == most, by_red, torch.where(green == most, by_green, by_blue))
    sixths = sixths.add_(turns_R1.unsqueeze(2) * 6.0)
    sixths = sixths.sub_(sixths.mul(1.0 / 6.0).floor_().mul_(6.0))
    base = most - 2.0 * reach
    changed = torch.empty_like(part)
    for channel, own in enumerate((0.0, 2.0, 4.0)):
        # From 0 to 3: how far the hue is from the opposite one.
        away = sixths.sub(own).abs_().sub_(3.0).abs_()
        changed[:, channel] = away.clamp_(1.0, 2.0).mul_(reach).add_(base).mul_(_HUE_SCALE)
    return changed


def grayscale(part: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """Return three equal channels."""
    return _gray(part).to(torch.uint8).expand_as(part)


def posterize(part: torch.Tensor, mask_R1: torch.Tensor) -> torch.Tensor:
    """Return the bits of the mask alone."""
    return part & _per_row(mask_R1).to(torch.uint8)


def solarize(part: torch.Tensor, threshold_R1: torch.Tensor) -> torch.Tensor:
    """Invert values from the threshold on, 0 to 255."""
    above = part >= _per_row(threshold_R1)
    # torch.where takes twenty times as long for bytes.
    return part ^ above.to(torch.uint8).mul_(255)


def autocontrast(part: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """Stretch each channel to 0 to 255; one that has a single value stays."""
    flat = part.flatten(2)
    least, most = (bound.float()[:, :, None, None] for bound in (flat.amin(2), flat.amax(2)))
    single = (most == least).float()
    scale = (most - least).mul_(1.0 / 255.0).add_(single)
    return _to_uint8((part - least.mul_(1.0 - single)).div_(scale))


def equalize(part: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """Spread each channel's values so that each part of the range is about as frequent: Pillow's scheme.

    A channel stays where fewer than 255 pixels lie below its largest value.
    """
    index = part.flatten(2).long()
    pixels = index.shape[2]
    count = torch.zeros(*index.shape[:2], 256, dtype=torch.int32, device=part.device)
    count.scatter_add_(2, index, count.new_ones(1, 1, 1).expand_as(index))
    up_to = count.cumsum(2, dtype=torch.int32)
    largest = part.flatten(2).amax(2, keepdim=True).long()
    step = (pixels - count.gather(2, largest)).div_(255, rounding_mode="floor")
    below = up_to - count
    table = below.add_(step // 2).div_(step.clamp(min=1), rounding_mode="floor").clamp_(0, 255)
    same = torch.arange(256, dtype=torch.int32, device=part.device)
    table = torch.where(step > 0, table, same).to(torch.uint8)
    return table.gather(2, index).view(part.shape)


def invert(part: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """Return 255 minus the value."""
    return ~part


def blur(part: torch.Tensor, weight_RK: torch.Tensor) -> torch.Tensor:
    """Sum pixels times the weights of their distance, edges mirrored, along one axis after the other.

    Weights are those of `pillow.blur.kernels`, and sums are made in its order: the same pixels on every device.
    """
    weight_RK111 = weight_RK[:, :, None, None, None]
    return _summed(_summed(part.float(), weight_RK111, 2), weight_RK111, 3).round_().to(torch.uint8)


def _summed(value: torch.Tensor, weight_RK111: torch.Tensor, axis: int) -> torch.Tensor:
    reach, count = weight_RK111.shape[1] - 1, value.shape[axis]
    padding = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
    wide = torch.nn.functional.pad(value, padding, mode="reflect") if reach else value
    total = value * weight_RK111[:, 0]
    for distance in range(1, reach + 1):
        pair = wide.narrow(axis, reach - distance, count) + wide.narrow(axis, reach + distance, count)
        total.add_(pair.mul_(weight_RK111[:, distance]))
    return total


def _per_row(value_R1: torch.Tensor) -> torch.Tensor:
    return value_R1[:, :, None, None]


def _gray(part: torch.Tensor) -> torch.Tensor:
    """Return gray values, float32 `(R, 1, H, W)`, not rounded: weights of ITU-R BT.601, with torchvision's digits."""
    red, green, blue = (part[:, channel : channel + 1] for channel in range(3))
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def _blended(part: torch.Tensor, other: torch.Tensor, factor_R1: torch.Tensor) -> torch.Tensor:
    factor = _per_row(factor_R1)
    return _to_uint8(part.mul(factor).add_(other * (1.0 - factor)))


def _to_uint8(value: torch.Tensor) -> torch.Tensor:
    return value.clamp_(0.0, 255.0).to(torch.uint8)
