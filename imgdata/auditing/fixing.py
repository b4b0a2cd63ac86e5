"""Fixes, a dataset -> the findings to act on: of a report, of the last audit, or new ones -> a saved view."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from imgdata.auditing.checks import CHECKS, Check
from imgdata.auditing.findings_file import read_findings
from imgdata.auditing.fix import Applied, Fix, fixed_view, kinds_of, parse_fixes
from imgdata.auditing.kept import last_settings
from imgdata.auditing.options import AuditOptions
from imgdata.auditing.run import dataset_id, run_audit, workers_of
from imgdata.cluster import ChosenEngine
from imgdata.dataset.dataset import Dataset
from imgdata.errors import OptionError, OutputError, ShardError
from imgdata.views.by_split import views_by_split
from imgdata.views.saved import load_view, save_view
from imgdata.views.view import View, whole


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedFix:
    """A view that was saved, and what was done to get it."""

    view: View
    path: Path
    """File of the view."""
    before: int
    """Samples before the fixes."""
    applied: tuple[Applied, ...]
    kept: tuple[str, ...]
    """A sentence for each sample that was to go, but is the last one of its class."""
    origin: str
    """Where the findings come from, for people."""

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as values that `json.dumps` takes."""
        return {
            "name": self.view.name,
            "split": self.view.split,
            "steps": self.view.expression,
            "samples": len(self.view),
            "before": self.before,
            "file": str(self.path),
            "applied": [{"fix": one.fix, "samples": one.samples, "elsewhere": one.elsewhere} for one in self.applied],
            "kept": list(self.kept),
            "origin": self.origin,
        }


def save_fixed(
    dataset: Dataset,
    fixes: str,
    name: str,
    *,
    report: Path | None = None,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
    checks: Sequence[Check] = (),
    engine: ChosenEngine = "local",
    retried: Callable[[str], None] = lambda what: None,
    **settings: Any,
) -> SavedFix:
    """Save the view `name` of one split, in which what was found is left out or relabelled.

    `splits` among the settings names the split, by default `train`, or the only one. Settings that are not given are
    those of the last audit of this dataset, whose results were kept; pictures that it did not look at are looked at by
    the `engine`. Raises `OptionError`, `ShardError`, `OutputError`, and as `audit` does.
    """
    chosen = parse_fixes(fixes)
    split = _split(dataset, settings.pop("splits", ()))
    start = whole(dataset, split)
    if report is not None:
        findings, origin = read_findings(report), f"the findings in {report}"
    else:
        options, origin = _options(dataset, settings)
        options = _needed(options, chosen, checks or CHECKS)
        start = views_by_split(dataset, options.views, options.splits).get(split, start)
        with workers_of(engine, dataset, retried) as workers:
            result = run_audit(dataset, options, progress, checks or CHECKS, strict=False, workers=workers)
        findings = result.findings
        if all(one.skipped for one in result.checks):
            raise OptionError(f"fix: nothing could be checked: {'; '.join(one.skipped for one in result.checks)}")
    fixed = fixed_view(start, findings, chosen)
    path = _save(dataset, fixed.view, name, overwrite)
    return SavedFix(
        view=replace(fixed.view, name=name),
        path=path,
        before=len(start),
        applied=fixed.applied,
        kept=fixed.kept,
        origin=origin,
    )


def _split(dataset: Dataset, splits: Sequence[str]) -> str:
    if len(splits) > 1:
        raise OptionError(f"a view is of one split: fix must have one split, got {', '.join(splits)}")
    split = splits[0] if splits else "train" if "train" in dataset else next(iter(dataset))
    if split not in dataset:
        raise OptionError(f"split must be one of {', '.join(dataset)}, got {split!r}")
    return split


def _options(dataset: Dataset, settings: dict[str, Any]) -> tuple[AuditOptions, str]:
    """Return the settings of the last audit with those given here in their place, and where findings come from."""
    last = last_settings(dataset_id(dataset))
    given = {name: value for name, value in settings.items() if value != getattr(AuditOptions(), name)}
    # Which checks ran does not matter: what the fix needs runs now.
    known = {field.name for field in fields(AuditOptions)} - {"only", "skip"}
    try:
        options = AuditOptions(**{name: value for name, value in last.items() if name in known})
    except (TypeError, OptionError):
        # Of another version.
        options, last = AuditOptions(), {}
    return replace(options, **given), "the last audit" if last and not given else "a new audit"


def _needed(options: AuditOptions, fixes: Sequence[Fix], checks: Sequence[Check]) -> AuditOptions:
    """Return the options with only the checks whose findings the fixes act on."""
    kinds = kinds_of(fixes)
    needed = [check.name for check in checks if kinds & set(check.kinds)]
    chosen = tuple(name for name in needed if (not options.only or name in options.only) and name not in options.skip)
    if not chosen:
        raise OptionError(f"fix: the checks {', '.join(needed)} find what it acts on, and none of them may run")
    return replace(options, only=chosen, skip=())


def _save(dataset: Dataset, view: View, name: str, overwrite: bool) -> Path:
    """Save the view; one of this name that is the same already stays as it is."""
    try:
        return save_view(view, name, overwrite=overwrite)
    except OutputError:
        path = dataset.folder.local(f"views/{name}.json")
        if overwrite or not path.exists():
            raise
        try:
            old = load_view(dataset, name)
        except (ShardError, OptionError):
            raise OutputError(f"{path}: there already") from None
        if old.split == view.split and old.fingerprint == view.fingerprint:
            return path
        raise
