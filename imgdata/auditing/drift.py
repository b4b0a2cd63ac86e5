"""Columns of two splits -> how far apart the splits are: classes, sizes, formats, brightness."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.columns import Column
from imgdata.auditing.finding import Finding
from imgdata.auditing.outcome import Outcome, Progress
from imgdata.auditing.samples import Samples
from imgdata.auditing.statistics import kolmogorov_smirnov, same_shares, shares_apart

WHAT = ("classes drift", "column drifts")
APART = 0.1
"""Splits whose classes, or a column's distribution, differ by less are called alike, however significant that is:
among a million samples every difference is."""
CHANCE = 0.01
"""A difference must be rarer than this by chance, divided by the number of comparisons (Bonferroni)."""


def find(samples: Samples, columns: Sequence[Column], progress: Progress = lambda done, total: None) -> Outcome:
    """Return which pairs of splits differ in their classes' shares, or in a column, more than chance explains.

    Classes and words: total variation distance, with a permutation test. Numbers: the two-sample Kolmogorov-Smirnov
    test. `figures["pairs"]` has all comparisons.
    """
    label = Column(
        name="class", value_M=samples.label_M.astype(np.float64), words=tuple(one.name for one in samples.classes)
    )
    compared = [label, *(column for column in columns if column.varies())]
    pairs = list(combinations(range(len(samples.views)), 2))
    rows = []
    for number, (one, other) in enumerate(pairs):
        for column in compared:
            rows.append(_compare(samples, column, one, other))
        progress(number + 1, len(pairs))
    found = [
        _finding(row) for row in rows if row["apart"] >= APART and row["chance"] < max(CHANCE / len(rows), 1 / 1000)
    ]
    return Outcome(findings=tuple(found), figures={"pairs": rows})


def _compare(samples: Samples, column: Column, one: int, other: int) -> dict[str, Any]:
    values = [column.value_M[samples.view_M == which] for which in (one, other)]
    if column.words:
        count_2C = np.array([_counted(value, len(column.words)) for value in values])
        apart, chance = (shares_apart(count_2C), same_shares(count_2C)) if count_2C.sum(1).all() else (0.0, 1.0)
    else:
        apart, chance = kolmogorov_smirnov(*values)
    return {
        "column": column.name,
        "one": samples.views[one].split,
        "other": samples.views[other].split,
        "apart": apart,
        "chance": chance,
        "medians": None if column.words else [_median(value) for value in values],
    }


def _counted(value: NDArray[np.float64], words: int) -> NDArray[np.int64]:
    return np.bincount(value[value >= 0].astype(np.int64), minlength=words)


def _median(value: NDArray[np.float64]) -> float | None:
    known = value[np.isfinite(value)]
    return float(np.median(known)) if len(known) else None


def _finding(row: dict[str, Any]) -> Finding:
    splits = f"{row['one']} and {row['other']}"
    if row["column"] == "class":
        message = f"{splits} have other shares of the classes: {row['apart']:.0%} of them differ"
    elif row["medians"] is None:
        message = f"{splits} differ in {row['column']}: {row['apart']:.0%} of the shares"
    else:
        low, high = row["medians"]
        message = f"{splits} differ in {row['column']}: medians {low:,.4g} and {high:,.4g}, {row['apart']:.0%} apart"
    return Finding(
        kind="balance",
        what="classes drift" if row["column"] == "class" else "column drifts",
        place=None,
        score=min(row["apart"], 1.0),
        message=message,
        evidence={"apart": row["apart"], "chance": row["chance"]},
    )
