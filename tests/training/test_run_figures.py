"""Curves and confusion matrices of runs: pictures for any number of epochs and classes, whatever their names are."""

import numpy as np
import pytest
from PIL import Image

from imgdata.training.history import EpochRow
from imgdata.training.plots import plot_confusion, plot_curves


def row(epoch: int, **metrics: float) -> EpochRow:
    """An epoch with made-up figures."""
    loss, top1 = 2.3 / epoch, 1 - 0.9 / epoch
    return EpochRow(
        epoch=epoch,
        size=16,
        lr=0.1,
        train_loss=loss,
        train_top1=top1,
        val_loss=loss,
        val_top1=top1,
        val_top5=top1,
        images_per_s=1e3,
        data_wait=0.1,
        seconds=1.0,
        metrics=metrics,
    )


@pytest.mark.parametrize(
    ("rows", "score"),
    [([row(1)], None), ([row(one) for one in range(1, 51)], None), ([row(one, f1=0.2 * one) for one in (1, 2)], "f1")],
    ids=["one epoch", "fifty epochs", "a metric of the user's own"],
)
def test_curves_are_drawn_for_any_number_of_epochs(tmp_path, rows, score):
    plot_curves(rows, tmp_path / "curves.png", score)
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > 2 * image.height > 600


@pytest.mark.parametrize(
    "names", [["cat", "dog"], ["a$b", "$x^{$", "\\frac", "$", ""], [str(number) for number in range(30)]], ids=len
)
def test_a_confusion_matrix_is_drawn_for_any_names_of_classes(tmp_path, names):
    plot_confusion(np.eye(len(names), dtype=np.int64) * 1234, names, tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as image:
        assert min(image.size) > 300
