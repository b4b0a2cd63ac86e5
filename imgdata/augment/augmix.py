"""`AugMix`, its draws -> the operations of each chain, their strengths, and the shares of picture and chains.

Spaces and strengths are those of torchvision's `AugMix`; Hendrycks et al., 2019 (arXiv 1912.02781).
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from imgdata.augment.crops import Floats
from imgdata.augment.mix import GAMMA_DRAWS, log_gamma_variates
from imgdata.augment.policies import OPS, linear
from imgdata.recipes.choices import AugMix

_BINS = 10
_RANDOM_DEPTH = 3
_PARTIAL = (
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)
_FACTORS = ("Brightness", "Color", "Contrast", "Sharpness")
_SIGNED = frozenset(OPS[1:10])


def depth(op: AugMix) -> int:
    """Return how many operations a chain has at most, D."""
    return _RANDOM_DEPTH if op.depth == -1 else op.depth


def num_blocks(op: AugMix) -> int:
    """Return how many blocks of four numbers a sample needs."""
    return op.width * (1 + depth(op)) + -(-(2 + op.width) * GAMMA_DRAWS // 4)


def num_values(op: AugMix) -> int:
    """Return how many values a sample has: number and strength of each operation of each chain, and the shares."""
    return 2 * op.width * depth(op) + 1 + op.width


def draw(op: AugMix, draw_BN4: Floats, height: int, width: int) -> Floats:
    """Return float64 `(N, V)`: operations `(W, D)`, strengths `(W, D)`, shares of the picture and of each chain.

    Operations are numbers in `policies.OPS`, 0 where a chain is shorter; strengths have their sign.
    """
    count, chains, deep = draw_BN4.shape[1], op.width, depth(op)
    table = _strengths(height, width)
    numbers = np.array([OPS.index(name) for name in (*_PARTIAL, *_FACTORS[: 4 * op.all_ops])])
    length_WN = np.full((chains, count), deep)
    if op.depth == -1:
        length_WN = 1 + (draw_BN4[:chains, :, 0] * _RANDOM_DEPTH).astype(np.int64)
    step_WDN4 = draw_BN4[chains : chains * (1 + deep)].reshape(chains, deep, count, 4)
    op_WDN = numbers[(step_WDN4[..., 0] * len(numbers)).astype(np.int64)]
    strength_WDN = table[op_WDN, (step_WDN4[..., 1] * op.severity).astype(np.int64)]
    signed = np.array([name in _SIGNED for name in OPS])
    strength_WDN = np.where(signed[op_WDN] & (step_WDN4[..., 2] <= 0.5), -strength_WDN, strength_WDN)
    op_WDN = np.where(np.arange(deep)[:, None] < length_WN[:, None], op_WDN, 0)
    share_ND = draw_BN4[chains * (1 + deep) :].transpose(1, 0, 2).reshape(count, -1)
    return np.concatenate(
        [
            op_WDN.reshape(chains * deep, count).T.astype(np.float64),
            strength_WDN.reshape(chains * deep, count).T,
            _shares(op, share_ND),
        ],
        axis=1,
    )


def parts(op: AugMix, value_RV: Floats) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return what `draw` put together: operations `(R, W, D)`, strengths `(R, W, D)`, shares `(R, 1 + W)`."""
    shape, size = (len(value_RV), op.width, depth(op)), op.width * depth(op)
    op_RWD = value_RV[:, :size].astype(np.int64).reshape(shape)
    return op_RWD, value_RV[:, size : 2 * size].reshape(shape), value_RV[:, 2 * size :]


def _shares(op: AugMix, draw_ND: Floats) -> Floats:
    """Return shares that sum to 1: of the picture by Beta, and of the chains, what is left, by Dirichlet."""
    draw_NGD = draw_ND[:, : (2 + op.width) * GAMMA_DRAWS].reshape(len(draw_ND), 2 + op.width, GAMMA_DRAWS)
    log_NG = log_gamma_variates(op.alpha, draw_NGD)
    own_N2, chain_NW = _dirichlet(log_NG[:, :2]), _dirichlet(log_NG[:, 2:])
    return np.concatenate([own_N2[:, :1], own_N2[:, 1:] * chain_NW], axis=1)


def _dirichlet(log_NG: Floats) -> Floats:
    """Return numbers in proportion to those whose logarithms are given, with a sum of 1."""
    if not log_NG.shape[0]:
        return log_NG
    part_NG: Floats = np.exp(log_NG - log_NG.max(axis=1, keepdims=True))
    share_NG: Floats = part_NG / part_NG.sum(axis=1, keepdims=True)
    return share_NG


@lru_cache(maxsize=64)
def _strengths(height: int, width: int) -> Floats:
    """Return strengths without sign, float64 `(len(OPS), 10)`."""
    most = {"ShearX": 0.3, "ShearY": 0.3, "TranslateX": width / 3.0, "TranslateY": height / 3.0, "Rotate": 30.0}
    table = np.zeros((len(OPS), _BINS))
    for name, end in {**most, **dict.fromkeys(_FACTORS, 0.9)}.items():
        table[OPS.index(name)] = linear(0.0, end, _BINS)
    table[OPS.index("Solarize")] = linear(1.0, 0.0, _BINS)
    step = np.float32((_BINS - 1) / 4)
    table[OPS.index("Posterize")] = np.rint(np.float32(4) - np.arange(_BINS, dtype=np.float32) / step)
    table.flags.writeable = False
    return table
