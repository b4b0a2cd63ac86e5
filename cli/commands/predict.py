"""`imgdata predict`: what a trained network sees in images."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..options.network import network_options

if TYPE_CHECKING:
    from rich.console import Console

    from imgdata.inference.predict import Predicted

_BAR = 24


@click.command(short_help="Say what a trained network sees in images.")
@click.argument("source", metavar="RUN|MODEL")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@network_options
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Classes of each image, at most.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Images computed at a time."
)
@click.option(
    "--explain",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Save a picture of each image: where the network looked.",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, in the order given.")
@click.pass_context
def command(
    ctx: click.Context, /, source: str, images: tuple[str, ...], quiet: bool, as_json: bool, **options: Any
) -> None:
    """Print the most probable classes of each IMAGE: a file, a folder or a URL.

    RUN is the folder of `imgdata train`; MODEL a network's name, with --weights or --pretrained. An image that can't be
    used is named on standard error, the others are done, and the exit code is 1.

    \b
      imgdata predict runs/a photos/ --explain looked/
      imgdata predict resnet50 --pretrained cat.jpg https://example.com/dog.jpg
    """  # noqa: D301
    from imgdata.inference.predict import predict

    from ..display.console import BAD, Counting, screen, tell

    with Counting("predicting", "images", quiet=quiet) as counting:
        found = predict(source, images, progress=counting.progress, **options)
    bad = [one for one in found if one.error is not None]
    for one in bad:
        tell(counting.console, BAD, "left out", f"{one.image}: {one.error}")
    if as_json:
        click.echo(json.dumps([one.to_dict() for one in found]))
    else:
        console = screen(stderr=False)
        for number, one in enumerate(one for one in found if one.error is None):
            _print(console, one, first=number == 0)
    if bad:
        ctx.exit(1)


def _print(console: "Console", one: "Predicted", *, first: bool) -> None:
    from rich.bar import Bar
    from rich.table import Table
    from rich.text import Text

    if not first:
        console.print()
    console.print(Text(one.image, "bold"), soft_wrap=True)
    table = Table.grid(padding=(0, 1), pad_edge=True)
    table.add_column(justify="right", width=7)
    table.add_column(width=_BAR)
    table.add_column(overflow="ellipsis", no_wrap=True)
    for number, prediction in enumerate(one.predictions):
        style = "bold" if number == 0 else ""
        bar = Bar(1.0, 0.0, prediction.probability, width=_BAR, color="cyan")
        table.add_row(Text(f"{prediction.probability:.1%}", style), bar, Text(prediction.name, style))
    console.print(table)
    if one.explanation is not None:
        console.print(f"  {one.explanation}", soft_wrap=True)
