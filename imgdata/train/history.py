"""What happened: steps and epochs -> rows, tables and files."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRow:
    """One epoch, as a line of `metrics.csv`."""

    epoch: int
    """From 1."""
    size: int
    """Side of the training pictures in pixels."""
    lr: float
    """At its last step."""
    train_loss: float
    """Mean over the samples as they were augmented, while the network learned."""
    train_top1: float
    val_loss: float
    val_top1: float
    val_top5: float
    images_per_s: float
    """In training, over all ranks."""
    data_wait: float
    """Share of the training time in which the network waited for batches, on this rank."""
    seconds: float
    """Of training, without validation."""


def epochs_csv(rows: Sequence[EpochRow]) -> bytes:
    """`metrics.csv`."""
    return _csv([field.name for field in fields(EpochRow)], [list(asdict(row).values()) for row in rows])


def steps_csv(losses: Sequence[float], lrs: Sequence[float]) -> bytes:
    """`steps.csv`: number of the step from 1, learning rate, loss over all ranks."""
    return _csv(
        ["step", "lr", "loss"], [[number, *pair] for number, pair in enumerate(zip(lrs, losses, strict=True), 1)]
    )


def _csv(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([[f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows])
    return text.getvalue().encode()
