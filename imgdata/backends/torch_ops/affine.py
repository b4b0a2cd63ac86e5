"""Pixels + where each comes from -> pixels turned, sheared or shifted, with a filling for what lies outside.

Places are fixed-point numbers: sums of integers are the same on every device, which floats at the border between two
pixels are not. The results are those of torchvision's `rotate` and `affine` for tensors: with "bilinear" within one
step, with "nearest" where the place is not within 1/1000 of a pixel of such a border. There it takes what float32
happens to round to; here it is the pixel to the right, or below.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from imgdata.augment.policies import OPS
from imgdata.backends.torch_ops.batched import Change
from imgdata.recipes.ops import Fill, Sampling

MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
"""Operations of a policy that move pixels."""
_BITS = 32
"""Bits of the fraction of coefficients."""


class _Places(NamedTuple):
    """Where each pixel's middle comes from."""

    x_RHW: torch.Tensor
    """int32 `(R, H, W)`"""
    y_RHW: torch.Tensor
    """int32 `(R, H, W)`"""
    bits: int
    """Bits of the fraction of both."""


def coefficients(
    op_R: NDArray[np.int64], strength_R: NDArray[np.float64], height: int, width: int
) -> NDArray[np.int64]:
    """Return where pixels come from, for operations out of `MOVES`, int64 `(R, 6)` in units of 2**-32.

    (a, b, c, d, e, f): what comes to (x, y) was at (a x + b y + c, d x + e y + f). The middle of the first pixel has
    the coordinates (0.5, 0.5). Strengths are those of `policies.OPS`.
    """
    coefficient_R6 = np.tile([1.0, 0.0, 0.0, 0.0, 1.0, 0.0], (len(op_R), 1))
    for name, column, value_R in (
        ("ShearX", 1, strength_R),
        ("ShearY", 3, strength_R),
        ("TranslateX", 2, -np.trunc(strength_R)),
        ("TranslateY", 5, -np.trunc(strength_R)),
    ):
        rows = op_R == OPS.index(name)
        coefficient_R6[rows, column] = value_R[rows]
    rows = op_R == OPS.index("Rotate")
    cos_R, sin_R = np.cos(np.radians(strength_R[rows])), np.sin(np.radians(strength_R[rows]))
    x, y = width / 2, height / 2
    coefficient_R6[rows] = np.stack(
        [cos_R, -sin_R, x - cos_R * x + sin_R * y, sin_R, cos_R, y - sin_R * x - cos_R * y], axis=1
    )
    return np.rint(coefficient_R6 * 2.0**_BITS).astype(np.int64)


def mover(interpolation: Sampling, fill: Fill) -> Change:
    """Return the function that moves pixels uint8 `(R, C, H, W)` by `coefficients`, `(R, 6)`."""
    return _change(_places, interpolation, fill)


def warper(interpolation: Sampling, fill: Fill) -> Change:
    """Return the function that moves pixels uint8 `(R, C, H, W)` as `augment.moves` says, `(R, 6)` or `(R, 8)`."""
    return _change(_far_places, interpolation, fill)


def _change(places: Callable[[torch.Tensor, int, int], _Places], interpolation: Sampling, fill: Fill) -> Change:
    color = fill if isinstance(fill, tuple) else (fill,) * 3
    sampled = _nearest if interpolation == "nearest" else _bilinear
    return lambda part, coefficient_RK: sampled(part, places(coefficient_RK, *part.shape[2:]), color)


def _nearest(part: torch.Tensor, places: _Places, color: Sequence[float]) -> torch.Tensor:
    count, channels, height, width = part.shape
    x_RHW, y_RHW, bits = places
    x_RHW, y_RHW = x_RHW.bitwise_right_shift_(bits), y_RHW.bitwise_right_shift_(bits)
    inside_x, inside_y = x_RHW.clamp(0, width - 1), y_RHW.clamp(0, height - 1)
    outside = (inside_x != x_RHW).logical_or_(inside_y != y_RHW)
    index = inside_y.mul_(width).add_(inside_x).masked_fill_(outside, height * width)
    # One more pixel than there are, of the colour that comes in from outside.
    source = part.new_empty(count, channels, height * width + 1)
    source[:, :, :-1] = part.flatten(2)
    for channel, value in enumerate(color):
        source[:, channel, -1].fill_(round(value))
    index = index.long().view(count, 1, -1).expand(-1, channels, -1)
    return source.gather(2, index).view(count, channels, height, width)


def _bilinear(part: torch.Tensor, places: _Places, color: Sequence[float]) -> torch.Tensor:
    """Sample bilinearly; a fourth channel, of ones, says how much of a pixel comes from inside the picture."""
    count, channels, height, width = part.shape
    x_RHW, y_RHW, bits = places
    # From -1 to 1, from edge to edge.
    grid = torch.stack(
        [
            x_RHW.float().mul_(2.0 / (width << bits)).sub_(1.0),
            y_RHW.float().mul_(2.0 / (height << bits)).sub_(1.0),
        ],
        dim=-1,
    )
    source = torch.ones(count, channels + 1, height, width, dtype=torch.float32, device=part.device)
    source[:, :channels] = part
    sampled = torch.nn.functional.grid_sample(source, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    share, pixels = sampled[:, channels:], sampled[:, :channels]
    for channel, value in enumerate(color):
        if value:
            pixels[:, channel].sub_(value)
    pixels = pixels.mul_(share)
    for channel, value in enumerate(color):
        if value:
            pixels[:, channel].add_(value)
    return pixels.round_().to(torch.uint8)


def _places(coefficient_R6: torch.Tensor, height: int, width: int) -> _Places:
    """Return where each pixel's middle comes from, where none comes from farther than a rotation or shear goes."""
    # So many that the farthest place fits: a rotation or a shear goes three sides away, a shift 32 pixels.
    bits = 30 - (4 * max(height, width) + 32).bit_length()
    device = coefficient_R6.device
    # Twice the middles, which are halves.
    x_W = torch.arange(1, 2 * width, 2, device=device)
    y_H = torch.arange(1, 2 * height, 2, device=device)
    a, b, c, d, e, f = coefficient_R6.unsqueeze(2).unbind(1)
    shift = _BITS + 1 - bits

    def place(by_x: torch.Tensor, by_y: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
        across_RW, down_RH = (by_x * x_W) >> shift, (by_y * y_H + 2 * more) >> shift
        return across_RW.int().unsqueeze(1) + down_RH.int().unsqueeze(2)

    return _Places(place(a, b, c), place(d, e, f), bits)


def _far_places(coefficient_RK: torch.Tensor, height: int, width: int) -> _Places:
    """Return where each pixel's middle comes from, however far; with eight coefficients by a perspective.

    In float64, whose products, sums and quotients are the same on every device, and then in fixed point.
    """
    bits = 30 - (4 * max(height, width) + 32).bit_length()
    # Apple's GPUs have no float64.
    dtype = torch.float32 if coefficient_RK.device.type == "mps" else torch.float64
    x_W = torch.arange(width, device=coefficient_RK.device, dtype=dtype).add_(0.5)
    y_H1 = torch.arange(height, device=coefficient_RK.device, dtype=dtype).add_(0.5)[:, None]
    by_R = [column[:, None, None] for column in coefficient_RK.to(dtype).unbind(1)]
    x_RHW = (by_R[0] * x_W).add(by_R[1] * y_H1).add_(by_R[2])
    y_RHW = (by_R[3] * x_W).add(by_R[4] * y_H1).add_(by_R[5])
    if len(by_R) == 8:
        divisor = (by_R[6] * x_W).add(by_R[7] * y_H1).add_(1.0)
        x_RHW, y_RHW = x_RHW.div_(divisor), y_RHW.div_(divisor)
    # What lies farther outside is as much outside; no number comes of 0 / 0.
    places = [
        place.nan_to_num_(nan=-1.0).clamp_(-float(side), 2.0 * side).mul_(2.0**bits).floor_().int()
        for place, side in ((x_RHW, width), (y_RHW, height))
    ]
    return _Places(places[0], places[1], bits)
