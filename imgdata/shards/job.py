"""Raw dataset + options -> finished dataset folder: plans, resumes, runs the workers, writes the sidecars."""

import contextlib
import dataclasses
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgdata.dataset.manifest import read_manifest
from imgdata.errors import ImageError, OutputError, ShardError
from imgdata.images.encode import encoder
from imgdata.shards.engines.local import LocalEngine
from imgdata.shards.finish import finish
from imgdata.shards.job_folder import REJECTS, REPAIRS, own
from imgdata.shards.options import ShardOptions
from imgdata.shards.parallel import check_workers
from imgdata.shards.plan import Plan, describe, make_plan
from imgdata.shards.prepare import prepare
from imgdata.shards.record import ShardReport, read_record
from imgdata.shards.select import exclude, select_classes
from imgdata.shards.sidecars import dali_index_path
from imgdata.shards.split import apply_split
from imgdata.sources.detect import list_source
from imgdata.sources.listing import Listing
from imgdata.sources.options import SourceOptions
from imgdata.sources.parquet.source import spool
from imgdata.sources.readers import RangeReader

SPOOL_BYTES = 1 << 30
"""Parquet sources with more image bytes are first copied out in their own order: rows in shuffled order
would read a whole row group for each image."""
RATE_SAMPLES = 32


class Watcher:
    """Hears how a run goes on; this one does nothing. Override what you want to show."""

    def stage(self, what: str) -> None:
        """A new stage begins: `listing`, `planning`, `writing`, `finishing`."""

    def planned(self, plan: Plan, samples_done: int) -> None:
        """The plan stands; `samples_done` were finished by an earlier run."""

    def advanced(self, samples: int, num_bytes: int, rejects: int) -> None:
        """So much more was written since the last call."""


@dataclass(frozen=True, kw_only=True)
class ShardSummary:
    """What a run made."""

    out: Path
    name: str
    splits: Mapping[str, Mapping[str, int]]
    """For each split `samples`, `shards` and `bytes`."""
    rejected: Mapping[str, int]
    """Images left out, by reason."""
    repaired: int
    skipped: Mapping[str, int]
    """Files passed over while listing."""
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    samples_written: int = 0
    """By this run; fewer than all when an earlier run had finished some shards."""
    resumed_shards: int = 0
    already_complete: bool = False

    @property
    def samples(self) -> int:
        """Samples of all splits."""
        return sum(split["samples"] for split in self.splits.values())

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        values = dataclasses.asdict(self) | {"out": str(self.out), "samples": self.samples}
        values["images_per_s"] = round(self.samples_written / self.seconds, 1) if self.seconds else 0.0
        values["seconds"] = round(self.seconds, 3)
        return values


def shard(
    source: str | Path,
    out: str | Path,
    options: ShardOptions | None = None,
    *,
    read: SourceOptions | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    watch: Watcher | None = None,
) -> ShardSummary:
    """Turn the raw dataset `source` into the dataset folder `out`.

    A run that was cut off goes on where it stopped when it is called again with the same arguments; shards
    that are finished are not written again, and the result is the same to the byte. `workers` (default: one
    for each core this process may use) does not change the bytes either.

    Raises `SourceError` for a source that can't be read, `OptionError` for options without a meaning,
    `OutputError` when `out` is busy, full, not writable, or holds something else, and `ImageError` for the
    first bad image with `on_bad="fail"`.
    """
    options = options or ShardOptions()
    watch = watch or Watcher()
    workers = check_workers(workers)
    out = Path(out)
    _refuse_output_in_the_way(source, out)
    started = time.perf_counter()
    with own(out) as job:
        watch.stage("listing")
        listing = _list(source, read, options)
        _refuse_to_replace_the_source(listing, out)
        identity = {
            "options": {**options.to_dict(), **({"encoder": encoder()} if options.encodes else {})},
            "source": {"kind": listing.kind, "fingerprint": listing.fingerprint()},
        }
        if job.is_finished(identity, overwrite=overwrite):
            return _finished_summary(out)
        watch.stage("planning")
        plan = make_plan(listing, options)
        job.begin(identity, plan)
        records = {file: read_record(out, file, need_tar=not job.closing_gaps) for file in plan.shard_files()}
        reports = {file: report for file, report in records.items() if report is not None}
        resumed = len(reports)
        samples_done = sum(report.samples + len(report.rejects) for report in reports.values())
        if listing.kind == "parquet" and int(listing.size_N.sum()) > SPOOL_BYTES and resumed < plan.num_shards:
            watch.stage("copying images out of Parquet")
            plan = dataclasses.replace(plan, listing=spool(listing, job.spool))
        watch.stage("writing")
        watch.planned(plan, samples_done)
        tasks = plan.tasks(out, skip=reports)
        try:
            with LocalEngine(workers=workers, samples=plan.num_samples - samples_done, lock=job.lock) as engine:
                for report in engine.run(tasks, plan.num_shards - resumed, watch.advanced):
                    reports[report.file] = report
        except ImageError as error:
            raise ImageError(
                error.reason, f"{error.detail}; on-bad 'reject' leaves such images out, 'fail' stops here"
            ) from error
        watch.stage("finishing")
        ordered = [reports[file] for file in plan.shard_files()]
        warnings = finish(job, plan, ordered, identity)
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
    source: str | Path,
    options: ShardOptions | None = None,
    *,
    read: SourceOptions | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """What `shard` would do, as JSON values: splits, shards, bytes, and seconds judged from a few images."""
    options = options or ShardOptions()
    workers = check_workers(workers)
    plan = make_plan(_list(source, read, options), options)
    seconds = 0.0
    rows = plan.splits[0].row_N[:RATE_SAMPLES]
    for ref in plan.listing.refs(rows):
        started = time.perf_counter()
        # A bad image costs its time as well; it is reported when the shards are written.
        with contextlib.suppress(ImageError):
            prepare(plan.listing.reader.read(ref), options, plan.extension)
        seconds += time.perf_counter() - started
    return describe(plan, images_per_s=len(rows) / max(seconds, 1e-6) * workers)


def _list(source: str | Path, read: SourceOptions | None, options: ShardOptions) -> Listing:
    listing = list_source(source, dataclasses.replace(read or SourceOptions(), exclude=options.exclude))
    if options.classes:
        listing = select_classes(listing, options.classes)
    if options.exclude:
        listing = exclude(listing, options.exclude)
    return apply_split(listing, options.split, options.seed) if options.split else listing


def _refuse_output_in_the_way(source: str | Path, out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; give a folder to write the dataset to")
    place, target = Path(source).resolve(), out.resolve()
    if place == target:
        raise OutputError(f"{out}: is the source itself; write the shards to another folder")
    if place in target.parents:
        raise OutputError(
            f"{out}: lies inside the source, whose next listing would find the shards; choose a folder beside {source}"
        )


def _refuse_to_replace_the_source(listing: Listing, out: Path) -> None:
    if isinstance(listing.reader, RangeReader):
        for container in listing.reader.containers:
            if out.resolve() in container.resolve().parents:
                raise OutputError(f"{out}: holds {container.name}, which is read; write the shards to another folder")


def _split_totals(reports: list[ShardReport]) -> dict[str, dict[str, int]]:
    totals: dict[str, dict[str, int]] = {}
    for report in reports:
        split = totals.setdefault(report.split, {"samples": 0, "shards": 0, "bytes": 0})
        split["samples"] += report.samples
        split["shards"] += bool(report.samples)
        split["bytes"] += report.bytes
    return totals


def _finished_summary(out: Path) -> ShardSummary:
    """The summary of a dataset that stood there already, from its manifest."""
    manifest = read_manifest(out)
    for split in manifest.splits:
        for shard in split.shards:
            path = out / shard.file
            if not path.exists() or path.stat().st_size != shard.bytes or not dali_index_path(path).exists():
                raise ShardError(
                    f"{path}: missing, not of {shard.bytes} bytes, or without its .idx; --overwrite writes all anew"
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
