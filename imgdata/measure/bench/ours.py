"""Our own loader: what it makes of a job, and opened for it."""

import re
from collections.abc import Iterator
from dataclasses import replace

import torch

from imgdata.loader.loader import Loader
from imgdata.measure.bench.job import Decided, Job
from imgdata.measure.bench.opened import Opened
from imgdata.version import __version__


def make_loader(job: Job) -> Loader:
    """As a training would have it. Raises what `Loader` raises."""
    return Loader(
        job.out,
        split=job.split,
        batch_size=job.batch_size,
        recipe=job.ready_recipe(),
        device=job.device,
        backend=job.backend,
        rank=job.rank,
        world_size=job.world_size,
        dtype=job.dtype,
        threads=job.threads,
    )


def decide(job: Job) -> Decided:
    """What the loader makes of device, dtype and backend, as it says itself. Raises what `Loader` raises."""
    with make_loader(job) as loader:
        description = re.search(r"^  backend (.*)$", repr(loader), re.MULTILINE)
        assert description is not None
        return Decided(
            job=replace(job, dtype=loader.dtype, device=loader.device),
            backend=loader.backend,
            # What comes behind it is a place in the user's home.
            description=description[1].partition(";")[0],
            batches_per_epoch=len(loader),
        )


def imgdata(job: Job) -> Opened:
    """See `make_loader`."""
    loader = make_loader(job)
    return Opened(_batches(loader), __version__, bad=lambda: len(loader.bad))


def _batches(loader: Loader) -> Iterator[torch.Tensor]:
    while True:
        for batch in loader:
            yield batch.images
