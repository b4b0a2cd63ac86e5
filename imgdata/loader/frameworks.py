"""What training code asks of a loader beside batches: a sampler with an epoch; and mistakes that would go unseen."""

import sys
from typing import Protocol

from imgdata.errors import OptionError
from imgdata.order.ranks import distributed_rank_and_world


class HasEpoch(Protocol):
    """What a sampler sets the epoch of."""

    def set_epoch(self, epoch: int) -> None:
        """Let the next iterator begin with `epoch`."""
        ...


class EpochSampler:
    """The sampler of a loader, as far as frameworks ask for one: it sets the loader's epoch."""

    def __init__(self, loader: HasEpoch) -> None:
        self._loader = loader

    def set_epoch(self, epoch: int) -> None:
        """See `Loader.set_epoch`."""
        self._loader.set_epoch(epoch)


def refuse_several_workers() -> None:
    """Refuse several worker processes of a PyTorch `DataLoader`, each of which would give out every batch."""
    module = sys.modules.get("torch.utils.data")
    worker = module.get_worker_info() if module is not None else None
    if worker is not None and worker.num_workers > 1:
        raise OptionError(
            f"num_workers must be 0 or 1 with an imgdata.Loader inside a DataLoader, got {worker.num_workers}: each "
            "worker would give out every batch; the loader has threads of its own"
        )


def refuse_other_ranks(rank: int, world_size: int) -> None:
    """Refuse a loader that was made before the processes knew their ranks: all would show the same samples."""
    now = distributed_rank_and_world()
    if now is not None and now != (rank, world_size):
        raise OptionError(
            f"rank must be what torch.distributed says, {now[0]} of {now[1]}, got {rank} of {world_size}: make the "
            "loader after torch.distributed is initialised, or pass rank= and world_size="
        )
