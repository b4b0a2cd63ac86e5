"""All that the records need of imgdata and is not in `imgdata` itself: when modules move, this file alone follows."""

from pathlib import Path

from click.testing import CliRunner
from imgdata_cli.main import cli

from imgdata.augment.mix import mix_params
from imgdata.augment.params import erasing_noise, params
from imgdata.order.epoch_order import Order, spread
from imgdata.training.history import TrainWatcher
from imgdata.training.loop import train
from imgdata.training.options import TrainOptions
from imgdata.views.saved import list_views, open_view, save_view

__all__ = [
    "Order",
    "TrainOptions",
    "TrainWatcher",
    "command",
    "erasing_noise",
    "list_views",
    "mix_params",
    "open_view",
    "params",
    "save_view",
    "spread",
    "train",
]


def command(*arguments: str | Path) -> str:
    """What `imgdata ...` writes to standard output; what goes wrong is raised."""
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout
