"""Arguments, torch.distributed or the environment -> (rank, number of ranks)."""

import os
import sys

from imgdata.errors import OptionError

_PAIRS = (
    ("RANK", "WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
)
"""Set by torchrun, srun and mpirun. SLURM_NTASKS won't do: it is the job's, so that a script started without srun, or
in a smaller step, would wait for ranks that were never started, and leave their samples out."""


def rank_and_world(rank: int | None = None, world_size: int | None = None) -> tuple[int, int]:
    """Return the process's rank and the number of ranks; (0, 1) for a process on its own.

    The first that is there: the arguments; torch.distributed, when it is imported and initialised; the variables
    of torchrun, Slurm's srun and Open MPI. Raises `OptionError` when half of a pair is missing or out of range.
    """
    if rank is not None or world_size is not None:
        return _checked("rank", rank, "world_size", world_size)
    if (initialised := distributed_rank_and_world()) is not None:
        return initialised
    for names in _PAIRS:
        values = [os.environ.get(name) for name in names]
        if values[0] is None and values[1] is None:
            continue
        if "SLURM_PROCID" in names and values[1] is None:
            # A batch script has a SLURM_PROCID of 0 but is no step: it runs alone.
            continue
        return _checked(names[0], _number(names[0], values[0]), names[1], _number(names[1], values[1]))
    return 0, 1


def distributed_rank_and_world() -> tuple[int, int] | None:
    """Return the process's rank and the number of ranks by torch.distributed; None where it isn't initialised."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed.get_rank(), distributed.get_world_size()


def _number(name: str, text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        raise OptionError(f"{name} must be a whole number, got {text!r}; set it right or pass rank=") from None


def _checked(rank_name: str, rank: int | None, world_name: str, world_size: int | None) -> tuple[int, int]:
    if rank is None or world_size is None:
        given, missing = (rank_name, world_name) if world_size is None else (world_name, rank_name)
        raise OptionError(f"{rank_name} and {world_name} must be given together, got {given} without {missing}")
    if world_size < 1:
        raise OptionError(f"{world_name} must be 1 or more, got {world_size}")
    if not 0 <= rank < world_size:
        raise OptionError(f"{rank_name} must be 0 to {world_name} - 1 = {world_size - 1}, got {rank}")
    return rank, world_size
