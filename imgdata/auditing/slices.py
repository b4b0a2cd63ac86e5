"""Columns, labels and predictions -> how many samples each slice has, and how well the network does on it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.columns import Column
from imgdata.auditing.finding import Finding
from imgdata.auditing.outcome import Outcome, Progress
from imgdata.auditing.samples import Samples
from imgdata.auditing.statistics import wilson

WHAT = ("weak slice",)
QUARTERS = 4
SURE = 3.0
"""Standard deviations by which a slice's accuracy must lie below that of all samples: rarer than 1 in 700 by chance."""
_FEW = 10


def find(
    samples: Samples,
    columns: Sequence[Column],
    predicted_M: NDArray[np.integer] | None = None,
    progress: Progress = lambda done, total: None,
) -> Outcome:
    """Return the slices of each column: the samples of a word, or of a quarter of the numbers.

    `predicted_M` is the class index that a network gives each sample, -1 for none, `(M,)`. Then slices come with their
    accuracy, the worst first by the upper end of its interval, so that a slice of three samples does not lead; a slice
    that is below the accuracy of all by three standard deviations is a finding.
    """
    scored_M = np.zeros(len(samples), bool) if predicted_M is None else (predicted_M >= 0) & (samples.label_M >= 0)
    right_M = np.zeros(len(samples), bool) if predicted_M is None else scored_M & (predicted_M == samples.label_M)
    rows: list[dict[str, Any]] = []
    for number, column in enumerate(columns):
        if column.varies():
            rows += _slices(column, scored_M, right_M)
        progress(number + 1, len(columns))
    overall = right_M.sum() / max(int(scored_M.sum()), 1)
    if scored_M.any():
        rows.sort(key=lambda row: (row["scored"] == 0, row["high"]))
    findings = [_finding(row, float(overall)) for row in rows if _is_weak(row, float(overall))]
    return Outcome(
        findings=tuple(findings),
        figures={"slices": rows, "accuracy": float(overall) if scored_M.any() else None},
        notes=() if predicted_M is not None else ("slices have no accuracy without --model",),
    )


def _slices(column: Column, scored_M: NDArray[np.bool_], right_M: NDArray[np.bool_]) -> list[dict[str, Any]]:
    code_M = column.codes(QUARTERS)
    rows = []
    for code in np.unique(code_M).tolist():
        inside_M = code_M == code
        right, scored = int((right_M & inside_M).sum()), int((scored_M & inside_M).sum())
        low, high = wilson(right, scored)
        rows.append(
            {
                "column": column.name,
                "slice": column.words[code] if column.words else _stretch(column.value_M[inside_M]),
                "samples": int(inside_M.sum()),
                "scored": scored,
                "accuracy": right / scored if scored else None,
                "low": low,
                "high": high,
            }
        )
    return rows


def _stretch(values: NDArray[np.float64]) -> str:
    known = values[np.isfinite(values)]
    if not len(known):
        return "none"
    low, high = float(known.min()), float(known.max())
    return f"{low:,.4g}" if low == high else f"{low:,.4g} to {high:,.4g}"


def _is_weak(row: dict[str, Any], overall: float) -> bool:
    if row["scored"] < _FEW:
        return False
    _, high = wilson(row["accuracy"] * row["scored"], row["scored"], SURE)
    return high < overall


def _finding(row: dict[str, Any], overall: float) -> Finding:
    return Finding(
        kind="bias",
        what="weak slice",
        place=None,
        score=min(overall - row["accuracy"], 1.0),
        message=f"{row['column']} {row['slice']}: the network is right in {row['accuracy']:.0%} of {row['scored']:,} "
        f"samples, and in {overall:.0%} of all",
        evidence={
            "accuracy": row["accuracy"],
            "low": row["low"],
            "high": row["high"],
            "samples": float(row["samples"]),
        },
    )
