"""Vectors, labels -> a ranked list of labels that may be wrong, with suggestions, and how far to trust the list."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.finding import Finding
from imgdata.auditing.neighbours import nearest, unit
from imgdata.auditing.outcome import Outcome, Progress
from imgdata.auditing.planted import TRUSTED, Planted, plant, suggestions, wrong_probability
from imgdata.auditing.probabilities import FOLDS, Probabilities, fold_of_samples, out_of_sample
from imgdata.auditing.probe import principal
from imgdata.auditing.samples import Samples
from imgdata.auditing.vectors import Vectors
from imgdata.errors import MissingExtraError

WHAT = ("other class",)
FEWEST = 50
"""Labelled samples that the check needs."""
_WRONG = 0.5
"""Probability of a wrong label from which a finding may propose another class."""
_UNTRUSTED = 0.4
"""Score of a finding of a list that can't be trusted, at most."""
_LISTED_AT_LEAST = 20
_LEAST = 0.01  # Beyond the estimated number of wrong labels, those that are wrong with less are not listed.
_NEIGHBOURS = 10
_TIE = 1e-6
"""What all of the ranked list takes of a score, at most: labels that are equally probable stay in its order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelErrors:
    """The labels of some samples, ranked."""

    row_R: NDArray[np.int64]
    """All rows, the most suspicious first."""
    wrong_N: NDArray[np.float64]
    """Probability that the label is wrong, by row."""
    suggested_N: NDArray[np.int64]
    """The most probable class but the label, by row."""
    certainty_N: NDArray[np.float32]
    """Its probability among all classes but the label, by row."""
    probabilities: Probabilities
    planted: Planted
    flagged: int
    """Labels that cleanlab's own rule takes for wrong."""


def rank_labels(
    point_ND: NDArray[np.float32],
    label_N: NDArray[np.int32],
    num_classes: int,
    *,
    same_N: NDArray[np.uint64] | None = None,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> LabelErrors:
    """Return the labels ranked by cleanlab's self-confidence, the probability that out of sample the label itself has.

    Args:
        point_ND: Features, as `principal` returns them.
        label_N: Class index of each sample; each class has two or more.
        num_classes: Number of classes.
        same_N: Equal for copies of one picture, which are kept in one fold.
        seed: Seed of folds and flipped labels.
        progress: Gets how many fits are done, and of how many.

    Raises:
        MissingExtraError: cleanlab or scikit-learn is not installed.
    """
    quality, issues = _cleanlab()
    fold_N = fold_of_samples(label_N, same_N, folds=min(FOLDS, len(label_N)), seed=seed)
    told = _Told(progress)
    found = out_of_sample(point_ND, label_N, fold_N, num_classes, seed=seed, progress=told.first)
    planted = plant(point_ND, label_N, fold_N, found, seed=seed, progress=told.second)
    probability_NC = found.probability_NC
    confidence_N = quality(label_N, probability_NC, method="self_confidence")
    suggested_N, certainty_N = suggestions(probability_NC, label_N)
    return LabelErrors(
        row_R=np.argsort(confidence_N, kind="stable"),
        wrong_N=wrong_probability(planted, confidence_N),
        suggested_N=suggested_N,
        certainty_N=certainty_N,
        probabilities=found,
        planted=planted,
        flagged=int(issues(label_N, probability_NC, n_jobs=1).sum()) if len(np.unique(label_N)) == num_classes else 0,
    )


def find(
    samples: Samples,
    vectors: Vectors,
    progress: Progress = lambda done, total: None,
    *,
    seed: int = 0,
    budget: int | None = None,
) -> Outcome:
    """Return the labels that may be wrong, the surest first; what can't be checked is named in the notes.

    Args:
        samples: The samples.
        vectors: Their vectors.
        progress: Gets how many fits are done, and of how many.
        seed: Seed of folds and flipped labels.
        budget: Findings at most; None: twice the estimated number of wrong labels, at least 20; beyond that
            number only those that are wrong with at least 1 %.

    Raises:
        MissingExtraError: cleanlab or scikit-learn is not installed.
    """
    usable_K, class_U, notes = _usable(samples, vectors)
    if len(class_U) < 2 or len(usable_K) < FEWEST:
        return Outcome(findings=(), figures={"checked": 0, "features": vectors.what}, notes=tuple(notes))
    number_N = vectors.number_K[usable_K]
    label_N = np.searchsorted(class_U, samples.label_M[number_N]).astype(np.int32)
    point_ND = principal(vectors.vector_KD if len(usable_K) == len(vectors.number_K) else vectors.vector_KD[usable_K])
    same_N = samples.byte_hashes()[number_N]
    ranked = rank_labels(point_ND, label_N, len(class_U), same_N=same_N, seed=seed, progress=progress)
    planted = ranked.planted
    wrong = round(planted.share * len(label_N))
    count = min(max(2 * wrong, _LISTED_AT_LEAST) if budget is None else budget, len(label_N))
    # Of a list that nobody can trust a few show why.
    count = count if planted.trusted or budget is not None else min(count, _LISTED_AT_LEAST)
    row_L = ranked.row_R[:count]
    if planted.trusted and budget is None:
        row_L = row_L[(np.arange(count) < wrong) | (ranked.wrong_N[row_L] >= _LEAST)]
    findings = _findings(samples, ranked, row_L, number_N, label_N, class_U, point_ND)
    return Outcome(
        findings=tuple(findings),
        figures=_figures(ranked, vectors, len(label_N), row_L, wrong),
        notes=(*_said(ranked, vectors, len(label_N)), *notes),
    )


def _usable(samples: Samples, vectors: Vectors) -> tuple[NDArray[np.int64], NDArray[np.int32], list[str]]:
    """Return which vectors have a label that can be checked, the classes of these, and what is left out, in words."""
    label_K = samples.label_M[vectors.number_K]
    count_C = np.bincount(label_K[label_K >= 0], minlength=len(samples.classes))
    class_U = np.flatnonzero(count_C >= 2).astype(np.int32)
    usable_K = np.flatnonzero(np.isin(label_K, class_U))
    notes = []
    without = int((label_K < 0).sum())
    if without == len(label_K):
        return usable_K, class_U, ["Wrong labels were not looked for: no sample has a label."]
    if without:
        notes.append(f"{without:,} samples have no label to check.")
    single = [samples.classes[one].name for one in np.flatnonzero(count_C == 1)]
    if single:
        notes.append(
            f"{len(single):,} {'class has' if len(single) == 1 else 'classes have'} a single sample, whose label can't "
            f"be checked: {_listed(single)}."
        )
    missing = len(samples) - len(vectors.number_K)
    if missing:
        notes.append(f"{missing:,} images can't be decoded, so their labels were not checked.")
    if len(class_U) < 2:
        notes.insert(
            0, f"Wrong labels were not looked for: two classes with two samples each are needed, got {len(class_U)}."
        )
    elif len(usable_K) < FEWEST:
        notes.insert(0, f"Wrong labels were not looked for: {FEWEST} labelled samples are needed, got {len(usable_K)}.")
    return usable_K, class_U, notes


def _findings(
    samples: Samples,
    ranked: LabelErrors,
    row_L: NDArray[np.int64],
    number_N: NDArray[np.int64],
    label_N: NDArray[np.int32],
    class_U: NDArray[np.int32],
    point_ND: NDArray[np.float32],
) -> list[Finding]:
    neighbour_LK, _ = nearest(unit(point_ND), row_L, _NEIGHBOURS)
    around_LK = label_N[neighbour_LK]
    places = samples.places(number_N[row_L])
    findings = []
    for rank, (row, place) in enumerate(zip(row_L.tolist(), places, strict=True)):
        given, suggested = int(label_N[row]), int(ranked.suggested_N[row])
        wrong, certainty = float(ranked.wrong_N[row]), float(ranked.certainty_N[row])
        label, other = samples.classes[class_U[given]], samples.classes[class_U[suggested]]
        as_given, as_other = ((around_LK[rank] == one).mean() for one in (given, suggested))
        trusted = ranked.planted.trusted
        score = wrong if trusted else min(wrong, _UNTRUSTED)
        sure = f"the label is wrong with a probability of {wrong:.0%}" if trusted else "this list can't be trusted"
        relabels = trusted and wrong >= _WRONG and certainty >= ranked.planted.relabel_from
        findings.append(
            Finding(
                kind="label",
                what=WHAT[0],
                place=place,
                score=max(0.0, score - _TIE * rank / len(label_N)),
                message=f"{place.source} is labelled {label.name} and looks like {other.name}: {sure}.",
                evidence={
                    "wrong": wrong,
                    "label's probability": float(ranked.probabilities.probability_NC[row, given]),
                    "suggested's probability": float(ranked.probabilities.probability_NC[row, suggested]),
                    "neighbours of the label": float(as_given),
                    "neighbours of the suggested class": float(as_other),
                    "rank": rank + 1,
                },
                proposal="relabel" if relabels else "look",
                label=other.id,
            )
        )
    return findings


def _figures(
    ranked: LabelErrors, vectors: Vectors, checked: int, row_L: NDArray[np.int64], wrong: int
) -> dict[str, Any]:
    planted = ranked.planted
    return {
        "checked": checked,
        "listed": len(row_L),
        "features": vectors.what,
        "tried": [{"features": what, "accuracy": accuracy} for what, accuracy in vectors.tried],
        "accuracy": ranked.probabilities.accuracy,
        "temperature": ranked.probabilities.temperature,
        "penalty": ranked.probabilities.penalty,
        "wrong": wrong,
        "share": planted.share,
        "share_error": planted.share_error,
        "expected_right_in_list": float(ranked.wrong_N[row_L].mean()) if len(row_L) else 0.0,
        "flipped": planted.flipped,
        "found": planted.found,
        "top": planted.top,
        "restored": planted.restored,
        "chance": planted.chance,
        "trusted": planted.trusted,
        "flagged_by_cleanlab": ranked.flagged,
    }


def _said(ranked: LabelErrors, vectors: Vectors, checked: int) -> list[str]:
    planted, found = ranked.planted, ranked.probabilities
    notes = [
        f"Of {planted.flipped:,} labels that were flipped to measure this, {planted.found:,} stand in the top "
        f"{planted.top:,}; for {planted.restored:.0%} of these the class before is the suggested one.",
        f"Labels were checked by a linear probe on {vectors.what}, which is right on {found.accuracy:.1%} of "
        f"{checked:,} samples that it was not fitted to.",
    ]
    if planted.trusted:
        notes.append(
            f"About {planted.share:.1%} of the labels are wrong (+-{planted.share_error:.1%}); where the probe is poor "
            "that is too many."
        )
    else:
        notes.insert(
            0,
            f"The list of wrong labels can't be trusted: {planted.recall:.0%} of the flipped labels were found, chance "
            f"finds {planted.chance:.0%}, and {TRUSTED:.0%} more are needed; give a network that was trained on such "
            "pictures.",
        )
    if vectors.seen_splits:
        notes.append(
            f"The network was trained on the labels of {', '.join(vectors.seen_splits)}: wrong ones that it learnt by "
            "heart are not found, and flipped ones, which it never saw, are found more easily than those. Frozen "
            "features, without a run, don't have this fault."
        )
    return notes


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def _cleanlab() -> Any:
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"finding wrong labels needs {error.name}: pip install 'imgdata[audit]'") from error
    return get_label_quality_scores, find_label_issues


class _Told:
    """Counts the fits of both rounds as one."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._before = 0

    def first(self, done: int, total: int) -> None:
        """Report a fit of the first round; the second has one for each fold."""
        self._before = total
        self._progress(done, total + FOLDS)

    def second(self, done: int, total: int) -> None:
        """Report a fit of the second round."""
        self._progress(self._before + done, self._before + total)
