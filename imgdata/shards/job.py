"""Raw dataset + options -> finished dataset folder: plans, resumes, runs the workers, writes the sidecars."""

import contextlib
import dataclasses
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from imgdata.dataset.manifest import read_manifest
from imgdata.errors import ImageError, OutputError, ShardError
from imgdata.images.encode import encoder
from imgdata.shards.changes import changed_images, refuse_changed, stored_in_dataset, stored_in_shards
from imgdata.shards.dataset_files import REJECTS, REPAIRS
from imgdata.shards.engines.local import LocalEngine
from imgdata.shards.engines.protocol import Engine
from imgdata.shards.finish import finish
from imgdata.shards.job_folder import JobFolder, own, standing_of
from imgdata.shards.keywords import ShardKeywords, with_keywords
from imgdata.shards.object_spool import ObjectSpool
from imgdata.shards.objects import class_names as class_names_of
from imgdata.shards.objects import items, splits_of
from imgdata.shards.options import ShardOptions
from imgdata.shards.out_place import refuse_output_in_the_way, refuse_to_replace_the_source
from imgdata.shards.parallel import check_workers
from imgdata.shards.plan import Plan, describe, make_plan
from imgdata.shards.prepare import read_and_prepare
from imgdata.shards.record import ShardReport, read_record
from imgdata.shards.select import exclude, select_classes
from imgdata.shards.sidecars import dali_index_path
from imgdata.shards.split import apply_split
from imgdata.sources.detect import list_source
from imgdata.sources.listing import Listing
from imgdata.sources.options import SourceOptions
from imgdata.sources.parquet.source import spool
from imgdata.sources.readers import PlainReader
from imgdata.sources.reading import with_states
from imgdata.sources.synthetic import PREFIX as SYNTHETIC
from imgdata.sources.target import has_target, with_target
from imgdata.storage.local_paths import local_path

SPOOL_BYTES = 1 << 30
"""Packed sources with more image bytes are first copied out in their own order: rows in shuffled order
would read a whole row group of Parquet, or unpack a whole file, for each image."""
_PACKED = {"parquet": "Parquet", "tfrecord": "compressed TFRecords", "mds": "compressed shards"}
RATE_SAMPLES = 32
SURE_SHARE = 0.5
"""Share of an estimated size that a dataset surely takes, where images are re-encoded."""


class Watcher:
    """An observer of a run's progress, which does nothing. Override the methods whose events you want to show."""

    def stage(self, what: str) -> None:
        """Show that a stage begins: `listing`, `planning`, `writing` or `finishing`."""

    def planned(self, plan: Plan, samples_done: int) -> None:
        """Show the plan; `samples_done` samples were finished by an earlier run."""

    def advanced(self, samples: int, num_bytes: int, rejects: int) -> None:
        """Show how much more was written since the last call."""


@dataclass(frozen=True, kw_only=True)
class ShardSummary:
    """The result of a run."""

    out: Path
    name: str
    splits: Mapping[str, Mapping[str, int]]
    """Number of `samples`, `shards` and `bytes` of each split."""
    rejected: Mapping[str, int]
    """Images left out, by reason."""
    repaired: int
    skipped: Mapping[str, int]
    """Files passed over while listing."""
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    samples_written: int = 0
    """Number of samples written by this run; fewer than all when an earlier run had finished some shards."""
    resumed_shards: int = 0
    already_complete: bool = False

    @property
    def samples(self) -> int:
        """Samples of all splits."""
        return sum(split["samples"] for split in self.splits.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        values = dataclasses.asdict(self) | {"out": str(self.out), "samples": self.samples}
        values["images_per_s"] = round(self.samples_written / self.seconds, 1) if self.seconds else 0.0
        values["seconds"] = round(self.seconds, 3)
        return values


def shard(
    source: str | os.PathLike[str] | Iterable[Any],
    out: str | Path,
    options: ShardOptions | None = None,
    *,
    read: SourceOptions | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    watch: Watcher | None = None,
    class_names: Sequence[Any] | None = None,
    **keywords: Unpack[ShardKeywords],
) -> ShardSummary:
    """Turn the raw dataset `source` into the dataset folder `out`.

    `source` is a path, or Python objects: an iterable of pairs `(image, label)` or of mappings, such as a dataset of
    torchvision or Hugging Face, or a mapping of splits to such iterables. Their images are PIL images, uint8 arrays
    `(H, W)` or `(H, W, C)`, which become PNG, or encoded bytes; `class_names` names the classes of labels that are
    numbers. What the command takes as options are keywords here: `imgdata.shard("photos", "out", resize=256)`.

    An interrupted run resumes when it is called again with the same arguments; shards that are finished are not
    written again, and the result is the same to the byte. `workers` (default: one for each core this process may use)
    does not change the bytes either. With `overwrite` an old dataset in `out` stays until the new one is complete.

    Raises `SourceError` for a source that can't be read or that changes meanwhile, `OptionError` for options without a
    meaning, `OutputError` when `out` is busy, full, not writable, or holds something else, and `ImageError` for the
    first bad image with `on_bad="fail"`.
    """
    options, read = with_keywords(options, read, keywords)
    watch = watch or Watcher()
    workers = check_workers(workers)
    started = time.perf_counter()
    out = local_path(out, "OUT")
    path = _local_source(source) if isinstance(source, str | os.PathLike) else None
    if path is not None:
        refuse_output_in_the_way(path, out)
    with own(out) as job:
        watch.stage("listing")
        if path is not None:
            listing = _listed(path, read, options)
            refuse_to_replace_the_source(listing, out)
        else:
            listing = _spooled(source, job, options.name or out.resolve().name, class_names, read or SourceOptions())
            listing = selected(listing, options)
        return write_listing(job, listing, options, workers=workers, overwrite=overwrite, watch=watch, started=started)


def write_listing(
    job: JobFolder,
    listing: Listing,
    options: ShardOptions,
    *,
    workers: int,
    overwrite: bool,
    watch: Watcher,
    started: float,
    engine: Callable[..., Engine] = LocalEngine,
) -> ShardSummary:
    """Write `listing` as the dataset of the output folder that `job` owns, or resume, or find it complete.

    `engine` makes what runs the tasks, as `LocalEngine` is made. Raises as `shard` does.
    """
    out = job.out
    listing, state = with_states(listing)
    identity = _identity(listing, options)
    standing = job.find(identity, overwrite=overwrite)
    if standing == "complete":
        summary = _finished_summary(out)
        _refuse_another_source(job, listing, state, options, workers=workers, watch=watch)
        return summary
    watch.stage("planning")
    plan = make_plan(listing, options)
    records = {file: read_record(job.folder, file, need_tar=not job.closing_gaps) for file in plan.shard_files()}
    reports = {file: report for file, report in records.items() if report is not None}
    if reports and job.state != state:
        names = _changed(job, plan, list(reports.values()), workers=workers, watch=watch)
        if names and overwrite:
            job.start_again()
            reports = {}
        else:
            refuse_changed(out, names, state="begun")
    job.begin(identity, plan, state)
    if job.state != state:
        job.remember_state(state)
    resumed = len(reports)
    samples_done = sum(report.samples + len(report.rejects) for report in reports.values())
    _refuse_full_disk(job, plan, reports)
    packed = listing.kind in _PACKED and not isinstance(listing.reader, PlainReader)
    if packed and int(listing.size_N.sum()) > SPOOL_BYTES and resumed < plan.num_shards:
        watch.stage(f"copying images out of {_PACKED[listing.kind]}")
        plan = dataclasses.replace(plan, listing=spool(listing, job.spool))
    watch.stage("writing")
    watch.planned(plan, samples_done)
    tasks = plan.tasks(job.folder, skip=reports)
    try:
        with engine(workers=workers, samples=plan.num_samples - samples_done, lock=job.lock) as running:
            for report in running.run(tasks, plan.num_shards - resumed, watch.advanced):
                reports[report.file] = report
    except ImageError as error:
        raise ImageError(
            error.reason, f"{error.detail}; on-bad 'reject' leaves such images out, 'fail' stops here"
        ) from error
    watch.stage("finishing")
    ordered = [reports[file] for file in plan.shard_files()]
    warnings = finish(job, plan, ordered, identity)
    job.remember_state(state)
    job.swap_in()
    return ShardSummary(
        out=out,
        name=plan.name,
        splits=_split_totals(ordered),
        rejected=_reasons({"reason": reject.reason} for report in ordered for reject in report.rejects),
        repaired=sum(len(report.repairs) for report in ordered),
        skipped=listing.skipped,
        warnings=warnings,
        seconds=time.perf_counter() - started,
        samples_written=plan.num_samples - samples_done,
        resumed_shards=resumed,
    )


def plan_shards(
    source: str | os.PathLike[str],
    options: ShardOptions | None = None,
    *,
    read: SourceOptions | None = None,
    workers: int | None = None,
    out: str | Path | None = None,
    **keywords: Unpack[ShardKeywords],
) -> dict[str, Any]:
    """Return what `shard` would do, as JSON values: splits, shards, bytes, and seconds judged from a few images.

    With `out`, `out` says what is there now and what a run would do about it, and OUT is refused as `shard` does.
    """
    options, read = with_keywords(options, read, keywords)
    workers = check_workers(workers)
    path = _local_source(source)
    if out is not None:
        out = local_path(out, "OUT")
        refuse_output_in_the_way(path, out)
    plan = make_plan(_listed(path, read, options), options)
    if out is not None:
        refuse_to_replace_the_source(plan.listing, out)
    seconds = 0.0
    rows = plan.splits[0].row_N[:RATE_SAMPLES]
    for ref in plan.listing.refs(rows):
        started = time.perf_counter()
        # A bad image costs its time as well; it is reported when the shards are written.
        with contextlib.suppress(ImageError):
            read_and_prepare(plan.listing.reader, ref, options, plan.extension)
        seconds += time.perf_counter() - started
    described = describe(plan, images_per_s=len(rows) / max(seconds, 1e-6) * workers)
    standing = None if out is None else standing_of(out, _identity(plan.listing, options))
    return described if standing is None else {**described, "out": standing}


def _identity(listing: Listing, options: ShardOptions) -> dict[str, Any]:
    """Return what must be the same for a run to resume another one, or to find it complete."""
    return {
        "options": {**options.to_dict(), **({"encoder": encoder()} if options.encodes else {})},
        "source": {"kind": listing.kind, "fingerprint": listing.fingerprint()},
    }


def _changed(job: JobFolder, plan: Plan, reports: Sequence[ShardReport], *, workers: int, watch: Watcher) -> list[str]:
    """Return the names of the images of the finished shards that have other bytes in the source now."""
    watch.stage("comparing images with the source")
    stored = stored_in_shards(job.folder, reports)
    return changed_images(plan.listing, stored, plan.options, plan.extension, workers=workers)


def _refuse_another_source(
    job: JobFolder, listing: Listing, state: str, options: ShardOptions, *, workers: int, watch: Watcher
) -> None:
    """Raise `OutputError` when images have changed since the dataset was made, under the same names and sizes."""
    # No files, no change: what `synthetic:` draws is a function of its name.
    if not state or job.state == state:
        return
    watch.stage("comparing images with the source")
    manifest = read_manifest(job.folder)
    stored = stored_in_dataset(job.folder, manifest)
    names = changed_images(listing, stored, options, manifest.image_extension, workers=workers)
    refuse_changed(job.out, names, state="made")
    job.remember_state(state)


def _refuse_full_disk(job: JobFolder, plan: Plan, reports: Mapping[str, ShardReport]) -> None:
    """Raise `OutputError` when the shards that are missing can't fit on the disk."""
    planned = sum(split.estimated_bytes for split in plan.splits)
    needed = planned - sum(report.bytes for report in reports.values())
    if not plan.is_exact:
        needed = int(needed * SURE_SHARE)
    free = shutil.disk_usage(job.folder).free
    if needed > free:
        raise OutputError(
            f"{job.out}: no space left on the disk for this dataset: it needs about {needed / 1e6:,.1f} MB, and "
            f"{free / 1e6:,.1f} MB are free; free some and run the same command again"
        )


def _local_source(source: str | os.PathLike[str]) -> str:
    """Return the path or description of the raw dataset. Raises `OptionError` for a URL."""
    text = os.fspath(source)
    return text if text.startswith(SYNTHETIC) else os.fspath(local_path(text, "SOURCE"))


def _spooled(dataset: object, job: JobFolder, title: str, names: Sequence[Any] | None, read: SourceOptions) -> Listing:
    """Return the listing of Python objects, whose images are in the job folder then."""
    names = names if names is not None else class_names_of(dataset)
    labelled = read.target in (None, "class")
    spool_file = ObjectSpool(job.objects, names if labelled else None)
    column = read.label_column or "label"
    with contextlib.closing(spool_file):
        for split, part in splits_of(dataset):
            for number, item in enumerate(items(part, split)):
                # A target that isn't one class is a column like others.
                kept = {column: item.label} if has_target(read) and item.label is not None else {}
                spool_file.add(
                    item.image,
                    item.label if labelled else None,
                    split=item.split,
                    key=item.key,
                    fields={**kept, **(item.fields or {})} or None,
                    at=f"item {number}" + (f" of {split}" if split else ""),
                )
        listing = spool_file.listing(title)
    if names is not None and has_target(read):
        listing = dataclasses.replace(listing, names={column: tuple(str(name) for name in names)})
    return with_target(listing, read)


def _listed(path: str, read: SourceOptions | None, options: ShardOptions) -> Listing:
    read = dataclasses.replace(read or SourceOptions(), exclude=options.exclude)
    listing = list_source(path, read)
    if options.views:
        # Imported here: a twentieth of the start, which few runs need.
        from imgdata.shards.select_views import select_views

        listing = select_views(listing, path, options.views)
    return selected(listing, options)


def selected(listing: Listing, options: ShardOptions) -> Listing:
    """Return the part of `listing` that `options` ask for, cut into splits. Raises `OptionError`."""
    if options.classes:
        listing = select_classes(listing, options.classes)
    if options.exclude:
        listing = exclude(listing, options.exclude)
    return apply_split(listing, options.split, options.seed) if options.split else listing


def _split_totals(reports: list[ShardReport]) -> dict[str, dict[str, int]]:
    totals: dict[str, dict[str, int]] = {}
    for report in reports:
        split = totals.setdefault(report.split, {"samples": 0, "shards": 0, "bytes": 0})
        split["samples"] += report.samples
        split["shards"] += bool(report.samples)
        split["bytes"] += report.bytes
    return totals


def _finished_summary(out: Path) -> ShardSummary:
    """Return the summary of a dataset that was finished before, from its manifest."""
    manifest = read_manifest(out)
    for split in manifest.splits:
        for shard in split.shards:
            path = out / shard.file
            if not path.exists() or path.stat().st_size != shard.bytes or not dali_index_path(path).exists():
                raise ShardError(
                    f"{path}: missing, not of {shard.bytes} bytes, or without its .idx; --overwrite writes all again"
                )
    return ShardSummary(
        out=out,
        name=manifest.name,
        splits={
            split.name: {"samples": split.samples, "shards": len(split.shards), "bytes": split.bytes}
            for split in manifest.splits
        },
        rejected=_reasons(json.loads(line) for line in _lines(out / REJECTS)),
        repaired=len(_lines(out / REPAIRS)),
        skipped=manifest.source["skipped"],
        warnings=tuple(manifest.source["warnings"]),
        already_complete=True,
    )


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []


def _reasons(rejects: Iterable[Mapping[str, str]]) -> dict[str, int]:
    return dict(sorted(Counter(reject["reason"] for reject in rejects).items()))
