"""`imgdata index`: the index and all sidecars for tars that were made elsewhere."""

import json
from pathlib import Path
from typing import Any

import click

from ..options.common import hash_option, json_option, quiet_option, target_option, workers_option


@click.command(short_help="Index WebDataset shards that were made elsewhere.")
@click.argument("tars", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "--out", metavar="OUT", type=click.Path(path_type=Path, file_okay=False), help="Folder of the tars.  [found]"
)
@click.option("--name", metavar="NAME", help="First part of the sidecars' names.  [from the tars]")
@click.option(
    "--image-ext",
    metavar="EXT",
    multiple=True,
    help="Extension of the image, when samples have several; may be repeated.",
)
@click.option(
    "--label-from",
    default="auto",
    show_default=True,
    metavar="WHERE",
    help="Where labels are: cls, json:FIELD, txt, folder or none.",
)
@target_option("the field of --label-from holds: one class, lists of classes, a share of each, or numbers.")
@hash_option("Hash of each tar in dataset.json.")
@workers_option
@quiet_option
@json_option("a summary")
def command(
    tars: tuple[str, ...],
    out: Path | None,
    name: str | None,
    image_ext: tuple[str, ...],
    label_from: str,
    target: Any,
    hash: Any,
    workers: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write the index and all sidecars beside the tars of SOURCE, which stay as they are.

    SOURCE are WebDataset tars, a folder of them, a glob or a pattern such as 'x-train-{000..099}.tar'. Splits are read
    from their names.

    \b
      imgdata index shards/
      imgdata index 'cc-{0000..0331}.tar' --label-from json:class
      imgdata index shards/ --label-from json:tags --target multi-label
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
            target=target,
            hash=hash,
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
