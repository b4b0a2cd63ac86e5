"""A dataset, what is asked -> the checks, one after another, each kept -> an `AuditResult`, and its report."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Literal

import xxhash

from imgdata.auditing.checks import CHECKS, Check, Inputs, chosen_checks
from imgdata.auditing.finding import Finding, listed
from imgdata.auditing.kept import input_key, keep_outcome, keep_settings, kept_outcome
from imgdata.auditing.options import AuditOptions
from imgdata.auditing.outcome import Outcome
from imgdata.auditing.report.files import check_report_folder, write_report
from imgdata.auditing.result import AuditResult, CheckResult
from imgdata.auditing.samples import Samples, samples_of
from imgdata.auditing.workers import Workers
from imgdata.auditing.workers_by_ray import RayWorkers
from imgdata.cluster import ChosenEngine, RayOptions, cluster_options
from imgdata.dataset.dataset import Dataset
from imgdata.dataset.index import index_id
from imgdata.errors import MissingExtraError, OptionError
from imgdata.loose.opened import open as open_dataset
from imgdata.storage.local_paths import local_path
from imgdata.version import __version__
from imgdata.views.by_split import views_by_split

Tell = Callable[[str, int, int], None]


class _CannotRunError(OptionError):
    """A check lacks what it needs."""


def audit(
    dataset: str | Path | Dataset,
    report: str | Path | None = None,
    options: AuditOptions | None = None,
    *,
    progress: Tell = lambda stage, done, total: None,
    engine: Literal["local", "ray"] | RayOptions = "local",
    retried: Callable[[str], None] = lambda what: None,
    **settings: Any,
) -> AuditResult:
    """Look for leaks, duplicates, wrong labels, poor pictures, imbalance and hidden bias; no shard is changed.

    With `report` a page, `index.html`, and all findings, `findings.parquet` and `findings.json`, are written into that
    folder. What each check found is kept in the cache folder: the same audit again reads it, and one that was
    interrupted resumes after its last finished check.

        result = imgdata.audit("out/", "report/", model="runs/a")
        for finding in result.of("leak"):
            print(finding.place.key, finding.other.key, finding.score)

    Args:
        dataset: The dataset's folder, or an open dataset.
        report: Folder of the report: new, empty, or an older report, which is replaced.
        options: All settings at once, instead of keywords.
        progress: Gets the stage, how much of it is done, and of how much.
        engine: Who looks at the pictures: `local`, this machine, or `ray`, a cluster (`RayOptions` says which), whose
            machines reach the shards by the same path or URL. What is found is compared here.
        retried: Gets a sentence for each task of the cluster that is tried again.
        settings: Fields of `AuditOptions`: `splits`, `views`, `model`, `only`, `skip`, `device`, `workers`, `seed`.

    Raises:
        OptionError: An unknown split, view or check; an empty split; a model for other classes.
        ShardError: A damaged dataset.
        OutputError: The report can't be written, or its folder holds something else.
        MissingExtraError: A check that `only` names needs the extra `audit`.
    """
    chosen = options or AuditOptions()
    try:
        chosen = replace(chosen, **settings)
    except TypeError as error:
        names = ", ".join(field.name for field in fields(AuditOptions))
        raise OptionError(f"settings of an audit must be {names}, got {', '.join(settings)}") from error
    opened = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    folder = None if report is None else local_path(report, "-o")
    if folder is not None:
        check_report_folder(folder)
    with workers_of(engine, opened, retried) as workers:
        result = run_audit(opened, chosen, progress, workers=workers)
    keep_settings(dataset_id(opened), asdict(chosen))
    if folder is not None:
        write_report(result, opened, folder)
    return result


@contextmanager
def workers_of(
    engine: ChosenEngine, dataset: Dataset, retried: Callable[[str], None] = lambda what: None
) -> Iterator[Workers | None]:
    """Yield who looks at the pictures of the dataset; None for threads of this machine. Raises `OptionError`."""
    cluster = cluster_options(engine)
    if cluster is None:
        yield None
        return
    with RayWorkers(cluster, dataset, told=retried) as workers:
        yield workers


def run_audit(
    dataset: Dataset,
    options: AuditOptions,
    tell: Tell = lambda stage, done, total: None,
    checks: Sequence[Check] | None = None,
    *,
    strict: bool = True,
    workers: Workers | None = None,
) -> AuditResult:
    """Run the checks that are asked for; those that were run on the same input before are read instead.

    One that can't run is left out, and the result says why; with `strict`, one that `only` names raises the error.
    """
    chosen = chosen_checks(options, CHECKS if checks is None else tuple(checks))
    views = tuple(views_by_split(dataset, options.views, options.splits).values())
    samples = samples_of(views)
    inputs = Inputs(dataset=dataset, samples=samples, options=options, tell=tell, workers=workers)
    findings: list[Finding] = []
    results = []
    for check in chosen:
        outcome: Outcome | None = None
        try:
            outcome, why = _outcome(check, inputs), ""
        except (MissingExtraError, _CannotRunError) as error:
            if strict and check.name in options.only:
                raise
            why = str(error)
        findings += outcome.findings if outcome else ()
        results.append(
            CheckResult(
                name=check.name,
                what=check.what,
                kinds=check.kinds,
                figures=outcome.figures if outcome else {},
                notes=outcome.notes if outcome else (),
                skipped=why,
            )
        )
    return AuditResult(
        dataset=str(dataset.path),
        name=dataset.name,
        splits={view.split: len(view) for view in views},
        views={view.split: view.name or view.expression for view in views if view.steps},
        findings=listed(findings),
        checks=tuple(results),
        left_out=tuple(_left_out(dataset, options, results)),
    )


def dataset_id(dataset: Dataset) -> str:
    """Return 32 hex digits that name the content of the dataset: images, labels, classes, splits."""
    splits = [part for name in dataset for part in (name, index_id(dataset[name].index))]
    return input_key("dataset", *splits, *(one.id for one in dataset.classes))


def _outcome(check: Check, inputs: Inputs) -> Outcome:
    """Return what the check found, kept or computed. Raises `_CannotRunError`, and what the check raises."""
    if "labels" in check.needs and not inputs.has_labels:
        raise _CannotRunError(f"{check.name} needs labels, and no sample has one")
    if "model" in check.needs and inputs.options.model is None:
        raise _CannotRunError(f"{check.name} needs --model, the folder of a run that was trained on this dataset")
    key = input_key(__version__, check.version, *_parts(inputs.samples), *_settings(check, inputs.options))
    kept = kept_outcome(check.name, key)
    if kept is not None:
        inputs.tell(check.what, len(inputs.samples), len(inputs.samples))
        return kept
    found = check.find(inputs, lambda done, total: inputs.tell(check.what, done, total))
    return keep_outcome(check.name, key, found)


def _parts(samples: Samples) -> Iterator[str]:
    for view in samples.views:
        yield view.split
        yield view.fingerprint
        # Names and metadata may differ where images and labels are the same.
        index = view.index
        yield index.identity if index.is_parted or index.is_ranged else _file_id(index.path)


def _settings(check: Check, options: AuditOptions) -> Iterator[Any]:
    for name in check.settings:
        value = getattr(options, name)
        yield name
        yield _model_id(Path(value)) if name == "model" and value is not None else value


def _model_id(run: Path) -> str:
    """Return the hash of a run's best weights: of another training in the same folder it is another."""
    from imgdata.training.run_folder import RunFolder

    try:
        return _file_id(RunFolder(run).best)
    except OSError:
        # The check says what is wrong with it.
        return f"none in {run}"


def _file_id(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while part := file.read(1 << 24):
            digest.update(part)
    return digest.hexdigest()


def _left_out(dataset: Dataset, options: AuditOptions, results: Sequence[CheckResult]) -> Iterator[str]:
    for one in results:
        if one.skipped:
            yield f"{one.what} not checked: {one.skipped}"
    empty = [name for name in dataset if not len(dataset[name])]
    if empty and not options.splits:
        yield f"no samples in {', '.join(empty)}"
