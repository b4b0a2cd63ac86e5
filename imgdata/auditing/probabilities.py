"""Features, labels -> each sample's probabilities by a probe that was fitted to other samples: k-fold."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.probe import PENALTIES, fit_probe, fit_temperature, log_loss, softmax

FOLDS = 5
_TRIED = 20_000
"""Samples by which the penalty is chosen, at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Probabilities:
    """What a probe says of each sample that it was not fitted to."""

    probability_NC: NDArray[np.float32]
    """Calibrated probabilities, float32 `(N, C)`."""
    accuracy: float
    """Share of the samples whose most probable class is their label, wrong labels included."""
    temperature: float
    """Temperature that the logits were divided by."""
    penalty: float
    """Factor of the squared weights."""


def fold_of_samples(
    label_N: NDArray[np.int32], same_N: NDArray[np.uint64] | None = None, *, folds: int = FOLDS, seed: int = 0
) -> NDArray[np.int32]:
    """Return the fold of each sample, int32 `(N,)`: classes are spread evenly, equal values of `same_N` stay together.

    A copy of a picture in another fold would bring its own, perhaps wrong, label along.
    """
    order_N = np.random.Generator(np.random.Philox(key=[seed, 3])).permutation(len(label_N))
    order_N = order_N[np.argsort(label_N[order_N], kind="stable")]
    fold_N = np.empty(len(label_N), np.int32)
    fold_N[order_N] = np.arange(len(label_N)) % folds
    if same_N is not None:
        _, first_U, which_N = np.unique(same_N, return_index=True, return_inverse=True)
        fold_N = fold_N[first_U[which_N]]
    return fold_N


def out_of_sample(
    point_ND: NDArray[np.float32],
    label_N: NDArray[np.int32],
    fold_N: NDArray[np.int32],
    num_classes: int,
    *,
    penalty: float | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Probabilities:
    """Return the probabilities of each sample by the probe that was fitted to the other folds.

    Args:
        point_ND: Features, as `principal` returns them.
        label_N: Class index of each sample.
        fold_N: Fold of each sample.
        num_classes: Number of classes.
        penalty: Factor of the squared weights; None: that of `PENALTIES` with the least loss on the first fold.
        seed: Seed of what is drawn of too many samples.
        progress: Gets how many fits are done, and of how many.
    """
    folds = int(fold_N.max()) + 1
    penalties = PENALTIES if penalty is None else ()
    fits = len(penalties) + folds
    if penalty is None:
        penalty = _best_penalty(point_ND, label_N, fold_N, num_classes, seed, lambda done: progress(done, fits))
    logit_NC = np.zeros((len(point_ND), num_classes), np.float32)
    for fold in range(folds):
        out_N = fold_N == fold
        probe = fit_probe(point_ND[~out_N], label_N[~out_N], num_classes, penalty, seed)
        logit_NC[out_N] = probe.logits(point_ND[out_N])
        progress(len(penalties) + fold + 1, fits)
    temperature = fit_temperature(logit_NC, label_N)
    return Probabilities(
        probability_NC=softmax(logit_NC, temperature),
        accuracy=float((logit_NC.argmax(1) == label_N).mean()),
        temperature=temperature,
        penalty=penalty,
    )


def _best_penalty(
    point_ND: NDArray[np.float32],
    label_N: NDArray[np.int32],
    fold_N: NDArray[np.int32],
    num_classes: int,
    seed: int,
    told: Callable[[int], None],
) -> float:
    drawn_N = np.arange(len(point_ND))
    if len(point_ND) > _TRIED:
        generator = np.random.Generator(np.random.Philox(key=[seed, 4]))
        drawn_N = np.sort(generator.choice(len(point_ND), _TRIED, replace=False))
    point_TD, label_T, out_T = point_ND[drawn_N], label_N[drawn_N], fold_N[drawn_N] == 0
    losses = []
    for number, penalty in enumerate(PENALTIES, 1):
        probe = fit_probe(point_TD[~out_T], label_T[~out_T], num_classes, penalty, seed)
        logit_OC = probe.logits(point_TD[out_T])
        losses.append(log_loss(logit_OC, label_T[out_T], fit_temperature(logit_OC, label_T[out_T])))
        told(number)
    return PENALTIES[int(np.argmin(losses))]
