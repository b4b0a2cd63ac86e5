"""`imgdata trace`: what goes into every stage of training and comes out of it, as a table and a picture."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..options.common import dataset_argument, json_option
from ..options.source import raw_options
from ..options.train import given

if TYPE_CHECKING:
    from rich.table import Table

    from imgdata.measure.trace.rows import TraceRow

_WIDE = 96
"""Columns from which on a screen has room for all columns of the stages."""


@click.command(short_help="Follow real samples through every stage.")
@dataset_argument
@raw_options
@click.option("--split", metavar="NAME", help="Split that is trained on.  [train]")
@click.option("--model", metavar="NAME", help="Network: cnn, resnet9, or any of timm's.")
@click.option(
    "--run",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="The network of this finished run, instead of --model.",
)
@click.option("--weights", metavar="FILE", help="Weights of --model.  [random]")
@click.option("--recipe", metavar="NAME|FILE", help="imagenet, cifar, classifier, plain, or a .json file.")
@click.option(
    "--flip",
    type=click.Choice(("on", "off", "auto")),
    is_flag=False,
    flag_value="on",
    help="Mirror half of the pictures.  [auto: unless classes are digits or letters]",
)
@click.option("--no-flip", is_flag=True, hidden=True, help="Don't mirror pictures.")
@click.option("--size", type=click.IntRange(min=8), help="Side of the pictures in pixels.")
@click.option("--hold-out", type=click.FloatRange(min=0), help="Samples held out for validation; below 1: their share.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of weights and augmentation.  [0]")
@click.option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:1.  [auto]")
@click.option("--samples", type=click.IntRange(min=1), default=8, show_default=True, help="Samples that are followed.")
@click.option(
    "--picture",
    metavar="FILE.png",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw every stage into this file.",
)
@json_option("all figures")
def command(
    dataset: Path, run: Path | None, samples: int, picture: Path | None, as_json: bool, **settings: Any
) -> None:
    """Follow samples of DATASET through loading, augmentation, a training step and every layer.

    The loader makes the pixels, with its recipe cut off after each operator. The example is the red value of one pixel
    of the first sample, wherever that pixel goes. Only the picture is written.

    \b
      imgdata trace out/ --model cnn --picture trace.png
      imgdata trace out/ --run runs/a
    """  # noqa: D301
    from imgdata.measure.trace import trace
    from imgdata.training.options import TrainOptions

    from ..display.console import note, screen

    result = trace(dataset, TrainOptions(**given(settings)), run=run, samples=samples)
    if picture is not None:
        from imgdata.measure.trace.picture import save_picture

        save_picture(result, picture)
    if as_json:
        click.echo(json.dumps(result.to_dict()))
        return
    console = screen(stderr=False)
    weights = "" if result.trained else ", with its first, random weights"
    console.print(
        f"{result.samples} samples of {result.split!r}; the example is {result.keys[0]}, {result.label.name}",
        soft_wrap=True,
    )
    console.print(f"{result.model}, {result.parameters:,} parameters{weights}\n", soft_wrap=True)
    console.print(_table([row for row in result.rows if row.stage != "layer"], "stage", console.width))
    console.print()
    console.print(_table([row for row in result.rows if row.stage == "layer"], "layer", console.width))
    console.print("\nms: of one image; from decode to augment with all that comes before, in one thread", style="dim")
    for text in result.notes:
        note(console, text)
    if picture is not None:
        console.print(f"picture: {picture}", soft_wrap=True)


def _table(rows: "list[TraceRow]", kind: str, width: int) -> "Table":
    """Return the stages with their steps, or the layers with their parameters.

    A narrow screen has no room for counts and types of stages.
    """
    from imgdata.tables import new_table

    of_stages, narrow = kind == "stage", kind == "stage" and width < _WIDE
    table = new_table(padding=(0, 1, 0, 0)) if narrow else new_table()
    table.add_column(kind, no_wrap=True)
    if of_stages:
        table.add_column("step", no_wrap=not narrow, max_width=18)
    for name in ("count", "shape", "type", "range", "example", "parameters", "ms"):
        if name not in _left_out(of_stages, narrow):
            left = name in ("type", "example")
            table.add_column(name, justify="left" if left else "right", no_wrap=name != "example" or not narrow)
    stage = ""
    for row in rows:
        cells = {
            "count": f"{row.count:,}",
            "shape": "x".join(f"{side:,}" for side in row.shape),
            "type": row.dtype,
            "range": _range(row),
            # How many samples a part has is all that a row of `split` says.
            "example": f"{row.count:,} = {row.example}" if narrow and row.stage == "split" else row.example,
            "parameters": f"{row.parameters:,}" if row.parameters else "",
            "ms": "" if row.ms_per_image is None else _decimals(row.ms_per_image),
        }
        shown = [cell for name, cell in cells.items() if name not in _left_out(of_stages, narrow)]
        names = ["" if row.stage == stage else row.stage, row.step] if of_stages else [row.step]
        table.add_row(*names, *shown)
        stage = row.stage
    return table


def _left_out(of_stages: bool, narrow: bool) -> tuple[str, ...]:
    if not of_stages:
        return ("count",)
    return ("parameters", "count", "type") if narrow else ("parameters",)


def _range(row: "TraceRow") -> str:
    if row.low is None or row.high is None:
        return ""
    if row.stage == "load":
        return f"{row.low:,.0f} to {row.high:,.0f} B"
    return f"{_short(row.low)} to {_short(row.high)}"


def _short(value: float) -> str:
    return "0" if abs(value) < 0.0005 else f"{value:.3g}"


def _decimals(ms: float) -> str:
    return f"{ms:.3f}" if ms < 10 else f"{ms:,.1f}"
