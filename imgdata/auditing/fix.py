"""A view, findings, what to do about them -> the view without what is wrong, with a reason for each change."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.finding import Finding, Kind, Place
from imgdata.errors import OptionError
from imgdata.views.filters import exclude_step
from imgdata.views.key_table import csv_bytes
from imgdata.views.relabel import relabel_step
from imgdata.views.text import Step
from imgdata.views.view import View


@dataclass(frozen=True, kw_only=True, slots=True)
class _Form:
    """What a fix acts on."""

    kinds: tuple[Kind, ...]
    least: bool = False
    """Whether a least score must be given: a ranked list has no end of its own."""
    looked_at: bool = False
    """Whether a score is enough: then findings that are only to be looked at count as well."""
    both: bool = False
    """Whether both samples of a finding go: nobody knows which one is right."""


FORMS: Mapping[str, _Form] = {
    "exclude-leaks": _Form(kinds=("leak",)),
    "exclude-conflicts": _Form(kinds=("conflict",), looked_at=True, both=True),
    "exclude-duplicates": _Form(kinds=("exact-duplicate", "near-duplicate")),
    "exclude-exact-duplicates": _Form(kinds=("exact-duplicate",)),
    "exclude-quality": _Form(kinds=("quality",), looked_at=True),
    "exclude-labels": _Form(kinds=("label",), least=True, looked_at=True),
    "relabel": _Form(kinds=("label",), least=True),
}
"""Fixes by name. `relabel` gives the proposed label, the others leave samples out."""
_FIX = re.compile(r"\s*([a-z-]+)\s*(?:(>=|>)\s*([0-9.]+))?\s*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fix:
    """One thing to do."""

    name: str
    """One of `FORMS`."""
    least: float | None = None
    """Scores from which on findings count; None for all."""
    above: bool = False
    """Whether the score must be above `least`, not equal to it."""

    def __str__(self) -> str:
        return self.name if self.least is None else f"{self.name}{'>' if self.above else '>='}{self.least:g}"

    def takes(self, finding: Finding) -> bool:
        """Return whether the fix acts on the finding: on its sample, as its score and its proposal allow."""
        form = FORMS[self.name]
        if finding.kind not in form.kinds or finding.place is None:
            return False
        if self.name == "relabel" and finding.proposal != "relabel":
            return False
        if self.name != "relabel" and finding.proposal != "exclude" and not form.looked_at:
            return False
        if self.least is None:
            # What is only to be looked at is left to people, unless they give a score.
            return form.both or finding.proposal == "exclude"
        return finding.score > self.least or (not self.above and finding.score == self.least)


@dataclass(frozen=True, kw_only=True, slots=True)
class Applied:
    """What one fix did."""

    fix: str
    samples: int
    """Samples left out, or given another label."""
    elsewhere: int
    """Findings that it would act on, were the view of their split."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fixed:
    """A view with its fixes applied."""

    view: View
    applied: tuple[Applied, ...]
    kept: tuple[str, ...]
    """A sentence for each sample that was to go, but is the last one of its class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Change:
    """What is done to one sample."""

    key: str
    row: int
    """Row in the view."""
    was: str
    """Id of its class in the view; empty for none."""
    fix: int
    """Which of the fixes."""
    finding: Finding
    label: str | None = None
    """Id of the new class; None to leave the sample out."""


def parse_fixes(text: str) -> tuple[Fix, ...]:
    """Return the fixes in a text such as `exclude-duplicates,exclude-leaks,relabel>0.95`. Raises `OptionError`."""
    return tuple(map(_parse, text.split(",")))


def kinds_of(fixes: Iterable[Fix]) -> set[Kind]:
    """Return the kinds of findings that the fixes act on."""
    return {kind for fix in fixes for kind in FORMS[fix.name].kinds}


def fixed_view(view: View, findings: Iterable[Finding], fixes: str | Sequence[Fix]) -> Fixed:
    """Return the view without what is wrong: samples left out or relabelled, each with its reason.

    A view is of one split: of a leak, the sample in this split is left out. The last sample of a class is never
    dropped or relabelled away: the one with the lowest score stays. The same findings and fixes give the same view,
    to the byte of its files. No shard is changed.

    Args:
        view: What to fix: `open_view(dataset, "train")`, or any view that is not balanced.
        findings: Findings of an audit of this dataset.
        fixes: Fixes with commas between: `exclude-leaks`, `exclude-conflicts`, `exclude-duplicates`,
            `exclude-exact-duplicates`, `exclude-quality`, `exclude-labels>P`, `relabel>P`. Each takes a least score P,
            after `>` or `>=`; without one, it acts where the audit proposes to exclude.

    Raises:
        OptionError: An unknown fix, a fix without a score that needs one, findings of another dataset.
    """
    chosen = parse_fixes(fixes) if isinstance(fixes, str) else tuple(fixes)
    findings = list(findings)
    changes: dict[str, _Change] = {}
    elsewhere = [0] * len(chosen)
    places = _Places(view)
    for number, fix in enumerate(chosen):
        for finding in findings:
            if not fix.takes(finding):
                continue
            own = _samples(fix, finding, view.split)
            elsewhere[number] += not own
            for place in own:
                row = places.row(place)
                if row is not None and place.key not in changes:
                    changes[place.key] = _Change(
                        key=place.key,
                        row=row,
                        was=_class_id(view, row),
                        fix=number,
                        finding=finding,
                        label=finding.label if fix.name == "relabel" else None,
                    )
    kept = _keep_last_samples(view, changes)
    done = sorted(changes.values(), key=lambda change: change.row)
    for number, fix in enumerate(chosen):
        part = [change for change in done if change.fix == number]
        if part and fix.name == "relabel":
            view = relabel_step(view, _relabel(fix, part))
        elif part:
            view = exclude_step(view, _exclude(fix, part))
    counts = [sum(change.fix == number for change in done) for number in range(len(chosen))]
    applied = (
        Applied(fix=str(fix), samples=count, elsewhere=others)
        for fix, count, others in zip(chosen, counts, elsewhere, strict=True)
    )
    return Fixed(view=view, applied=tuple(applied), kept=kept)


def _parse(text: str) -> Fix:
    found = _FIX.fullmatch(text)
    form = FORMS.get(found[1]) if found else None
    if found is None or form is None:
        raise OptionError(f"fix must be one of {', '.join(map(_usage, FORMS))}, got {text!r}")
    try:
        least = float(found[3]) if found[3] else None
    except ValueError:
        least = math.nan
    if least is not None and not 0 <= least <= 1:
        raise OptionError(f"fix: the score after {found[1]} must be a number from 0 to 1, got {text!r}")
    if form.least and least is None:
        raise OptionError(f"fix: {found[1]} must have a least score, such as {found[1]}>0.95, got {text!r}")
    return Fix(name=found[1], least=least, above=found[2] == ">")


def _usage(name: str) -> str:
    return f"{name}>P" if FORMS[name].least else name


def _samples(fix: Fix, finding: Finding, split: str) -> list[Place]:
    """Return the samples of the split that the fix acts on."""
    both = (finding.place, finding.other)
    if FORMS[fix.name].both:
        return [place for place in both if place is not None and place.split == split]
    # A leak is one from both sides; whoever fixes a split, fixes this split.
    either = both if finding.kind == "leak" else (finding.place,)
    return [place for place in either if place is not None and place.split == split][:1]


class _Places:
    """The rows of a view, by places of findings."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._keys = view.index.column("key")

    def row(self, place: Place) -> int | None:
        """Return the row of a sample; None where the view does not have it. Raises `OptionError`."""
        view = self._view
        at = place.position
        if not 0 <= at < len(self._keys) or self._keys[at].as_py() != place.key:
            raise OptionError(
                f"the findings are not of this dataset: {place.key!r} is not sample {at} of {view.split!r}; audit again"
            )
        row = int(np.searchsorted(view.position_N, at))
        return row if row < len(view.position_N) and view.position_N[row] == at else None


def _keep_last_samples(view: View, changes: dict[str, _Change]) -> tuple[str, ...]:
    """Take back a change for each class that would lose its last sample; return a sentence for each."""
    number_of = {one.id: number for number, one in enumerate(view.classes)}
    said: list[str] = []
    before_C = _counts(view.label_N, len(view.classes))
    while True:
        label_N = view.label_N.copy()
        for change in changes.values():
            label_N[change.row] = -1 if change.label is None else number_of.get(change.label, -1)
        gone = np.flatnonzero((before_C > 0) & (_counts(label_N, len(view.classes)) == 0))
        if not len(gone):
            return tuple(said)
        of_class = [change for change in changes.values() if view.label_N[change.row] == gone[0]]
        last = min(of_class, key=lambda change: (change.finding.score, change.row))
        del changes[last.key]
        what = "left out" if last.label is None else f"relabelled {last.label}"
        name = view.classes[int(gone[0])].name
        said.append(f"{last.key} is not {what}: it is the last sample of class {name} in {view.split}")


def _counts(label_N: NDArray[np.int32], classes: int) -> NDArray[np.int64]:
    return np.bincount(label_N[label_N >= 0], minlength=classes)


def _exclude(fix: Fix, changes: Sequence[_Change]) -> Step:
    rows = [
        (
            one.key,
            f"{one.finding.kind}: {one.finding.what}",
            f"{one.finding.score:.6g}",
            _like(one),
            one.finding.message,
        )
        for one in changes
    ]
    data = csv_bytes(("key", "reason", "score", "like", "message"), rows)
    return Step(name="exclude", options={"file": f"{fix.name}.csv"}, data=data)


def _relabel(fix: Fix, changes: Sequence[_Change]) -> Step:
    rows = [(one.key, one.label or "", one.was, f"{one.finding.score:.6g}", one.finding.message) for one in changes]
    data = csv_bytes(("key", "label", "was", "score", "message"), rows)
    return Step(name="relabel", values=(f"{fix.name}.csv",), options={"classes": "keep"}, data=data)


def _class_id(view: View, row: int) -> str:
    label = int(view.label_N[row])
    return view.classes[label].id if label >= 0 else ""


def _like(change: _Change) -> str:
    """Return the sample that it is like, as SPLIT/KEY; empty where there is none."""
    finding = change.finding
    others = [place for place in (finding.other, finding.place) if place is not None and place.key != change.key]
    return f"{others[0].split}:{others[0].key}" if others else ""
