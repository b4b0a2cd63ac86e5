"""What `imgdata audit` shows: the progress of each check, what was found, what a fix did."""

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn

from imgdata.auditing.fixing import SavedFix
from imgdata.auditing.result import AuditResult, result_parts
from imgdata.dataset.dataset import Dataset

from .console import GOOD, Display, note, screen, tell


class AuditDisplay(Display):
    """Progress of an audit, one check after another."""

    def __init__(self, *, quiet: bool) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        super().__init__(*columns, quiet=quiet)
        self._task: TaskID | None = None
        self._stage = ""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` of a stage are finished."""
        if self.live:
            if stage != self._stage:
                if self._task is not None:
                    self.bar.remove_task(self._task)
                self._task = self.bar.add_task(stage, total=total)
            assert self._task is not None
            self.bar.update(self._task, completed=done, total=total)
        elif self.line_is_due:
            self.console.print(f"{stage}: {done:,} of {total:,}")
        self._stage = stage

    def retried(self, what: str) -> None:
        """Say that a task of a cluster is tried again, and why."""
        if not self.quiet:
            note(self.console, what)

    def interrupted(self) -> None:
        """Say that what is finished is kept."""
        self.stop()
        if not self.quiet:
            self.console.print("the same command resumes: checks that are finished are kept")


def print_result(result: AuditResult) -> None:
    """Print the overview, the surest findings of each kind, and the notes."""
    console = screen(stderr=False)
    for part in result_parts(result):
        console.print(part, soft_wrap=isinstance(part, str))
    for text in result.notes:
        note(screen(), text)


def print_fixed(saved: SavedFix, dataset: Dataset) -> None:
    """Print what each fix did, what it left alone, and the commands that come next."""
    console, view = screen(), saved.view
    for one in saved.applied:
        what = "relabelled" if one.fix.startswith("relabel") else "left out"
        rest = f"; {one.elsewhere:,} in other splits are left alone" if one.elsewhere else ""
        tell(console, GOOD, f"{one.samples:,}", f"{what} by {one.fix}{rest}")
    for text in saved.kept:
        note(console, text)
    if any(one.elsewhere for one in saved.applied):
        others = ", ".join(name for name in dataset if name != view.split)
        note(console, f"a view is of one split; for {others}, run it again with --split and another name")
    tell(
        console,
        GOOD,
        "saved",
        f"{view.name}: {len(view):,} of {saved.before:,} samples of {view.split}, by {saved.origin}: {saved.path}",
    )
