"""What happened: steps and epochs -> rows, tables and files."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from imgdata.loader.bad_images import BadImage
from imgdata.training.scores import Scores


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


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainResult:
    """What a run came to."""

    run: Path
    rows: tuple[EpochRow, ...]
    best: EpochRow
    """The epoch whose weights were kept."""
    scores: Scores
    """Of those weights."""
    bad: tuple[BadImage, ...]
    """Training pictures that couldn't be decoded, of the first rank since it was started; others took their place."""
    config: dict[str, Any]

    @property
    def images_per_s(self) -> float:
        """In training, over all epochs but the first, where there are more."""
        rows = self.rows[1:] or self.rows
        return sum(row.images_per_s * row.seconds for row in rows) / sum(row.seconds for row in rows)

    @property
    def data_wait(self) -> float:
        """Share of that time in which the network waited for batches."""
        rows = self.rows[1:] or self.rows
        return sum(row.data_wait * row.seconds for row in rows) / sum(row.seconds for row in rows)

    def summary(self) -> dict[str, Any]:
        """What `summary.json` holds."""
        scores = self.scores
        return {
            "model": self.config["options"]["model"],
            "epochs": len(self.rows),
            "best_epoch": self.best.epoch,
            "top1": scores.top1,
            "top5": scores.top5,
            "loss": scores.loss,
            "correct": scores.correct,
            "total": scores.total,
            "calibration_error": scores.calibration_error,
            "images_per_s": self.images_per_s,
            "data_wait": self.data_wait,
            "train_seconds": sum(row.seconds for row in self.rows),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Where a run is, now and then during an epoch."""

    epoch: int
    """From 1."""
    step: int
    """Steps of this epoch that are behind it."""
    steps: int
    """Steps of an epoch."""
    loss: float
    """Mean over this epoch so far."""
    top1: float
    images_per_s: float
    """Since the last report, over all ranks."""
    data_wait: float
    """Share of the time since then in which the network waited for a batch."""


class TrainWatcher:
    """Told what happens, in the first rank alone; does nothing of its own."""

    def started(self, config: Mapping[str, Any], steps_done: int) -> None:
        """Everything is made: `config` is what `config.json` holds; a resumed run has some steps behind it."""

    def stepped(self, report: Report) -> None:
        """Some steps later."""

    def evaluating(self, done: int, batches: int) -> None:
        """So many batches of the validation are behind it."""

    def epoch_done(self, row: EpochRow, *, best: bool) -> None:
        """An epoch has been validated and saved."""

    def noted(self, text: str) -> None:
        """Something that the user should know."""
