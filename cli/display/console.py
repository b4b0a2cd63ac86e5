"""What all commands print for people: lines with a coloured first word, and how far a long command is.

Names of files and classes are data: nothing in them is taken for rich's markup or for an emoji's code.
"""

import os
import time
from types import TracebackType
from typing import ClassVar, Self

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from imgdata.tables import WIDTH, new_console, printable

PLAIN_LINE_SECONDS = 5.0
"""Seconds between two lines where there is no terminal."""
GOOD, ODD, BAD = "green", "yellow", "red"
"""Colours of first words."""


def screen(*, stderr: bool = True) -> Console:
    """Return where text is printed; by default standard error, so that the output of `--json` can be piped.

    Results that go into a file or a pipe are as wide as `COLUMNS` says, else 100 columns.
    """
    console = new_console(stderr=stderr)
    if not (stderr or console.is_terminal or os.environ.get("COLUMNS")):
        console.width = WIDTH
    return console


def say(text: str, *, stderr: bool = False) -> None:
    """Print plain text, whole lines of any length; what a terminal would obey in it is escaped."""
    click.echo(printable(text), err=stderr)


def tell(console: Console, colour: str, start: str, rest: str, *, wrap: bool = False) -> None:
    """Print a line whose `start` is in colour; whole, for paths to be copied, unless `wrap` on a terminal."""
    console.print(Text.assemble((start, colour), " ", rest), soft_wrap=not (wrap and console.is_terminal))


def note(console: Console, text: str) -> None:
    """Print a note: wrapped between words on a terminal, else as one line."""
    tell(console, ODD, "note", text, wrap=True)


class Display:
    """The progress of a command: a live bar on a terminal, a plain line now and then elsewhere, nothing when quiet."""

    shown: "ClassVar[Display | None]" = None
    """The display whose bar is on the terminal."""

    def __init__(self, *columns: ProgressColumn, quiet: bool, expand: bool = False) -> None:
        self.console = screen()
        self.quiet = quiet
        self.live = self.console.is_terminal and not quiet
        """Whether there is a bar."""
        self.bar = Progress(*columns, console=self.console, transient=True, expand=expand)
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        if self.live:
            self.bar.start()
            Display.shown = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the bar away; one that never started would leave an empty line."""
        if self.live:
            self.bar.stop()
        if Display.shown is self:
            Display.shown = None

    @property
    def line_is_due(self) -> bool:
        """Whether it is time for a plain line: true once every `PLAIN_LINE_SECONDS`, where there is no bar."""
        now = time.monotonic()
        if self.live or self.quiet or now - self._last_line < PLAIN_LINE_SECONDS:
            return False
        self._last_line = now
        return True


class Counting(Display):
    """So many of all are finished."""

    def __init__(self, what: str, unit: str, *, quiet: bool) -> None:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
        super().__init__(*columns, quiet=quiet)
        self._what, self._unit = what, unit
        self._task = self.bar.add_task(what, total=None)

    def progress(self, done: int, total: int) -> None:
        """Show that `done` of `total` are finished."""
        if self.live:
            self.bar.update(self._task, completed=done, total=total)
        elif self.line_is_due:
            self.console.print(f"{self._what}: {done:,} of {total:,} {self._unit}")
