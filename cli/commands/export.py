"""`imgdata export`: a dataset back into class folders."""

import json
from pathlib import Path

import click


@click.command(short_help="Write a dataset back as class folders.")
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--split", help="Only this split.  [default: all]")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print a machine-readable summary last.")
def command(out: Path, folder: Path, split: str | None, quiet: bool, as_json: bool) -> None:
    """Write the images of the dataset in OUT to FOLDER/<split>/<class>/, their bytes as stored.

    FOLDER must be new or empty. Files have the names of the raw dataset where those are unique in their class.
    """
    from rich.filesize import decimal

    from imgdata.shards.export import export

    from ..display.console import GOOD, Counting, note, tell

    with Counting("exporting", "files", quiet=quiet) as counting:
        done = export(out, folder, split=split, progress=counting.progress)
    if not quiet:
        if done.left_json:
            note(counting.console, "json members stay in the shards")
        tell(counting.console, GOOD, "done", f"{done.files:,} files, {decimal(done.bytes)}: {folder}")
    if as_json:
        click.echo(json.dumps({"folder": str(done.folder), "files": done.files, "bytes": done.bytes}))
