"""A view -> what each of its steps does: samples left out and why, labels that change."""

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from imgdata.dataset.dataset import Dataset
from imgdata.views.key_table import is_table
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
        kept_N = np.isin(before.position_N, after.position_N)
        found.append(
            StepEffect(
                step=str(step),
                left_out=int((~kept_N).sum()),
                samples=len(after),
                reasons=_reasons(step, before, kept_N),
                relabelled=_relabelled(before, after, kept_N),
            )
        )
        before = after
    return tuple(found)


def _reasons(step: Step, before: View, kept_N: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> dict[str, int]:
    if step.name != "exclude" or not is_table(step):
        return {}
    rows = csv.DictReader(io.StringIO((step.data or b"").decode("utf-8-sig"), newline=""))
    reason_of = {row["key"]: row.get("reason") or "" for row in rows}
    keys = before.index.column("key").to_pylist()
    gone = Counter(reason_of.get(keys[at], "") for at in before.position_N[~kept_N].tolist())
    return {} if set(gone) == {""} else dict(gone.most_common())


def _relabelled(
    before: View, after: View, kept_N: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
) -> dict[tuple[str, str], int]:
    was, now = ([*(one.id for one in view.classes), ""] for view in (before, after))
    pairs = zip(before.label_N[kept_N].tolist(), after.label_N.tolist(), strict=True)
    return dict(Counter((was[old], now[new]) for old, new in pairs if was[old] != now[new]).most_common())
