"""What one check of an audit returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from imgdata.auditing.finding import Finding

Progress = Callable[[int, int], None]
"""Gets how much is done, and of how much."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Findings of a check, and the figures that its part of the report shows."""

    findings: tuple[Finding, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Numbers, texts, lists and mappings of them, as JSON takes them."""
    notes: tuple[str, ...] = ()
    """Sentences for people: what could not be checked and why, what to trust."""
