"""`imgdata parity`: how far pixels are from torchvision's, on the user's own images, as a table."""

import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..options.common import RECIPE_HELP, json_option, quiet_option

if TYPE_CHECKING:
    from rich.table import Table

    from imgdata.measure.parity.parity import Difference, Parity

_SIZE = 224


@click.command(short_help="Compare pixels with torchvision's, on your own images.")
@click.argument("paths", metavar="SOURCE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--recipe",
    "name",
    metavar="NAME|FILE",
    help=f"{RECIPE_HELP}  [every operator]",
)
@click.option("--size", type=click.IntRange(8, 4096), help=f"Side of the output in pixels.  [{_SIZE}, or the recipe's]")
@click.option("--images", type=click.IntRange(min=1), default=16, show_default=True, help="Images that are compared.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of crops, angles and factors."
)
@click.option("--all-backends", is_flag=True, help="Compare every other backend that can be used here too.")
@quiet_option
@json_option("all figures")
def command(
    paths: tuple[Path, ...],
    name: str | None,
    size: int | None,
    images: int,
    seed: int,
    all_backends: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run operators on the images of SOURCE, by every backend and by torchvision, with the same parameters.

    SOURCE is an image, a folder of images or a finished dataset. Differences are in steps of 255, from torchvision's
    operators on PIL images and from those on tensors, whose pixels differ from each other.

    \b
      imgdata parity photos/
      imgdata parity out/ --recipe imagenet_train --images 64 --all-backends
    """  # noqa: D301
    from imgdata.measure.parity.cases import operator_cases, recipe_cases
    from imgdata.measure.parity.parity import available, parity
    from imgdata.measure.parity.pictures import load_pictures
    from imgdata.recipes.presets import named_recipe

    from ..display.console import Counting, note, screen

    cases = operator_cases(size or _SIZE) if name is None else recipe_cases(named_recipe(name, size))
    with Counting("comparing", "operators", quiet=quiet) as counting, tempfile.TemporaryDirectory() as cache:
        # Decoded pictures that a backend would keep are of no further use.
        os.environ["IMGDATA_CACHE"] = cache
        backends = available(all_backends=all_backends)
        result = parity(load_pictures(paths, images), cases, seed=seed, backends=backends, progress=counting.progress)
    if not quiet:
        for line in result.refused:
            note(counting.console, f"left out {line}")
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(result)))
        return
    screen(stderr=False).print(_table(result))


def _table(result: "Parity") -> "Table":
    """Return a line for each operator and backend; where torchvision's two ways agree, the second half is left empty.

    The table is 80 columns wide, for terminals of that width.
    """
    from imgdata.tables import new_table

    several = len({row.backend for row in result.rows}) > 1
    table = new_table()
    table.caption = f"{result.images:,} images, differences in steps of 255"
    table.add_column("\noperator", no_wrap=True)
    if several:
        table.add_column("\nbackend")
    for source in ("PIL", "tensor"):
        for column in (f"{source}\nmean", "\nwithin 1", "\nmax"):
            table.add_column(column, justify="right")
    operator = ""
    for row in result.rows:
        names = ["" if row.operator == operator else row.operator] + [row.backend] * several
        table.add_row(*names, *_cells(row.pil), *(_cells(row.tensor) if row.tensor != row.pil else ("", "", "")))
        operator = row.operator
    return table


def _cells(difference: "Difference") -> tuple[str, str, str]:
    return f"{difference.mean:.3f}", f"{difference.within_1:.2%}", f"{difference.max:.4g}"
