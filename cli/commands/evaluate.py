"""`imgdata evaluate`: a trained network, a dataset -> its scores as tables, and its predictions as files."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..options.common import dataset_argument, quiet_option
from ..options.network import crops_option, left_out, network_options
from ..options.source import raw_options

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from imgdata.inference.evaluate import Evaluation

_WORST, _CONFUSIONS = 10, 5
"""Rows that are shown."""
_SHEET = 25
"""Pictures of a sheet, where no number is given."""
_NAME_WIDTH = 32
"""Letters of a class name that are shown."""


@click.command(short_help="Measure how good a trained network is on a split.")
@click.argument("network", metavar="NETWORK")
@dataset_argument
@raw_options
@click.option(
    "--split", metavar="NAME", help="Split to measure.  [what the run was validated with; else val, test or the like]"
)
@click.option("--view", default="", help='A saved view, or steps such as "fraction=0.1".')
@network_options
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=128, show_default=True, help="Images of each rank at a time."
)
@click.option(
    "--amp",
    type=click.Choice(("none", "auto", "bf16", "fp16")),
    default="none",
    show_default=True,
    help="16-bit arithmetic.",
)
@click.option(
    "--flip-test/--no-flip-test",
    default=None,
    help="The mean with the mirror image.  [default: as the run was validated]",
)
@crops_option
@click.option(
    "--confusion",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.png",
    help="Draw the confusion matrix.",
)
@click.option(
    "--predictions",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write one row for each sample to a .csv or .parquet file: key, label, predicted, probability, loss.",
)
@click.option("--worst", type=click.IntRange(min=1), metavar="N", help="List the N samples with the highest loss.")
@click.option(
    "--sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.png",
    help=f"Draw these samples, {_SHEET} without --worst.",
)
@click.option("--all-classes", is_flag=True, help=f"List every class, not the {_WORST} worst.")
@click.option("--exact", is_flag=True, help="Decode and resize as torchvision and timm do; slower.")
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
def command(
    network: str,
    dataset: Path,
    confusion: Path | None,
    predictions: Path | None,
    worst: int | None,
    sheet: Path | None,
    all_classes: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure a network on a split of DATASET: each sample counts once, also under torchrun.

    NETWORK is the folder of a run of `imgdata train`, or a network's name with --weights or --pretrained, for datasets
    with some of ImageNet's classes, by wnid, name or number.

    \b
      imgdata evaluate runs/a out/
      imgdata evaluate runs/a out/ --split test --predictions test.csv
      imgdata evaluate runs/a out/ --worst 25 --sheet worst.png
      imgdata evaluate runs/a out/ --crops 10
      imgdata evaluate resnet50 imagenet/ --pretrained --json
      torchrun --nproc-per-node 4 --no-python imgdata evaluate runs/a out/
    """  # noqa: D301
    from imgdata.inference.evaluate import evaluate
    from imgdata.inference.predictions import check_picture, check_table
    from imgdata.order.ranks import rank_and_world

    from ..display.console import Counting, screen

    for path, name in ((confusion, "confusion"), (sheet, "sheet")):
        if path is not None:
            check_picture(path, name)
    if predictions is not None:
        check_table(predictions)
    # Each rank has all figures; one prints them.
    first = rank_and_world()[0] == 0
    with Counting("evaluating", "batches", quiet=quiet or not first) as counting:
        found = evaluate(network, dataset, progress=counting.progress, **options)
    if not first:
        return
    if confusion is not None:
        found.save_confusion(confusion)
    if predictions is not None:
        (found.predictions if found.said is None else found.said).save(predictions)
    if sheet is not None:
        found.save_worst(sheet, worst or _SHEET)
    if not quiet:
        _print_notes(counting.console, found)
    if as_json:
        click.echo(json.dumps(found.to_dict()))
        return
    console = screen(stderr=False)
    if found.said is not None:
        console.print(str(found), soft_wrap=True, highlight=False)
        return
    _print_figures(console, found)
    console.print(_class_table(found, all_classes))
    confusions = found.confusions(_CONFUSIONS)
    if confusions:
        console.print("\nmost often confused", style="bold")
        for one in confusions:
            times = f"{one.count:,} time{'s' if one.count > 1 else ''}"
            label, prediction = (_short(name) for name in (one.label.name, one.prediction.name))
            console.print(f"{times:>11}  {label}, taken for {prediction}", soft_wrap=True)
    if worst is not None:
        _print_worst(console, found, worst)
    files = (("confusion matrix", confusion), ("predictions", predictions), ("worst samples", sheet))
    if any(path for _, path in files):
        console.print()
    for name, path in files:
        if path is not None:
            console.print(f"{name:<16}  {path}", soft_wrap=True)


def _print_worst(console: "Console", found: "Evaluation", count: int) -> None:
    rows, classes = found.predictions, found.classes
    console.print("\nhighest loss", style="bold")
    for row in rows.worst(count):
        label, predicted = (_short(classes[column[row]].name) for column in (rows.label_N, rows.predicted_N))
        taken = f"{label}, taken for {predicted}" if label != predicted else label
        console.print(
            f"{rows.loss_N[row]:>11.3f}  {rows.keys[row]}  {taken} ({rows.probability_N[row]:.1%})", soft_wrap=True
        )


def _short(name: str) -> str:
    """Return a name that fits into a line; ImageNet's have up to 120 letters."""
    return name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 1]}…"


def _print_notes(console: "Console", found: "Evaluation") -> None:
    from ..display.console import note

    if found.matched_by == "numbers":
        row = found.per_class[0]
        note(console, f"class ids are taken for numbers of the network's outputs: {row.index} is {row.name}")
    if found.missing:
        names = ", ".join(_short(one.name) for one in found.missing[:_CONFUSIONS])
        more = f" and {len(found.missing) - _CONFUSIONS:,} more" if len(found.missing) > _CONFUSIONS else ""
        note(
            console,
            f"{len(found.missing):,} of the network's {len(found.classes):,} classes "
            f"{'has' if len(found.missing) == 1 else 'have'} no sample here: {names}{more}",
        )
    if found.skipped:
        note(console, left_out(found.skipped))


def _print_figures(console: "Console", found: "Evaluation") -> None:
    from rich.table import Table
    from rich.text import Text

    scores = found.scores
    ranks = f", {found.world_size} ranks" if found.world_size > 1 else ""
    rest = found.title.removeprefix(found.model)
    console.print(Text.assemble((found.model, "bold"), f"{rest}{ranks}\n"), soft_wrap=True)
    table = Table.grid(padding=(0, 2), pad_edge=True)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    table.add_row("top-1", Text(f"{scores.top1:.2%}", "bold green"), f"{scores.correct:,} of {scores.total:,}")
    table.add_row("top-5", f"{scores.top5:.2%}", f"{scores.correct_5:,} of {scores.total:,}")
    table.add_row("loss", f"{scores.loss:.4f}", "mean cross-entropy")
    table.add_row("calibration", f"{scores.calibration_error:.2%}", "mean distance of confidence and accuracy (ECE)")
    console.print(table)
    console.print()


def _class_table(found: "Evaluation", all_classes: bool) -> "Table":
    from rich.bar import Bar
    from rich.table import Table
    from rich.text import Text

    total = len(found.per_class)
    rows = found.worst(total if all_classes else _WORST)
    table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left", caption_style="")
    if len(rows) < total:
        table.caption = f"{total - len(rows):,} more classes (--all-classes)"
    table.add_column(
        "worst classes" if len(rows) < total else "classes", overflow="ellipsis", no_wrap=True, max_width=_NAME_WIDTH
    )
    table.add_column("right", justify="right")
    table.add_column("of", justify="right")
    table.add_column("accuracy", justify="right")
    table.add_column("", width=20)
    for row in rows:
        bar = Bar(1.0, 0.0, row.accuracy, width=20, color="cyan")
        table.add_row(Text(row.name), f"{row.correct:,}", f"{row.total:,}", f"{row.accuracy:.1%}", bar)
    return table
