"""Rows of epochs -> TensorBoard's event files."""

from pathlib import Path
from typing import Any

from imgdata.errors import MissingExtraError
from imgdata.train.history import EpochRow


def load_writer() -> Any:
    """PyTorch's class that writes events. Raises `MissingExtraError`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard needs a package: pip install 'imgdata[tensorboard]'") from error
    return SummaryWriter


class Board:
    """Writes TensorBoard's events below a folder."""

    def __init__(self, folder: Path) -> None:
        """Raises `MissingExtraError`."""
        self._writer = load_writer()(str(folder))

    def add(self, row: EpochRow) -> None:
        """An epoch: losses in one chart, accuracies in another, the rest each in its own."""
        add = self._writer.add_scalar
        for name in ("train_loss", "val_loss", "train_top1", "val_top1", "val_top5", "lr", "images_per_s", "data_wait"):
            part, _, what = name.partition("_")
            add(f"{what}/{part}" if part in ("train", "val") else f"run/{name}", getattr(row, name), row.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
