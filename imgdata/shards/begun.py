"""Listing + options + output folder -> the plan of the job that begins or resumes there, and its finished shards."""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imgdata.dataset.manifest import read_manifest
from imgdata.errors import ImageError, OutputError
from imgdata.images.encode import encoder
from imgdata.shards.changes import changed_images, refuse_changed, stored_in_dataset, stored_in_shards
from imgdata.shards.job_folder import JobFolder
from imgdata.shards.merge import complete_append
from imgdata.shards.options import ShardOptions
from imgdata.shards.plan import Plan, make_plan
from imgdata.shards.record import ShardReport, read_record
from imgdata.shards.store_readers import StoreParquetFiles
from imgdata.shards.summary import ShardSummary, Watcher, finished_summary
from imgdata.sources.listing import Listing
from imgdata.sources.readers import PlainReader
from imgdata.sources.reading import with_states
from imgdata.sources.spool import spool
from imgdata.storage.folder import DatasetFolder

SPOOL_BYTES = 1 << 30
"""Packed sources with more image bytes are first copied out in their own order: rows in shuffled order
would read a whole row group of Parquet, or unpack a whole file, for each image."""
_STORE_SPOOL_BYTES = 1 << 24
"""The same for Parquet files in an object store."""
_PACKED = {"parquet": "Parquet", "tfrecord": "compressed TFRecords", "mds": "compressed shards"}
SURE_SHARE = 0.5
"""Share of an estimated size that a dataset surely takes, where images are re-encoded."""

_SHARDS_HERE = 4
"""Shards that are surely on this machine at a time where each is uploaded."""


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A job that can be written: `plan.json` is in the job folder."""

    plan: Plan
    reports: dict[str, ShardReport]
    """Reports of the shards that are finished, by file."""
    identity: Mapping[str, Any]
    """Options and source."""
    state: str
    """State of the source's files."""


def begin(
    job: JobFolder,
    listing: Listing,
    options: ShardOptions,
    *,
    workers: int,
    overwrite: bool,
    watch: Watcher,
    inodes: bool = True,
    extension: str | None = None,
    identity: Mapping[str, Any] | None = None,
) -> Begun | ShardSummary:
    """Begin or resume the job that writes `listing`; return the summary where the dataset is complete.

    Without `inodes` the states of samples hold on every machine that reads the source. `extension` is that of the
    images where it is given, and `identity` what `dataset.json` is to say of options and source, where that isn't what
    `listing` and `options` are. Raises as `shard` does.
    """
    out = job.out
    complete_append(job)
    listing, state = with_states(listing, inodes=inodes)
    identity = identity or identity_of(listing, options)
    standing = job.find(identity, overwrite=overwrite)
    if standing == "complete":
        summary = finished_summary(out)
        _refuse_another_source(job, listing, state, options, workers=workers, watch=watch)
        return summary
    watch.stage("planning")
    plan = make_plan(listing, options, extension)
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
    _refuse_full_disk(job, plan, reports)
    return Begun(plan=plan, reports=reports, identity=identity, state=state)


def copied_out(job: JobFolder, plan: Plan, watch: Watcher) -> Plan:
    """Return `plan` with its images copied into the job folder, where the source is slow to read in random order."""
    listing = plan.listing
    packed = listing.kind in _PACKED and not isinstance(listing.reader, PlainReader)
    least = SPOOL_BYTES
    if isinstance(getattr(listing.reader, "opener", None), StoreParquetFiles):
        # Each row group comes over the network; in the order of the rows it does so once.
        packed, least = plan.options.shuffle, _STORE_SPOOL_BYTES
    if not packed or int(listing.size_N.sum()) <= least:
        return plan
    watch.stage(f"copying images out of {_PACKED[listing.kind]}")
    return dataclasses.replace(plan, listing=spool(listing, job.spool))


def with_advice(error: ImageError) -> ImageError:
    """Return the error of an image that ends a run, with what to do about it."""
    return ImageError(error.reason, f"{error.detail}; on-bad 'reject' leaves such images out, 'fail' stops here")


def identity_of(listing: Listing, options: ShardOptions) -> dict[str, Any]:
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
    stored = stored_in_dataset(DatasetFolder(job.folder), manifest)
    names = changed_images(listing, stored, options, manifest.image_extension, workers=workers)
    refuse_changed(job.out, names, state="made")
    job.remember_state(state)


def _refuse_full_disk(job: JobFolder, plan: Plan, reports: Mapping[str, ShardReport]) -> None:
    """Raise `OutputError` when the shards that are missing can't fit on the disk."""
    planned = sum(split.estimated_bytes for split in plan.splits)
    needed = planned - sum(report.bytes for report in reports.values())
    if not plan.is_exact:
        needed = int(needed * SURE_SHARE)
    if job.uploads:
        needed = min(needed, _SHARDS_HERE * planned // plan.num_shards)
    free = shutil.disk_usage(job.folder).free
    if needed > free:
        raise OutputError(
            f"{job.out}: no space left on the disk for this dataset: it needs about {needed / 1e6:,.1f} MB, and "
            f"{free / 1e6:,.1f} MB are free; free some and run the same command again"
        )
