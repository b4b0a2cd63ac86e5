"""A raw dataset -> a dataset in an object store that many machines write: the plan, and the end.

Both make a job folder on this machine that looks as if all shards had been written here: the records of shards are
fetched, and hulls stand for the tars (see `upload`). So a plan finds what is finished, and the end is that of any other
upload. Nothing in that folder is needed by another step, which may run on another machine.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from imgdata.dataset.manifest import read_manifest
from imgdata.errors import OptionError, OutputError
from imgdata.shards.begun import Begun, begin, identity_of
from imgdata.shards.finish import complete
from imgdata.shards.frozen import PlanFacts, freeze, open_frozen
from imgdata.shards.listed import listed
from imgdata.shards.options import ShardOptions
from imgdata.shards.part_files import frozen_path
from imgdata.shards.part_numbers import missing_text
from imgdata.shards.plan import Plan
from imgdata.shards.planned_shard import not_planned
from imgdata.shards.record import record_path
from imgdata.shards.shard_uploads import HEAD_BYTES
from imgdata.shards.standing import PLAN, finished_in, to_json
from imgdata.shards.store_mark import fetch_mark, read_manifest_at, read_mark, replace_mark, store_at
from imgdata.shards.store_parts import Recorded, StoreParts, parts_of, plan_name
from imgdata.shards.summary import ShardSummary, Watcher, manifest_summary
from imgdata.shards.upload import Upload, uploading
from imgdata.sources.options import SourceOptions
from imgdata.storage.atomic import output_error, write_atomic
from imgdata.storage.local_paths import UrlPath
from imgdata.storage.remote import RemoteConflictError
from imgdata.version import __version__

_OF_STORE = frozenset(("next", "old", "host", "plan_id", "conditions", "closing"))
"""What a mark says beside what `plan.json` says in a job folder."""
_LARGEST = 5_000_000_000
"""Bytes of an object that can be written by one request."""


def begin_in_store(
    source: str,
    url: str | os.PathLike[str],
    options: ShardOptions,
    *,
    read: SourceOptions,
    place: str,
    work: str | os.PathLike[str] | None,
    workers: int,
    overwrite: bool,
    watch: Watcher,
) -> tuple[Plan, int] | ShardSummary:
    """Put the plan for `source` into the store, or find the one that is there; return it with its finished shards.

    Returns the summary where the dataset is complete. `place` is the source as parts find it. Raises as `shard` does.
    """
    with uploading(url, work, overwrite=overwrite, watch=watch) as upload:
        watch.stage("listing")
        listing = listed(source, read, options)
        summary = upload.begin(identity_of(listing, options), parts=True)
        if summary is not None:
            return summary
        mark, etag = fetch_mark(upload.store) or (None, None)
        old = None if mark is None else parts_of(upload.url, mark)
        recorded = _fetched(upload, mark, old)
        begun = begin(upload.job, listing, options, workers=workers, overwrite=overwrite, watch=watch, inodes=False)
        assert isinstance(begun, Begun), "a dataset was finished in a folder that was emptied"
        _refuse_large(upload, begun.plan)
        facts = None if old is None else _facts(old)
        wanted = (begun.identity, begun.state, place, __version__)
        if facts is None or (facts.identity, facts.state, facts.source, facts.imgdata) != wanted:
            kept = [one for file, one in recorded.items() if file in begun.reports]
            replaced = {name: mark[name] for name in ("old",) if mark is not None and name in mark}
            _put_plan(upload, begun, kept, place, replaced, etag)
            if old is not None:
                old.remove()
        upload.ended = True
        return begun.plan, len(begun.reports)


def finish_in_store(
    url: str | os.PathLike[str], *, work: str | os.PathLike[str] | None, watch: Watcher
) -> ShardSummary:
    """Write index and sidecars of the dataset whose parts are at `url`.

    Raises `OutputError` when shards are missing, with the parts to run again, and when nothing is planned there.
    """
    store = store_at(url)
    mark = read_mark(store)
    if mark is None:
        manifest = read_manifest_at(store)
        if manifest is None:
            raise not_planned(UrlPath(store.url), begun=False)
        # Its lists of rejected images are not needed: nothing is told of a dataset that was complete.
        return manifest_summary(UrlPath(store.url), manifest, lambda name: [])
    if "plan_id" not in mark:
        raise not_planned(UrlPath(store.url), begun=True)
    identity = {"options": mark["options"], "source": mark["source"]}
    with uploading(url, work, overwrite=bool(mark["next"]), watch=watch) as upload:
        summary = upload.begin(identity, parts=True)
        if summary is None and finished_in(upload.job.out) is not None:
            # All is made, and an earlier run was giving names to objects.
            made = manifest_summary(upload.url, read_manifest(upload.job.out), lambda name: [])
            return upload.deliver(dataclasses.replace(made, already_complete=False))
        return summary or _finish(upload, identity, watch)


def _finish(upload: Upload, identity: Mapping[str, Any], watch: Watcher) -> ShardSummary:
    watch.stage("checking shards")
    mark, etag = fetch_mark(upload.store) or ({}, None)
    parts = parts_of(upload.url, mark)
    if parts is None:
        raise not_planned(upload.url, begun=bool(mark))
    recorded = _fetched(upload, mark, parts)
    with open(frozen_path(upload.job.folder), "wb") as file:
        upload.store.copy_to(file.fileno(), plan_name(parts.plan_id))
    frozen = open_frozen(frozen_path(upload.job.folder))
    assert frozen is not None
    missing = [number for number, file in enumerate(frozen.files) if file not in recorded]
    if bool(mark.get("closing")) != (not missing):
        # From here on no part writes any more, on any machine; or again, where shards were lost since then.
        _replace_mark(upload, {**mark, "closing": not missing}, etag)
    if missing:
        upload.ended = True
        text = missing_text(len(missing), frozen.num_shards, missing, parts.read_cut())
        raise OutputError(f"{upload.url}: {text}")
    watch.stage("finishing")
    reports = [recorded[file].report for file in frozen.files]
    summary = complete(upload.job, frozen.plan(), reports, identity, frozen.facts.state)
    summary = upload.deliver(summary)
    return dataclasses.replace(summary, resumed_shards=frozen.num_shards)


def _fetched(upload: Upload, mark: Mapping[str, Any] | None, parts: StoreParts | None) -> dict[str, Recorded]:
    """Make the job folder of the dataset that parts write, with its finished shards; return what the store has of them.

    Shards whose tars are not in the store, or are others now, are not among them.
    """
    upload.empty()
    if mark is None or parts is None:
        return {}
    folder = upload.job.folder
    there = {facts.name: facts for facts in upload.store.list()}
    try:
        recorded = parts.recorded(parts.names_in(there), lambda file, data: record_path(folder, file).write_bytes(data))
        found = {file: one for file, one in recorded.items() if one.is_in(there)}
        tars = [(file, one.tar) for file, one in found.items() if one.tar is not None]
        heads = [b""] * len(tars)
        if len(tars) < len(found):
            # Shards move up by one where all images of one were bad: who moved already is seen by the first member.
            def read_head(number: int) -> None:
                heads[number] = upload.store.read(tars[number][1].name, 0, HEAD_BYTES)

            upload.store.in_parallel(read_head, len(tars))
        for (file, tar), head in zip(tars, heads, strict=True):
            upload.note(file, tar)
            upload.hull(file, head, tar.size)
    except OSError as error:
        raise output_error(error, folder) from error
    values = {name: value for name, value in mark.items() if name not in _OF_STORE}
    write_atomic(upload.job.path / PLAN, to_json(values))
    return found


def _put_plan(
    upload: Upload, begun: Begun, kept: list[Recorded], place: str, replaced: Mapping[str, Any], etag: str | None
) -> None:
    """Freeze the plan and put it into the store, with the records `kept`; the mark must have the ETag `etag`.

    `replaced` is what the mark says of a dataset that is being replaced.
    """
    job = upload.job
    plan_id = freeze(begun.plan, frozen_path(job.folder), source=place, identity=begun.identity, state=begun.state)
    parts = StoreParts(upload.url, plan_id, next_to_old=upload.next_to_old, conditions=upload.conditions)
    upload.store.put(plan_name(plan_id), frozen_path(job.folder))

    def keep(number: int) -> None:
        parts.keep(kept[number], record_path(job.folder, kept[number].report.file).read_bytes())

    upload.store.in_parallel(keep, len(kept))
    try:
        _replace_mark(
            upload, {**upload.values(), **replaced, "plan_id": plan_id, "conditions": upload.conditions}, etag
        )
    except OutputError:
        parts.remove()
        raise


def _replace_mark(upload: Upload, values: Mapping[str, Any], etag: str | None) -> None:
    try:
        replace_mark(upload.store, values, etag)
    except RemoteConflictError:
        raise OutputError(
            f"{upload.url}: another machine plans or finishes here at the same time; run the same command again when "
            "it has ended"
        ) from None


def _facts(parts: StoreParts) -> PlanFacts | None:
    """Return the facts of the plan in the store; None where it can't be read."""
    try:
        return parts.frozen().facts
    except OutputError:
        # Of another version: planned again.
        return None


def _refuse_large(upload: Upload, plan: Plan) -> None:
    """Raise `OptionError` where shards are larger than a request may be."""
    for split in plan.splits:
        if upload.conditions and split.estimated_bytes > _LARGEST * len(split.start_K):
            size = split.estimated_bytes / len(split.start_K) / 1e9
            raise OptionError(
                f"{upload.url}: parts upload shards of 5 GB at most, those of {split.name} would have {size:.1f} GB; "
                "give a smaller --shard-size, or fewer --shard-samples"
            )
