"""`imgdata export-model`: a trained network -> an ONNX file."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..options.common import quiet_option
from ..options.network import weights_options


@click.command("export-model", short_help="Write a trained network as an ONNX file.")
@click.argument("network", metavar="NETWORK")
@click.option(
    "-o",
    "--output",
    "path",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write: .onnx.",
)
@weights_options
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print a machine-readable summary last.")
def command(network: str, path: Path, quiet: bool, as_json: bool, **options: Any) -> None:
    """Write a network as ONNX, for batches of any length, and check it with onnxruntime before it gets its name.

    NETWORK is the folder of a run of `imgdata train`, or a network's name with --weights or --pretrained. Class names,
    mean, deviation and size are in the file's metadata.

    \b
      imgdata export-model runs/a -o model.onnx
    """  # noqa: D301
    from rich.filesize import decimal

    from imgdata.inference.export import export_model

    from ..display.console import GOOD, screen, tell

    done = export_model(network, path, **options)
    if not quiet:
        console = screen()
        tell(console, GOOD, "done", f"{decimal(done.bytes)}, opset {done.opset}, {done.classes:,} classes: {done.path}")
        console.print(
            f"     images (batch, 3, {done.size}, {done.size}) to logits (batch, {done.classes}); onnxruntime's differ "
            f"from PyTorch's by {done.max_difference:.1e} at most",
            soft_wrap=not console.is_terminal,
        )
    if as_json:
        click.echo(json.dumps({**asdict(done), "path": str(done.path)}))
