"""A policy, its draws -> which operations are done to each sample, and how strongly.

The spaces of operations, the strengths and the sub-policies are the published ones, in the form that torchvision gives
them (`torchvision.transforms.v2`): RandAugment arXiv 1909.13719, TrivialAugment arXiv 2103.10158 (the wide space),
AutoAugment arXiv 1805.09501.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgdata.recipes.ops import AutoAugment, RandAugment, TrivialAugment

Policy = RandAugment | TrivialAugment | AutoAugment

OPS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
    "Invert",
)
"""Operations by number. Strengths, with their sign: ShearX and ShearY are the tangent of the angle, with the upper left
corner fixed; TranslateX and TranslateY whole pixels to the right and down, after their fraction is cut off; Rotate
degrees counter-clockwise; Brightness, Color (saturation), Contrast and Sharpness have the factor 1 + strength;
Posterize keeps that many bits; Solarize inverts values from 255 * strength on. The others have none: it is 0."""

_SIGNED = frozenset(OPS[1:10])
# All but Invert, which only learned policies use.
_RANDOM_OPS = len(OPS) - 1
_AUTO_BINS = 10

# Operation, probability and strength (of 10 bins, if it has one) of the two operations of each sub-policy.
_AUTO_TEXT = {
    "imagenet": """
        Posterize 0.4 8, Rotate 0.6 9; Solarize 0.6 5, AutoContrast 0.6; Equalize 0.8, Equalize 0.6;
        Posterize 0.6 7, Posterize 0.6 6; Equalize 0.4, Solarize 0.2 4; Equalize 0.4, Rotate 0.8 8;
        Solarize 0.6 3, Equalize 0.6; Posterize 0.8 5, Equalize 1.0; Rotate 0.2 3, Solarize 0.6 8;
        Equalize 0.6, Posterize 0.4 6; Rotate 0.8 8, Color 0.4 0; Rotate 0.4 9, Equalize 0.6;
        Equalize 0.0, Equalize 0.8; Invert 0.6, Equalize 1.0; Color 0.6 4, Contrast 1.0 8;
        Rotate 0.8 8, Color 1.0 2; Color 0.8 8, Solarize 0.8 7; Sharpness 0.4 7, Invert 0.6;
        ShearX 0.6 5, Equalize 1.0; Color 0.4 0, Equalize 0.6; Equalize 0.4, Solarize 0.2 4;
        Solarize 0.6 5, AutoContrast 0.6; Invert 0.6, Equalize 1.0; Color 0.6 4, Contrast 1.0 8;
        Equalize 0.8, Equalize 0.6""",
    "cifar10": """
        Invert 0.1, Contrast 0.2 6; Rotate 0.7 2, TranslateX 0.3 9; Sharpness 0.8 1, Sharpness 0.9 3;
        ShearY 0.5 8, TranslateY 0.7 9; AutoContrast 0.5, Equalize 0.9; ShearY 0.2 7, Posterize 0.3 7;
        Color 0.4 3, Brightness 0.6 7; Sharpness 0.3 9, Brightness 0.7 9; Equalize 0.6, Equalize 0.5;
        Contrast 0.6 7, Sharpness 0.6 5; Color 0.7 7, TranslateX 0.5 8; Equalize 0.3, AutoContrast 0.4;
        TranslateY 0.4 3, Sharpness 0.2 6; Brightness 0.9 6, Color 0.2 8; Solarize 0.5 2, Invert 0.0;
        Equalize 0.2, AutoContrast 0.6; Equalize 0.2, Equalize 0.6; Color 0.9 9, Equalize 0.6;
        AutoContrast 0.8, Solarize 0.2 8; Brightness 0.1 3, Color 0.7 0; Solarize 0.4 5, AutoContrast 0.9;
        TranslateY 0.9 9, TranslateY 0.7 9; AutoContrast 0.9, Solarize 0.8 3; Equalize 0.8, Invert 0.1;
        TranslateY 0.7 9, AutoContrast 0.9""",
    "svhn": """
        ShearX 0.9 4, Invert 0.2; ShearY 0.9 8, Invert 0.7; Equalize 0.6, Solarize 0.6 6;
        Invert 0.9, Equalize 0.6; Equalize 0.6, Rotate 0.9 3; ShearX 0.9 4, AutoContrast 0.8;
        ShearY 0.9 8, Invert 0.4; ShearY 0.9 5, Solarize 0.2 6; Invert 0.9, AutoContrast 0.8;
        Equalize 0.6, Rotate 0.9 3; ShearX 0.9 4, Solarize 0.3 3; ShearY 0.8 8, Invert 0.7;
        Equalize 0.9, TranslateY 0.6 6; Invert 0.9, Equalize 0.6; Contrast 0.3 3, Rotate 0.8 4;
        Invert 0.8, TranslateY 0.0 2; ShearY 0.7 6, Solarize 0.4 8; Invert 0.6, Rotate 0.8 4;
        ShearY 0.3 7, TranslateX 0.9 3; ShearX 0.1 6, Invert 0.6; Solarize 0.7 2, TranslateY 0.6 7;
        ShearY 0.8 4, Invert 0.8; ShearX 0.7 9, TranslateY 0.8 3; ShearY 0.8 5, AutoContrast 0.7;
        ShearX 0.7 2, Invert 0.1""",
}


class SubPolicies(NamedTuple):
    """The learned policy of a dataset, as arrays `(25, 2)`: sub-policies, their two operations."""

    op_S2: NDArray[np.int64]
    """Number in `OPS`."""
    probability_S2: NDArray[np.float64]
    bin_S2: NDArray[np.int64]
    """Strength from 0 to 9; 0 where the operation has none."""


@lru_cache
def sub_policies(policy: str) -> SubPolicies:
    """Return the 25 sub-policies of `imagenet`, `cifar10` or `svhn`."""
    steps = [
        [step.split() for step in sub_policy.split(",")]
        for sub_policy in _AUTO_TEXT[policy].replace("\n", " ").split(";")
    ]
    return SubPolicies(
        np.array([[OPS.index(step[0]) for step in pair] for pair in steps], np.int64),
        np.array([[float(step[1]) for step in pair] for pair in steps], np.float64),
        np.array([[int(step[2]) if len(step) > 2 else 0 for step in pair] for pair in steps], np.int64),
    )


@lru_cache(maxsize=64)
def strengths(bins: int, height: int, width: int, *, wide: bool) -> NDArray[np.float64]:
    """Return all strengths without sign, float64 `(len(OPS), bins)`, for pictures of `height` x `width` pixels.

    `wide`: the space of TrivialAugment; otherwise that of RandAugment and AutoAugment, whose shifts are shares of the
    picture (150 pixels of the 331 in the paper).
    """
    factor = 0.99 if wide else 0.9
    most = {
        "ShearX": 0.99 if wide else 0.3,
        "ShearY": 0.99 if wide else 0.3,
        "TranslateX": 32.0 if wide else 150.0 / 331.0 * width,
        "TranslateY": 32.0 if wide else 150.0 / 331.0 * height,
        "Rotate": 135.0 if wide else 30.0,
        **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), factor),
    }
    table = np.zeros((len(OPS), bins))
    for name, end in most.items():
        table[OPS.index(name)] = linear(0.0, end, bins)
    table[OPS.index("Solarize")] = linear(1.0, 0.0, bins)
    step = np.float32((bins - 1) / (6 if wide else 4))
    table[OPS.index("Posterize")] = np.rint(np.float32(8) - np.arange(bins, dtype=np.float32) / step)
    table.flags.writeable = False
    return table


def linear(start: float, end: float, bins: int) -> NDArray[np.float32]:
    """Return `bins` even steps in float32, from both ends to the middle, as `torch.linspace` makes them.

    Each product is summed before it is rounded (a fused multiply-add), for which float64 is wide enough. It matters: 15
    of 30 steps to 32 pixels are 15.999999, whose fraction is cut off.
    """
    step = np.float64((np.float32(end) - np.float32(start)) / np.float32(bins - 1))
    index = np.arange(bins)
    up, down = np.float32(start) + step * index, np.float32(end) - step * (bins - 1 - index)
    return np.where(index < bins // 2, up, down).astype(np.float32)


def slots(policy: Policy) -> int:
    """Return how many operations the policy does to a sample at most, P."""
    if isinstance(policy, RandAugment):
        return policy.n
    return 1 if isinstance(policy, TrivialAugment) else 2


def choose(
    policy: Policy, draw_PN4: NDArray[np.float64], height: int, width: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return each sample's operations, numbers in `OPS`, int64 `(N, P)`, and their signed strengths, float64 `(N, P)`.

    `draw_PN4` are numbers in [0, 1): which operation (of the first slot for AutoAugment: which sub-policy), which
    strength, which sign, and whether at all.
    """
    which_NP, bin_NP, sign_NP, whether_NP = (draw_PN4[:, :, word].T for word in range(4))
    if isinstance(policy, AutoAugment):
        table = sub_policies(policy.policy)
        row_N = _below(len(table.op_S2), which_NP[:, 0])
        done_NP = whether_NP < table.probability_S2[row_N]
        op_NP, level_NP = np.where(done_NP, table.op_S2[row_N], 0), table.bin_S2[row_N]
        strength = strengths(_AUTO_BINS, height, width, wide=False)
    else:
        op_NP = _below(_RANDOM_OPS, which_NP)
        wide = isinstance(policy, TrivialAugment)
        level_NP = _below(policy.bins, bin_NP) if wide else np.full_like(op_NP, getattr(policy, "m", 0))
        strength = strengths(policy.bins, height, width, wide=wide)
    signed = np.array([name in _SIGNED for name in OPS])
    sign_NP = np.where(signed[op_NP] & (sign_NP < 0.5), -1.0, 1.0)
    return op_NP, strength[op_NP, level_NP] * sign_NP


def _below(count: int, draw: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return integers from 0 to `count` - 1, each as likely."""
    return (draw * count).astype(np.int64)
