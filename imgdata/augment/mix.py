"""(recipe, seed, epoch, offset) -> how the samples of that global batch are mixed."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from imgdata.augment import philox
from imgdata.augment.philox import Stream
from imgdata.recipes.ops import CutMix, MixUp, MixUpOrCutMix
from imgdata.recipes.recipe import Recipe

_TRIES = 16
"""Draws for the gamma distribution; each is accepted with more than 95%, so all fail once in 10**20 batches."""
GAMMA_DRAWS = 1 + 3 * _TRIES
"""Numbers in [0, 1) that one from a gamma distribution needs."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class MixParams:
    """How a batch is mixed: a label counts `lam` for the own class and `1 - lam` for the partner's."""

    kind: Literal["none", "mixup", "cutmix"]
    lam: float
    """Share of the own picture: its weight (mixup), or its area (cutmix; that of `box_4` exactly); 1 for none."""
    box_4: tuple[int, int, int, int]
    """(left, top, width, height) in the output that the partner fills; all 0 unless cutmix."""
    partner_N: NDArray[np.int64]
    """Row of each sample's partner in this rank's batch; the own row for none."""


def mix_params(recipe: Recipe, count: int, *, seed: int, epoch: int, offset: int) -> MixParams:
    """Return how `count` samples, a rank's part of a global batch, are mixed; all ranks have the same `lam` and box.

    `offset` says which batch: how many samples of the epoch came before it, as for `imgdata.order.epoch_order`.

    Partners are neighbours, rows 0 and 1, 2 and 3, ...: batches are shuffled already, and so the same samples are mixed
    at any world size, as long as each rank's part is even. The last three of an odd number go round in a circle.
    """
    op = recipe.find(MixUp) or recipe.find(CutMix) or recipe.find(MixUpOrCutMix)
    none = MixParams(kind="none", lam=1.0, box_4=(0, 0, 0, 0), partner_N=np.arange(count))
    if op is None:
        return none
    draws = 4 + 2 * GAMMA_DRAWS
    draw_D = philox.uniform(seed, epoch, np.array([offset]), Stream.MIX, draws)[0]
    if draw_D[0] >= op.p:
        return none
    if isinstance(op, MixUpOrCutMix):
        cut = bool(draw_D[1] < op.cutmix_p)
        alpha = op.cutmix_alpha if cut else op.mixup_alpha
    else:
        cut, alpha = isinstance(op, CutMix), op.alpha
    lam = beta(alpha, draw_D[4:])
    if not cut:
        return MixParams(kind="mixup", lam=lam, box_4=(0, 0, 0, 0), partner_N=partners(count))
    height, width = recipe.output_size(epoch)
    box_4 = cut_box(lam, height, width, draw_D[2:4])
    lam = 1.0 - box_4[2] * box_4[3] / (width * height)
    return MixParams(kind="cutmix", lam=lam, box_4=box_4, partner_N=partners(count))


def partners(count: int) -> NDArray[np.int64]:
    """Return a permutation of `range(count)`, int64 `(N,)`, that swaps neighbours; only a single one stays."""
    partner_N = np.arange(count) ^ 1
    if count % 2:
        partner_N[-3:] = np.roll(np.arange(count)[-3:], 1)
    return partner_N


def cut_box(lam: float, height: int, width: int, draw_2: NDArray[np.float64]) -> tuple[int, int, int, int]:
    """Return (left, top, width, height) of the share `1 - lam` about a random pixel, what sticks out cut off.

    Yun et al., "CutMix", 2019; the rounding is that of torchvision's `v2.CutMix`. `draw_2` are draws of x and y.
    """
    half = 0.5 * math.sqrt(1.0 - lam)
    x, half_width = int(draw_2[0] * width), int(half * width)
    y, half_height = int(draw_2[1] * height), int(half * height)
    left, top = max(x - half_width, 0), max(y - half_height, 0)
    return left, top, min(x + half_width, width) - left, min(y + half_height, height) - top


def beta(alpha: float, draw_D: NDArray[np.float64]) -> float:
    """Return one number from Beta(alpha, alpha), in [0, 1], from 98 draws of [0, 1).

    X / (X + Y) with X, Y from Gamma(alpha), by way of their logarithms: for a small alpha both may be too small for a
    float.
    """
    x, y = (log_gamma_variate(alpha, draw_H) for draw_H in np.split(draw_D, 2))
    difference = y - x
    return 1.0 / (1.0 + math.exp(difference)) if difference < 700 else 0.0


def log_gamma_variate(alpha: float, draw_D: NDArray[np.float64]) -> float:
    """Return the logarithm of one number from Gamma(alpha, 1).

    Marsaglia and Tsang, "A simple method for generating gamma variables", 2000: for alpha + 1, times U**(1 / alpha),
    with normal numbers by Box and Muller. The first accepted of a fixed number of tries.
    """
    # 1 - draw is in (0, 1]: its logarithm is finite.
    boost, (radius_T, angle_T, accept_T) = 1.0 - draw_D[0], draw_D[1:].reshape(3, _TRIES)
    normal_T = np.sqrt(-2.0 * np.log(1.0 - radius_T)) * np.cos(2.0 * math.pi * angle_T)
    d = alpha + 1.0 - 1.0 / 3.0
    v_T = np.maximum(1.0 + normal_T / math.sqrt(9.0 * d), 0.0) ** 3
    log_v_T = np.log(np.maximum(v_T, 1e-300))
    accepted_T = (v_T > 0) & (np.log(1.0 - accept_T) < 0.5 * normal_T**2 + d - d * v_T + d * log_v_T)
    return math.log(d) + float(log_v_T[accepted_T.argmax()]) + math.log(boost) / alpha


def log_gamma_variates(alpha: float, draw_KGD: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what `log_gamma_variate` does for many at once: `(K, G)` of draws `(K, G, GAMMA_DRAWS)`."""
    boost_KG = 1.0 - draw_KGD[..., 0]
    radius_KGT, angle_KGT, accept_KGT = np.moveaxis(draw_KGD[..., 1:].reshape(*boost_KG.shape, 3, _TRIES), 2, 0)
    normal_KGT = np.sqrt(-2.0 * np.log(1.0 - radius_KGT)) * np.cos(2.0 * math.pi * angle_KGT)
    d = alpha + 1.0 - 1.0 / 3.0
    v_KGT = np.maximum(1.0 + normal_KGT / math.sqrt(9.0 * d), 0.0) ** 3
    log_v_KGT = np.log(np.maximum(v_KGT, 1e-300))
    limit_KGT = 0.5 * normal_KGT**2 + d - d * v_KGT + d * log_v_KGT
    accepted_KGT = (v_KGT > 0) & (np.log(1.0 - accept_KGT) < limit_KGT)
    first_KG1 = accepted_KGT.argmax(axis=2)[..., None]
    log_v_KG: NDArray[np.float64] = np.take_along_axis(log_v_KGT, first_KG1, axis=2)[..., 0]
    return math.log(d) + log_v_KG + np.log(boost_KG) / alpha
