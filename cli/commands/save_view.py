"""`imgdata save-view`: a choice of samples, written into the dataset under a name."""

import json
from pathlib import Path

import click

from ..options.common import dataset_argument, json_option, quiet_option
from ..options.source import raw_options


@click.command(short_help="Save a choice of samples under a name.")
@dataset_argument
@raw_options
@click.argument("name", metavar="NAME")
@click.argument("steps", metavar="STEPS")
@click.option("--split", default="train", show_default=True, metavar="NAME", help="Split that the view is of.")
@click.option("--overwrite", is_flag=True, help="Replace the view of this name.")
@quiet_option
@json_option("the view")
def command(dataset: Path, name: str, steps: str, split: str, overwrite: bool, quiet: bool, as_json: bool) -> None:
    """Save samples of DATASET as the view NAME, chosen by STEPS; no image is copied.

    STEPS are written as in `--view` of `imgdata train`: fraction, count, fold, per_class, exclude, relabel, where,
    balance, with | between them. `imgdata inspect DATASET` lists the views.

    \b
      imgdata save-view out/ tenth "fraction=0.1"
      imgdata save-view out/ pets "where class in cat,dog & width>=64 | balance"
      imgdata train out/ --view tenth --out runs/tenth
    """  # noqa: D301
    import imgdata
    from imgdata.errors import OptionError
    from imgdata.views.saved import open_view, save_view

    from ..display.console import GOOD, screen, tell

    opened = imgdata.open(dataset)
    if split not in opened:
        raise OptionError(f"split must be one of {', '.join(opened)}, got {split!r}")
    view = open_view(opened, split, steps)
    path = save_view(view, name, overwrite=overwrite)
    if not quiet:
        tell(screen(), GOOD, "saved", f"{name}: {len(view):,} of {len(opened[split]):,} samples of {split}: {path}")
    if as_json:
        facts = {"name": name, "split": split, "steps": view.expression, "samples": len(view), "file": str(path)}
        click.echo(json.dumps(facts))
