"""The environment -> this process's rank, device and process group; values of all ranks -> sums and lists."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import distributed

from imgdata.devices import choose_device
from imgdata.errors import OptionError
from imgdata.order.ranks import distributed_rank_and_world, rank_and_world

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Processes:
    """The place of this process among those of the run."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def sum(self, *values: torch.Tensor) -> None:
        """Replace each tensor by its sum over all ranks; every rank must call it."""
        if self.world_size > 1:
            for value in values:
                distributed.all_reduce(value)

    def copy_from_first(self, values: Iterable[torch.Tensor]) -> None:
        """Replace each tensor by that of rank 0; every rank must call it."""
        if self.world_size > 1:
            for value in values:
                distributed.broadcast(value, src=0)

    def gather(self, value: T) -> list[T]:
        """Return the value of each rank, in the order of the ranks; every rank must call it."""
        if self.world_size == 1:
            return [value]
        gathered: list[Any] = [None] * self.world_size
        distributed.all_gather_object(gathered, value)
        return gathered

    def wait(self) -> None:
        """Wait until every rank is here."""
        if self.world_size > 1:
            distributed.barrier()


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """Yield this process's place among those that torchrun started, with a process group for the block.

    `device` is `auto` (a GPU where there is one), `cpu`, `cuda` (with several ranks, the one of `LOCAL_RANK`) or
    `cuda:1`. Raises `OptionError`.
    """
    chosen = torch.device(choose_device(device, by_rank=True))
    # Also for one process: contexts and `is_bf16_supported` are those of the current GPU.
    with torch.cuda.device(chosen) if chosen.type == "cuda" else nullcontext(), _grouped(chosen) as ranks:
        yield ranks


@contextmanager
def _grouped(chosen: torch.device) -> Iterator[Processes]:
    if distributed_rank_and_world() is not None or rank_and_world()[1] == 1:
        rank, world_size = rank_and_world()
        yield Processes(rank=rank, world_size=world_size, device=chosen)
        return
    if "RANK" not in os.environ or "MASTER_ADDR" not in os.environ:
        raise OptionError(
            f"{rank_and_world()[1]} processes must know of each other, got no RANK and MASTER_ADDR; start them with "
            "torchrun (under srun or mpirun one torchrun on each machine)"
        )
    if chosen.type == "cuda":
        distributed.init_process_group("nccl", device_id=chosen)
    else:
        distributed.init_process_group("gloo")
    try:
        yield Processes(rank=distributed.get_rank(), world_size=distributed.get_world_size(), device=chosen)
    except BaseException:
        # NCCL would wait for an exchange that the other ranks don't take part in; the process's end gives it up.
        if chosen.type != "cuda":
            distributed.destroy_process_group()
        raise
    distributed.destroy_process_group()
