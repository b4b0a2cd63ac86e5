"""A backend's name, what a loader needs -> the backend that makes its batches, and why."""

from collections.abc import Callable
from typing import NamedTuple

from imgdata.backends import cpu
from imgdata.backends.cpu import CpuBackend
from imgdata.backends.dali import fit as dali
from imgdata.backends.resident import backend as resident
from imgdata.backends.work import Backend, Setup
from imgdata.errors import OptionError
from imgdata.loading.options import BackendName


class Choice(NamedTuple):
    """A backend that can be used."""

    name: BackendName
    make: Callable[[Setup], Backend]
    description: str
    """What does the work, and how; in one line."""


def choose(name: BackendName, setup: Setup) -> Choice:
    """The backend of that name; for `auto` the best one for the data and the device.

    `auto` is resident where all pictures, decoded, fit the budget; else DALI on a GPU, where it is installed; else the
    CPU's. Raises `OptionError` where the one that was asked for can't be used.
    """
    if name == "resident":
        _check(resident.refuses(setup))
    elif name == "dali":
        _check(dali.refuses(setup))
    if name == "resident" or (name == "auto" and resident.refuses(setup) is None and resident.fits(setup)):
        return Choice("resident", resident.ResidentBackend, resident.describe(setup))
    if name == "dali":
        return Choice("dali", _dali_backend, dali.describe(setup))
    if name == "auto" and setup.device != "cpu":
        reason = dali.refuses(setup)
        if reason is None:
            return Choice("dali", _dali_backend, dali.describe(setup))
        return Choice("cpu", CpuBackend, f"{cpu.describe(setup)}, then {setup.device}; not DALI: {reason}")
    where = "" if setup.device == "cpu" else f", then {setup.device}"
    return Choice("cpu", CpuBackend, cpu.describe(setup) + where)


def _dali_backend(setup: Setup) -> Backend:
    # Here, since it imports PyTorch.
    from imgdata.backends.dali.backend import DaliBackend

    return DaliBackend(setup)


def _check(reason: str | None) -> None:
    if reason is not None:
        raise OptionError(reason)
