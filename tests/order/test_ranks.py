"""Rank and number of ranks: given, of torch.distributed, or of the environment."""

import os
import sys
from types import SimpleNamespace

import pytest

from imgdata.errors import OptionError
from imgdata.order.ranks import rank_and_world


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which nothing says that there are ranks."""
    for name in [one for one in os.environ if one.startswith(("SLURM_", "OMPI_")) or one in ("RANK", "WORLD_SIZE")]:
        monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "torch.distributed", raising=False)
    return monkeypatch


TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8"}


SRUN = {"SLURM_PROCID": "1", "SLURM_NTASKS": "6", "SLURM_STEP_NUM_TASKS": "4"}


MPIRUN = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        (TORCHRUN, (3, 8)),
        (SRUN, (1, 4)),  # the step's tasks, not the job's
        (MPIRUN, (0, 2)),
        ({**SRUN, **TORCHRUN}, (3, 8)),
        ({**MPIRUN, **SRUN}, (1, 4)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, (0, 1)),  # a batch script, not started by srun
    ],
)
def test_ranks_come_from_the_environment(bare, environment, expected) -> None:
    for name, value in environment.items():
        bare.setenv(name, value)
    assert rank_and_world() == expected
    assert rank_and_world(1, 5) == (1, 5)


def test_torch_distributed_goes_before_the_environment_once_it_is_initialised(bare) -> None:
    bare.setenv("RANK", "3")
    bare.setenv("WORLD_SIZE", "8")
    group = SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: False, get_rank=lambda: 1, get_world_size=lambda: 2
    )
    bare.setitem(sys.modules, "torch.distributed", group)
    assert rank_and_world() == (3, 8)
    group.is_initialized = lambda: True
    assert rank_and_world() == (1, 2)


@pytest.mark.parametrize(
    ("environment", "arguments", "message"),
    [
        ({"RANK": "3"}, (), "RANK and WORLD_SIZE must be given together, got RANK without WORLD_SIZE"),
        ({"WORLD_SIZE": "3"}, (), "got WORLD_SIZE without RANK"),
        ({"RANK": "8", "WORLD_SIZE": "8"}, (), "RANK must be 0 to WORLD_SIZE - 1 = 7, got 8"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, (), "WORLD_SIZE must be 1 or more, got 0"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, (), "RANK must be a whole number, got 'x'"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, (), "got SLURM_STEP_NUM_TASKS without SLURM_PROCID"),
        ({}, (1, None), "rank and world_size must be given together, got rank without world_size"),
        ({}, (None, 2), "got world_size without rank"),
        ({}, (2, 2), "rank must be 0 to world_size - 1 = 1, got 2"),
        ({}, (-1, 2), "rank must be 0 to world_size - 1 = 1, got -1"),
    ],
)
def test_half_or_impossible_ranks_are_refused(bare, environment, arguments, message) -> None:
    for name, value in environment.items():
        bare.setenv(name, value)
    with pytest.raises(OptionError, match=message):
        rank_and_world(*arguments)
