"""Steps of `imgdata shard`: `--plan`, `--part`, `--finish`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from .common import Command
from .engine import ENGINE_PARAMETERS

_STEP_OPTIONS = (
    click.option("--plan", "plan", is_flag=True, help="Only list and plan, for parts that many machines write."),
    click.option(
        "--part",
        metavar="[I/N]",
        is_flag=False,
        flag_value="",
        help="Write part I, from 0, of N of the plan.  [by Slurm's array, or RANK and WORLD_SIZE]",
    ),
    click.option("--finish", is_flag=True, help="Write index and sidecars once all parts are written."),
)


def step_options(command: Command) -> Command:
    """Add the steps of a conversion in parts."""
    for option in reversed(_STEP_OPTIONS):
        command = option(command)
    return command


_NOT_OF_PLANS = ("append", *ENGINE_PARAMETERS)
_OF_STEPS = {
    "part": ("source", "out", "part", "workers", "work", "quiet", "as_json"),
    "finish": ("source", "out", "finish", "work", "quiet", "as_json"),
}
"""Parameters that each step takes; `--plan` takes all but `_NOT_OF_PLANS`."""


def chosen_step(ctx: click.Context) -> str | None:
    """Return the step of a conversion in parts that is asked for. Raises `OptionError` for options it doesn't take."""
    from imgdata.errors import OptionError

    asked = [name for name, there in (("plan", ctx.params["plan"]), ("finish", ctx.params["finish"])) if there]
    asked += ["part"] * (ctx.params["part"] is not None)
    if len(asked) + ctx.params["dry_run"] > 1:
        given = " and ".join(f"--{name}" for name in (*asked, *["dry-run"] * ctx.params["dry_run"]))
        raise OptionError(f"{given} are different steps; give one of them")
    step = asked[0] if asked else None
    if step == "plan" and ctx.params["append"]:
        raise OptionError(
            "--append can't be given with --plan: what is appended is written by one command, on one machine"
        )
    for option in ctx.command.params if step else ():
        name = option.name or ""
        taken = name not in _NOT_OF_PLANS if step == "plan" else name in _OF_STEPS[step or ""]
        if taken or ctx.get_parameter_source(name) is ParameterSource.DEFAULT:
            continue
        if name in (*_NOT_OF_PLANS, "workers", "overwrite"):
            raise OptionError(f"{option.opts[-1]} can't be given with --{step}; leave it out")
        raise OptionError(
            f"{option.opts[-1]} was decided by --plan, and can't be given with --{step}; leave it out or plan again"
        )
    return step


def run_plan(source: str, out: Path, write: Any, read: Any, options: Mapping[str, Any]) -> None:
    """Run `--plan`."""
    from imgdata.shards.parts import begin_parts

    from ..display.shard import ShardDisplay, print_begun

    with ShardDisplay(quiet=options["quiet"]) as display:
        begun = begin_parts(
            source,
            out,
            write,
            read=read,
            workers=options["workers"],
            overwrite=options["overwrite"],
            work=options["work"],
            watch=display,
        )
    if options["as_json"]:
        click.echo(json.dumps(begun))
    elif not options["quiet"]:
        print_begun(begun, source)


def run_step(source: str, out: Path, options: Mapping[str, Any]) -> None:
    """Run `--part` or `--finish`."""
    from imgdata.shards.part_numbers import parse_part
    from imgdata.shards.parts import check_source, finish_parts, write_part
    from imgdata.shards.summary import PartSummary, ShardSummary

    from ..display.shard import ShardDisplay, print_part, print_summary

    part, parts = (None, None)
    if options["part"]:
        part, cut = parse_part(options["part"])
        parts = cut.parts
    check_source(out, source)
    summary: PartSummary | ShardSummary
    with ShardDisplay(quiet=options["quiet"]) as display:
        try:
            if options["finish"]:
                summary = finish_parts(out, work=options["work"], watch=display)
            else:
                summary = write_part(out, part, parts, workers=options["workers"], work=options["work"], watch=display)
        except KeyboardInterrupt:
            display.interrupted()
            raise
    if options["as_json"]:
        click.echo(json.dumps(summary.to_dict()))
    elif options["quiet"]:
        return
    elif isinstance(summary, PartSummary):
        print_part(summary)
    else:
        print_summary(summary)
