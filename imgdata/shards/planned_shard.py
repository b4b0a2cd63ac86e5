"""A frozen plan, the number of a shard -> that shard in the dataset's place, written by whatever process is asked."""

import functools
import os
from pathlib import Path

from imgdata.errors import OutputError
from imgdata.images.encode import encoder
from imgdata.shards.frozen import FrozenPlan, PlanFacts, open_frozen
from imgdata.shards.part_files import ClosedError, are_open, attempt, frozen_path, publish
from imgdata.shards.record import ShardReport, read_record
from imgdata.shards.store_parts import StoreParts, planned_at
from imgdata.shards.writer import write_shard
from imgdata.storage.local_paths import UrlPath
from imgdata.storage.remote import is_url
from imgdata.version import __version__


def write_planned_shard(folder: str | os.PathLike[str], plan_id: str, number: int, *, threads: int = 1) -> ShardReport:
    """Write the shard at position `number` of the plan in `folder`, unless that is done, and return its report.

    `folder` may be the URL of one in an object store. Raises `ClosedError` when the job has ended meanwhile,
    `OutputError` when this process can't write shards of the plan, and as `write_shard` does.
    """
    if is_url(folder):
        parts, frozen = _opened_at(os.fspath(folder), plan_id)
        file = frozen.files[number]
        found = parts.finished([file])
        if found:
            return found[file]
        with parts.attempt(None) as place:
            report = write_shard(frozen.task(number, place), threads=threads)
            parts.publish(place, report)
        return report
    folder = Path(folder)
    frozen = _opened(folder, plan_id)
    known = read_record(folder, frozen.files[number])
    if known is not None:
        return known
    with attempt(folder, plan_id) as place:
        report = write_shard(frozen.task(number, place), threads=threads)
        publish(place, folder, report)
    return report


def check_plan(out: Path, facts: PlanFacts) -> None:
    """Raise `OutputError` when this machine can't write shards of the plan."""
    if facts.imgdata != __version__:
        raise OutputError(
            f"{out}: planned by imgdata {facts.imgdata}, this is {__version__}; use one version on all machines, or "
            "plan again with this one"
        )
    if facts.encoder is not None and facts.encoder != encoder():
        raise OutputError(
            f"{out}: planned where images are encoded by {facts.encoder}, here by {encoder()}: other bytes would come "
            "out; use the same versions on all machines"
        )


def check_open(out: Path, *, is_open: bool) -> None:
    """Raise `OutputError` when no process may write shards of the plan any more."""
    if not is_open:
        raise OutputError(
            f"{out}: every shard is written, and finishing has begun; run `imgdata shard SOURCE {out} --finish`"
        )


def not_planned(out: Path, *, begun: bool) -> OutputError:
    """Return the error for an output folder in which no plan for parts is."""
    if begun:
        return OutputError(
            f"{out}: begun without a plan for parts; run `imgdata shard SOURCE {out} --plan`, which keeps the finished "
            "shards, or the same command as before, which resumes"
        )
    return OutputError(f"{out}: nothing is planned here; begin with `imgdata shard SOURCE {out} --plan`")


@functools.lru_cache(maxsize=2)
def _opened(folder: Path, plan_id: str) -> FrozenPlan:
    """Return the plan; a process that writes many of its shards opens it once."""
    frozen = open_frozen(frozen_path(folder))
    if frozen is None:
        raise OutputError(f"{folder}: has no plan on this machine; OUT must be a folder that all machines share")
    if frozen.facts.plan_id != plan_id:
        raise ClosedError
    check_plan(folder, frozen.facts)
    check_open(folder, is_open=are_open(folder, plan_id))
    return frozen


@functools.lru_cache(maxsize=2)
def _opened_at(url: str, plan_id: str) -> tuple[StoreParts, FrozenPlan]:
    """Return the plan at a URL; a process that writes many of its shards opens it once."""
    parts = planned_at(url)
    if parts is None or parts.plan_id != plan_id or not parts.is_open():
        raise ClosedError
    frozen = parts.frozen()
    check_plan(UrlPath(url), frozen.facts)
    return parts, frozen
