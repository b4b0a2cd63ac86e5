"""The kinds of backends; a backend's name, what a loader needs -> the kind that makes its batches, and why."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from imgdata.backends.cpu.kind import CpuKind
from imgdata.backends.dali.kind import DaliKind
from imgdata.backends.options import BackendName
from imgdata.backends.protocol import BackendKind, BackendSetup
from imgdata.backends.resident.kind import ResidentKind
from imgdata.errors import OptionError

KINDS: tuple[BackendKind, ...] = (ResidentKind(), DaliKind(), CpuKind())
"""All kinds, in the order in which `auto` tries them; the last one takes everything."""
AUTO: BackendName = "auto"


class Choice(NamedTuple):
    """A kind that can be used."""

    kind: BackendKind
    description: str
    """What does the work, and how; in one line."""


def backend_names() -> tuple[BackendName, ...]:
    """Return the names that a user may give, `auto` first."""
    return AUTO, *sorted(kind.name for kind in KINDS)


def reference_kind() -> BackendKind:
    """Return the kind that the others are compared with."""
    return next(kind for kind in KINDS if kind.is_reference)


def kind_named(name: BackendName) -> BackendKind:
    """Return the kind of that name. Raises `OptionError`."""
    for kind in KINDS:
        if kind.name == name:
            return kind
    raise OptionError(f"backend must be one of {', '.join(backend_names())}, got {name!r}")


def choose(name: BackendName, setup: BackendSetup) -> Choice:
    """Return the kind of that name; for `auto` the first that is preferred for the data and the device.

    Raises `OptionError` where the kind that was asked for can't be used, and, whatever is chosen, for settings of any
    kind that don't exist.
    """
    for kind in KINDS:
        kind.check(setup.options)
    # The same kind makes all views.
    setups = [replace(setup, options=options) for options in setup.options.of_views]
    if name != AUTO:
        kind = kind_named(name)
        reason = _refusal(kind, setups)
        if reason is not None:
            raise OptionError(reason)
        return Choice(kind, kind.describe(setup))
    passed_over = ""
    for kind in KINDS:
        if not all(map(kind.prefers, setups)):
            continue
        reason = _refusal(kind, setups)
        if reason is None and len(setups) > 1 and not kind.shares_views:
            reason = (
                f"it decodes a picture for each of {len(setups)} views; backend={kind.name!r} takes it all the same"
            )
        if reason is None:
            return Choice(kind, kind.describe(setup) + passed_over)
        passed_over += f"; not {kind.name}: {reason}"
    raise OptionError(f"backend must be one that can be used here, got none{passed_over}")


def _refusal(kind: BackendKind, setups: Sequence[BackendSetup]) -> str | None:
    """Return why the kind can't be used for one of the views; None if it can."""
    return next((reason for one in setups if (reason := kind.refuses(one)) is not None), None)
