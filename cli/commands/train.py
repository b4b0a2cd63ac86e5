"""`imgdata train`: a dataset into a trained network, its curves and checkpoints."""

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..options.common import dataset_argument, quiet_option
from ..options.source import raw_options
from ..options.train import SectionedCommand, given


@click.command(cls=SectionedCommand, short_help="Train a network on a dataset.")
@dataset_argument
@raw_options
@click.option(
    "--out", "run", metavar="RUN", required=True, type=click.Path(path_type=Path), help="Folder of the run, a new one."
)
@click.option("--resume", is_flag=True, help="Resume the run in RUN, with its settings.")
@click.option("--overwrite", is_flag=True, help="Replace the run in RUN.")
@click.option(
    "--config",
    metavar="RUN|FILE",
    type=click.Path(path_type=Path),
    help="Begin with the settings of another run, or its config.json; other options change them.",
)
@click.option("--synthetic", is_flag=True, help="Don't train: time steps with the loader and without it.")
@click.option("--steps", type=click.IntRange(min=1), help="Steps of each timed round.  [50]")
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    dataset: Path,
    run: Path,
    resume: bool,
    overwrite: bool,
    config: Path | None,
    synthetic: bool,
    steps: int | None,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a network on DATASET, shards or raw images where they lie, and keep the run in the folder RUN.

    What isn't set follows from the dataset; the first lines say what was chosen. Ctrl-C saves the run; --resume
    continues with the very next batch.

    \b
      imgdata train out/ --model resnet50 --epochs 18 --out runs/a
      imgdata train out/ --out runs/a --resume
      imgdata train out/ --config runs/a --lr 0.05 --out runs/c
      torchrun --nproc-per-node 8 --no-python imgdata train out/ --out runs/b
    """  # noqa: D301
    from imgdata.errors import OptionError
    from imgdata.order.ranks import rank_and_world
    from imgdata.training.options import TrainOptions

    asked = given(settings)
    first = rank_and_world()[0] == 0
    if synthetic:
        if resume:
            raise OptionError("synthetic and resume can't be given together: it trains nothing that could be resumed")
        _time_steps(
            dataset, run, TrainOptions(**asked), steps or 50, quiet=quiet or not first, as_json=as_json, first=first
        )
        return
    if steps is not None:
        raise OptionError("steps needs synthetic: how long a run is, epochs says")
    from imgdata.training.loop import train

    from ..display.console import screen
    from ..display.train import TrainDisplay, print_result

    with TrainDisplay(quiet=quiet or not first) as display, warnings.catch_warnings():
        warnings.showwarning = display.warned
        result = train(dataset, run, asked, config=config, resume=resume, overwrite=overwrite, watcher=display)
    if not first:
        return
    if as_json:
        click.echo(json.dumps({"run": str(run), **result.summary()}))
    else:
        print_result(result, screen(stderr=False))


def _time_steps(dataset: Path, run: Path, options: Any, steps: int, *, quiet: bool, as_json: bool, first: bool) -> None:
    from imgdata.training.run_folder import RunFolder
    from imgdata.training.throughput import end_to_end

    from ..display.console import Counting
    from ..display.train import print_end_to_end

    with Counting("timing", "rounds", quiet=quiet) as counting:
        result = end_to_end(dataset, options, steps=steps, progress=counting.progress)
    if not first:
        return
    RunFolder(run).write_throughput(asdict(result))
    if as_json:
        click.echo(json.dumps(asdict(result)))
    else:
        print_end_to_end(result)
