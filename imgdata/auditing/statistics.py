"""Tests of significance and intervals, by drawing and by formula, on counts and ranks."""

import math

import numpy as np
from numpy.typing import NDArray

_DRAWS = 1000


def same_shares(count_GC: NDArray[np.int64], seed: int = 0) -> float:
    """Return how likely counts of G groups in C classes are as far apart where the groups differ by chance alone.

    The chi-square statistic against that of 1,000 seeded redistributions with the same sums (a permutation test, which
    holds for rare classes as well); never below 1/1001.
    """
    count_GC = count_GC[count_GC.sum(1) > 0][:, count_GC.sum(0) > 0]
    if min(count_GC.shape) < 2:
        return 1.0
    random = np.random.Generator(np.random.Philox(key=[seed, 0]))
    found = _chi_square(count_GC)
    sums_C, sizes = count_GC.sum(0), count_GC.sum(1)
    above = 0
    for _ in range(_DRAWS):
        left_C = sums_C.copy()
        rows = []
        for size in sizes[:-1].tolist():
            rows.append(random.multivariate_hypergeometric(left_C, size, method="marginals"))
            left_C = left_C - rows[-1]
        above += _chi_square(np.array([*rows, left_C])) >= found * (1 - 1e-12)
    return (above + 1) / (_DRAWS + 1)


def _chi_square(count_GC: NDArray[np.int64]) -> float:
    expected_GC = count_GC.sum(1, keepdims=True) * count_GC.sum(0, keepdims=True) / count_GC.sum()
    return float(((count_GC - expected_GC) ** 2 / expected_GC).sum())


def shares_apart(count_GC: NDArray[np.int64]) -> float:
    """Return the part of two groups' shares that differs, 0 to 1: half the sum of differences (total variation)."""
    share_GC = count_GC / np.maximum(count_GC.sum(1, keepdims=True), 1)
    return float(np.abs(share_GC[0] - share_GC[1]).sum() / 2)


def kolmogorov_smirnov(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float]:
    """Return the largest distance of two distribution functions, 0 to 1, and how likely it is by chance.

    The two-sample test with the asymptotic formula 2 sum (-1)^(k-1) exp(-2 k^2 n D^2), n = n1 n2 / (n1 + n2)
    (Smirnov, 1948), which is a bound for values that come several times.
    """
    one, other = np.sort(one[np.isfinite(one)]), np.sort(other[np.isfinite(other)])
    if not (len(one) and len(other)):
        return 0.0, 1.0
    every = np.concatenate([one, other])
    below_one = np.searchsorted(one, every, side="right") / len(one)
    below_other = np.searchsorted(other, every, side="right") / len(other)
    distance = float(np.abs(below_one - below_other).max())
    scaled = distance * math.sqrt(len(one) * len(other) / (len(one) + len(other)))
    if scaled < 0.2:
        # The series does not converge fast; the probability is 1 to many digits.
        return distance, 1.0
    likely = 2 * sum((-1) ** (k - 1) * math.exp(-2 * k * k * scaled * scaled) for k in range(1, 101))
    return distance, min(max(likely, 0.0), 1.0)


def wilson(right: float, total: float, z: float = 1.96) -> tuple[float, float]:
    """Return the interval of a share, 95 % for the default `z` (Wilson, 1927)."""
    if not total:
        return 0.0, 1.0
    share = right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def mutual_information(
    label_M: NDArray[np.integer], code_M: NDArray[np.integer], *, shuffles: int = 10, seed: int = 0
) -> tuple[float, float]:
    """Return what share of the labels' entropy a column tells, 0 to 1, and what it tells of shuffled labels.

    I(label; column) / H(label). Few samples in many bins seem to tell something by chance: the mean over `shuffles`
    seeded shuffles is the second figure, to be taken off the first.
    """
    entropy = _entropy(np.bincount(label_M))
    if not entropy:
        return 0.0, 0.0
    random = np.random.Generator(np.random.Philox(key=[seed, 1]))
    found = _information(label_M, code_M) / entropy
    chance = np.mean([_information(random.permutation(label_M), code_M) for _ in range(shuffles)]) / entropy
    return found, float(chance)


def _information(label_M: NDArray[np.integer], code_M: NDArray[np.integer]) -> float:
    width = int(code_M.max()) + 1
    joint = np.bincount(label_M.astype(np.int64) * width + code_M)
    return _entropy(np.bincount(label_M)) + _entropy(np.bincount(code_M)) - _entropy(joint)


def _entropy(count: NDArray[np.integer]) -> float:
    share = count[count > 0] / max(int(count.sum()), 1)
    return float(-(share * np.log2(share)).sum())


def ranks_apart(label_M: NDArray[np.integer], value_M: NDArray[np.float64], classes: int) -> NDArray[np.float64]:
    """Return how likely a value of each class is above one of all others, 0 to 1, `(C,)`: the area under the ROC curve.

    Ties count half (Mann-Whitney). NaN for a class without values, or the only one with any.
    """
    known_M = np.isfinite(value_M) & (label_M >= 0)
    label_K = label_M[known_M]
    _, place_K, count_U = np.unique(value_M[known_M], return_inverse=True, return_counts=True)
    # The mean rank, from 1, of equal values.
    rank_K = (np.cumsum(count_U) - (count_U - 1) / 2)[place_K]
    inside_C = np.bincount(label_K, minlength=classes)
    rank_C = np.bincount(label_K, rank_K, minlength=classes)
    outside_C = len(label_K) - inside_C
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((rank_C - inside_C * (inside_C + 1) / 2) / (inside_C * outside_C))
