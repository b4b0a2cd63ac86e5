"""What `imgdata shard` shows: the plan, the progress of a run, and its result."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from imgdata.shards.job import ShardSummary, Watcher
from imgdata.shards.plan import Plan

PLAIN_LINE_SECONDS = 5.0
"""How often a line is printed where there is no terminal."""


def console() -> Console:
    """Everything but data goes to standard error, so that `--json` can be piped."""
    return Console(stderr=True, highlight=False)


class ShardDisplay(Watcher):
    """Progress of a run: a live bar on a terminal, a plain line now and then elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = console()
        self._quiet = quiet
        self._live = not quiet and self._console.is_terminal
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            expand=True,
        )
        self._task: TaskID | None = None
        self._started = self._last_line = time.monotonic()
        self._total = self._done_before = self._samples = self._bytes = self._rejects = 0

    def __enter__(self) -> "ShardDisplay":
        if self._live:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def stage(self, what: str) -> None:
        """Show the stage by name, without a length as yet."""
        if self._live:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(what, total=None, figures="")

    def planned(self, plan: Plan, samples_done: int) -> None:
        """Show the bar with its length."""
        self._total, self._done_before = plan.num_samples, samples_done
        self._started = self._last_line = time.monotonic()
        if self._live and self._task is not None:
            self._progress.update(self._task, total=self._total, completed=samples_done)
        elif not self._quiet:
            self._console.print(f"writing {plan.num_samples:,} samples in {plan.num_shards:,} shards")
        if samples_done and not self._quiet:
            self._console.print(f"resuming: {samples_done:,} of {self._total:,} samples are finished")

    def advanced(self, samples: int, num_bytes: int, rejects: int) -> None:
        """Move the bar."""
        self._samples += samples
        self._bytes += num_bytes
        self._rejects += rejects
        if self._live and self._task is not None:
            self._progress.update(self._task, advance=samples, figures=self._figures())
        elif not self._quiet and time.monotonic() - self._last_line > PLAIN_LINE_SECONDS:
            self._last_line = time.monotonic()
            done = self._done_before + self._samples
            self._console.print(f"{done:,}/{self._total:,} samples, {self._figures()}, {self._seconds_left()}")

    def interrupted(self) -> None:
        """Say what is safe, and how to go on."""
        self._stop()
        self._console.print("finished shards are kept; the same command goes on from there")

    def _stop(self) -> None:
        if self._live:
            self._progress.stop()

    def _figures(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-3)
        rejects = f", {self._rejects:,} rejected" if self._rejects else ""
        return f"{self._samples / seconds:,.0f} samples/s, {decimal(int(self._bytes / seconds))}/s{rejects}"

    def _seconds_left(self) -> str:
        rate = self._samples / max(time.monotonic() - self._started, 1e-3)
        left = self._total - self._done_before - self._samples
        return f"about {left / rate:,.0f} s left" if rate else "no estimate yet"


def print_plan(plan: Mapping[str, Any]) -> None:
    """The plan of `--dry-run` as a table."""
    screen = Console(highlight=False)
    table = _split_table(plan["splits"])
    what = f"{plan['source']} source, {plan['classes']:,} classes, images as .{plan['image_extension']}"
    screen.print(f"[bold]{plan['name']}[/]  {what}")
    screen.print(table)
    for split in plan["splits"].values():
        last = f" ... {split['last']}" if split["shards"] > 1 else ""
        screen.print(f"  {split['first']}{last}", style="dim")
    screen.print(f"about {decimal(plan['bytes'])} and {_duration(plan['seconds'])}; nothing was written")
    _print_notes(screen, plan["skipped"], plan["warnings"])


def print_summary(summary: ShardSummary) -> None:
    """The result of a run as a table."""
    screen = console()
    if summary.already_complete:
        screen.print(f"{summary.out} is complete already: nothing to do")
        return
    screen.print(_split_table(summary.splits))
    if summary.rejected:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in summary.rejected.items())
        screen.print(
            f"[yellow]rejected[/] {sum(summary.rejected.values()):,} ({reasons}); see {summary.out}/rejects.jsonl",
            soft_wrap=True,
        )
    if summary.repaired:
        screen.print(f"repaired {summary.repaired:,}; see {summary.out}/repairs.jsonl", soft_wrap=True)
    _print_notes(screen, summary.skipped, summary.warnings)
    rate = summary.samples_written / summary.seconds if summary.seconds else 0.0
    screen.print(
        f"[green]done[/] {summary.samples:,} samples in {_duration(summary.seconds)} ({rate:,.0f}/s): {summary.out}",
        soft_wrap=True,
    )


def _split_table(splits: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("split")
    for column in ("samples", "shards", "size"):
        table.add_column(column, justify="right")
    for name, split in splits.items():
        table.add_row(name, f"{split['samples']:,}", f"{split['shards']:,}", decimal(split["bytes"]))
    return table


def _print_notes(screen: Console, skipped: Mapping[str, int], warnings: Any) -> None:
    if skipped:
        screen.print("passed over " + ", ".join(f"{count:,} {what}" for what, count in skipped.items()), soft_wrap=True)
    for warning in warnings:
        screen.print(f"[yellow]note[/] {warning}", soft_wrap=True)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
