"""What `imgdata shard` shows: the plan, the progress of a run, and its result."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from imgdata.shards.dataset_files import REJECTS, REPAIRS, list_file
from imgdata.shards.summary import PartSummary, ShardSummary, Watcher, Work
from imgdata.shards.unfinished import Unfinished
from imgdata.tables import counted

from .console import GOOD, ODD, Display, note, screen, tell


class ShardDisplay(Display, Watcher):
    """Progress of a run."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            quiet=quiet,
            expand=True,
        )
        self._task: TaskID | None = None
        self._started = time.monotonic()
        self._total = self._done_before = self._samples = self._bytes = self._rejects = 0

    def stage(self, what: str) -> None:
        """Show the stage by name, without a length as yet."""
        if self.live:
            if self._task is not None:
                self.bar.remove_task(self._task)
            self._task = self.bar.add_task(what, total=None, figures="")

    def planned(self, plan: Work, samples_done: int) -> None:
        """Show the bar with its length."""
        self._total, self._done_before = plan.num_samples, samples_done
        self._started = time.monotonic()
        if self.live and self._task is not None:
            self.bar.update(self._task, total=self._total, completed=samples_done)
        elif not self.quiet:
            self.console.print(f"writing {counted(plan.num_samples, 'sample')} in {counted(plan.num_shards, 'shard')}")
        if samples_done and not self.quiet:
            self.console.print(f"resuming: {samples_done:,} of {self._total:,} samples are finished")

    def advanced(self, samples: int, num_bytes: int, rejects: int) -> None:
        """Move the bar."""
        self._samples += samples
        self._bytes += num_bytes
        self._rejects += rejects
        if self.live and self._task is not None:
            self.bar.update(self._task, advance=samples, figures=self._figures())
        elif self.line_is_due:
            done = self._done_before + self._samples
            self.console.print(f"{done:,}/{self._total:,} samples, {self._figures()}, {self._seconds_left()}")

    def retried(self, what: str) -> None:
        """Show the sentence."""
        if not self.quiet:
            note(self.console, what)

    def interrupted(self) -> None:
        """Say what is kept, and how to resume."""
        self.stop()
        self.console.print("finished shards are kept; the same command resumes from there")

    def _figures(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-3)
        rejects = f", {self._rejects:,} rejected" if self._rejects else ""
        return f"{self._samples / seconds:,.0f} samples/s, {decimal(int(self._bytes / seconds))}/s{rejects}"

    def _seconds_left(self) -> str:
        rate = self._samples / max(time.monotonic() - self._started, 1e-3)
        left = self._total - self._done_before - self._samples
        return f"about {left / rate:,.0f} s left" if rate else "no estimate yet"


def print_plan(plan: Mapping[str, Any]) -> None:
    """Print the plan of `--dry-run` as a table."""
    console = screen(stderr=False)
    what = f"{plan['source']} source, {counted(plan['classes'], 'class')}, images as .{plan['image_extension']}"
    console.print(Text.assemble((plan["name"], "bold"), "  ", what))
    console.print(_split_table(plan["splits"]))
    for split in plan["splits"].values():
        last = f" ... {split['last']}" if split["shards"] > 1 else ""
        console.print(f"  {split['first']}{last}", style="dim")
    console.print(f"about {decimal(plan['bytes'])} and {_duration(plan['seconds'])}; nothing was written")
    _print_notes(console, plan["skipped"], plan["warnings"])
    if "out" in plan:
        note(console, f"OUT {plan['out']}")


def print_begun(begun: Mapping[str, Any], source: str) -> None:
    """Print the result of `--plan`, and what comes next."""
    console = screen()
    out = begun["out"]
    if begun["complete"]:
        console.print(f"{out} is complete already: nothing to do", soft_wrap=True)
        return
    console.print(_split_table(begun["splits"]))
    _print_notes(console, begun["skipped"], begun["warnings"])
    done = f", {begun['finished_shards']:,} of them finished" if begun["finished_shards"] else ""
    tell(
        console, GOOD, "planned", f"{counted(begun['samples'], 'sample')} in {counted(begun['shards'], 'shard')}{done}"
    )
    console.print(f"next: imgdata shard {source} {out} --part I/N for each part, then --finish", soft_wrap=True)


def print_part(summary: PartSummary) -> None:
    """Print the result of `--part`."""
    console = screen()
    if summary.already_complete:
        console.print(f"{summary.out} is complete already: nothing to do", soft_wrap=True)
        return
    if summary.rejected:
        why = ", ".join(f"{count:,} {reason}" for reason, count in summary.rejected.items())
        tell(console, ODD, "rejected", f"{sum(summary.rejected.values()):,} ({why})")
    before = f", {summary.resumed_shards:,} of them finished before" if summary.resumed_shards else ""
    tell(
        console,
        GOOD,
        "done",
        f"part {summary.part}/{summary.parts}: {counted(summary.shards, 'shard')}{before}, "
        f"{counted(summary.samples, 'sample')} in {_took(summary.samples_written, summary.seconds)}: {summary.out}",
    )


def print_unfinished(dataset: Path, found: Unfinished) -> None:
    """Print how much of a dataset is written, and which parts are missing."""
    console = screen(stderr=False)
    console.print(
        f"{dataset}: not finished: {found.written:,} of {counted(found.shards, 'shard')} are written", soft_wrap=True
    )
    if found.running:
        verbs = "writes now, or was killed while it did" if found.running == 1 else "write now, or were killed"
        console.print(f"{counted(found.running, 'process')} {verbs}")
    if found.missing:
        console.print(f"parts with missing shards, of {found.parts}: --array={found.missing}", soft_wrap=True)
    elif found.parts is not None:
        console.print("every part is written: `imgdata shard SOURCE OUT --finish` completes the dataset")


def print_summary(summary: ShardSummary) -> None:
    """Print the result of a run as a table."""
    console = screen()
    if summary.already_complete:
        console.print(f"{summary.out} is complete already: nothing to do", soft_wrap=True)
        return
    console.print(_split_table(summary.splits))
    if summary.rejected:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in summary.rejected.items())
        tell(
            console,
            ODD,
            "rejected",
            f"{sum(summary.rejected.values()):,} ({reasons}); see {summary.out / list_file(REJECTS, summary.version)}",
        )
    if summary.repaired:
        console.print(
            f"repaired {summary.repaired:,}; see {summary.out / list_file(REPAIRS, summary.version)}", soft_wrap=True
        )
    _print_notes(console, summary.skipped, summary.warnings)
    tell(
        console,
        GOOD,
        "done",
        f"{counted(summary.samples, 'sample')} in {_took(summary.samples_written, summary.seconds)}: {summary.out}"
        + (f", version {summary.version}" if summary.version > 1 else ""),
    )


def _split_table(splits: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("split")
    for column in ("samples", "shards", "size"):
        table.add_column(column, justify="right")
    for name, split in splits.items():
        table.add_row(name, f"{split['samples']:,}", f"{split['shards']:,}", decimal(split["bytes"]))
    return table


def _print_notes(console: Console, skipped: Mapping[str, int], warnings: Sequence[str]) -> None:
    if skipped:
        passed = ", ".join(f"{count:,} {what}" for what, count in skipped.items())
        console.print(f"passed over {passed}", soft_wrap=True)
    for warning in warnings:
        note(console, warning)


def _took(written: int, seconds: float) -> str:
    """Return the time, with the rate of what was written; without one where all was written before."""
    return _duration(seconds) + (f" ({written / seconds:,.0f}/s)" if written and seconds else "")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
