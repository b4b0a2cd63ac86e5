"""The checks of an audit, in the order in which they run: adding one is adding a line to `CHECKS`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from imgdata.auditing.finding import Kind
from imgdata.auditing.options import AuditOptions
from imgdata.auditing.outcome import Outcome, Progress
from imgdata.auditing.samples import Samples
from imgdata.errors import OptionError

Need = Literal["labels"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """What checks are given; what several of them need is made once, when the first one asks."""

    samples: Samples
    options: AuditOptions
    tell: Callable[[str, int, int], None]
    """Gets the stage, how much is done, and of how much."""

    @cached_property
    def has_labels(self) -> bool:
        """Whether any sample has a label."""
        return bool((self.samples.label_M >= 0).any())


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check: what it finds, what it needs."""

    name: str
    """As `--only` and `--skip` take it."""
    what: str
    """What it looks for, for people."""
    kinds: tuple[Kind, ...]
    """Kinds of its findings."""
    find: Callable[[Inputs, Progress], Outcome]
    version: int = 1
    """Goes up where the same input gives other findings: what older versions kept is not used then."""
    needs: frozenset[Need] = frozenset()
    settings: tuple[str, ...] = ()
    """Options that change what it finds."""


CHECKS: tuple[Check, ...] = ()


def chosen_checks(options: AuditOptions, checks: tuple[Check, ...] = CHECKS) -> tuple[Check, ...]:
    """Return the checks that are asked for, in their order. Raises `OptionError` for a name that none has."""
    names = [check.name for check in checks]
    for option in ("only", "skip"):
        unknown = [name for name in getattr(options, option) if name not in names]
        if unknown:
            raise OptionError(f"{option} must be checks out of {', '.join(names)}, got {unknown[0]!r}")
    chosen = [c for c in checks if (not options.only or c.name in options.only) and c.name not in options.skip]
    if not chosen:
        raise OptionError(f"skip leaves no check to run, got {', '.join(options.skip)}")
    return tuple(chosen)
