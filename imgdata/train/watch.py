"""What a run tells whoever watches it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imgdata.train.history import EpochRow


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
