"""Pixels, a deviation -> pixels blurred by a Gaussian, whose edges are mirrored: by NumPy, one axis after the other.

torchvision multiplies by a kernel of two axes at once; what is summed in another order differs in the last bits of
float32, and so a value in some ten thousand is one step off. `backends.torch_ops.blur` sums in the order of this one.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.augment.crops import exp

_LEAST = 1e-8
"""Weights below this change no value by a step, and are left out."""


def kernels(sigma_R: NDArray[np.float64], size: int) -> NDArray[np.float32]:
    """Return weights from the middle outwards, float32 `(R, size // 2 + 1)`; with those of the other side the sum is 1.

    The same on every processor.
    """
    distance_K = np.arange(size // 2 + 1)
    weight_RK = exp(np.maximum(-((distance_K / sigma_R[:, None]) ** 2) / 2, -100.0))
    weight_RK[weight_RK < _LEAST] = 0.0
    half_RK: NDArray[np.float64] = weight_RK / (2 * weight_RK.sum(axis=1, keepdims=True) - weight_RK[:, :1])
    return half_RK.astype(np.float32)


def blurred(pixels_HWC: NDArray[Any], sigma: float, size: int) -> NDArray[Any]:
    """Return `(H, W, C)` blurred by a kernel of `size` pixels; half of it must be less than a side.

    uint8 is rounded; float32, as pictures of 16 bits are, is not.
    """
    weight_K = [float(weight) for weight in kernels(np.array([sigma]), size)[0] if weight]
    reach = len(weight_K) - 1
    height, width, channels = pixels_HWC.shape
    down_HV = _summed(
        np.pad(pixels_HWC, ((reach, reach), (0, 0), (0, 0)), "reflect").reshape(-1, width * channels), weight_K
    )
    wide_HWC = np.pad(down_HV.reshape(height, width, channels), ((0, 0), (reach, reach), (0, 0)), "reflect")
    # Along the width by views of one long line: its steps are those of a pixel.
    across_WV = np.ascontiguousarray(wide_HWC.transpose(1, 0, 2)).reshape(width + 2 * reach, -1)
    value_HWC = _summed(across_WV, weight_K).reshape(width, height, channels).transpose(1, 0, 2)
    if pixels_HWC.dtype != np.uint8:
        return value_HWC
    return np.rint(value_HWC, order="C").astype(np.uint8)


def _summed(line_PV: NDArray[np.uint8] | NDArray[np.float32], weight_K: list[float]) -> NDArray[np.float32]:
    """Return lines times the weights, summed from the middle outwards, float32 `(P - 2 * reach, V)`."""
    reach, count = len(weight_K) - 1, len(line_PV) - 2 * (len(weight_K) - 1)
    total_HV = np.multiply(line_PV[reach : reach + count], np.float32(weight_K[0]), dtype=np.float32)
    pair_HV = np.empty_like(total_HV)
    for distance, weight in enumerate(weight_K[1:], start=1):
        before, after = line_PV[reach - distance :][:count], line_PV[reach + distance :][:count]
        np.add(before, after, out=pair_HV, dtype=np.float32)
        np.multiply(pair_HV, np.float32(weight), out=pair_HV)
        np.add(total_HV, pair_HV, out=total_HV)
    return total_HV
