"""Steps, epochs -> rows, tables, the result; and who watches them."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from imgdata.loader.bad_images import BadImage
from imgdata.storage.shard_state import CacheFacts, size_text
from imgdata.training.scores import Scores
from imgdata.training.task import TARGET_METRICS


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRow:
    """One epoch, as a line of `metrics.csv`."""

    epoch: int
    """Number of the epoch, from 1."""
    size: int
    """Side of the training pictures in pixels."""
    lr: float
    """Learning rate at the last step."""
    train_loss: float
    """Mean over the samples as they were augmented, while the network learned."""
    train_top1: float
    """Share of these samples that were right, 0 to 1."""
    val_loss: float
    """Mean cross-entropy of the validation, in nats."""
    val_top1: float
    """Share of the validation samples that were right, 0 to 1."""
    val_top5: float
    """Share of the validation samples whose label was among the five best, 0 to 1."""
    images_per_s: float
    """Images/s of training, over all ranks."""
    data_wait: float
    """Share of the training time in which the network waited for batches, on this rank."""
    seconds: float
    """Seconds of training, without validation."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Values of the user's own metrics, by name."""
    cache: Mapping[str, float] = field(default_factory=dict)
    """For a dataset in an object store, of training and on this rank: `cache_hits`, the share of images that were on
    this machine already, `fetched_mb`, and `store_wait_s`, seconds for which batches waited, all batches together."""


def quality(row: EpochRow, best_by: str | None = None) -> tuple[float, ...]:
    """Return what epochs are compared by, higher is better: the metric `best_by`, or top-1 and then loss."""
    first = row.val_top1 if best_by is None else row.metrics[best_by]
    return first, -row.val_loss


def epochs_csv(rows: Sequence[EpochRow]) -> bytes:
    """Return the contents of `metrics.csv`; facts of the cache and own metrics come after the other columns."""
    names = [one.name for one in fields(EpochRow) if one.name not in ("metrics", "cache")]
    further = [{**row.cache, **row.metrics} for row in rows]
    own = [
        *dict.fromkeys(name for row in rows for name in row.cache),
        *sorted({n for row in rows for n in row.metrics}),
    ]
    lines = [
        [getattr(row, name) for name in names] + [more.get(name, "") for name in own]
        for row, more in zip(rows, further, strict=True)
    ]
    return _csv([*names, *own], lines)


def cache_row(facts: CacheFacts | None, before: CacheFacts | None) -> dict[str, float]:
    """Return what a row says of the cache since `before`; nothing where there is none."""
    if facts is None or before is None:
        return {}
    done = facts.since(before)
    return {
        "cache_hits": done.hit_share,
        "fetched_mb": done.fetched_bytes / 1e6,
        "store_wait_s": done.waited_s,
    }


def steps_csv(losses: Sequence[float], lrs: Sequence[float]) -> bytes:
    """Return the contents of `steps.csv`: number of the step from 1, learning rate, loss over all ranks."""
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
    """The result of a run; printed, it is what the command says at its end."""

    run: Path
    """The run's folder."""
    rows: tuple[EpochRow, ...]
    """All epochs."""
    best: EpochRow
    """The epoch whose weights were kept."""
    scores: Scores
    """Scores of these weights on the validation samples."""
    bad: tuple[BadImage, ...]
    """Training pictures that couldn't be decoded, of the first rank since it was started; others took their place."""
    config: dict[str, Any]
    """The contents of `config.json`."""

    @property
    def images_per_s(self) -> float:
        """Images/s of training, over all epochs but the first, where there are more."""
        rows = self.rows[1:] or self.rows
        return sum(row.images_per_s * row.seconds for row in rows) / sum(row.seconds for row in rows)

    @property
    def data_wait(self) -> float:
        """Share of the training time in which the network waited for batches, 0 to 1."""
        rows = self.rows[1:] or self.rows
        return sum(row.data_wait * row.seconds for row in rows) / sum(row.seconds for row in rows)

    @property
    def cache(self) -> Mapping[str, float]:
        """The facts of the cache of shards over all epochs, by the names of `EpochRow.cache`; empty without one."""
        rows = [row.cache for row in self.rows if row.cache]
        if not rows:
            return {}
        names = ("fetched_mb", "store_wait_s")
        return {
            "cache_hits": sum(row["cache_hits"] for row in rows) / len(rows),
            **{name: sum(row[name] for row in rows) for name in names},
        }

    def __str__(self) -> str:
        scores, options = self.scores, self.config["options"]
        own = "".join(f", {name} {value:.4g}" for name, value in scores.metrics.items() if name not in TARGET_METRICS)
        wide = max(len(str(options["model"])), 10)
        right = f"{scores.top1:.2%} right: {scores.correct:,} of {scores.total:,} "
        if scores.kind == "multi-label":
            right = f"mean average precision {scores.metrics['mean_ap']:.2%}, all classes {right}"
        if scores.kind == "regression":
            right = f"R^2 {scores.metrics['r2']:.4f}, mean absolute error {scores.metrics['mae']:.4g} "
        return "\n".join(
            [
                f"{options['model']:<{wide}}  {right}(epoch {self.best.epoch} of {len(self.rows)}), "
                f"loss {scores.loss:.3f}{own}",
                f"{'validation':<{wide}}  {view_text(self.config, 'val')}",
                f"{'speed':<{wide}}  {self.images_per_s:,.0f} images/s in training, {self.data_wait:.1%} of the time "
                "waiting for data",
                *([f"{'shards':<{wide}}  {cache_text(self.cache)}"] if self.cache else []),
                f"{'files':<{wide}}  {self.run}",
            ]
        )

    def __repr__(self) -> str:
        return f"<TrainResult\n  {str(self).replace(chr(10), chr(10) + '  ')}>"

    def summary(self) -> dict[str, Any]:
        """Return what `summary.json` holds."""
        scores, config = self.scores, self.config
        options = config["options"]
        return {
            "model": options["model"],
            "trained_with": {**config["views"]["train"], "samples": config["samples"]["train"]},
            "validated_with": {**config["views"]["val"], "samples": config["samples"]["val"]},
            "recipe": config["recipe_name"],
            "flip": options["flip"],
            "label_smoothing": options["label_smoothing"],
            "backend": config["backend"],
            "epochs": len(self.rows),
            "best_epoch": self.best.epoch,
            "top1": scores.top1,
            "top5": scores.top5,
            "loss": scores.loss,
            "correct": scores.correct,
            "total": scores.total,
            "calibration_error": scores.calibration_error,
            "metrics": dict(scores.metrics),
            **({"target": config["target"]["kind"]} if "target" in config else {}),
            "images_per_s": self.images_per_s,
            "data_wait": self.data_wait,
            "train_seconds": sum(row.seconds for row in self.rows),
            **({"cache": dict(self.cache)} if self.cache else {}),
        }


def cache_text(cache: Mapping[str, float]) -> str:
    """Return one phrase about the cache of shards: facts by the names of `EpochRow.cache`."""
    fetched, waited = size_text(round(1e6 * cache["fetched_mb"])), cache["store_wait_s"]
    return f"{cache['cache_hits']:.0%} of the images were kept here, {fetched} fetched, batches waited {waited:.1f} s"


def view_text(config: Mapping[str, Any], which: Literal["train", "val"]) -> str:
    """Return one phrase about the samples to train on, or to validate with: how many, of which split and view."""
    shown = config["views"][which]
    view = f" | {shown['view']}" if shown["view"] else ""
    held_out = ", held out of training" if which == "val" and config["options"]["hold_out"] else ""
    return f"{config['samples'][which]:,} samples of {shown['split']}{view}{held_out}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Progress within an epoch, every half second or 20 steps."""

    epoch: int
    """Number of the epoch, from 1."""
    step: int
    """Steps of this epoch that are done."""
    steps: int
    """Steps of an epoch."""
    loss: float
    """Mean over this epoch so far."""
    top1: float
    """Share of this epoch's samples so far that were right, 0 to 1."""
    images_per_s: float
    """Images/s since the last report, over all ranks."""
    data_wait: float
    """Share of the time since the last report in which the network waited for a batch."""


class TrainWatcher:
    """Callbacks of a run, in the first rank alone; these do nothing. An error that they raise ends the run."""

    def started(self, config: Mapping[str, Any], steps_done: int) -> None:
        """Handle the start: `config` is what `config.json` holds, a resumed run has done some steps."""

    def stepped(self, report: Report) -> None:
        """Handle a report of progress within an epoch."""

    def evaluating(self, done: int, batches: int) -> None:
        """Handle progress of the validation: `done` of so many batches."""

    def epoch_done(self, row: EpochRow, *, best: bool) -> None:
        """Handle the end of an epoch, which is validated and saved."""

    def noted(self, text: str) -> None:
        """Handle a note for the user."""


class Watchers(TrainWatcher):
    """Passes everything on to several watchers, one after another."""

    def __init__(self, watchers: Sequence[TrainWatcher]) -> None:
        self._watchers = tuple(watchers)

    def started(self, config: Mapping[str, Any], steps_done: int) -> None:
        """Pass it on."""
        for one in self._watchers:
            one.started(config, steps_done)

    def stepped(self, report: Report) -> None:
        """Pass it on."""
        for one in self._watchers:
            one.stepped(report)

    def evaluating(self, done: int, batches: int) -> None:
        """Pass it on."""
        for one in self._watchers:
            one.evaluating(done, batches)

    def epoch_done(self, row: EpochRow, *, best: bool) -> None:
        """Pass it on."""
        for one in self._watchers:
            one.epoch_done(row, best=best)

    def noted(self, text: str) -> None:
        """Pass it on."""
        for one in self._watchers:
            one.noted(text)
