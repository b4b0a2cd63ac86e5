"""Options that commands with a trained network share: its weights and its device; a note of images left out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from imgdata.loader.bad_images import BadImage

_NAMED = 5
"""Number of images left out that are named."""

_WEIGHTS = (
    click.option(
        "--weights",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Weights of a network by name: .pth, .pt, .bin, .safetensors.",
    ),
    click.option("--pretrained", is_flag=True, help="Weights of a network by name from timm's hub."),
    click.option(
        "--checkpoint",
        type=click.Choice(("best", "last")),
        default="best",
        show_default=True,
        help="Weights of a run: after its best epoch, or after the last.",
    ),
    click.option(
        "--model",
        metavar="FUNCTION",
        help="The code of a run whose network is your own: package.module:function.",
    ),
)
_DEVICE = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="cpu, cuda, cuda:1; auto: a GPU if there is one.",
)

Command = Callable[..., Any]


def crops_option(function: Command) -> Command:
    """Add `crops` to the arguments of a command."""
    return click.option(
        "--crops",
        type=click.Choice(("1", "5", "10")),
        default="1",
        show_default=True,
        callback=lambda ctx, option, value: int(value),
        help="Crops of each image whose probabilities are averaged: the middle; corners and middle; these and their "
        "mirror images.",
    )(function)


def weights_options(function: Command) -> Command:
    """Add `weights`, `pretrained`, `checkpoint` and `model` to the arguments of a command."""
    for option in reversed(_WEIGHTS):
        function = option(function)
    return function


def network_options(function: Command) -> Command:
    """Add the options of `weights_options`, and `device`."""
    return weights_options(_DEVICE(function))


def left_out(skipped: "Sequence[BadImage]") -> str:
    """Return a note of images that can't be decoded: how many, and the faults of the first ones."""
    shown = "; ".join(f"{bad.key}: {bad.detail}" for bad in skipped[:_NAMED])
    more = f"; and {len(skipped) - _NAMED:,} more" if len(skipped) > _NAMED else ""
    return f"left out, {len(skipped):,} that can't be decoded: {shown}{more}"
