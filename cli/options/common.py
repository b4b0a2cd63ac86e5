"""Arguments and options that mean the same in every command."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from imgdata.storage.local_paths import any_path

Command = Callable[..., Any]


def watch_reading(ctx: click.Context, _: click.Parameter, dataset: Path | None) -> Path | None:
    """Show how far the first reading of raw images is, whenever the command opens them; the dataset may be a URL."""
    dataset = None if dataset is None else any_path(dataset)
    if (
        dataset is not None
        and not (dataset / "dataset.json").exists()
        and dataset.exists()
        and not ctx.resilient_parsing
    ):
        from imgdata.loose.progress import watched

        from ..display.reading import Reading

        reading = ctx.with_resource(Reading(quiet=lambda: bool(ctx.params.get("quiet"))))
        ctx.with_resource(watched(reading.progress))
    return dataset


dataset_argument = click.argument("dataset", metavar="DATASET", type=click.Path(path_type=Path), callback=watch_reading)
"""The folder or URL of a finished dataset, as `dataset`."""
quiet_option = click.option("--quiet", is_flag=True, help="Print nothing but results and errors.")
"""No progress, no notes, no closing line, as `quiet`."""
CACHE_HELP = "Shards of an object store that are kept; GB: gigabytes of the disk.  [auto]"
RECIPE_HELP = "imagenet, cifar, classifier, plain, a ready recipe such as imagenet_eval, or a .json file."


def byte_size(text: str) -> int:
    """Return a number of bytes, with a unit if wanted: `256MB`, `1GiB`, `500000`."""
    from imgdata.errors import OptionError
    from imgdata.shards.keywords import byte_size as read_size

    try:
        return read_size(text)
    except OptionError as error:
        raise click.BadParameter(str(error)) from error


def json_option(what: str) -> Callable[[Command], Command]:
    """Add `--json`, as `as_json`: print `what` as one JSON object on the last line of standard output."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {what} as JSON.")


def recipe_option(otherwise: str = "") -> Callable[[Command], Command]:
    """Add `--recipe`, as `recipe`; `otherwise` says which one is used without it."""
    return click.option("--recipe", metavar="NAME|FILE", help=RECIPE_HELP + (f"  [{otherwise}]" if otherwise else ""))


def target_option(what: str, *, more: Sequence[str] = ()) -> Callable[[Command], Command]:
    """Add `--target`, as `target`: what `what` holds; `more` are further targets."""
    return click.option(
        "--target",
        type=click.Choice(["class", "multi-label", "soft", "regression", *more, "none"]),
        help=f"What {what}  [class]",
    )


def hash_option(what: str) -> Callable[[Command], Command]:
    """Add `--hash`, as `hash`: the kind of hash of each shard."""
    return click.option(
        "--hash", type=click.Choice(["sha256", "xxh128", "none"]), default="sha256", show_default=True, help=what
    )


workers_option = click.option("--workers", type=click.IntRange(min=1), help="Threads that work.  [all cores]")
"""Number of threads that read and check files, as `workers`."""
