"""Findings, or any rows -> a queue to decide on; decisions -> views of the splits, and a CSV file, and back."""

import csv
import io
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from imgdata.auditing.finding import Finding
from imgdata.dataset.dataset import Dataset
from imgdata.errors import OptionError
from imgdata.views.filters import exclude
from imgdata.views.relabel import relabel
from imgdata.views.saved import save_view
from imgdata.views.view import whole
from imgdata.web.decisions import Decision, Decisions, Sample, checked

COLUMNS = ("id", "author", "time", "split", "key", "action", "old", "new", "reason", "of")
"""Columns of the CSV file."""
_NEXT = 100


def expected(findings: Sequence[Finding]) -> str:
    """Return a sentence on how many of the next hundred findings are right, by their scores; empty where unknown."""
    following = [finding for finding in findings[:_NEXT] if finding.kind == "label"]
    if not following:
        return ""
    right = sum(finding.score for finding in following)
    return f"Of the next {len(following)} labels, some {right:.0f} are wrong by the audit's own estimate."


def in_conflict(decisions: Decisions) -> list[Sample]:
    """Return the samples on which authors decided differently; skips don't count."""
    found = []
    for sample, by_author in decisions.holding().items():
        if len({(one.action, one.new) for one in by_author.values() if one.action != "skip"}) > 1:
            found.append(sample)
    return found


def save_views(dataset: Dataset, decisions: Decisions, name: str, *, overwrite: bool = False) -> list[str]:
    """Save what was decided as views: `name` for the first split that has any, `name-SPLIT` for each other.

    `relabel` and `exclude` become steps; samples in conflict stay as they are. Returns a sentence on each view, and on
    what was left out. Raises `OptionError` where nothing changes, `OutputError`.
    """
    conflicts = set(in_conflict(decisions))
    new: dict[str, dict[str, str]] = {}
    gone: dict[str, list[str]] = {}
    for sample, by_author in decisions.holding().items():
        changes = [one for one in by_author.values() if one.action in ("relabel", "exclude")]
        if sample in conflicts or not changes:
            continue
        if changes[-1].action == "relabel":
            new.setdefault(sample.split, {})[sample.key] = changes[-1].new
        else:
            gone.setdefault(sample.split, []).append(sample.key)
    changed = [split for split in dataset if split in new or split in gone]
    if not changed:
        raise OptionError("no decision changes a label or excludes a sample: there is nothing to save")
    said = []
    for split in changed:
        view = whole(dataset, split)
        if split in new:
            view = relabel(view, dict(sorted(new[split].items())))
        if split in gone:
            view = exclude(view, sorted(gone[split]))
        view_name = name if split == changed[0] else f"{name}-{split}"
        save_view(view, view_name, overwrite=overwrite)
        relabelled, excluded = len(new.get(split, {})), len(gone.get(split, []))
        said.append(f"view {view_name} of {split}: {relabelled:,} relabelled, {excluded:,} excluded")
    if conflicts:
        said.append(f"{len(conflicts):,} in conflict, left as they are")
    return said


def to_csv(decisions: Decisions) -> str:
    """Return all decisions, also those taken back, as CSV with `COLUMNS`; times are UTC."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in decisions.all():
        row = {field.name: getattr(one, field.name) for field in fields(Decision)}
        row["time"] = datetime.fromtimestamp(one.time, UTC).isoformat()
        writer.writerow([_cell(row[name]) for name in COLUMNS])
    return text.getvalue()


def _cell(value: str) -> str:
    """Return a value that no spreadsheet takes for a formula."""
    return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def from_csv(text: str, decisions: Decisions, dataset: Dataset) -> int:
    """Add the decisions of a CSV file that are not there yet, by their ids; return how many. Raises `OptionError`."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = set(COLUMNS) - set(reader.fieldnames or ())
    if missing:
        raise OptionError(
            f"the CSV file must have the columns {', '.join(COLUMNS)}; {', '.join(sorted(missing))} missing"
        )
    known = {one.id for one in decisions.all()}
    added = []
    for row in reader:
        values: dict[str, Any] = {name: (row[name] or "").removeprefix("'") for name in COLUMNS}
        try:
            values["time"] = datetime.fromisoformat(values["time"]).timestamp()
        except ValueError:
            raise OptionError(f"line {reader.line_num}: time must be like 2026-01-31T12:00:00+00:00") from None
        one = checked(values)
        if one.split not in dataset or dataset[one.split].index.find(one.key) < 0:
            raise OptionError(f"line {reader.line_num}: no sample {one.key!r} in split {one.split!r}")
        if one.id not in known:
            known.add(one.id)
            added.append(one)
    if added:
        decisions.add(added)
    return len(added)
