"""`imgdata export`: a dataset back into class folders."""

import json
from pathlib import Path

import click

from ..options.common import dataset_argument, json_option, quiet_option


@click.command(short_help="Write a dataset back as class folders.")
@dataset_argument
@click.argument("folder", metavar="OUT", type=click.Path(path_type=Path, file_okay=False))
@click.option("--split", metavar="NAME", help="Only this split.  [all]")
@quiet_option
@json_option("a summary")
def command(dataset: Path, folder: Path, split: str | None, quiet: bool, as_json: bool) -> None:
    """Write the images of DATASET to OUT/<split>/<class>/, their bytes as stored.

    OUT must be new or empty. Files have the names of the raw dataset where those are unique in their class.

    \b
      imgdata export out/ folders/
      imgdata export out/ folders/ --split val
    """  # noqa: D301
    from rich.filesize import decimal

    from imgdata.shards.export import export

    from ..display.console import GOOD, Counting, note, tell

    with Counting("exporting", "files", quiet=quiet) as counting:
        done = export(dataset, folder, split=split, progress=counting.progress)
    if not quiet:
        if done.left_json:
            note(counting.console, "json members stay in the shards")
        tell(counting.console, GOOD, "done", f"{done.files:,} files, {decimal(done.bytes)}: {folder}")
    if as_json:
        click.echo(json.dumps({"folder": str(done.folder), "files": done.files, "bytes": done.bytes}))
