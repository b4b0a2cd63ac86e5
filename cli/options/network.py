"""What commands with a trained network share: options for its weights and its device; a note of images left out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from imgdata.loader.bad_images import BadImage

_NAMED = 5
"""Images left out that are named."""

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
        help="Of a run: after its best epoch, or after the last.",
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


def weights_options(function: Command) -> Command:
    """Add `weights`, `pretrained` and `checkpoint` to the arguments of a command."""
    for option in reversed(_WEIGHTS):
        function = option(function)
    return function


def network_options(function: Command) -> Command:
    """Add those of `weights_options` and `device`."""
    return weights_options(_DEVICE(function))


def left_out(skipped: "Sequence[BadImage]") -> str:
    """A note of images that can't be decoded: how many, and what is wrong with the first ones."""
    shown = "; ".join(f"{bad.key}: {bad.detail}" for bad in skipped[:_NAMED])
    more = f"; and {len(skipped) - _NAMED:,} more" if len(skipped) > _NAMED else ""
    return f"left out, {len(skipped):,} that can't be decoded: {shown}{more}"
