"""Our own loader: what it makes of a job, and opened for it."""

import re
from collections.abc import Iterator

import torch

from imgdata.backends.registry import kind_named
from imgdata.loader.loader import Loader
from imgdata.measure.bench.job import Decided, Job
from imgdata.measure.bench.opened import Opened
from imgdata.version import __version__


def make_loader(job: Job) -> Loader:
    """Return the loader as a training would have it. Raises what `Loader` raises."""
    return Loader.from_options(job.dataset, job.options, split=job.split, rank=job.rank, world_size=job.world_size)


def decide(job: Job) -> Decided:
    """Return what the loader makes of backend and batches, by its own words. Raises what `Loader` raises."""
    with make_loader(job) as loader:
        description = re.search(r"^  backend (.*)$", repr(loader), re.MULTILINE)
        assert description is not None
        return Decided(
            kind=kind_named(loader.backend),
            # What follows is a place in the user's home.
            description=description[1].partition(";")[0],
            batches_per_epoch=len(loader),
        )


def imgdata(job: Job) -> Opened:
    """See `make_loader`."""
    loader = make_loader(job)
    return Opened(_batches(loader), __version__, bad=lambda: len(loader.bad), cache=lambda: loader.cache_facts)


def _batches(loader: Loader) -> Iterator[torch.Tensor]:
    while True:
        for batch in loader:
            yield batch.images
