"""Raw dataset + options -> finished dataset folder: begins or resumes, runs the workers, writes the sidecars."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

from imgdata.cluster import RayOptions, cluster_options
from imgdata.dataset.manifest import MANIFEST, read_manifest
from imgdata.errors import ImageError, OptionError
from imgdata.shards.append import appended_images, plan_growth
from imgdata.shards.begun import begin, copied_out, identity_of, with_advice
from imgdata.shards.changes import changed_images, refuse_changed
from imgdata.shards.engines.local import LocalEngine
from imgdata.shards.engines.protocol import Engine
from imgdata.shards.finish import complete
from imgdata.shards.job_folder import JobFolder, own
from imgdata.shards.keywords import ShardKeywords, with_keywords
from imgdata.shards.listed import listed, selected, source_of
from imgdata.shards.merge import complete_append
from imgdata.shards.object_spool import ObjectSpool
from imgdata.shards.objects import class_names as class_names_of
from imgdata.shards.objects import items, splits_of
from imgdata.shards.on_cluster import shard_on_cluster
from imgdata.shards.options import ShardOptions
from imgdata.shards.out_place import (
    check_work,
    refuse_output_in_the_way,
    refuse_to_replace_the_source,
    refuse_url_in_the_way,
)
from imgdata.shards.parallel import check_workers
from imgdata.shards.plan import describe, make_plan
from imgdata.shards.prepare import read_and_prepare
from imgdata.shards.source_states import read_states, write_states
from imgdata.shards.standing import standing_of
from imgdata.shards.store_append import appending, growth_at
from imgdata.shards.store_readers import reading_ahead
from imgdata.shards.summary import ShardSummary, Watcher, finished_summary
from imgdata.shards.upload import standing_at, uploading
from imgdata.shards.upload_states import images_changed_since, note_state
from imgdata.sources.listing import Listing
from imgdata.sources.options import SourceOptions
from imgdata.sources.reading import with_states
from imgdata.sources.target import has_target, with_target
from imgdata.storage.local_paths import local_path
from imgdata.storage.remote import is_url

RATE_SAMPLES = 32


def shard(
    source: str | os.PathLike[str] | Iterable[Any],
    out: str | Path,
    options: ShardOptions | None = None,
    *,
    read: SourceOptions | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    append: bool = False,
    work: str | os.PathLike[str] | None = None,
    watch: Watcher | None = None,
    class_names: Sequence[Any] | None = None,
    engine: Literal["local", "ray"] | RayOptions = "local",
    **keywords: Unpack[ShardKeywords],
) -> ShardSummary:
    """Turn the raw dataset `source` into the dataset folder `out`.

    `source` is a path, or Python objects: an iterable of pairs `(image, label)` or of mappings, such as a dataset of
    torchvision or Hugging Face, or a mapping of splits to such iterables. Their images are PIL images, uint8 arrays
    `(H, W)` or `(H, W, C)`, which become PNG, or encoded bytes; `class_names` names the classes of labels that are
    numbers. What the command takes as options are keywords here: `imgdata.shard("photos", "out", resize=256)`.

    An interrupted run resumes when it is called again with the same arguments; shards that are finished are not
    written again, and the result is the same to the byte. `workers` (default: one for each core this process may use)
    does not change the bytes either. With `overwrite` an old dataset in `out` stays until the new one is complete. With
    `append` the images become a new version of the dataset in `out`: shards behind its own, and classes behind its own
    where they have other ids. Earlier versions stay as they are.

    `out` may be the URL of a folder in an object store, such as `s3://bucket/photos`: shards are made in the folder
    `work`, by default in the cache folder, uploaded while the next ones are made, and removed. `source` may be one as
    well where its images are files, or lie in tars, such as those of a dataset, or in Parquet.

    The `engine` is `local`, this machine, or `ray`, a cluster (`RayOptions` says which), whose machines have source and
    `out` under the same paths or URLs. `begin_parts`, `write_part` and `finish_parts` do without a cluster's software.

    Raises `SourceError` for a source that can't be read or that changes meanwhile, `OptionError` for options without a
    meaning, `OutputError` when `out` is busy, full, not writable, or holds something else, and `ImageError` for the
    first bad image with `on_bad="fail"`.
    """
    options, read = with_keywords(options, read, keywords)
    watch = watch or Watcher()
    if append and overwrite:
        raise OptionError("append and overwrite can't be given together: a dataset is added to, or is replaced")
    cluster = cluster_options(engine)
    check_work(out, work)
    if cluster is not None:
        if not isinstance(source, str | os.PathLike):
            raise OptionError("engine 'ray' reads files that all machines have; give a path, or engine='local'")
        if append:
            raise OptionError("append can't be given with engine 'ray'; leave out the engine")
        return shard_on_cluster(
            source,
            out,
            options,
            read=read,
            workers=workers,
            overwrite=overwrite,
            work=work,
            watch=watch,
            cluster=cluster,
        )
    workers = check_workers(workers)
    started = time.perf_counter()
    path = source_of(source) if isinstance(source, str | os.PathLike) else None
    if is_url(out):
        if path is not None:
            refuse_url_in_the_way(path, out)
        if append:
            with appending(out, work, watch=watch) as growing:
                watch.stage("listing")
                listing, _ = with_states(_listed_for(growing.whole, source, path, read, options, class_names))
                growth = growing.begin(listing, options)
                if growth.done:
                    return growing.deliver()
                summary = write_listing(
                    growing.begin_part(growth),
                    growth.listing,
                    growth.options,
                    workers=workers,
                    overwrite=False,
                    watch=watch,
                    started=started,
                    engine=growing.engine,
                    extension=growth.before.image_extension,
                )
                return growing.deliver(summary)
        with uploading(out, work, overwrite=overwrite, watch=watch) as upload:
            watch.stage("listing")
            listing = _listed_for(upload.job, source, path, read, options, class_names)
            complete_already = upload.begin(
                identity_of(listing, options),
                changed_since=lambda manifest: images_changed_since(
                    upload.store.url, manifest, listing, options, workers=workers, watch=watch
                ),
            )
            if complete_already is not None:
                return complete_already
            summary = write_listing(
                upload.job,
                listing,
                options,
                workers=workers,
                overwrite=overwrite,
                watch=watch,
                started=started,
                engine=upload.engine,
            )
            state, manifest = upload.job.state, read_manifest(upload.job.folder)
            summary = upload.deliver(summary)
            note_state(upload.store.url, manifest, state)
            return summary
    out = local_path(out, "OUT")
    if path is not None:
        refuse_output_in_the_way(path, out)
    with own(out) as job:
        watch.stage("listing")
        if append:
            listing = _listed_for(job, source, path, read, options, class_names)
            return append_listing(job, listing, options, workers=workers, watch=watch, started=started)
        # Not kept in a variable: its memory is free when the last shard is written.
        return write_listing(
            job,
            _listed_for(job, source, path, read, options, class_names),
            options,
            workers=workers,
            overwrite=overwrite,
            watch=watch,
            started=started,
        )


def _listed_for(
    job: JobFolder,
    source: object,
    path: str | None,
    read: SourceOptions | None,
    options: ShardOptions,
    class_names: Sequence[Any] | None,
) -> Listing:
    """Return the listing of the raw dataset at `path`, or of the Python objects `source` where that is None."""
    if path is None:
        title = options.name or job.out.resolve().name
        return selected(_spooled(source, job, title, class_names, read or SourceOptions()), options)
    listing = listed(path, read, options)
    refuse_to_replace_the_source(listing, job.out)
    return listing


def append_listing(
    job: JobFolder, listing: Listing, options: ShardOptions, *, workers: int, watch: Watcher, started: float
) -> ShardSummary:
    """Write `listing` as the next version of the dataset of the output folder, or resume, or find that it is there.

    Raises as `shard` does.
    """
    listing, state = with_states(listing)
    complete_append(job)
    growth = plan_growth(job.out, listing, options)
    if growth.done:
        if state and read_states(job.out / MANIFEST).get(growth.done) != state:
            watch.stage("comparing images with the source")
            stored, extension = appended_images(job.out, growth), growth.before.image_extension
            names = changed_images(growth.listing, stored, growth.options, extension, workers=workers)
            refuse_changed(job.out, names, state="appended to")
            write_states(job.out / MANIFEST, {growth.done: state})
        return finished_summary(job.out)
    part = job.begin_append(identity_of(growth.listing, growth.options))
    summary = write_listing(
        part,
        growth.listing,
        growth.options,
        workers=workers,
        overwrite=False,
        watch=watch,
        started=started,
        extension=growth.before.image_extension,
    )
    complete_append(job)
    return dataclasses.replace(summary, out=job.out, version=growth.before.version + 1)


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
    extension: str | None = None,
    identity: Mapping[str, Any] | None = None,
) -> ShardSummary:
    """Write `listing` as the dataset of the output folder that `job` owns, or resume, or find it complete.

    `engine` makes what runs the tasks, as `LocalEngine` is made; `extension` and `identity` are for `begin`. Raises as
    `shard` does.
    """
    begun = begin(
        job,
        listing,
        options,
        workers=workers,
        overwrite=overwrite,
        watch=watch,
        extension=extension,
        identity=identity,
    )
    if isinstance(begun, ShardSummary):
        return begun
    plan, reports, identity, state = begun.plan, begun.reports, begun.identity, begun.state
    del begun, listing
    resumed = len(reports)
    samples_done = sum(report.samples + len(report.rejects) for report in reports.values())
    if resumed < plan.num_shards:
        plan = copied_out(job, plan, watch)
    watch.stage("writing")
    watch.planned(plan, samples_done)
    tasks = plan.tasks(job.folder, skip=reports)
    # The places of the images are the tasks' alone, and gone when the last one is done: the index needs the memory.
    plan = plan.without_places()
    try:
        with engine(workers=workers, samples=plan.num_samples - samples_done, lock=job.lock) as running:
            for report in running.run(tasks, plan.num_shards - resumed, watch.advanced):
                reports[report.file] = report
    except ImageError as error:
        raise with_advice(error) from error
    watch.stage("finishing")
    ordered = [reports[file] for file in plan.shard_files()]
    summary = complete(job, plan, ordered, identity, state)
    return dataclasses.replace(
        summary,
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
    append: bool = False,
    **keywords: Unpack[ShardKeywords],
) -> dict[str, Any]:
    """Return what `shard` would do, as JSON values: splits, shards, bytes, and seconds judged from a few images.

    With `out`, `out` says what is there now and what a run would do about it, and OUT is refused as `shard` does. With
    `append` the plan is that of the shards which the dataset in OUT would get.
    """
    options, read = with_keywords(options, read, keywords)
    workers = check_workers(workers)
    path = source_of(source)
    url, out = (out, None) if out is not None and is_url(out) else (None, out)
    if out is not None:
        out = local_path(out, "OUT")
        refuse_output_in_the_way(path, out)
    listing = listed(path, read, options)
    if out is not None:
        refuse_to_replace_the_source(listing, out)
    growth = None
    if append and (out is not None or url is not None):
        growth = plan_growth(out, listing, options) if out is not None else growth_at(str(url), listing, options)
    if growth is not None:
        listing, options = growth.listing, growth.options
    plan = make_plan(listing, options, None if growth is None else growth.before.image_extension)
    seconds = 0.0
    rows = plan.splits[0].row_N[:RATE_SAMPLES]
    refs = list(plan.listing.refs(rows))
    with reading_ahead(plan.listing.reader, refs) as reader:
        for ref in refs:
            started = time.perf_counter()
            # A bad image costs its time as well; it is reported when the shards are written.
            with contextlib.suppress(ImageError):
                read_and_prepare(reader, ref, options, plan.extension)
            seconds += time.perf_counter() - started
    described = describe(plan, images_per_s=len(rows) / max(seconds, 1e-6) * workers)
    if growth is not None:
        return growth.described(described)
    identity = identity_of(plan.listing, options)
    standing = (
        standing_at(url, identity) if url is not None else standing_of(out, identity) if out is not None else None
    )
    return described if standing is None else {**described, "out": standing}


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
                    members=item.members,
                    at=f"item {number}" + (f" of {split}" if split else ""),
                )
        listing = spool_file.listing(title)
    if names is not None and has_target(read):
        listing = dataclasses.replace(listing, names={column: tuple(str(name) for name in names)})
    return with_target(listing, read)
