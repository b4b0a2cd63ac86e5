"""Labels, a probe -> some labels flipped by ourselves, fitted once more: how well wrong labels are found, measured."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.probabilities import Probabilities, out_of_sample
from imgdata.errors import MissingExtraError

SHARE = 0.04
"""Share of the labels that is flipped; at least `FEWEST` of them, at most `MOST`, and no more than a twentieth."""
FEWEST, MOST = 100, 2000
TRUSTED = 0.5
"""Share of the flipped labels that must be found beyond those of a list by chance; else the list can't be trusted."""
_BOOTSTRAPS = 200
_LEAST = 0.2
"""Share of the flipped labels below a limit that the estimate may go by, at least."""


RELABEL = 0.9
"""Share of suggestions that must be right for the audit to propose them; else: look."""
_FEW = 10
"""Flipped labels from which that share can be told."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Planted:
    """What became of the labels that were flipped."""

    flipped: int
    """Number of flipped labels."""
    found: int
    """Number of these among the first `top` of the ranked list."""
    top: int
    """Twice the flipped labels, and as many as were found to be wrong before: these take places as well."""
    confidence_F: NDArray[np.float32]
    """Probability of the label, for each flipped one, float32 `(F,)`."""
    confidence_O: NDArray[np.float32]
    """Probability of the label, for each other sample, float32 `(N - F,)`."""
    restored: float
    """Share of the flipped labels in the top whose label before is the suggested one."""
    relabel_from: float
    """Certainty of the suggested class from which it is the right one often enough; infinite where it never is."""
    share: float
    """Estimated share of wrong labels in the dataset, before any was flipped."""
    share_error: float
    """Half the width of its 95 % interval."""

    @property
    def recall(self) -> float:
        """Share of the flipped labels that are found."""
        return self.found / self.flipped

    @property
    def chance(self) -> float:
        """Share of the flipped labels that are in as long a list by chance."""
        return self.top / (len(self.confidence_F) + len(self.confidence_O))

    @property
    def trusted(self) -> bool:
        """Whether enough flipped labels are found."""
        return self.recall - self.chance >= TRUSTED


def plant(
    point_ND: NDArray[np.float32],
    label_N: NDArray[np.int32],
    fold_N: NDArray[np.int32],
    before: Probabilities,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Planted:
    """Flip some labels, fit the probe once more with the same penalty, and look where they are in the ranked list.

    A label becomes that of another class, half of the time any, half of the time as often as the probe takes the one
    class for the other: people mistake classes that are alike more often than others.
    """
    num_classes = before.probability_NC.shape[1]
    row_F, label_F = flips(label_N, before.probability_NC, seed)
    planted_N = label_N.copy()
    planted_N[row_F] = label_F
    after = out_of_sample(
        point_ND, planted_N, fold_N, num_classes, penalty=before.penalty, seed=seed, progress=progress
    )
    confidence_N = after.probability_NC[np.arange(len(label_N)), planted_N]
    flipped_N = np.zeros(len(label_N), np.bool_)
    flipped_N[row_F] = True
    confidence_F, confidence_O = confidence_N[row_F], confidence_N[~flipped_N]
    share, share_error = share_of_wrong(confidence_F, confidence_O, seed)
    top = min(2 * len(row_F) + round(share * len(label_N)), len(label_N))
    in_top_N = np.zeros(len(label_N), np.bool_)
    in_top_N[np.argsort(confidence_N, kind="stable")[:top]] = True
    found_F = in_top_N[row_F]
    suggested_F, certainty_F = suggestions(after.probability_NC[row_F], label_F)
    right_F = suggested_F == label_N[row_F]
    return Planted(
        flipped=len(row_F),
        found=int(found_F.sum()),
        top=top,
        confidence_F=confidence_F,
        confidence_O=confidence_O,
        restored=float(right_F[found_F].mean()) if found_F.any() else 0.0,
        relabel_from=_relabel_from(certainty_F[found_F], right_F[found_F], share),
        share=share,
        share_error=share_error,
    )


def suggestions(
    probability_NC: NDArray[np.float32], label_N: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the most probable class but the label, and its probability among all but the label, `(N,)` each."""
    row_N = np.arange(len(label_N))
    others_NC = probability_NC.copy()
    others_NC[row_N, label_N] = 0
    suggested_N = others_NC.argmax(1)
    return suggested_N, others_NC[row_N, suggested_N] / np.maximum(others_NC.sum(1), np.float32(1e-12))


def _relabel_from(certainty_F: NDArray[np.float32], right_F: NDArray[np.bool_], share: float) -> float:
    """Return the least certainty from which suggestions are right in `RELABEL` of the cases.

    A suggestion that is not the label before counts as wrong, though that label was wrong itself with the probability
    `share`: the share of right ones is taken of the others alone.
    """
    order = np.argsort(-certainty_F, kind="stable")
    right = np.cumsum(right_F[order]) / np.arange(1, len(order) + 1) / max(1 - share, 1e-9)
    enough = np.flatnonzero((right >= RELABEL) & (np.arange(1, len(order) + 1) >= _FEW))
    return float(certainty_F[order[enough[-1]]]) if len(enough) else float("inf")


def flips(
    label_N: NDArray[np.int32], probability_NC: NDArray[np.float32], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return rows whose labels are flipped, ascending, and their new labels."""
    samples, num_classes = probability_NC.shape
    count = max(1, min(max(round(SHARE * samples), FEWEST), MOST, samples // 20))
    generator = np.random.Generator(np.random.Philox(key=[seed, 6]))
    row_F = np.sort(generator.choice(samples, count, replace=False))
    there_C = np.bincount(label_N, minlength=num_classes) > 0
    mistaken_CC = np.zeros((num_classes, num_classes))
    np.add.at(mistaken_CC, label_N, probability_NC)
    label_F = np.empty(count, np.int32)
    for number, row in enumerate(row_F.tolist()):
        others_C = there_C.copy()
        others_C[label_N[row]] = False
        alike_C = np.where(others_C, mistaken_CC[label_N[row]], 0)
        weight_C = others_C / others_C.sum() + (alike_C / alike_C.sum() if alike_C.sum() > 0 else 0)
        label_F[number] = generator.choice(num_classes, p=weight_C / weight_C.sum())
    return row_F, label_F


def share_of_wrong(
    confidence_F: NDArray[np.float32], confidence_O: NDArray[np.float32], seed: int = 0
) -> tuple[float, float]:
    """Return the estimated share of wrong labels, and half the width of its 95 % interval.

    Below any limit stand at least the wrong labels' share times the share of flipped labels below it. So the least
    quotient of the two shares, over the limits below which a fifth of the flipped labels stand or more, is the estimate
    (a mixture's proportion as of Blanchard, Lee and Scott, 2010): exact where some wrong labels look like no right one,
    too high where the probe is poor. 200 bootstraps of both give the interval, and
    by how much the least of several noisy quotients is too low, which is added.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, 7]))
    sorted_O = np.sort(confidence_O)
    share = _least_quotient(np.sort(confidence_F), sorted_O)
    drawn = []
    for _ in range(_BOOTSTRAPS):
        again_F = np.sort(generator.choice(confidence_F, len(confidence_F)))
        # Of the others what counts is how many stand below a limit, which is all but a Poisson number.
        drawn.append(_least_quotient(again_F, sorted_O, generator))
    return max(0.0, 2 * share - float(np.mean(drawn))), float(1.96 * np.std(drawn))


def wrong_probability(planted: Planted, confidence_N: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the probability that each label is wrong, float64 `(N,)`, falling with its confidence.

    It is the share of wrong labels times the density of flipped ones at this confidence, over the density of all;
    their quotient by isotonic regression. Raises `MissingExtraError`.
    """
    try:
        from sklearn.isotonic import IsotonicRegression
    except ModuleNotFoundError as error:
        raise MissingExtraError("finding wrong labels needs scikit-learn: pip install 'imgdata[audit]'") from error
    if planted.share <= 0:
        return np.zeros(len(confidence_N))
    confidence = np.concatenate([planted.confidence_F, planted.confidence_O]).astype(np.float64)
    flipped = np.repeat([1.0, 0.0], [len(planted.confidence_F), len(planted.confidence_O)])
    weight = np.where(flipped == 1, planted.share / len(planted.confidence_F), 1 / len(planted.confidence_O))
    rule = IsotonicRegression(increasing=False, y_min=0, y_max=1, out_of_bounds="clip")
    part_N = rule.fit(confidence, flipped, weight / weight.sum() * len(weight)).predict(confidence_N.astype(np.float64))
    return np.asarray(np.minimum(part_N / np.maximum(1 - part_N, 1e-9), 1.0), np.float64)


def _least_quotient(
    sorted_F: NDArray[np.float32], sorted_O: NDArray[np.float32], generator: np.random.Generator | None = None
) -> float:
    limit_L = sorted_F[max(0, int(np.ceil(_LEAST * len(sorted_F))) - 1) :]
    below_F = np.searchsorted(sorted_F, limit_L, side="right") / len(sorted_F)
    below_O = np.searchsorted(sorted_O, limit_L, side="right").astype(np.float64)
    if generator is not None:
        # One draw for each stretch between limits, so that the counts rise together.
        below_O = np.cumsum(generator.poisson(np.diff(below_O, prepend=0).clip(0)))
    return float(min(1.0, (below_O / len(sorted_O) / below_F).min()))
