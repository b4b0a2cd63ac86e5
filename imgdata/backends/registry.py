"""A backend's name, what a loader needs -> the backend that makes its batches, and why."""

from collections.abc import Callable
from typing import NamedTuple

from imgdata.backends import protocol
from imgdata.backends.cpu import backend as cpu
from imgdata.backends.cpu.backend import CpuBackend
from imgdata.backends.dali import kind as dali
from imgdata.backends.dali.options import dali_options
from imgdata.backends.protocol import Backend, BackendName, BackendSetup
from imgdata.backends.resident import backend as resident
from imgdata.errors import OptionError


class Choice(NamedTuple):
    """A backend that can be used."""

    name: BackendName
    make: Callable[[BackendSetup], Backend]
    description: str
    """What does the work, and how; in one line."""
    memory: Callable[[BackendSetup, int], int]
    """Bytes that the batches of an epoch take together where they are made, beside what the backend keeps."""


def choose(name: BackendName, setup: BackendSetup) -> Choice:
    """The backend of that name; for `auto` the best one for the data and the device.

    `auto` is resident where all pictures, decoded, fit the budget; else DALI on a GPU, where it is installed; else the
    CPU's. Raises `OptionError` where the one that was asked for can't be used, and for DALI's options that don't exist,
    whatever is chosen. Exact pixels are the CPU backend's alone.
    """
    dali_options(setup.dali_options)
    if setup.exact:
        if name not in ("auto", "cpu"):
            raise OptionError(f"exact needs the backend cpu, got {name!r}: others decode in other ways")
        return _cpu(setup, "" if setup.device == "cpu" else f", then {setup.device}")
    if name == "resident":
        _check(resident.refuses(setup))
    elif name == "dali":
        _check(dali.refuses(setup))
    if name == "resident" or (name == "auto" and resident.refuses(setup) is None and resident.fits(setup)):
        return Choice("resident", resident.ResidentBackend, resident.describe(setup), protocol.memory)
    if name == "dali":
        return _dali(setup)
    if name == "auto" and setup.device.startswith("cuda"):
        reason = dali.refuses(setup)
        if reason is None:
            return _dali(setup)
        return _cpu(setup, f", then {setup.device}; not DALI: {reason}")
    return _cpu(setup, "" if setup.device == "cpu" else f", then {setup.device}")


def _cpu(setup: BackendSetup, further: str) -> Choice:
    return Choice("cpu", CpuBackend, cpu.describe(setup) + further, cpu.memory)


def _dali(setup: BackendSetup) -> Choice:
    return Choice("dali", _dali_backend, dali.describe(setup), dali.memory)


def _dali_backend(setup: BackendSetup) -> Backend:
    # Here, since it imports PyTorch.
    from imgdata.backends.dali.backend import DaliBackend

    return DaliBackend(setup)


def _check(reason: str | None) -> None:
    if reason is not None:
        raise OptionError(reason)
