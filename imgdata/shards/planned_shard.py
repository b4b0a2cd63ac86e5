"""A frozen plan, the number of a shard -> that shard in the dataset's folder, written by whatever process is asked."""

import functools
from pathlib import Path

from imgdata.errors import OutputError
from imgdata.images.encode import encoder
from imgdata.shards.frozen import FrozenPlan, PlanFacts, open_frozen
from imgdata.shards.part_files import ClosedError, are_open, attempt, frozen_path, publish
from imgdata.shards.record import ShardReport, read_record
from imgdata.shards.writer import write_shard
from imgdata.version import __version__


def write_planned_shard(folder: Path, plan_id: str, number: int, *, threads: int = 1) -> ShardReport:
    """Write the shard at position `number` of the plan in `folder`, unless that is done, and return its report.

    Raises `ClosedError` when the job has ended meanwhile, `OutputError` when this process can't write shards of the
    plan, and as `write_shard` does.
    """
    frozen = _opened(folder, plan_id)
    report = read_record(folder, frozen.files[number])
    if report is not None:
        return report
    with attempt(folder, plan_id) as place:
        report = write_shard(frozen.task(number, place), threads=threads)
        publish(place, folder, report)
    return report


def check_plan(out: Path, folder: Path, facts: PlanFacts) -> None:
    """Raise `OutputError` when this process can't write shards of the plan."""
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
    if not are_open(folder, facts.plan_id):
        raise OutputError(
            f"{out}: every shard is written, and finishing has begun; run `imgdata shard SOURCE {out} --finish`"
        )


@functools.lru_cache(maxsize=2)
def _opened(folder: Path, plan_id: str) -> FrozenPlan:
    """Return the plan; a process that writes many of its shards opens it once."""
    frozen = open_frozen(frozen_path(folder))
    if frozen is None:
        raise OutputError(f"{folder}: has no plan on this machine; OUT must be a folder that all machines share")
    if frozen.facts.plan_id != plan_id:
        raise ClosedError
    check_plan(folder, folder, frozen.facts)
    return frozen
