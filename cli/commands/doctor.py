"""`imgdata doctor`: what slows loading down on this machine, as a report."""

import json
from pathlib import Path
from typing import Any

import click

from ..options.backend import BackendType
from ..options.common import CACHE_HELP, json_option, quiet_option, recipe_option, watch_reading
from ..options.source import raw_options
from ..options.train import given


@click.command(short_help="Find what slows loading down on this machine.")
@click.argument("dataset", metavar="[DATASET]", required=False, type=click.Path(path_type=Path), callback=watch_reading)
@raw_options
@click.option("--split", metavar="NAME", help="Split that is read.  [train]")
@recipe_option("by picture size")
@click.option("--size", type=click.IntRange(min=8), help="Side of the output in pixels.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples of a batch.  [256]")
@click.option("--model", metavar="NAME", help="Time steps of this network too: cnn, resnet9, or any of timm's.")
@click.option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:1.  [auto]")
@click.option("--backend", type=BackendType(), help="What makes the batches.  [auto]")
@click.option("--threads", type=click.IntRange(min=1), help="Threads that read and decode.  [all cores]")
@click.option("--dtype", type=click.Choice(["uint8", "float16", "float32"]), help="Type of the images.  [float32]")
@click.option("--cache", metavar="auto|disk|memory|off|GB", help=CACHE_HELP)
@click.option("--tune", is_flag=True, help="Try other settings with the real loader, and print the best as code.")
@click.option("--seconds", type=click.FloatRange(min=1), default=60.0, show_default=True, help="Time for --tune.")
@quiet_option
@json_option("the report")
def command(dataset: Path | None, tune: bool, seconds: float, quiet: bool, as_json: bool, **settings: Any) -> None:
    """Look at this machine; with DATASET, also time every stage from the disk to the network.

    Problems come first, each with its remedy. Then come the stages, the slowest of them, and what would help, each with
    the images/s that it promises.

    \b
      imgdata doctor
      imgdata doctor out/ --model resnet50
      imgdata doctor out/ --tune --seconds 60
    """  # noqa: D301
    from imgdata.errors import OptionError
    from imgdata.measure.doctor.inputs import DoctorOptions
    from imgdata.measure.doctor.run import doctor

    from ..display.doctor import Steps, print_report

    chosen = given(settings)
    if dataset is None and (chosen or tune):
        name = next(iter(chosen), "tune").replace("_", "-")
        raise OptionError(f"--{name} needs a dataset: imgdata doctor DATASET --{name}")
    options = DoctorOptions(**chosen, tune_seconds=seconds if tune else None)
    with Steps(quiet=quiet or as_json) as steps:
        report = doctor(dataset, options, step=steps.show)
    if as_json:
        click.echo(json.dumps(report.to_dict()))
    else:
        print_report(report)
