"""Who does the work of a command, `--engine`: this machine, or a Ray cluster."""

import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from .common import Command, byte_size

if TYPE_CHECKING:
    from imgdata.cluster import ChosenEngine

_OF_CLUSTERS = (
    click.option("--address", metavar="HOST:PORT", help="Ray cluster; auto: that of this machine.  [$RAY_ADDRESS]"),
    click.option(
        "--task-cpus",
        type=click.FloatRange(min=0, min_open=True),
        default=1.0,
        show_default=True,
        help="Cores of a Ray task.",
    ),
    click.option("--task-memory", type=byte_size, metavar="SIZE", help="Memory that Ray reserves for a task."),
)
ENGINE_PARAMETERS = ("engine", "address", "task_cpus", "task_memory")
"""Parameters that `engine_options` adds."""


def engine_options(does: str) -> Callable[[Command], Command]:
    """Add `--engine`, which `does` something, such as `writes shards`, and the options of a cluster."""

    def add(command: Command) -> Command:
        for option in reversed(_OF_CLUSTERS):
            command = option(command)
        return click.option(
            "--engine",
            type=click.Choice(["local", "ray"]),
            default="local",
            show_default=True,
            help=f"What {does}: this machine, or a Ray cluster.",
        )(command)

    return add


def ray_prints_to_stderr(engine: "ChosenEngine") -> contextlib.AbstractContextManager[object]:
    """Return a block in which Ray prints what happens to its machines elsewhere: standard output is for results."""
    return contextlib.nullcontext() if engine == "local" else contextlib.redirect_stdout(sys.stderr)


def chosen_engine(ctx: click.Context) -> "ChosenEngine":
    """Return what `--engine` and its options ask for. Raises `OptionError` for options of another engine."""
    from imgdata.cluster import RayOptions
    from imgdata.errors import OptionError

    given = ctx.params
    if given["engine"] == "local":
        for option in ENGINE_PARAMETERS[1:]:
            if ctx.get_parameter_source(option) is not ParameterSource.DEFAULT:
                raise OptionError(f"--{option.replace('_', '-')} is for --engine ray")
        return "local"
    return RayOptions(address=given["address"], task_cpus=given["task_cpus"], task_memory=given["task_memory"])
