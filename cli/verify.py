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

    Each fault is printed with its shard, byte and key. The exit code is 1 when there is one.
    """
    from imgdata.shards.verify import verify

    from .counting import Counting

    with Counting("verifying", "shards", quiet=quiet or as_json) as counting:
        faults = verify(out, deep=deep, workers=workers, progress=counting.progress)
    if as_json:
        click.echo(json.dumps({"out": str(out), "deep": deep, "faults": [asdict(fault) for fault in faults]}))
    else:
        for fault in faults[:_SHOWN]:
            click.echo(str(fault))
        if len(faults) > _SHOWN:
            click.echo(f"and {len(faults) - _SHOWN:,} more (--json prints all)")
        if not quiet:
            end = f"[red]{len(faults):,} faults[/]" if faults else "[green]everything is as it was written[/]"
            counting.console.print(f"{end}: {out}", soft_wrap=True)
    if faults:
        ctx.exit(1)
