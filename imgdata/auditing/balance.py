"""Labels of the splits -> how even the classes are, which are missing, what balancing and weights would do."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.finding import Finding
from imgdata.auditing.outcome import Outcome, Progress
from imgdata.auditing.samples import Samples
from imgdata.views.balance import balance, class_weights
from imgdata.views.view import View

WHAT = ("missing class", "few samples", "uneven classes")
FEW = 20
"""A class with fewer samples in a split that is trained on is named: five folds of it have under four each."""
UNEVEN = 10.0
"""Ratio of the largest to the smallest class from which a split is named as uneven."""
_TRAINED_ON = "train"


def find(samples: Samples, progress: Progress = lambda done, total: None) -> Outcome:
    """Return counts of each class in each split, classes that are missing or small, and what could be done.

    `figures`: `classes` (ids and names), `counts` (split -> samples of each class), for each split `ratio` (largest to
    smallest class that has any) and `effective_classes` (the exponential of the entropy: as how many equal classes they
    count), and `remedies`, what `--balance` and `--class-weights` make of the split that is trained on.
    """
    count_VC = np.array([_counts(view, len(samples.classes)) for view in samples.views])
    findings: list[Finding] = []
    splits: dict[str, Any] = {}
    trained = next((view for view in samples.views if view.split == _TRAINED_ON), samples.views[0])
    for view, count_C in zip(samples.views, count_VC, strict=True):
        used_C = count_C[count_C > 0]
        share_C = used_C / max(used_C.sum(), 1)
        splits[view.split] = {
            "samples": len(view.position_N),
            "labelled": int(count_C.sum()),
            "counts": count_C.tolist(),
            "ratio": float(used_C.max() / used_C.min()) if len(used_C) else 0.0,
            "effective_classes": math.exp(-(share_C * np.log(share_C)).sum()) if len(used_C) else 0.0,
        }
        if len(used_C):
            findings += _missing(samples, view, count_C, count_VC)
    count_C = count_VC[samples.views.index(trained)]
    findings += _small(samples, trained, count_C)
    if splits[trained.split]["ratio"] >= UNEVEN:
        findings.append(_uneven(samples, trained, count_C, splits[trained.split]))
    progress(1, 1)
    notes = () if count_VC.any() else ("no sample has a label: balance can't be looked at",)
    return Outcome(
        findings=tuple(findings),
        figures={
            "classes": [list(one) for one in samples.classes],
            "splits": splits,
            "remedies": _remedies(trained) if count_C.any() else {},
        },
        notes=notes,
    )


def _counts(view: View, classes: int) -> NDArray[np.int64]:
    return np.bincount(view.label_N[view.label_N >= 0], minlength=classes)


def _missing(samples: Samples, view: View, count_C: NDArray[np.int64], count_VC: NDArray[np.int64]) -> list[Finding]:
    # A class that no split has is named once, for the first of them.
    everywhere_C = count_VC.sum(0) == 0
    lacking_C = (count_C == 0) & (~everywhere_C | (view is samples.views[0]))
    found = []
    for label in np.flatnonzero(lacking_C).tolist():
        elsewhere = int(count_VC[:, label].sum())
        where = f"{view.split}, and {elsewhere:,} elsewhere" if elsewhere else "any split"
        found.append(
            Finding(
                kind="balance",
                what="missing class",
                place=None,
                score=1.0 if elsewhere else 0.9,
                label=samples.classes[label].id,
                message=f"class {samples.classes[label].name!r} has no sample in {where}",
                evidence={"samples": 0.0, "elsewhere": float(elsewhere)},
            )
        )
    return found


def _small(samples: Samples, view: View, count_C: NDArray[np.int64]) -> list[Finding]:
    return [
        Finding(
            kind="balance",
            what="few samples",
            place=None,
            score=0.8 * (1 - int(count_C[label]) / FEW),
            label=samples.classes[label].id,
            message=f"class {samples.classes[label].name!r} has only {int(count_C[label]):,} samples in {view.split}",
            evidence={"samples": float(count_C[label])},
        )
        for label in np.flatnonzero((count_C > 0) & (count_C < FEW)).tolist()
    ]


def _uneven(samples: Samples, view: View, count_C: NDArray[np.int64], figures: dict[str, Any]) -> Finding:
    least, most = int(np.where(count_C > 0, count_C, count_C.max()).argmin()), int(count_C.argmax())
    ratio, effective = figures["ratio"], figures["effective_classes"]
    return Finding(
        kind="balance",
        what="uneven classes",
        place=None,
        score=min(1 - 1 / ratio, 0.85),
        message=f"{view.split}: {samples.classes[most].name!r} has {int(count_C[most]):,} samples and "
        f"{samples.classes[least].name!r} {int(count_C[least]):,}, {ratio:,.0f} times fewer; the classes "
        f"are as diverse as {effective:,.1f} equal ones; `imgdata train --balance` draws them evenly",
        evidence={"ratio": ratio, "effective_classes": effective},
    )


def _remedies(view: View) -> dict[str, Any]:
    """Return for each class: draws in a balanced epoch, how often each picture comes, and both kinds of weights."""
    count_C = _counts(view, len(view.classes))
    drawn_C = balance(view).drawn_C
    return {
        "split": view.split,
        "count": count_C.tolist(),
        "drawn": drawn_C.tolist(),
        "each": (drawn_C / np.maximum(count_C, 1)).tolist(),
        "balanced": class_weights(view, "balanced").tolist(),
        "effective": class_weights(view, "effective").tolist(),
    }
