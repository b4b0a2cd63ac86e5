"""`imgdata inspect`: the contents of a dataset as tables; its pictures on one sheet; or one of its samples."""

import json
from pathlib import Path

import click

from ..display.view import print_view
from ..options.common import RECIPE_HELP, dataset_argument, json_option
from ..options.source import raw_options

_FEW = 5
"""Keys like the one that was given, at most."""


@click.command(short_help="Show splits, classes, sizes, views and pictures.")
@dataset_argument
@raw_options
@click.option("--split", metavar="NAME", help="Split of --sample, --sheet and --view.  [the first]")
@click.option("--all-classes", is_flag=True, help="List every class.")
@click.option("--sample", "key", metavar="KEY", help="Print the facts of this sample.")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Write its image here."
)
@click.option(
    "--sheet",
    metavar="FILE.png",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw pictures of each class on one sheet.",
)
@click.option("--view", metavar="VIEW", help="Show what a saved view, or steps, leave out and relabel, and why.")
@click.option("--augmented", is_flag=True, help="Draw what training gets: a sample a row, as the recipe makes it.")
@click.option("--recipe", metavar="NAME|FILE", help=f"{RECIPE_HELP} For --augmented.  [by picture size]")
@json_option("all figures")
def command(
    dataset: Path,
    split: str | None,
    all_classes: bool,
    key: str | None,
    output: Path | None,
    sheet: Path | None,
    view: str | None,
    augmented: bool,
    recipe: str | None,
    as_json: bool,
) -> None:
    """Show what is in DATASET, from its index alone; on request its pictures, or one sample.

    Of a dataset that `imgdata shard` has not finished: how many shards are written, and which parts are missing.

    \b
      imgdata inspect out/
      imgdata inspect out/ --sheet sheet.png
      imgdata inspect out/ --sheet made.png --augmented --recipe cifar_train
      imgdata inspect out/ --view clean
      imgdata inspect out/ --sample n01440764/n01440764_10026 -o tench.jpg
    """  # noqa: D301
    from imgdata.errors import OptionError

    if output is not None and key is None:
        raise OptionError("-o needs --sample KEY, whose image it writes")
    if (augmented or recipe is not None) and sheet is None:
        raise OptionError(f"--{'augmented' if augmented else 'recipe'} needs --sheet FILE.png, which it draws")
    if view is not None:
        if key is not None or sheet is not None:
            raise OptionError(f"--view shows what the view does; leave --{'sheet' if sheet else 'sample'} out")
        print_view(dataset, view, split, as_json)
    elif key is not None:
        _print_sample(dataset, key, split, output, as_json)
    elif sheet is not None:
        _save_sheet(dataset, sheet, split, augmented, recipe)
    else:
        _print_summary(dataset, all_classes, as_json)


def _print_summary(dataset: Path, all_classes: bool, as_json: bool) -> None:
    import imgdata
    from imgdata.dataset.summary import summary_parts
    from imgdata.tables import new_table
    from imgdata.views.saved import saved_views

    from ..display.console import note, screen

    if _print_unfinished(dataset, as_json):
        return
    summary = imgdata.inspect(dataset)
    views = saved_views(imgdata.open(dataset))
    if as_json:
        click.echo(json.dumps({**summary.to_dict(), "views": [view._asdict() for view in views]}))
        return
    console = screen(stderr=False)
    for part in summary_parts(summary, all_classes=all_classes):
        console.print(part, soft_wrap=isinstance(part, str))
    if views:
        table = new_table()
        table.add_column("view")
        table.add_column("split")
        table.add_column("samples", justify="right")
        table.add_column("steps")
        for view in views:
            table.add_row(view.name, view.split, f"{view.samples:,}", view.expression)
        console.print()
        console.print(table)
    for warning in summary.source.get("warnings", ()):
        note(console, warning)


def _print_unfinished(dataset: Path, as_json: bool) -> bool:
    """Print how much is there of a dataset that is not finished; return whether that is so."""
    from imgdata.storage.local_paths import url_scheme

    here = url_scheme(dataset) is None
    if here and ((dataset / "dataset.json").exists() or not (dataset / ".imgdata").is_dir()):
        return False
    from imgdata.shards.unfinished import unfinished

    found = unfinished(dataset)
    if found is None:
        return False
    if as_json:
        click.echo(json.dumps(found.to_dict()))
    else:
        from ..display.shard import print_unfinished

        print_unfinished(dataset, found)
    return True


def _save_sheet(dataset: Path, sheet: Path, split: str | None, augmented: bool, recipe: str | None) -> None:
    from imgdata.errors import OptionError
    from imgdata.measure.sheet import contact_sheet
    from imgdata.storage.atomic import output_error

    from ..display.console import GOOD, screen, tell

    if sheet.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise OptionError(f"--sheet must end in .png, .jpg or .webp, got {sheet}")
    if not sheet.absolute().parent.is_dir():
        raise OptionError(f"--sheet: there is no folder {sheet.absolute().parent}; make it first")
    picture = contact_sheet(dataset, split=split, augmented=augmented, recipe=recipe)
    try:
        picture.save(sheet)
    except OSError as error:
        raise output_error(error, sheet) from error
    tell(screen(), GOOD, "done", f"{picture.width} x {picture.height} pixels: {sheet}")


def _print_sample(dataset: Path, key: str, split: str | None, output: Path | None, as_json: bool) -> None:
    import imgdata
    from imgdata.errors import OptionError
    from imgdata.storage.atomic import output_error

    opened = imgdata.open(dataset)
    if split is not None and split not in opened:
        raise OptionError(f"split must be one of {', '.join(opened)}, got {split!r}")
    names = [split] if split is not None else list(opened)
    found = next(((name, i) for name in names if (i := opened[name].index.find(key)) >= 0), None)
    if found is None:
        close = list(dict.fromkeys(near for name in names for near in opened[name].close_keys(key)))[:_FEW]
        raise OptionError(f"no sample {key!r} in {', '.join(names)}" + (f"; near: {', '.join(close)}" if close else ""))
    name, position = found
    sample, row = opened[name][position], opened[name].index.row(position)
    if output is not None:
        try:
            output.write_bytes(sample.image)
        except OSError as error:
            raise output_error(error, output) from error
    label = opened.classes[sample.label] if 0 <= sample.label < len(opened.classes) else None
    facts = {
        "split": name,
        "position": position,
        **row._asdict(),
        # As text: readers of JSON may round whole numbers above 2**53.
        "xxh64": f"{opened[name].hash(position):016x}",
        "class_id": label.id if label else None,
        "class_name": label.name if label else None,
        "fields": sample.fields,
        "saved": None if output is None else str(output),
    }
    if as_json:
        click.echo(json.dumps(facts))
        return
    from ..display.console import say

    for fact, value in facts.items():
        if value not in ({}, None):
            say(f"{fact:>12}  {json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value}")
