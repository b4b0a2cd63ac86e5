"""`imgdata verify`: shards and sidecars against each other."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from ..options.common import dataset_argument, json_option, quiet_option, workers_option
from ..options.engine import chosen_engine, engine_options, ray_prints_to_stderr

_SHOWN = 50


@click.command(short_help="Check shards and sidecars, down to every byte.")
@dataset_argument
@click.option("--deep", is_flag=True, help="Decode every image too.")
@workers_option
@engine_options("checks shards")
@quiet_option
@json_option("the faults")
@click.pass_context
def command(
    ctx: click.Context, /, dataset: Path, deep: bool, workers: int | None, quiet: bool, as_json: bool, **_: object
) -> None:
    """Check DATASET: tar structure, hashes, labels and every sidecar.

    Each fault is printed with its shard, byte and key, and the exit code is then 1. An edited README.md is reported,
    and is not a fault.

    \b
      imgdata verify out/
      imgdata verify out/ --deep --json
      imgdata verify s3://bucket/photos --engine ray --address auto
    """  # noqa: D301
    from imgdata.dataset.remote_manifest import manifest_of
    from imgdata.shards.verify import verify

    from ..display.console import BAD, GOOD, Counting, note, say, tell

    engine = chosen_engine(ctx)
    with Counting("verifying", "shards", quiet=quiet or as_json) as counting, ray_prints_to_stderr(engine):
        faults = verify(
            dataset,
            deep=deep,
            workers=workers,
            progress=counting.progress,
            engine=engine,
            retried=lambda what: None if quiet else note(counting.console, what),
        )
    serious = [fault for fault in faults if fault.serious]
    shards = [shard for split in manifest_of(dataset).splits for shard in split.shards]
    unhashed = sum(shard.hash == "none" for shard in shards)
    if as_json:
        found = {"out": str(dataset), "deep": deep, "faults": [asdict(fault) for fault in faults]}
        click.echo(json.dumps({**found, **({"shards_without_hash": unhashed} if unhashed else {})}))
    else:
        for fault in serious[:_SHOWN]:
            say(str(fault))
        if len(serious) > _SHOWN:
            click.echo(f"and {len(serious) - _SHOWN:,} more (--json prints all)")
    if not (quiet or as_json):
        edited = [fault for fault in faults if not fault.serious]
        for fault in edited:
            note(counting.console, str(fault))
        if unhashed:
            note(counting.console, _without_hash(unhashed, len(shards)))
        if serious:
            what = f"{len(serious):,} fault{'s' if len(serious) > 1 else ''}:"
            tell(counting.console, BAD, what, str(dataset))
        else:
            what = f"everything{' else' if edited else ''} is as it was written:"
            tell(counting.console, GOOD, what, str(dataset))
    if serious:
        ctx.exit(1)


def _without_hash(unhashed: int, shards: int) -> str:
    count = f"{unhashed:,} of {shards:,} shards have" if shards > 1 else "the shard has"
    return (
        f"{count} no hash of all bytes: images were compared with their hashes in the index, labels with the index, "
        "headers and padding with what imgdata writes; `imgdata index` adds the sha256"
    )
