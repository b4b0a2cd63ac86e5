"""`imgdata index`: the index and all sidecars for tars that were made elsewhere."""

import json
from pathlib import Path

import click


@click.command(short_help="Index WebDataset shards that were made elsewhere.")
@click.argument("tars", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of the tars.  [default: found]")
@click.option("--name", help="First part of the sidecars' names.  [default: from the tars]")
@click.option("--image-ext", multiple=True, help="Extension of the image, when samples have several; may be repeated.")
@click.option(
    "--label-from", default="auto", show_default=True, help="Where labels are: cls, json:FIELD, txt, folder or none."
)
@click.option("--workers", type=click.IntRange(min=1), help="Threads.  [default: all cores]")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print a machine-readable summary last.")
def command(
    tars: tuple[str, ...],
    out: Path | None,
    name: str | None,
    image_ext: tuple[str, ...],
    label_from: str,
    workers: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write index and sidecars beside TARS, which stay as they are.

    TARS are WebDataset tars, a folder of them, a glob or a pattern such as 'x-train-{000..099}.tar'.
    Splits are read from their names.

    \b
      imgdata index shards/
      imgdata index 'cc-{0000..0331}.tar' --label-from json:class
    """  # noqa: D301
    from imgdata.shards.index_tars import index

    from ..display.console import GOOD, Counting, note, tell

    with Counting("indexing", "shards", quiet=quiet) as counting:
        dataset = index(
            tars,
            out,
            name=name,
            image_ext=image_ext,
            label_from=label_from,
            workers=workers,
            progress=counting.progress,
        )
    warnings = dataset.manifest.source.get("warnings", [])
    if not quiet:
        for warning in warnings:
            note(counting.console, warning)
        splits = ", ".join(f"{split} {len(samples):,}" for split, samples in dataset.items())
        found = f"{dataset.name}: {splits}; {len(dataset.classes):,} classes: {dataset.path}"
        tell(counting.console, GOOD, "done", found)
    if as_json:
        summary = {
            "name": dataset.name,
            "out": str(dataset.path),
            "samples": {split: len(samples) for split, samples in dataset.items()},
            "shards": {split: len(samples.shards) for split, samples in dataset.items()},
            "classes": len(dataset.classes),
            "label_from": dataset.manifest.label_from,
            "warnings": list(warnings),
        }
        click.echo(json.dumps(summary))
