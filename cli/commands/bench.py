"""`imgdata bench`: images/s of the loader and its other figures, beside other loaders, to read or to paste."""

import json
from pathlib import Path
from typing import Any

import click

from ..options.backend import BackendType
from ..options.common import CACHE_HELP, RECIPE_HELP, dataset_argument, json_option, quiet_option
from ..options.source import raw_options


@click.command(short_help="Measure images/s of the loader, beside others.")
@dataset_argument
@raw_options
@click.option("--split", default="train", show_default=True, metavar="NAME", help="Split that is read.")
@click.option(
    "--recipe",
    default="imagenet_train",
    show_default=True,
    metavar="NAME|FILE",
    help=RECIPE_HELP,
)
@click.option("--size", type=click.IntRange(min=1), help="Side of the output in pixels.  [the recipe's]")
@click.option("--backend", type=BackendType(), default="auto", show_default=True, help="What makes the batches.")
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda, cuda:1, ...")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples of a batch.  [256, or all of a small split]")
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads, or worker processes of other loaders.  [all cores]"
)
@click.option("--dtype", metavar="uint8|float16|float32", help="Type of the images.  [as the recipe suggests]")
@click.option("--cache", default="auto", metavar="auto|disk|memory|off|GB", help=CACHE_HELP)
@click.option("--ranks", type=click.IntRange(min=1), default=1, show_default=True, help="Run as rank 0 of N.")
@click.option(
    "--seconds", type=float, default=10.0, show_default=True, help="Measured time of each loader in each round."
)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Medians of how many runs.")
@click.option(
    "--compare",
    default="",
    metavar="NAMES",
    help="Other loaders: torchvision, torchvision-pil, torchvision-batched, torchcodec, webdataset, dali, dali-fused, "
    "with commas; or all that can run here.",
)
@click.option("--all-gpus", is_flag=True, help="Measure a process on every GPU at the same time.")
@click.option("--markdown", is_flag=True, help="Print Markdown, for an issue.")
@quiet_option
@json_option("all figures")
def command(dataset: Path, compare: str, markdown: bool, quiet: bool, as_json: bool, **settings: Any) -> None:
    """Measure how fast the loader makes batches of DATASET, and other loaders beside it.

    Each run is a process of its own, and loaders run alternately. Start and warm-up are not counted.

    \b
      imgdata bench out/ --compare torchvision,webdataset
      imgdata bench out/ --recipe cifar_train --backend resident --seconds 5
    """  # noqa: D301
    from imgdata.measure.bench import BenchOptions, bench
    from imgdata.measure.bench.peers import ALL
    from imgdata.measure.bench.result import as_markdown, bench_parts

    from ..display.console import Counting, screen

    names = ALL if compare.strip() == "all" else tuple(name.strip() for name in compare.split(",") if name.strip())
    options = BenchOptions(compare=names, **settings)
    with Counting("measuring", "runs", quiet=quiet) as counting:
        result = bench(dataset, options, progress=counting.progress)
    if as_json:
        click.echo(json.dumps(result.to_dict()))
        return
    if markdown:
        click.echo(as_markdown(result))
        return
    console = screen(stderr=False)
    for part in bench_parts(result, console.width):
        console.print(part, soft_wrap=isinstance(part, str))
