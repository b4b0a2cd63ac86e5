"""`imgdata predict`: a trained network, images or a dataset -> their classes, printed or as a table."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..options.common import quiet_option
from ..options.network import crops_option, network_options

if TYPE_CHECKING:
    from rich.console import Console

    from imgdata.inference.predict import Predicted

_BAR = 24


@click.command(short_help="Classify images with a trained network.")
@click.argument("network", metavar="NETWORK")
@click.argument("images", metavar="IMAGE...|DATASET", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write one row for each image to a .csv or .parquet file.",
)
@click.option("--split", metavar="NAME", help="Split of DATASET.  [test, or the only one]")
@click.option("--view", default="", help='View of DATASET: a saved one, or steps such as "fraction=0.1".')
@click.option(
    "--upright/--as-stored",
    default=None,
    help="Rotate pictures as their EXIF says.  [as the network was trained]",
)
@network_options
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Classes of each image, at most.")
@crops_option
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Images computed at a time."
)
@click.option(
    "--explain",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Save a picture of each image: where the network looked.",
)
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, in the order given.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    network: str,
    images: tuple[str, ...],
    output: Path | None,
    split: str | None,
    view: str,
    upright: bool | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Print the most probable classes of each IMAGE: a file, a folder or a URL; or write those of a DATASET.

    NETWORK is the folder of a run of `imgdata train`, or a network's name with --weights or --pretrained. An image that
    can't be used is named on standard error; the others are classified, and the exit code is 1.

    \b
      imgdata predict runs/a photos/ --explain looked/
      imgdata predict runs/a photos/ -o predictions.csv
      imgdata predict runs/a out/ --split test -o test.csv
      imgdata predict resnet50 --pretrained cat.jpg https://example.com/dog.jpg
    """  # noqa: D301
    from imgdata.errors import OptionError
    from imgdata.inference.predictions import check_table

    from ..display.console import BAD, GOOD, Counting, note, screen, tell

    if output is not None:
        check_table(output)
    if _is_dataset(images[0]):
        if len(images) > 1 or options["explain"] is not None or upright is not None:
            raise OptionError(f"{images[0]} is a dataset: give it alone, without explain, upright and as-stored")
        if output is None:
            raise OptionError(f"{images[0]} is a dataset: say where its rows go, -o FILE.csv or FILE.parquet")
        _predict_dataset(network, images[0], output, split, view, quiet=quiet, as_json=as_json, **options)
        return
    if split is not None or view:
        raise OptionError(f"split and view are for a dataset; {images[0]} is none")
    from imgdata.inference.predict import predict, to_predictions

    with Counting("predicting", "images", quiet=quiet) as counting:
        found = predict(network, images, upright=upright, progress=counting.progress, **options)
    rotated = sum(one.rotated for one in found)
    if rotated and not quiet:
        note(counting.console, _rotation_note(network, rotated, upright))
    bad = [one for one in found if one.error is not None]
    for one in bad:
        tell(counting.console, BAD, "left out", f"{one.image}: {one.error}")
    if output is not None:
        rows = to_predictions(found)
        rows.save(output)
        if not quiet:
            tell(counting.console, GOOD, "done", f"{len(rows):,} rows: {output}")
    if as_json:
        click.echo(json.dumps([one.to_dict() for one in found]))
    elif output is None:
        console = screen(stderr=False)
        for number, one in enumerate(one for one in found if one.error is None):
            _print(console, one, first=number == 0)
    if bad:
        ctx.exit(1)


def _is_dataset(name: str) -> bool:
    from imgdata.storage.local_paths import url_scheme

    if url_scheme(name) not in (None, "http", "https"):
        return True
    return Path(name).name == "dataset.json" or (Path(name) / "dataset.json").is_file()


def _predict_dataset(
    network: str,
    dataset: str,
    output: Path,
    split: str | None,
    view: str,
    *,
    quiet: bool,
    as_json: bool,
    explain: None,
    top: int,
    **options: Any,
) -> None:
    from imgdata.inference.predict import predict_dataset

    from ..display.console import GOOD, Counting, note, tell
    from ..options.network import left_out

    with Counting("predicting", "batches", quiet=quiet) as counting:
        found = predict_dataset(network, dataset, split=split, view=view, progress=counting.progress, **options)
    table = found.said if found.said is not None else found.predictions
    table.save(output)
    rows = len(table)
    if not quiet:
        if found.skipped:
            note(counting.console, left_out(found.skipped))
        tell(counting.console, GOOD, "done", f"{rows:,} rows of {found.split}: {output}")
    if as_json:
        skipped = [{"key": bad.key, "reason": bad.reason, "detail": bad.detail} for bad in found.skipped]
        click.echo(json.dumps({"path": str(output), "split": found.split, "rows": rows, "skipped": skipped}))


def _rotation_note(network: str, rotated: int, upright: bool | None) -> str:
    from imgdata.inference.predict import run_upright

    trained = run_upright(network)
    turned = trained if upright is None else upright
    how = "rotated" if turned else "not rotated"
    other = "--as-stored" if turned else "--upright"
    means = "upright pictures" if trained else "pictures as they are stored"
    pictures = f"{rotated:,} pictures are" if rotated > 1 else "1 picture is"
    return f"{pictures} {how} as EXIF says ({other} changes it); the network was trained on {means}"


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
