"""A view -> what each of its steps does: samples left out and why, labels that change."""

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from imgdata.dataset.dataset import Dataset
from imgdata.views.key_table import is_table, key_positions, rows_of_positions
from imgdata.views.saved import apply_steps
from imgdata.views.text import Step
from imgdata.views.view import View, whole


@dataclass(frozen=True, kw_only=True, slots=True)
class StepEffect:
    """What one step of a view does to the samples before it."""

    step: str
    """The step as text."""
    left_out: int
    """Samples that the step leaves out."""
    samples: int
    """Samples in an epoch after it."""
    reasons: Mapping[str, int]
    """Samples left out by reason, the most first, where the file of the step has a column `reason`."""
    relabelled: Mapping[tuple[str, str], int]
    """Samples by their class id before and after, the most first; `''` for none."""


def step_effects(dataset: Dataset, view: View) -> tuple[StepEffect, ...]:
    """Return what each step of the view does, in order."""
    before = whole(dataset, view.split)
    found = []
    for step in view.steps:
        after = replace(apply_steps(before, (step,)), steps=())
        found.append(
            StepEffect(
                step=str(step),
                left_out=len(before.position_N) - len(after.position_N),
                samples=len(after),
                reasons=_reasons(step, before),
                relabelled=_relabelled(before, after),
            )
        )
        before = after
    return tuple(found)


def _reasons(step: Step, before: View) -> dict[str, int]:
    if step.name != "exclude" or not is_table(step):
        return {}
    rows = csv.DictReader(io.StringIO((step.data or b"").decode("utf-8-sig"), newline=""))
    reason_of = {row["key"]: row.get("reason") or "" for row in rows}
    position_K = key_positions(before, list(reason_of), "exclude")
    reasons = list(reason_of.values())
    gone = Counter(reasons[row] for row in np.argsort(position_K).tolist() if _has(before, int(position_K[row])))
    return {} if set(gone) == {""} else dict(gone.most_common())


def _has(view: View, position: int) -> bool:
    if view.selection is not None:
        return len(view.selection.between(position, position + 1)) > 0
    return view.is_large or bool(rows_of_positions(view, np.array([position]))[1][0])


def _relabelled(before: View, after: View) -> dict[tuple[str, str], int]:
    was, now = ([*(one.id for one in view.classes), ""] for view in (before, after))
    if before.is_large:
        # Labels of so many samples never change.
        return {}
    kept_N = np.isin(before.position_N, after.position_N)
    pairs = zip(before.label_N[kept_N].tolist(), after.label_N.tolist(), strict=True)
    return dict(Counter((was[old], now[new]) for old, new in pairs if was[old] != now[new]).most_common())
