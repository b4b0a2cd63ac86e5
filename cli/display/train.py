"""A training run -> lines on the screen: its settings, its epochs as they end, its result."""

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from imgdata.tables import counted
from imgdata.training.history import EpochRow, Report, TrainWatcher, cache_text, view_text

from .console import GOOD, ODD, Display, note, screen, tell

if TYPE_CHECKING:
    from imgdata.training.history import TrainResult
    from imgdata.training.throughput import EndToEnd

DATA_WAIT = 0.05
"""Share of the time from which on waiting for data is worth a note."""
_COLUMNS = (
    ("epoch", 7),
    ("lr", 8),
    ("loss", 8),
    ("acc", 7),
    ("val loss", 9),
    ("val acc", 8),
    ("top-5", 7),
    ("images/s", 9),
    ("wait", 5),
    ("time", 9),
)


_NAMES: Mapping[str, Mapping[str, str]] = {
    "class": {},
    "soft": {},
    "multi-label": {"acc": "exact", "val acc": "mAP", "top-5": "exact"},
    "regression": {"acc": "", "val acc": "R^2", "top-5": "MAE"},
}
"""Names of columns by target, where they aren't those of one class."""


class TrainDisplay(Display, TrainWatcher):
    """A line for each epoch, and below them a bar for the one that runs."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}"),
            quiet=quiet,
        )
        self._task: TaskID | None = None
        self._epochs = self._steps_before = 0
        self._started = time.monotonic()
        self._kind = "class"

    def started(self, config: Mapping[str, Any], steps_done: int) -> None:
        """Print network, samples, recipe, backend and steps, and the head of the table."""
        options = config["options"]
        self._epochs, self._steps_before = options["epochs"], steps_done
        self._started = time.monotonic()
        self._kind = config.get("target", {"kind": "class"})["kind"]
        if self.quiet:
            return
        ranks = f" x {config['world_size']}" if config["world_size"] > 1 else ""
        self.console.print(
            Text.assemble(
                (options["model"], "bold"),
                f"  {config['parameters'] / 1e6:,.2f} million parameters, {_outputs(config)}, "
                f"{config['size']}x{config['size']}, on {config['device']}{ranks}",
            )
        )
        for name, text in head(config):
            self.console.print(Text.assemble((f"{name:<10}", "dim"), text), soft_wrap=True)
        if steps_done:
            epochs, steps = divmod(steps_done, config["steps_per_epoch"])
            self.console.print(f"resuming after step {steps:,} of epoch {epochs + 1:,}")
        self.console.print(
            Text("".join(f"{_NAMES[self._kind].get(name, name):>{width}}" for name, width in _COLUMNS), "bold"),
            soft_wrap=True,
        )
        if self.live:
            self._task = self.bar.add_task("", total=config["steps_per_epoch"], figures="")

    def stepped(self, report: Report) -> None:
        """Move the bar."""
        figures = (
            f"loss {report.loss:.3f}  acc {report.top1:.1%}  {report.images_per_s:,.0f} images/s  "
            f"data wait {report.data_wait:.0%}  {self._left(report)}"
        )
        what = f"epoch {report.epoch}/{self._epochs}"
        if self.live and self._task is not None:
            self.bar.update(self._task, completed=report.step, total=report.steps, description=what, figures=figures)
        elif self.line_is_due:
            self.console.print(f"{what}  step {report.step:,}/{report.steps:,}  {figures}", soft_wrap=True)

    def evaluating(self, done: int, batches: int) -> None:
        """Show the validation in the bar."""
        if self.live and self._task is not None:
            self.bar.update(self._task, completed=done, total=batches, description="validating", figures="")

    def epoch_done(self, row: EpochRow, *, best: bool) -> None:
        """Print the epoch's line; the best so far is marked."""
        if self.quiet:
            return
        val_score, val_more = f"{row.val_top1:.2%}", f"{row.val_top5:.1%}"
        if self._kind == "multi-label":
            val_score, val_more = f"{row.metrics['mean_ap']:.2%}", f"{row.val_top1:.1%}"
        if self._kind == "regression":
            val_score, val_more = f"{row.metrics['r2']:.4f}", f"{row.metrics['mae']:.3g}"
        values = (
            f"{row.epoch}/{self._epochs}",
            f"{row.lr:.2g}",
            f"{row.train_loss:.3f}",
            "" if self._kind == "regression" else f"{row.train_top1:.1%}",
            f"{row.val_loss:.3f}",
            val_score,
            val_more,
            f"{row.images_per_s:,.0f}",
            f"{row.data_wait:.0%}",
            f"{row.seconds:,.1f} s",
        )
        cells = [f"{value:>{width}}" for value, (_, width) in zip(values, _COLUMNS, strict=True)]
        line = Text("".join(cells))
        if best:
            line.stylize(GOOD, sum(width for _, width in _COLUMNS[:5]), sum(width for _, width in _COLUMNS[:6]))
        self.console.print(line, soft_wrap=True)
        if row.cache:
            self.console.print(Text(f"{'':>9}{cache_text(row.cache)}", "dim"), soft_wrap=True)

    def noted(self, text: str) -> None:
        """Print a note."""
        if not self.quiet:
            note(self.console, text)

    def warned(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Print a warning as a note: in place of `warnings.showwarning`."""
        self.noted(str(message))

    def _left(self, report: Report) -> str:
        """Return the time until the end, from that of the steps so far."""
        reached = (report.epoch - 1) * report.steps + report.step
        left = self._epochs * report.steps - reached
        seconds = (time.monotonic() - self._started) / (reached - self._steps_before) * left
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} left"


def _outputs(config: Mapping[str, Any]) -> str:
    """Return what the network says of a picture, in words."""
    target = config.get("target")
    if target is not None and target["kind"] == "regression":
        return f"{target['outputs']:,} number{'s' if target['outputs'] > 1 else ''} to predict"
    several = {"multi-label": ", any of them", "soft": ", a share of each"}
    return f"{len(config['classes']):,} classes{several.get(target['kind'], '') if target else ''}"


def head(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the lines about a run, each with its name: what is trained on, validated with, and how."""
    options = config["options"]
    yield "train", view_text(config, "train")
    yield "validate", view_text(config, "val") + _validation_note(config)
    yield "recipe", f"{config['recipe_name']}; {_flip_text(config)}"
    yield "backend", config["backend_description"]
    epochs, smoothing = options["epochs"], options["label_smoothing"]
    patience = f", ends after {options['patience']} without a better one" if options["patience"] else ""
    yield (
        "course",
        f"{epochs} epoch{'s' if epochs > 1 else ''} of {config['steps_per_epoch']:,} steps of "
        f"{options['batch_size']:,} samples{patience}, {options['optimizer']}, lr {options['lr']:g}, label smoothing "
        f"{smoothing or 'none'}{', batch norm frozen' if options['freeze_batchnorm'] else ''}",
    )


def _validation_note(config: Mapping[str, Any]) -> str:
    shown, shared = config["views"]["val"], config["trained_and_validated"]
    if shared:
        return f" ({shared:,} of them are trained on as well)"
    if shown["split"] == "test":
        return " (the best epoch is chosen by the test split: figures of it are too good; see --hold-out)"
    return ""


def _flip_text(config: Mapping[str, Any]) -> str:
    flip = config["options"]["flip"]
    if config["recipe_name"].endswith(".json"):
        return "it says itself whether pictures are mirrored"
    if config["recipe_name"] == "plain":
        return "pictures are not mirrored"
    if flip:
        return "half of the pictures are mirrored (--flip off)"
    why = ", classes are digits or letters" if config["letters"] else ""
    return f"pictures are not mirrored{why} (--flip on)"


def print_result(result: "TrainResult", console: Console) -> None:
    """Print the kept epoch, its figures, where the files are; advice where the network waited for data."""
    from imgdata.measure.doctor.wait import advice_for_run

    scores = result.scores
    score, what = f"{scores.top1:.2%}", f"right: {scores.correct:,} of {scores.total:,}"
    if scores.kind == "multi-label":
        score, what = f"{scores.metrics['mean_ap']:.2%}", f"mean average precision, all classes {score} {what}"
    if scores.kind == "regression":
        score, what = f"{scores.metrics['r2']:.4f}", f"R^2 on {scores.total:,} samples"
    tell(console, GOOD, score, f"{what} (epoch {result.best.epoch}), loss {scores.loss:.3f}")
    for name, value in scores.metrics.items():
        console.print(f"{name} {value:.4g}")
    console.print(
        f"{result.images_per_s:,.0f} images/s in training, {result.data_wait:.1%} of the time waiting for data"
    )
    if result.cache:
        console.print(f"shards: {cache_text(result.cache)}", soft_wrap=True)
    waited_s = sum(row.data_wait * row.seconds for row in result.rows)
    if advice := advice_for_run(
        result.config, result.data_wait, waited_s=waited_s, cache_hits=result.rows[-1].cache.get("cache_hits")
    ):
        note(console, advice)
    if result.bad:
        note(console, f"{counted(len(result.bad), 'training picture')} could not be decoded; others took their place")
    if scores.skipped:
        note(console, f"{counted(scores.skipped, 'validation picture')} could not be decoded")
    pictures = "curves.png" if scores.confusion_CC is None else "curves.png, confusion.png"
    console.print(f"{result.run}/ has best.pt, last.pt, metrics.csv, {pictures}", soft_wrap=True)


def print_end_to_end(result: "EndToEnd") -> None:
    """Print the figures of `--synthetic` as a table."""
    console = screen(stderr=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("training with")
    table.add_column("images/s", justify="right")
    table.add_row("the loader", f"{result.real_images_per_s:,.0f}")
    table.add_row("batches on the device", f"{result.synthetic_images_per_s:,.0f}")
    console.print(table)
    colour = GOOD if result.ratio >= 1 - DATA_WAIT else ODD
    tell(
        console,
        colour,
        f"{result.ratio:.3f}",
        f"of the network's speed is left with the loader; it waited {result.data_wait:.1%} of the time "
        f"({result.rounds} rounds of {result.steps} steps)",
    )
