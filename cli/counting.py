"""What long commands show while they count through shards or files."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_PLAIN_LINE_SECONDS = 5.0


class Counting:
    """A bar on a terminal, a plain line now and then elsewhere, nothing when quiet; all on standard error."""

    def __init__(self, what: str, unit: str, *, quiet: bool) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._what, self._unit, self._quiet = what, unit, quiet
        self._live = self.console.is_terminal and not quiet
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self.console, transient=True)
        self._task = self._bar.add_task(what, total=None)
        self._last_line = time.monotonic()

    def __enter__(self) -> "Counting":
        if self._live:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def progress(self, done: int, total: int) -> None:
        """Show that `done` of `total` are finished."""
        if self._live:
            self._bar.update(self._task, completed=done, total=total)
        elif not self._quiet and time.monotonic() - self._last_line > _PLAIN_LINE_SECONDS:
            self._last_line = time.monotonic()
            self.console.print(f"{self._what}: {done:,} of {total:,} {self._unit}")
