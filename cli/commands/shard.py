"""`imgdata shard`: a raw dataset into a dataset folder."""

import json
import os
from pathlib import Path
from typing import Any

import click

from ..options.common import byte_size, hash_option, quiet_option
from ..options.engine import chosen_engine, engine_options, ray_prints_to_stderr
from ..options.source import source_options, taken
from ..options.steps import chosen_step, run_plan, run_step, step_options


@click.command(short_help="Turn an image dataset into verified, indexed shards.")
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@source_options
@click.option(
    "--split", "fractions", help="Cut a source without splits: train=0.9,val=0.1 (stratified by class, seeded)."
)
@click.option("--classes", help="Keep only these classes: ids with commas between, or a file with one a line.")
@click.option(
    "--exclude", multiple=True, help="Leave out names that match, such as 'train/cat/*.png'; may be repeated."
)
@click.option(
    "--view",
    "views",
    multiple=True,
    metavar="VIEW",
    help="Only the samples of this view, under its labels, where SOURCE is a dataset; may be repeated.",
)
@click.option("--name", help="First part of the file names.  [default: from the source]")
@click.option("--shard-size", type=byte_size, metavar="SIZE", default="256MB", show_default=True, help="Largest tar.")
@click.option("--shard-samples", type=click.IntRange(min=1), help="Samples per tar, instead of a size.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides the shuffled order and the split."
)
@click.option("--no-shuffle", is_flag=True, help="Keep the source's order in the training shards too.")
@click.option(
    "--format",
    "image_format",
    type=click.Choice(["keep", "jpg", "png", "webp"]),
    default="keep",
    show_default=True,
    help="Format to store; images that have it keep their bytes.",
)
@click.option("--resize", type=click.IntRange(min=1), help="Resize images to so many pixels (antialiased).")
@click.option(
    "--resize-mode",
    type=click.Choice(["shorter", "longer", "exact"]),
    default="shorter",
    show_default=True,
    help="Which side --resize sets.",
)
@click.option("--upscale", is_flag=True, help="Let --resize enlarge small images too.")
@click.option(
    "--quality",
    type=click.IntRange(1, 100),
    default=90,
    show_default=True,
    help="JPEG and WebP quality of re-encoded images.",
)
@click.option(
    "--crop-ready", is_flag=True, help="Write JPEGs, without loss, so that random crops are decoded in less time."
)
@click.option("--strip", is_flag=True, help="With --crop-ready: drop metadata that no pixel depends on.")
@click.option("--key-prefix", default="", help="Text before all keys, such as 2026/, where an append's keys are taken.")
@click.option("--json-members", is_flag=True, help="Add a .json member with source, size and class to each sample.")
@click.option(
    "--check",
    type=click.Choice(["decode", "header", "none"]),
    default="decode",
    show_default=True,
    help="How far each image is checked.",
)
@click.option(
    "--on-bad",
    type=click.Choice(["reject", "fail", "repair"]),
    default="reject",
    show_default=True,
    help="Leave bad images out, stop, or also make odd ones upright 8-bit RGB.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=200_000_000,
    show_default=True,
    help="Larger images are bad, and never decoded.",
)
@hash_option("Hash of each whole shard: as Croissant wants it, a fast one, or none.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes or threads.  [default: all cores]")
@click.option("--work", metavar="FOLDER", help="Where shards are made for an OUT in an object store.  [cache folder]")
@engine_options("writes shards")
@step_options
@click.option("--dry-run", is_flag=True, help="Print the plan, and what is in OUT; write nothing.")
@click.option(
    "--overwrite", is_flag=True, help="Replace a dataset in OUT, once the new one is complete; also resumes that."
)
@click.option("--append", is_flag=True, help="Add the images to the dataset in OUT, as its next version.")
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print a machine-readable summary last.")
def command(source: str, out: Path, **options: Any) -> None:
    """Turn the raw dataset SOURCE into WebDataset shards, with an index, in the folder OUT.

    SOURCE is what you have: CIFAR or ImageNet as downloaded, class folders (in a .zip too), a table of labels,
    Parquet, Arrow, TFRecord, MDS or LitData files, arrays (MNIST, .npz, HDF5), WebDataset tars, or
    synthetic:samples=1000,classes=10. Its layout is recognised.

    \b
      imgdata shard imagenet/ out/
      imgdata shard photos/ out/ --split train=0.9,val=0.1 --resize 256
      imgdata shard cifar-10-python.tar.gz out/
      imgdata shard imagenet/ out/ --engine ray --address auto
      imgdata shard more-photos/ out/ --append

    Other commands that read a dataset, such as inspect and train, take the options that say how SOURCE is read as well,
    for raw images.

    The same command resumes a run that was interrupted. An old dataset in OUT is replaced only with --overwrite, once
    the new one is complete; with --append it gets more samples and classes, and what was trained on it resumes as it
    was.

    Both may be in an object store, such as s3://bucket/photos: SOURCE where its images are files, or lie in tars,
    such as those of a dataset, or Parquet. Shards are made in the folder --work then, uploaded while the next ones are
    made, and removed.

    Many machines: --plan on one of them, --part in each task, --finish at the end; OUT is a folder that all of them
    have, or in an object store.
    """  # noqa: D301 - click wants a real backspace
    from imgdata.images.encode import Encoding
    from imgdata.shards.job import plan_shards, shard
    from imgdata.shards.options import ShardOptions
    from imgdata.stratify import parse_fractions

    from ..display.shard import ShardDisplay, print_plan, print_summary

    ctx = click.get_current_context()
    step = chosen_step(ctx)
    if step in ("part", "finish"):
        run_step(source, out, options)
        return
    read = taken(options)
    write = ShardOptions(
        name=options["name"],
        shard_bytes=options["shard_size"],
        shard_samples=options["shard_samples"],
        classes=_class_ids(options["classes"]),
        exclude=options["exclude"],
        views=options["views"],
        split=parse_fractions(options["fractions"]) if options["fractions"] else {},
        seed=options["seed"],
        shuffle=not options["no_shuffle"],
        encoding=Encoding(
            format=options["image_format"],
            resize=options["resize"],
            resize_mode=options["resize_mode"],
            upscale=options["upscale"],
            quality=options["quality"],
        ),
        check=options["check"],
        on_bad=options["on_bad"],
        max_pixels=options["max_pixels"],
        crop_ready=options["crop_ready"],
        strip=options["strip"],
        key_prefix=options["key_prefix"],
        json_members=options["json_members"],
        hash=options["hash"],
    )
    quiet, as_json = options["quiet"], options["as_json"]
    if options["dry_run"]:
        plan = plan_shards(source, write, read=read, workers=options["workers"], out=out, append=options["append"])
        if as_json:
            click.echo(json.dumps(plan))
        elif not quiet:
            print_plan(plan)
        return
    if step == "plan":
        run_plan(source, out, write, read, options)
        return
    engine = chosen_engine(ctx)
    with ShardDisplay(quiet=quiet) as display, ray_prints_to_stderr(engine):
        try:
            summary = shard(
                source,
                out,
                write,
                read=read,
                workers=options["workers"],
                overwrite=options["overwrite"],
                append=options["append"],
                work=options["work"],
                watch=display,
                engine=engine,
            )
        except KeyboardInterrupt:
            display.interrupted()
            raise
    if not quiet:
        print_summary(summary)
    if as_json:
        click.echo(json.dumps(summary.to_dict()))


_LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".lst", ".list", ".names")


def _class_ids(text: str | None) -> tuple[str, ...]:
    """Return the classes of `--classes`: the lines of a file, else words with commas between. Raises `OptionError`."""
    from imgdata.errors import OptionError

    if not text:
        return ()
    # Class ids can be longer than any path, and a folder may have the name of one; a pipe is read like a file.
    if os.path.exists(text) and not os.path.isdir(text):
        try:
            parts = Path(text).read_text("utf-8-sig").splitlines()
        except OSError as error:
            raise OptionError(f"classes: {text} can't be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise OptionError(
                f"classes: {text} must be a text file with one class a line, got other data at byte {error.start}"
            ) from error
    elif "," not in text and text.lower().endswith(_LIST_SUFFIXES):
        raise OptionError(
            f"classes: {text}: no such file; give a file with one class a line, or ids with commas between"
        )
    else:
        parts = text.split(",")
    return tuple(part.strip() for part in parts if part.strip())
