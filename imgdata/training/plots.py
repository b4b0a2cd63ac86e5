"""Rows of epochs, confusion matrices -> pictures and TensorBoard's events."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import MissingExtraError
from imgdata.storage.atomic import write_atomic
from imgdata.training.history import EpochRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TRAIN, _VAL = "#4c78a8", "#e45756"
_NUMBERED_CLASSES = 25
"""Up to so many classes the matrix shows its counts, and all names."""


def load_figure() -> "type[Figure]":
    """Return Matplotlib's figure, which needs no global state. Raises `MissingExtraError`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("plots need matplotlib: pip install 'imgdata[train]'") from error
    return Figure


def figure(width: float, height: float) -> "Figure":
    """Return an empty figure of so many inches. Raises `MissingExtraError`."""
    return load_figure()(figsize=(width, height), dpi=120, layout="constrained")


def name_of(text: str) -> str:
    """Return a name that comes from data as a text of a figure, in which a dollar sign begins no formula."""
    return text.replace("$", r"\$")


def save_figure(drawing: "Figure", path: Path) -> None:
    """Write the figure as PNG, whole or not at all. Raises `OutputError`."""
    data = io.BytesIO()
    drawing.savefig(data, format="png", metadata={"Software": None}, bbox_inches="tight")
    write_atomic(path, data.getvalue())


def plot_curves(rows: Sequence[EpochRow], path: Path, score: str | None = None) -> None:
    """Plot loss and accuracy by epoch, of training and validation, side by side.

    `score` is a metric of the validation that is plotted in place of accuracy.
    """
    drawing = figure(9, 3.6)
    left, right = drawing.subplots(1, 2)
    epochs = [row.epoch for row in rows]
    for axes, title, names in (
        (left, "loss", ("train_loss", "val_loss")),
        (right, "accuracy" if score is None else name_of(score), ("train_top1", "val_top1")),
    ):
        for name, label, colour in zip(names, ("training", "validation"), (_TRAIN, _VAL), strict=True):
            if score is not None and name == "train_top1":
                continue
            values = [_value(row, name, score) for row in rows]
            axes.plot(epochs, values, color=colour, label=label, marker="o" if len(rows) <= 40 else "", markersize=3)
        axes.set(title=title, xlabel="epoch")
        _clean(axes)
    best = max(rows, key=lambda row: (_value(row, "val_top1", score), -row.val_loss))
    value = _value(best, "val_top1", score)
    right.annotate(
        f"{value:.1%}" if score is None else f"{value:.3f}",
        (best.epoch, value),
        xytext=(0, 5),
        textcoords="offset points",
        ha="center",
        va="bottom",
        color=_VAL,
        fontsize=9,
    )
    right.margins(y=0.1)
    if score is None:
        right.yaxis.set_major_formatter("{x:.0%}")
    if len(rows) <= 2:
        for axes in (left, right):
            axes.set_xticks(epochs)
    else:
        from matplotlib.ticker import MaxNLocator

        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(frameon=False)
    save_figure(drawing, path)


def _value(row: EpochRow, name: str, score: str | None) -> float:
    value: float = getattr(row, name) if score is None or name != "val_top1" else row.metrics[score]
    return value


def plot_confusion(confusion_CC: NDArray[np.int64], names: Sequence[str], path: Path) -> None:
    """Plot labels by row and predictions by column, shaded by the share of the row; with counts where there is room."""
    classes = len(names)
    side = min(max(4.0, 0.45 * classes + 2), 12.0)
    drawing = figure(side + 0.8, side)
    axes: Any = drawing.subplots()
    share_CC = confusion_CC / np.maximum(confusion_CC.sum(axis=1, keepdims=True), 1)
    shown = axes.imshow(share_CC, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="prediction", ylabel="label")
    if classes <= _NUMBERED_CLASSES:
        shown_names = [name_of(name) for name in names]
        axes.set_xticks(range(classes), shown_names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(classes), shown_names)
        for row, column in np.argwhere(confusion_CC > 0):
            colour = "white" if share_CC[row, column] > 0.5 else "black"
            axes.text(column, row, f"{confusion_CC[row, column]:,}", ha="center", va="center", color=colour, fontsize=8)
    drawing.colorbar(shown, ax=axes, fraction=0.046, pad=0.03, format="{x:.0%}")
    save_figure(drawing, path)


def _clean(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)


def load_writer() -> Any:
    """Return PyTorch's class that writes events. Raises `MissingExtraError`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard needs a package: pip install 'imgdata[tensorboard]'") from error
    return SummaryWriter


class Board:
    """A writer of TensorBoard's events below a folder."""

    def __init__(self, folder: Path) -> None:
        """Open a writer of events in `folder`. Raises `MissingExtraError`."""
        self._writer = load_writer()(str(folder))

    def add(self, row: EpochRow) -> None:
        """Add an epoch: losses in one chart, accuracies in another, the rest each in its own."""
        add = self._writer.add_scalar
        for name in ("train_loss", "val_loss", "train_top1", "val_top1", "val_top5", "lr", "images_per_s", "data_wait"):
            part, _, what = name.partition("_")
            add(f"{what}/{part}" if part in ("train", "val") else f"run/{name}", getattr(row, name), row.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
