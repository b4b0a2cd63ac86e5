"""What an audit found: findings, the figures of each check, what could not be checked."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from imgdata.auditing.finding import KINDS, Finding, Kind
from imgdata.tables import as_html, as_text, new_table

if TYPE_CHECKING:
    from rich.console import RenderableType

NAMES: Mapping[Kind, tuple[str, str]] = {
    "leak": ("leak", "leaks"),
    "conflict": ("picture under two labels", "pictures under two labels"),
    "label": ("label to look at", "labels to look at"),
    "exact-duplicate": ("exact duplicate", "exact duplicates"),
    "near-duplicate": ("near duplicate", "near duplicates"),
    "quality": ("poor picture", "poor pictures"),
    "balance": ("imbalance", "imbalances"),
    "bias": ("hidden bias", "hidden biases"),
}
"""Names of the kinds for people: of one finding, of several."""
_SURE = 3
"""Digits of a score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """What one check says beside its findings."""

    name: str
    what: str
    kinds: tuple[Kind, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    skipped: str = ""
    """Why it did not run; empty where it ran."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditResult:
    """The findings of an audit: `print(result)` shows how many of each kind, and the surest."""

    dataset: str
    """Folder of the dataset, as it was given."""
    name: str
    """Name of the dataset."""
    splits: Mapping[str, int]
    """Audited splits, with the number of samples audited."""
    views: Mapping[str, str]
    """Splits that a view was audited of, with its name or steps."""
    findings: tuple[Finding, ...]
    """By kind, within a kind the surest first."""
    checks: tuple[CheckResult, ...]
    left_out: tuple[str, ...] = ()
    """What was not checked and why."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was not checked, then what the checks say of themselves: how far to trust them."""
        return (*self.left_out, *(note for check in self.checks for note in check.notes))

    @cached_property
    def counts(self) -> dict[Kind, int]:
        """Number of findings of each kind that has any, in the order of a report."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    @property
    def samples(self) -> int:
        """Number of audited samples."""
        return sum(self.splits.values())

    def of(self, kind: Kind) -> tuple[Finding, ...]:
        """Return the findings of a kind, the surest first."""
        return tuple(finding for finding in self.findings if finding.kind == kind)

    def figures(self, check: str) -> Mapping[str, Any]:
        """Return the figures of a check; none where it did not run."""
        return next((one.figures for one in self.checks if one.name == check), {})

    def to_dict(self) -> dict[str, Any]:
        """Return all but the findings themselves as values that `json.dumps` takes."""
        return {
            "dataset": self.dataset,
            "name": self.name,
            "splits": dict(self.splits),
            "views": dict(self.views),
            "counts": dict(self.counts),
            "checks": {
                one.name: {"ran": not one.skipped, "why": one.skipped, "figures": one.figures, "notes": list(one.notes)}
                for one in self.checks
            },
            "notes": list(self.notes),
        }

    def __len__(self) -> int:
        return len(self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __repr__(self) -> str:
        return f"<AuditResult of {self.name}: {self.samples:,} samples; {overview(self)}>"

    def __str__(self) -> str:
        return as_text(result_parts(self))

    def _repr_html_(self) -> str:
        return as_html(result_parts(self))


def overview(result: AuditResult) -> str:
    """Return one line: `37 leaks, 210 near duplicates, about 3.1 % wrong labels (+-0.4), 2 hidden biases`."""
    parts = []
    for kind, count in result.counts.items():
        parts.append(_wrong_labels(result, count) if kind == "label" else counted_kind(kind, count))
    return ", ".join(parts) or "nothing odd found"


def counted_kind(kind: Kind, count: int) -> str:
    """Return a number with the name of the kind: `1 leak`, `37 leaks`."""
    return f"{count:,} {NAMES[kind][count != 1]}"


def _wrong_labels(result: AuditResult, count: int) -> str:
    share, error = (result.figures("labels").get(name) for name in ("share", "share_error"))
    if share is None or not result.figures("labels").get("trusted"):
        return counted_kind("label", count)
    return f"about {share:.1%} wrong labels" + (f" (± {error * 100:.1f})" if error is not None else "")


def result_parts(result: AuditResult, shown: int = 3) -> "Iterator[RenderableType]":
    """Yield what is shown of a result, from the top: the overview, and the surest findings of each kind."""
    from rich.text import Text

    splits = ", ".join(f"{name} {count:,}" for name, count in result.splits.items())
    yield Text.assemble((result.name, "bold"), f"  {splits}")
    yield f"{overview(result)}\n"
    if result.findings:
        table = new_table()
        table.add_column("kind", no_wrap=True)
        table.add_column("found", justify="right", no_wrap=True)
        table.add_column("surest", justify="right", no_wrap=True)
        table.add_column("for example")
        for kind, count in result.counts.items():
            for number, finding in enumerate(_surest(result, kind, shown)):
                first = (kind, f"{count:,}") if not number else ("", "")
                table.add_row(*first, f"{finding.score:.{_SURE}f}", described(finding))
        yield table


def described(finding: Finding) -> str:
    """Return the finding as one line: the sample, then what is odd."""
    place, message = finding.place, finding.message
    return message if place is None or place.key in message or place.source in message else f"{place.key}: {message}"


def _surest(result: AuditResult, kind: Kind, count: int) -> Iterable[Finding]:
    return result.of(kind)[:count]
