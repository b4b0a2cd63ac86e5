"""`imgdata compact`: a dataset rewritten in place, without samples that are not used."""

import json
from pathlib import Path

import click

from ..options.common import dataset_argument, json_option, quiet_option, workers_option


@click.command(short_help="Rewrite a dataset as one version, without unused samples.")
@dataset_argument
@click.option(
    "--view",
    "views",
    multiple=True,
    metavar="VIEW",
    help="Keep only the samples of this view, under its labels; may be repeated.",
)
@workers_option
@quiet_option
@json_option("the result")
def command(dataset: Path, views: tuple[str, ...], workers: int | None, quiet: bool, as_json: bool) -> None:
    """Rewrite DATASET in its folder, as one version, with the samples of the views alone.

    Images keep their bytes. The old shards stay until the new ones are whole, so there must be room for both; the same
    command resumes. Saved views, and states of runs, that were made of DATASET don't fit it afterwards: to keep them,
    write to another folder with `imgdata shard DATASET OUT --view VIEW`.

    \b
      imgdata compact out/ --view clean
      imgdata compact out/
    """  # noqa: D301
    from imgdata.shards.compact import compact

    from ..display.console import note
    from ..display.shard import ShardDisplay, print_summary

    with ShardDisplay(quiet=quiet) as display:
        try:
            done = compact(dataset, views, workers=workers, watch=display)
        except KeyboardInterrupt:
            display.interrupted()
            raise
    if not quiet:
        print_summary(done.summary)
        if done.left_out:
            note(display.console, f"{done.left_out:,} samples are in the dataset no more")
        if done.stale_views:
            what = ", ".join(done.stale_views)
            note(display.console, f"saved views of the samples before can't be opened any more: {what}")
    if as_json:
        facts = {"left_out": done.left_out, "versions": done.versions, "stale_views": list(done.stale_views)}
        click.echo(json.dumps({**done.summary.to_dict(), **facts}))
