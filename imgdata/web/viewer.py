"""What the pages show: the dataset, its rows, sets of rows, decisions; put together once, used by all requests."""

import getpass
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.finding import KINDS, Finding
from imgdata.dataset.dataset import Dataset
from imgdata.devices import own_cores
from imgdata.errors import OptionError
from imgdata.views.saved import list_views, load_view
from imgdata.web.decisions import ACTIONS, Decisions, Sample
from imgdata.web.query import Answers
from imgdata.web.review import in_conflict
from imgdata.web.rows import Rows, rows_of
from imgdata.web.thumbnails import Thumbnails

DECISIONS = "reviews/decisions.jsonl"
"""Where decisions are kept, in the dataset's folder."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Viewer:
    """A dataset that is looked at."""

    dataset: Dataset
    rows: Rows
    thumbnails: Thumbnails
    decisions: Decisions
    author: str
    findings: tuple[Finding, ...] = ()

    @cached_property
    def answers(self) -> Answers:
        """Answers to queries."""
        return Answers(self.rows, marks=self.marked, columns={}, version=lambda: self.decisions.version)

    def marked(self, name: str) -> NDArray[np.bool_]:
        """Return the rows of a set, bool `(M,)`: `finding:leak`, `decision:relabel` or `view:clean`.

        Raises `OptionError`.
        """
        kind, _, value = name.partition(":")
        if kind == "finding":
            return self._of_numbers(self.finding_numbers.get(value, []))
        if kind == "decision" and value in ACTIONS:
            holding = self.decisions.holding()
            found = [sample for sample, by in holding.items() if any(one.action == value for one in by.values())]
            return self._of_numbers([self.rows.number(*sample) for sample in found])
        if name == "decision:conflict":
            return self._of_numbers([self.rows.number(*sample) for sample in in_conflict(self.decisions)])
        if kind == "view" and value in list_views(self.dataset):
            view = load_view(self.dataset, value)
            which = [split.name for split in self.rows.splits].index(view.split)
            return self._of_numbers(view.position_N + self.rows.start_S[which])
        raise OptionError(f"mark must be finding:KIND, decision:ACTION or view:NAME, got {name!r}")

    @cached_property
    def finding_numbers(self) -> Mapping[str, list[int]]:
        """Numbers of the rows of each kind of finding, the surest first."""
        found: dict[str, list[int]] = {}
        for finding in self.findings:
            if finding.place is not None:
                found.setdefault(finding.kind, []).append(self.rows.number(finding.place.split, finding.place.key))
        return found

    def findings_by_number(self, kind: str) -> Mapping[int, Finding]:
        """Return the first finding of a kind of each row that has one, the surest first."""
        found: dict[int, Finding] = {}
        places = iter(self.finding_numbers.get(kind, []))
        for finding in self.findings:
            if finding.kind == kind and finding.place is not None:
                found.setdefault(next(places), finding)
        return found

    def finding_of(self, number: int) -> Finding | None:
        """Return the surest finding of a row, of the first kind that has one."""
        return next((by[number] for by in map(self.findings_by_number, KINDS) if number in by), None)

    def sample(self, number: int) -> Sample:
        """Return split and key of a row."""
        split, _ = self.rows.place(number)
        return Sample(split.name, self.rows.keys([number])[0])

    def _of_numbers(self, numbers: Any) -> NDArray[np.bool_]:
        inside_M = np.zeros(len(self.rows), bool)
        inside_M[numbers] = True
        return inside_M

    def close(self) -> None:
        """End the threads."""
        self.thumbnails.close()


def viewer_of(dataset: Dataset, *, author: str | None = None, reviews: Path | None = None) -> Viewer:
    """Return a viewer of a dataset. Raises `ShardError`, `OptionError`."""
    rows = rows_of(dataset)
    if not len(rows):
        raise OptionError(f"{dataset.folder}: no samples to show")
    return Viewer(
        dataset=dataset,
        rows=rows,
        thumbnails=Thumbnails(rows, len(own_cores())),
        decisions=Decisions(reviews or dataset.folder.local(DECISIONS)),
        author=author or _user(),
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "nobody"


def new_token() -> str:
    """Return a token that can't be guessed."""
    return secrets.token_urlsafe(24)
