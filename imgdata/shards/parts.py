"""A raw dataset -> a dataset folder that many machines write: a plan first, then parts of it, then the end.

    imgdata.begin_parts("photos", "out")        one machine lists the source and cuts the shards
    imgdata.write_part("out", 3, 64)            any machine, at any time, again and again: shards 3, 67, 131, ...
    imgdata.finish_parts("out")                 one machine writes index and sidecars, or says which parts are missing

All that machines share is the output folder. The result is that of one `imgdata.shard`, to the byte.
"""

import dataclasses
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from imgdata.dataset.manifest import MANIFEST
from imgdata.errors import ImageError, OptionError, OutputError, SourceError
from imgdata.shards.begun import begin, copied_out, with_advice
from imgdata.shards.engines.local import LocalEngine
from imgdata.shards.finish import complete
from imgdata.shards.frozen import FrozenPlan, PlanFacts, freeze, open_frozen
from imgdata.shards.job_folder import JobFolder, join, own
from imgdata.shards.keywords import ShardKeywords, with_keywords
from imgdata.shards.listed import listed, local_source
from imgdata.shards.options import ShardOptions
from imgdata.shards.out_place import refuse_output_in_the_way, refuse_to_replace_the_source
from imgdata.shards.parallel import check_workers
from imgdata.shards.part_files import (
    ClosedError,
    attempt,
    close_parts,
    frozen_path,
    note_cut,
    open_parts,
    publish,
    read_cut,
)
from imgdata.shards.part_numbers import Cut, array_text, checked_part, part_from_environment
from imgdata.shards.plan import describe
from imgdata.shards.planned_shard import check_plan
from imgdata.shards.record import ShardReport, read_record
from imgdata.shards.standing import is_begun
from imgdata.shards.summary import PartSummary, ShardSummary, Watcher, finished_summary, reasons
from imgdata.sources.options import SourceOptions
from imgdata.sources.synthetic import PREFIX as SYNTHETIC
from imgdata.storage.local_paths import local_path
from imgdata.tables import counted
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
    watch: Watcher | None = None,
    **keywords: Unpack[ShardKeywords],
) -> dict[str, Any]:
    """List the raw dataset `source` and cut its shards, which `write_part` then writes into the folder `out`.

    Options are those of `shard`. The plan and the listing are kept in `out`, so that parts neither list the source
    again nor take options. Called again, it finds the plan that is there, and keeps the shards that are finished.

    Returns JSON values: `samples`, `shards`, `bytes`, `splits`, ..., `finished_shards`, and `complete` where nothing is
    left to do. Raises as `shard` does.
    """
    options, read = with_keywords(options, read, keywords)
    watch = watch or Watcher()
    workers = check_workers(workers)
    out = local_path(out, "OUT")
    path = local_source(source)
    refuse_output_in_the_way(path, out)
    with own(out) as job:
        watch.stage("listing")
        listing = listed(path, read, options)
        refuse_to_replace_the_source(listing, out)
        begun = begin(job, listing, options, workers=workers, overwrite=overwrite, watch=watch, inodes=False)
        if isinstance(begun, ShardSummary):
            return {"out": str(out), "complete": True, "samples": begun.samples, "splits": dict(begun.splits)}
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
        values = {"out": str(out), **describe(begun.plan, images_per_s=1.0), "finished_shards": len(begun.reports)}
        del values["seconds"]
        return values | {"complete": False}


def write_part(
    out: str | Path,
    part: int | None = None,
    parts: int | None = None,
    *,
    workers: int | None = None,
    watch: Watcher | None = None,
) -> PartSummary:
    """Write the shards `part`, `part + parts`, ... of the plan that `begin_parts` left in `out`.

    Without numbers they come from a Slurm array (`SLURM_ARRAY_TASK_ID`, ...), else from `RANK` and `WORLD_SIZE`. A part
    can run on any machine that has source and `out` under the same paths, at any time, and again: finished shards
    stay. Two processes that write the same part do no harm.

    Raises `OptionError` for numbers without a meaning, `OutputError` when nothing is planned in `out`, and as `shard`.
    """
    watch = watch or Watcher()
    workers = check_workers(workers)
    started = time.perf_counter()
    out = local_path(out, "OUT")
    if (part is None) != (parts is None):
        raise OptionError(f"give both part and parts, or neither, got {part} and {parts}")
    given = None if part is None or parts is None else checked_part(part, parts)
    with join(out) as job:
        frozen = planned(job)
        if frozen is None:
            return PartSummary(
                out=out, part=None, parts=None, shards=0, samples=0, bytes=0, rejected={}, already_complete=True
            )
        index, cut = given or part_from_environment(os.environ, read_cut(job.folder))
        note_cut(job.folder, cut)
        numbers = range(index, frozen.num_shards, cut.parts)
        reports = written(job.folder, frozen, numbers)
        todo = [number for number in numbers if number not in reports]
        resumed = len(reports)
        samples, left = (int(frozen.shard_samples[list(which)].sum()) for which in (numbers, todo))
        watch.stage("writing")
        watch.planned(Work(samples, len(numbers)), samples - left)
        try:
            if todo:
                reports |= _write(job, frozen, todo, samples=left, workers=workers, watch=watch)
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


def finish_parts(out: str | Path, *, watch: Watcher | None = None) -> ShardSummary:
    """Write index and sidecars of the dataset whose parts are in `out`.

    Raises `OutputError` when shards are missing, with the parts to run again, and when nothing is planned in `out`.
    """
    watch = watch or Watcher()
    started = time.perf_counter()
    out = local_path(out, "OUT")
    with own(out) as job:
        standing = job.resume()
        if standing == "complete":
            return finished_summary(out)
        frozen = open_frozen(frozen_path(job.folder)) if standing == "begun" else None
        if frozen is None:
            raise _not_planned(out, begun=standing == "begun")
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


def planned(job: JobFolder) -> FrozenPlan | None:
    """Return the plan whose parts are to be written; None where the dataset is complete.

    Raises `OutputError` where there is none, or not one that can be written here.
    """
    out = job.out
    for folder in (job.beside, out):
        frozen = open_frozen(frozen_path(folder))
        if frozen is not None:
            job.folder = folder
            check_plan(out, folder, frozen.facts)
            return frozen
    begun = is_begun(job.beside) or is_begun(out)
    if not begun and (out / MANIFEST).exists():
        return None
    raise _not_planned(out, begun=begun)


def check_source(out: str | Path, source: str) -> None:
    """Raise `OutputError` when `out` was planned from another source than `source`."""
    out = local_path(out, "OUT")
    job = JobFolder(out, -1)
    for folder in (job.beside, out):
        frozen = open_frozen(frozen_path(folder))
        if frozen is not None and frozen.facts.source != _place(local_source(source)):
            raise OutputError(
                f"{out}: planned from {frozen.facts.source}, got {source}; give the same source, which must have the "
                "same path on all machines"
            )


def written(
    folder: Path, frozen: FrozenPlan, numbers: Iterable[int], *, need_tar: bool = True
) -> dict[int, ShardReport]:
    """Return the reports of the shards at the positions `numbers` that are finished, by position."""
    records = {number: read_record(folder, frozen.files[number], need_tar=need_tar) for number in numbers}
    return {number: report for number, report in records.items() if report is not None}


def _write(
    job: JobFolder, frozen: FrozenPlan, numbers: Sequence[int], *, samples: int, workers: int, watch: Watcher
) -> dict[int, ShardReport]:
    """Write the shards at the positions `numbers` and return their reports. Raises `ClosedError`, and as `shard`."""
    position = {frozen.files[number]: number for number in numbers}
    reports = {}
    with attempt(job.folder, frozen.facts.plan_id) as place:
        tasks = (frozen.task(number, place) for number in numbers)
        with LocalEngine(workers=workers, samples=samples, lock=job.lock) as running:
            for report in running.run(tasks, len(numbers), watch.advanced):
                publish(place, job.folder, report)
                reports[position[report.file]] = report
    return reports


def _refuse_missing(job: JobFolder, frozen: FrozenPlan) -> list[ShardReport]:
    """Return the reports of all shards, in order. Raises `OutputError` with the parts to run again."""
    count = frozen.num_shards
    reports = written(job.folder, frozen, range(count), need_tar=not job.closing_gaps)
    missing = [number for number in range(count) if number not in reports]
    if missing:
        raise OutputError(f"{job.out}: {_missing_text(len(missing), count, missing, read_cut(job.folder))}")
    return list(reports.values())


def _missing_text(missing: int, count: int, numbers: Iterable[int], cut: Cut | None) -> str:
    text = f"{missing:,} of {counted(count, 'shard')} {'is' if missing == 1 else 'are'} missing"
    if cut is None:
        return f"{text}, as no part has run yet; run `imgdata shard SOURCE OUT --part I/N` for each part"
    parts = {cut.part_of(number) for number in numbers}
    indices = sorted({number % cut.parts for number in numbers})
    again = f"--array={array_text(parts)}"
    example = f"--part {indices[0]}/{cut.parts}"
    return (
        f"{text}, of {counted(len(parts), 'part')} of {cut.parts}; run {'it' if len(parts) == 1 else 'them'} again "
        f"({again}; the first is {example}), then --finish"
    )


def _frozen_facts(job: JobFolder) -> PlanFacts | None:
    """Return the facts of the plan that is frozen already; None where there is none that can be read."""
    try:
        frozen = open_frozen(frozen_path(job.folder))
    except OutputError:
        # Of another version: planned again.
        return None
    return None if frozen is None else frozen.facts


def _place(source: str) -> str:
    return source if source.startswith(SYNTHETIC) else os.path.abspath(source)


def _not_planned(out: Path, *, begun: bool) -> OutputError:
    if begun:
        return OutputError(
            f"{out}: begun without a plan for parts; run `imgdata shard SOURCE {out} --plan`, which keeps the finished "
            "shards, or the same command as before, which resumes"
        )
    return OutputError(f"{out}: nothing is planned here; begin with `imgdata shard SOURCE {out} --plan`")


def closed(out: Path) -> OutputError:
    """Return the error of a part whose job ended while it was writing."""
    return OutputError(
        f"{out}: the job was finished, or planned anew, while this part was writing; `imgdata inspect {out}` says what "
        "is there"
    )
