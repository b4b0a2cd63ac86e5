"""What the pages show: the dataset, its rows, sets of rows, decisions; put together once, used by all requests."""

import getpass
import secrets
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.finding import KINDS, Finding
from imgdata.dataset.dataset import Dataset
from imgdata.devices import own_cores
from imgdata.errors import ImgdataError, OptionError
from imgdata.views.saved import list_views, load_view
from imgdata.web.columns import START, json_columns
from imgdata.web.decisions import ACTIONS, Decisions, Sample
from imgdata.web.later import Later
from imgdata.web.neighbours import Features, read_features
from imgdata.web.overview import overview
from imgdata.web.query import Answers, Column
from imgdata.web.review import in_conflict
from imgdata.web.rows import Rows, rows_of, warm
from imgdata.web.runs import Predicted, Run, open_runs
from imgdata.web.thumbnails import Thumbnails

DECISIONS = "reviews/decisions.jsonl"
"""Where decisions are kept, in the dataset's folder."""
RUN_COLUMNS = ("loss", "probability")
"""Columns of a run's predictions: `NAME.loss` in nats, `NAME.probability` of the class that is predicted."""
_TEXTS_AT_ONCE = 2_000_000
"""Rows whose keys and names are read at the start: some 200 MB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Viewer:
    """A dataset that is looked at."""

    dataset: Dataset
    rows: Rows
    thumbnails: Thumbnails
    decisions: Decisions
    author: str
    """Who decides, where the page does not say so."""
    findings: tuple[Finding, ...] = ()
    runs: tuple[Run, ...] = ()
    features: tuple[Path, ...] = ()
    """Files of `imgdata features`."""

    @cached_property
    def answers(self) -> Answers:
        """Answers to queries."""
        return Answers(self.rows, marks=self.marked, columns=self.column, version=lambda: self.decisions.version)

    @cached_property
    def json_columns(self) -> Later[Mapping[str, Column]]:
        """The columns of the `json` members."""
        return Later("Reading the metadata", lambda progress: json_columns(self.rows, progress))

    @cached_property
    def statistics(self) -> Mapping[str, Any]:
        """What the overview says of the index."""
        return overview(self.rows)

    @cached_property
    def vectors(self) -> Later[Features]:
        """The vectors of the samples."""
        return Later("Reading the features", lambda _: read_features(self.features, self.rows))

    @property
    def has_json(self) -> bool:
        """Whether samples have a `json` member."""
        return any(split.index.has_fields for split in self.rows.splits)

    def run(self, name: str) -> Run:
        """Return a run by its name. Raises `OptionError`."""
        found = next((one for one in self.runs if one.name == name), None)
        if found is None:
            known = ", ".join(one.name for one in self.runs) or "none; start the viewer with --run"
            raise OptionError(f"run must be one of {known}, got {name!r}")
        return found

    def column(self, name: str) -> Column | None:
        """Return a column beside the index's; None for an unknown one. Raises `NotYetError` while it is made."""
        if name.startswith(START) and self.has_json:
            return self.json_columns.get().get(name)
        run_name, _, what = name.rpartition(".")
        if what not in RUN_COLUMNS or run_name not in [one.name for one in self.runs]:
            return None
        found = self.run(run_name).predicted.get()
        value_M = np.full(len(self.rows), np.nan)
        value_M[self.numbers_of(found)] = found.loss_N if what == "loss" else found.probability_N
        return Column(value_M)

    def numbers_of(self, found: Predicted) -> NDArray[np.int64]:
        """Return the rows that predictions are for."""
        which = [split.name for split in self.rows.splits].index(found.split)
        number_N: NDArray[np.int64] = found.position_N + self.rows.start_S[which]
        return number_N

    def marked(self, name: str) -> NDArray[np.bool_]:
        """Return the rows of a set, bool `(M,)`; the names of sets are those of the message below.

        Raises `OptionError`, and `NotYetError` while it is made.
        """
        kind, _, value = name.partition(":")
        if name == "finding:":
            return self._of_numbers([number for numbers in self.finding_numbers.values() for number in numbers])
        if kind == "finding" and value:
            return self._of_numbers(self.finding_numbers.get(value, []))
        if name == "decision:conflict":
            return self._of_samples(in_conflict(self.decisions))
        if kind == "decision" and value in ACTIONS:
            holding = self.decisions.holding()
            return self._of_samples([one for one, by in holding.items() if any(d.action == value for d in by.values())])
        if kind == "view" and value in list_views(self.dataset):
            view = load_view(self.dataset, value)
            which = [split.name for split in self.rows.splits].index(view.split)
            return self._of_numbers(view.position_N + self.rows.start_S[which])
        if kind == "run":
            return self._of_run(*value.rpartition(":")[::2])
        raise OptionError(
            "mark must be finding:KIND, decision:ACTION, decision:conflict, view:NAME, run:NAME:wrong, run:NAME:right "
            f"or run:NAME:LABEL-OUTPUT, got {name!r}"
        )

    def _of_run(self, name: str, which: str) -> NDArray[np.bool_]:
        found = self.run(name).predicted.get()
        if which in ("wrong", "right"):
            inside_N = found.right_N == (which == "right")
        else:
            label, _, output = which.partition("-")
            if not (label.isdigit() and output.isdigit()):
                raise OptionError(f"a set of run {name} must be wrong, right or LABEL-OUTPUT, got {which!r}")
            inside_N = (found.label_N == int(label)) & (found.predicted_N == int(output))
        return self._of_numbers(self.numbers_of(found)[inside_N])

    @cached_property
    def finding_numbers(self) -> Mapping[str, list[int]]:
        """Numbers of the rows of each kind of finding, the surest first."""
        return {kind: list(by_number) for kind, by_number in self._findings.items()}

    def findings_by_number(self, kind: str) -> Mapping[int, Finding]:
        """Return the first finding of a kind of each row that has one, the surest first."""
        return self._findings.get(kind, {})

    def findings_of(self, number: int) -> list[Finding]:
        """Return what was found of a row, in the order of the kinds."""
        return [by[number] for kind in KINDS if number in (by := self.findings_by_number(kind))]

    def finding_of(self, number: int) -> Finding | None:
        """Return the surest finding of a row, of the first kind that has one."""
        return next(iter(self.findings_of(number)), None)

    @cached_property
    def _findings(self) -> Mapping[str, Mapping[int, Finding]]:
        places = [finding.place for finding in self.findings if finding.place is not None]
        number_of = self.rows.numbers([(place.split, place.key) for place in places])
        found: dict[str, dict[int, Finding]] = {}
        for finding in self.findings:
            if finding.place is not None and (finding.place.split, finding.place.key) in number_of:
                number = number_of[finding.place.split, finding.place.key]
                found.setdefault(finding.kind, {}).setdefault(number, finding)
        return found

    @cached_property
    def alike(self) -> Mapping[int, list[tuple[int, str]]]:
        """Rows that a finding puts beside each row, with the kind of the finding; both ways."""
        pairs = [one for one in self.findings if one.place is not None and one.other is not None]
        both = [place for one in pairs for place in (one.place, one.other) if place is not None]
        number_of = self.rows.numbers([(place.split, place.key) for place in both])
        found: dict[int, list[tuple[int, str]]] = {}
        for one in pairs:
            assert one.place is not None
            assert one.other is not None
            first = number_of.get((one.place.split, one.place.key))
            second = number_of.get((one.other.split, one.other.key))
            if first is not None and second is not None:
                found.setdefault(first, []).append((second, one.kind))
                found.setdefault(second, []).append((first, one.kind))
        return found

    def decided(self, author: str) -> NDArray[np.bool_]:
        """Return the rows that somebody decided on, or that the author skipped, bool `(M,)`."""
        holding = self.decisions.holding()
        return self._of_samples(
            [
                sample
                for sample, by_author in holding.items()
                if any(one.action != "skip" or one.author == author for one in by_author.values())
            ]
        )

    def sample(self, number: int) -> Sample:
        """Return split and key of a row."""
        split, _ = self.rows.place(number)
        return Sample(split.name, self.rows.keys([number])[0])

    def _of_samples(self, samples: Sequence[Sample]) -> NDArray[np.bool_]:
        return self._of_numbers(list(self.rows.numbers(samples).values()))

    def _of_numbers(self, numbers: Any) -> NDArray[np.bool_]:
        inside_M = np.zeros(len(self.rows), bool)
        inside_M[np.asarray(numbers, np.int64)] = True
        return inside_M

    def close(self) -> None:
        """End the threads."""
        self.thumbnails.close()


def viewer_of(
    dataset: Dataset,
    *,
    author: str | None = None,
    reviews: Path | None = None,
    findings: Sequence[Finding] = (),
    runs: Sequence[Path] = (),
    features: Sequence[Path] = (),
) -> Viewer:
    """Return a viewer of a dataset.

    Args:
        dataset: The dataset.
        author: Who decides; None: the user of this machine.
        reviews: File of the decisions; None: `DECISIONS` in the dataset's folder.
        findings: What an audit found, see `imgdata.read_findings`.
        runs: Folders of runs that are shown beside the samples.
        features: Files of `imgdata features`, for the nearest samples.

    Raises:
        OptionError: No samples, a folder that is no run, a wrong line in the decisions.
        ShardError: The dataset can't be read.
    """
    rows = rows_of(dataset)
    if not len(rows):
        raise OptionError(f"{dataset.folder}: no samples to show")
    viewer = Viewer(
        dataset=dataset,
        rows=rows,
        thumbnails=Thumbnails(rows, len(own_cores())),
        decisions=Decisions(reviews or dataset.folder.local(DECISIONS)),
        author=author or _user(),
        findings=tuple(findings),
        runs=open_runs(list(runs), dataset),
        features=tuple(features),
    )
    threading.Thread(target=_warm, args=(viewer,), daemon=True, name="columns").start()
    return viewer


def _warm(viewer: Viewer) -> None:
    """Read what the first requests need; a fault is for the request that meets it."""
    with suppress(ImgdataError):
        warm(viewer.rows)
        if len(viewer.rows) <= _TEXTS_AT_ONCE:
            viewer.answers.warm()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "nobody"


def new_token() -> str:
    """Return a token that can't be guessed."""
    return secrets.token_urlsafe(24)
