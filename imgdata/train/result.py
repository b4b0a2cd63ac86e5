"""Rows of epochs, scores of the kept weights -> what a run came to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgdata.loader.bad_images import BadImage
from imgdata.train.history import EpochRow
from imgdata.train.scores import Scores


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
