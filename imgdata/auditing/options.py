"""What an audit is asked for: its settings, and the texts of `--fail-on` -> limits by kind."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgdata.auditing.finding import KINDS, Finding, Kind
from imgdata.errors import OptionError


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditOptions:
    """What is audited, by which checks."""

    splits: tuple[str, ...] = ()
    """Splits to audit; all that have samples when empty."""
    views: tuple[str, ...] = ()
    """Saved views, each in place of its split; steps as text are for all other splits."""
    model: str | None = None
    """Folder of a run that was trained on this dataset, for wrong labels and slices; None: frozen features."""
    only: tuple[str, ...] = ()
    """Checks to run; all when empty."""
    skip: tuple[str, ...] = ()
    """Checks to leave out."""
    device: str = "auto"
    """Device of the network: `auto`, `cpu`, `cuda` or `cuda:1`."""
    workers: int | None = None
    """Threads that read, decode and compare; all cores when None."""
    seed: int = 0
    """Seed of what is drawn at random: folds, labels that are flipped to measure the precision."""

    def __post_init__(self) -> None:
        if isinstance(self.model, Path):
            object.__setattr__(self, "model", str(self.model))
        for name in ("splits", "views", "only", "skip"):
            value: Any = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        both = sorted(set(self.only) & set(self.skip))
        if both:
            raise OptionError(f"a check must not be in both only and skip, got {', '.join(both)}")


_LIMIT = re.compile(r"\s*([a-z-]+)\s*(?:>\s*(\d+))?\s*")


def parse_limits(texts: Sequence[str]) -> dict[Kind, int]:
    """Return the most findings of each kind in texts such as `leak` and `near-duplicate>100`. Raises `OptionError`."""
    limits: dict[Kind, int] = {}
    for text in (part for one in texts for part in one.split(",")):
        found = _LIMIT.fullmatch(text)
        kind = next((kind for kind in KINDS if found and found[1] == kind), None)
        if found is None or kind is None:
            raise OptionError(f"fail-on must be KIND or KIND>N, KIND one of {', '.join(KINDS)}, got {text!r}")
        limits[kind] = int(found[2] or 0)
    return limits


def exceeded(findings: Sequence[Finding], limits: Mapping[Kind, int]) -> list[str]:
    """Return a sentence for each kind that has more findings than its limit."""
    counts = {kind: sum(finding.kind == kind for finding in findings) for kind in limits}
    return [
        f"{counts[kind]:,} {'finding' if counts[kind] == 1 else 'findings'} of kind {kind}, at most {most:,} allowed"
        for kind, most in limits.items()
        if counts[kind] > most
    ]
