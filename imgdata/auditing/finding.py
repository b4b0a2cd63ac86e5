"""What an audit says of one sample, one class or the whole dataset."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Kind = Literal["label", "conflict", "exact-duplicate", "near-duplicate", "leak", "quality", "balance", "bias"]
KINDS: tuple[Kind, ...] = (
    "leak",
    "conflict",
    "label",
    "exact-duplicate",
    "near-duplicate",
    "quality",
    "balance",
    "bias",
)
"""In the order in which a report lists them: `leak` is a duplicate in another split, `conflict` one under another
label."""

Proposal = Literal["exclude", "relabel", "look"]


class Place(NamedTuple):
    """A sample of the dataset."""

    split: str
    key: str
    source: str
    """Name in the raw dataset."""
    position: int
    """Position in the split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is odd, how sure that is, and what could be done."""

    kind: Kind
    what: str
    """What was found, in one or two words of a fixed list of the kind: `same bytes`, `mirrored`, `blurred`."""
    place: Place | None
    """The sample; None for what is said of a class, a split or the dataset."""
    score: float
    """From 0 to 1, the surest; the findings of a kind are listed in this order."""
    other: Place | None = None
    """The sample that it is like, or that is kept in its stead."""
    message: str
    """One sentence for people."""
    evidence: Mapping[str, float] = field(default_factory=dict)
    """Numbers behind the score, by name."""
    proposal: Proposal = "look"
    label: str = ""
    """Id of the class that a `relabel` proposes; of the class that is spoken of where there is no sample."""


def listed(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings by kind, within a kind the surest first; ties in the order of splits and positions."""
    return tuple(sorted(findings, key=_order))


def _order(finding: Finding) -> tuple[int, float, str, int, str]:
    place = finding.place
    return (
        KINDS.index(finding.kind),
        -finding.score,
        place.split if place else "",
        place.position if place else -1,
        finding.what,
    )
