"""What `index`, `verify` and `export` show while they count through shards or files."""

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from .display import Display


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
