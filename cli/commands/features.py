"""`imgdata features`: a network, a dataset -> a file with the classifier's input for each image."""

import json
from pathlib import Path
from typing import Any

import click

from ..options.common import dataset_argument, quiet_option
from ..options.network import left_out, network_options
from ..options.source import raw_options


@click.command(short_help="Write the feature vector of each image to a file.")
@click.argument("network", metavar="NETWORK")
@dataset_argument
@raw_options
@click.option(
    "-o",
    "--output",
    "path",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write: .npz or .parquet.",
)
@click.option("--split", default="train", show_default=True, help="Name of the split.")
@click.option("--view", default="", help='A saved view, or steps such as "fraction=0.1".')
@network_options
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=128, show_default=True, help="Images computed at a time."
)
@click.option("--exact", is_flag=True, help="Decode and resize as torchvision and timm do; slower.")
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print a machine-readable summary last.")
def command(network: str, dataset: Path, path: Path, quiet: bool, as_json: bool, **options: Any) -> None:
    """Write the input of the network's classifier for each image of DATASET, with keys and labels.

    One row for each sample, in the order of the index: 2048 numbers of resnet50, 4096 of vgg16, 1280 of
    efficientnet_b0. NETWORK is the folder of a run of `imgdata train`, or a network's name with
    --weights or --pretrained.

    \b
      imgdata features resnet50 out/ --pretrained --split train -o features.npz
    """  # noqa: D301
    from imgdata.inference.features import features

    from ..display.console import GOOD, Counting, note, tell

    with Counting("computing", "batches", quiet=quiet) as counting:
        found = features(network, dataset, path, progress=counting.progress, **options)
    rows, width = found.vector_ND.shape
    if not quiet:
        if found.skipped:
            note(counting.console, left_out(found.skipped))
        tell(counting.console, GOOD, "done", f"{rows:,} vectors of {width:,} numbers: {path}")
    if as_json:
        skipped = [{"key": bad.key, "reason": bad.reason, "detail": bad.detail} for bad in found.skipped]
        click.echo(json.dumps({"path": str(path), "rows": rows, "width": width, "skipped": skipped}))
