"""Cores, their load, PyTorch's threads -> whether threads wait for each other, and what to set."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from imgdata.cgroups import cpu_quota
from imgdata.devices import own_cores
from imgdata.order.ranks import rank_and_world

BUSY = 0.5
"""Share of the cores that other programs want, from which on they are in the way."""


class Crowding(NamedTuple):
    """Threads that are too many for the cores that are free."""

    what: str
    threads: int
    """Threads of PyTorch that would fit, for `OMP_NUM_THREADS`."""
    certain: bool
    """Whether they are too many whatever else is running."""

    @property
    def remedy(self) -> str:
        """The setting that helps."""
        return f"OMP_NUM_THREADS={self.threads}"


def crowding(*, threads: int, cores: float, load: float, ranks: int = 1) -> Crowding | None:
    """Return why PyTorch's threads would wait for each other, and how many would not; None where they fit.

    An operation on the processor ends when its last thread does. Where other threads hold a core, all wait for the one
    that has none: of 471 images/s of a small network 77 were left.

    Args:
        threads: Threads that PyTorch uses in this process.
        cores: Cores' time that this machine or its control group lets this process have, such as 1.5.
        load: Programs that wanted to run in the last minute, this one not counted.
        ranks: Processes of this run on this machine.
    """
    share = max(1, int(cores / ranks))
    if threads > share:
        shared = f", which {ranks} ranks share" if ranks > 1 else ""
        return Crowding(
            f"PyTorch starts {threads} threads on {cores:g} usable cores{shared}: they wait for each other",
            share,
            certain=True,
        )
    free = max(1, int((cores - load) / ranks))
    if load > BUSY * cores and threads > free:
        return Crowding(
            f"{load:.1f} other programs wanted to run in the last minute, on {cores:g} usable cores: PyTorch's "
            f"{threads} threads wait for them",
            free,
            certain=False,
        )
    return None


def crowding_here() -> Crowding | None:
    """Return `crowding` of this process, which has not begun to compute."""
    cores = float(len(own_cores()))
    local = os.environ.get("LOCAL_WORLD_SIZE", "")
    ranks = int(local) if local.isdecimal() and int(local) else rank_and_world()[1]
    quota = cpu_quota()
    usable = cores if quota is None else min(cores, quota)
    return crowding(threads=torch.get_num_threads(), cores=usable, load=os.getloadavg()[0], ranks=ranks)


@contextmanager
def fitting_threads(device: torch.device, noted: Callable[[str], None]) -> Iterator[None]:
    """Let PyTorch use no more threads in the block than this process has cores; say so, or advise where it is busy.

    Where the user has set `OMP_NUM_THREADS`, or a GPU computes, nothing is changed.
    """
    found = crowding_here() if device.type == "cpu" else None
    if found is None:
        yield
        return
    if not found.certain or "OMP_NUM_THREADS" in os.environ:
        noted(f"{found.what}; {found.remedy} is faster then")
        yield
        return
    before = torch.get_num_threads()
    noted(f"{found.what}; {found.threads} are used (OMP_NUM_THREADS sets another number)")
    torch.set_num_threads(found.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
