"""A raw dataset -> a dataset folder that many machines write: a plan first, then parts of it, then the end.

    imgdata.begin_parts("photos", "out")        one machine lists the source and cuts the shards
    imgdata.write_part("out", 3, 64)            any machine, at any time, again and again: shards 3, 67, 131, ...
    imgdata.finish_parts("out")                 one machine writes index and sidecars, or says which parts are missing

All that machines share is the output folder, or a place in an object store. The result is that of one `imgdata.shard`,
to the byte.
"""

import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from imgdata.errors import ImageError, OptionError, OutputError, SourceError
from imgdata.shards.begun import begin, copied_out, with_advice
from imgdata.shards.finish import complete
from imgdata.shards.frozen import FrozenPlan, PlanFacts, freeze, open_frozen
from imgdata.shards.job_folder import JobFolder, own
from imgdata.shards.keywords import ShardKeywords, with_keywords
from imgdata.shards.listed import listed, source_of
from imgdata.shards.options import ShardOptions
from imgdata.shards.out_place import (
    check_work,
    refuse_output_in_the_way,
    refuse_to_replace_the_source,
    refuse_url_in_the_way,
)
from imgdata.shards.parallel import check_workers
from imgdata.shards.part_files import ClosedError, close_parts, frozen_path, open_parts, read_cut
from imgdata.shards.part_numbers import checked_part, missing_text, part_from_environment
from imgdata.shards.part_places import frozen_in, planned_in, written
from imgdata.shards.plan import Plan, describe
from imgdata.shards.planned_shard import not_planned
from imgdata.shards.record import ShardReport
from imgdata.shards.store_steps import begin_in_store, finish_in_store
from imgdata.shards.summary import PartSummary, ShardSummary, Watcher, finished_summary, reasons
from imgdata.sources.options import SourceOptions
from imgdata.sources.synthetic import PREFIX as SYNTHETIC
from imgdata.storage.local_paths import UrlPath, any_path, local_path
from imgdata.storage.remote import is_url
from imgdata.version import __version__


@dataclass(frozen=True)
class Work:
    """What a run is to write."""

    num_samples: int
    num_shards: int


def begin_parts(
    source: str | os.PathLike[str],
    out: str | Path,
    options: ShardOptions | None = None,
    *,
    read: SourceOptions | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    work: str | os.PathLike[str] | None = None,
    watch: Watcher | None = None,
    **keywords: Unpack[ShardKeywords],
) -> dict[str, Any]:
    """List the raw dataset `source` and cut its shards, which `write_part` then writes into the folder `out`.

    Options are those of `shard`. The plan and the listing are kept in `out`, so that parts neither list the source
    again nor take options. Called again, it finds the plan that is there, and keeps the shards that are finished.
    `out` may be the URL of a folder in an object store; `work` holds what is made for it on this machine, by default
    the cache folder.

    Returns JSON values: `samples`, `shards`, `bytes`, `splits`, ..., `finished_shards`, and `complete` where nothing is
    left to do. Raises as `shard` does.
    """
    options, read = with_keywords(options, read, keywords)
    watch = watch or Watcher()
    workers = check_workers(workers)
    check_work(out, work)
    path = source_of(source)
    if is_url(out):
        refuse_url_in_the_way(path, out)
        found = begin_in_store(
            path,
            out,
            options,
            read=read,
            place=_place(path),
            work=work,
            workers=workers,
            overwrite=overwrite,
            watch=watch,
        )
        return _complete(found) if isinstance(found, ShardSummary) else _begun(UrlPath(out), *found)
    out = local_path(out, "OUT")
    refuse_output_in_the_way(path, out)
    with own(out) as job:
        watch.stage("listing")
        listing = listed(path, read, options)
        refuse_to_replace_the_source(listing, out)
        begun = begin(job, listing, options, workers=workers, overwrite=overwrite, watch=watch, inodes=False)
        if isinstance(begun, ShardSummary):
            return _complete(begun)
        if not job.closing_gaps:
            facts = _frozen_facts(job)
            place = _place(path)
            wanted = (begun.identity, begun.state, place, __version__)
            if facts is None or (facts.identity, facts.state, facts.source, facts.imgdata) != wanted:
                plan = copied_out(job, begun.plan, watch)
                plan_id = freeze(
                    plan, frozen_path(job.folder), source=place, identity=begun.identity, state=begun.state
                )
            else:
                plan_id = facts.plan_id
            open_parts(job.folder, plan_id)
        return _begun(out, begun.plan, len(begun.reports))


def _complete(summary: ShardSummary) -> dict[str, Any]:
    return {"out": str(summary.out), "complete": True, "samples": summary.samples, "splits": dict(summary.splits)}


def _begun(out: Path, plan: Plan, finished: int) -> dict[str, Any]:
    values = {"out": str(out), **describe(plan, images_per_s=1.0), "finished_shards": finished}
    del values["seconds"]
    return values | {"complete": False}


def write_part(
    out: str | Path,
    part: int | None = None,
    parts: int | None = None,
    *,
    workers: int | None = None,
    work: str | os.PathLike[str] | None = None,
    watch: Watcher | None = None,
) -> PartSummary:
    """Write the shards `part`, `part + parts`, ... of the plan that `begin_parts` left in `out`.

    Without numbers they come from a Slurm array (`SLURM_ARRAY_TASK_ID`, ...), else from `RANK` and `WORLD_SIZE`. A part
    can run on any machine that has source and `out` under the same paths, at any time, and again: finished shards
    stay. Two processes that write the same part do no harm. Shards for an object store are made in the folder `work`,
    by default in the cache folder, and removed when they are uploaded.

    Raises `OptionError` for numbers without a meaning, `OutputError` when nothing is planned in `out`, and as `shard`.
    """
    watch = watch or Watcher()
    workers = check_workers(workers)
    started = time.perf_counter()
    check_work(out, work)
    out = any_path(out)
    if (part is None) != (parts is None):
        raise OptionError(f"give both part and parts, or neither, got {part} and {parts}")
    given = None if part is None or parts is None else checked_part(part, parts)
    with planned_in(out, work) as found:
        if found is None:
            return PartSummary(
                out=out, part=None, parts=None, shards=0, samples=0, bytes=0, rejected={}, already_complete=True
            )
        place, frozen = found
        index, cut = given or part_from_environment(os.environ, place.read_cut())
        place.note_cut(cut)
        numbers = range(index, frozen.num_shards, cut.parts)
        reports = place.written(frozen, numbers)
        todo = [number for number in numbers if number not in reports]
        resumed = len(reports)
        samples, left = (int(frozen.shard_samples[list(which)].sum()) for which in (numbers, todo))
        watch.stage("writing")
        watch.planned(Work(samples, len(numbers)), samples - left)
        try:
            if todo:
                reports |= place.write(frozen, todo, samples=left, workers=workers, watch=watch)
        except ImageError as error:
            raise with_advice(error) from error
        except SourceError as error:
            raise SourceError(f"{error}; where it changed after --plan, run --plan again before") from error
        except ClosedError as error:
            raise closed(out) from error
    return PartSummary(
        out=out,
        part=index,
        parts=cut.parts,
        shards=len(numbers),
        samples=sum(report.samples for report in reports.values()),
        bytes=sum(report.bytes for report in reports.values()),
        rejected=reasons({"reason": reject.reason} for report in reports.values() for reject in report.rejects),
        seconds=time.perf_counter() - started,
        samples_written=left,
        resumed_shards=resumed,
    )


def finish_parts(
    out: str | Path, *, work: str | os.PathLike[str] | None = None, watch: Watcher | None = None
) -> ShardSummary:
    """Write index and sidecars of the dataset whose parts are in `out`.

    Those for an object store are made in the folder `work`, by default in the cache folder.

    Raises `OutputError` when shards are missing, with the parts to run again, and when nothing is planned in `out`.
    """
    watch = watch or Watcher()
    started = time.perf_counter()
    check_work(out, work)
    if is_url(out):
        summary = finish_in_store(out, work=work, watch=watch)
        return dataclasses.replace(summary, seconds=time.perf_counter() - started)
    out = local_path(out, "OUT")
    with own(out) as job:
        standing = job.resume()
        if standing == "complete":
            return finished_summary(out)
        frozen = open_frozen(frozen_path(job.folder)) if standing == "begun" else None
        if frozen is None:
            raise not_planned(out, begun=standing == "begun")
        watch.stage("checking shards")
        _refuse_missing(job, frozen)
        # From here on nobody writes any more, on any machine; what was replaced meanwhile is looked at once more.
        facts = frozen.facts
        close_parts(job.folder)
        try:
            reports = _refuse_missing(job, frozen)
        except OutputError:
            open_parts(job.folder, facts.plan_id)
            raise
        watch.stage("finishing")
        summary = complete(job, frozen.plan(), reports, facts.identity, facts.state)
    return dataclasses.replace(summary, seconds=time.perf_counter() - started, resumed_shards=frozen.num_shards)


def check_source(out: str | Path, source: str) -> None:
    """Raise `OutputError` when `out` was planned from another source than `source`."""
    frozen = frozen_in(out)
    if frozen is not None and frozen.facts.source != _place(source_of(source)):
        raise OutputError(
            f"{any_path(out)}: planned from {frozen.facts.source}, got {source}; give the same source, which must have "
            "the same path on all machines"
        )


def _refuse_missing(job: JobFolder, frozen: FrozenPlan) -> list[ShardReport]:
    """Return the reports of all shards, in order. Raises `OutputError` with the parts to run again."""
    count = frozen.num_shards
    reports = written(job.folder, frozen, range(count), need_tar=not job.closing_gaps)
    missing = [number for number in range(count) if number not in reports]
    if missing:
        raise OutputError(f"{job.out}: {missing_text(len(missing), count, missing, read_cut(job.folder))}")
    return list(reports.values())


def _frozen_facts(job: JobFolder) -> PlanFacts | None:
    """Return the facts of the plan that is frozen already; None where there is none that can be read."""
    try:
        frozen = open_frozen(frozen_path(job.folder))
    except OutputError:
        # Of another version: planned again.
        return None
    return None if frozen is None else frozen.facts


def _place(source: str) -> str:
    return source if source.startswith(SYNTHETIC) or is_url(source) else os.path.abspath(source)


def closed(out: Path) -> OutputError:
    """Return the error of a part whose job ended while it was writing."""
    return OutputError(
        f"{out}: the job was finished, or planned anew, while this part was writing; `imgdata inspect {out}` says what "
        "is there"
    )
