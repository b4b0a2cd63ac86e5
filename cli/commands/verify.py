"""`imgdata verify`: shards and sidecars against each other."""

import json
from dataclasses import asdict
from pathlib import Path

import click

_SHOWN = 50


@click.command(short_help="Check shards and sidecars, down to every byte.")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--deep", is_flag=True, help="Decode every image too.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads.  [default: all cores]")
@click.option("--quiet", is_flag=True, help="Print nothing but faults.")
@click.option("--json", "as_json", is_flag=True, help="Print the faults as JSON.")
@click.pass_context
def command(ctx: click.Context, out: Path, deep: bool, workers: int | None, quiet: bool, as_json: bool) -> None:
    """Check the dataset in OUT: tar structure, hashes, labels and every sidecar.

    Each fault is printed with its shard, byte and key. The exit code is 1 when there is one. A README.md that was
    edited is told, and is no fault.
    """
    from imgdata.shards.verify import verify

    from ..display.console import BAD, GOOD, Counting, note, tell

    with Counting("verifying", "shards", quiet=quiet or as_json) as counting:
        faults = verify(out, deep=deep, workers=workers, progress=counting.progress)
    serious = [fault for fault in faults if fault.serious]
    if as_json:
        click.echo(json.dumps({"out": str(out), "deep": deep, "faults": [asdict(fault) for fault in faults]}))
    else:
        for fault in serious[:_SHOWN]:
            click.echo(str(fault))
        if len(serious) > _SHOWN:
            click.echo(f"and {len(serious) - _SHOWN:,} more (--json prints all)")
    if not (quiet or as_json):
        edited = [fault for fault in faults if not fault.serious]
        for fault in edited:
            note(counting.console, str(fault))
        if serious:
            what = f"{len(serious):,} fault{'s' if len(serious) > 1 else ''}:"
            tell(counting.console, BAD, what, str(out))
        else:
            what = f"everything{' else' if edited else ''} is as it was written:"
            tell(counting.console, GOOD, what, str(out))
    if serious:
        ctx.exit(1)
