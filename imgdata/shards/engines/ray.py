"""Numbers of planned shards -> their reports, by tasks on the machines of a Ray cluster.

A task is the number of a shard: what it needs lies in the folder that all machines share, or in an object store, and so
does what it writes. Nothing but counts comes back, and no object is put into Ray's store. A shard that is written twice
has the same bytes, and gets its name by a rename, or by an upload with a condition.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from imgdata.cluster import RayEngine, Tasks
from imgdata.shards.part_files import ClosedError
from imgdata.shards.planned_shard import write_planned_shard


@dataclass(frozen=True, slots=True)
class Written:
    """What a task says of its shard."""

    samples: int
    bytes: int
    rejects: int


def write_by_ray(
    engine: RayEngine, folder: str | Path, plan_id: str, numbers: Sequence[int], files: Sequence[str]
) -> Iterator[Written]:
    """Write the shards at the positions `numbers` of the plan in `folder`; yield what each says once it is there.

    `files` are the names of all shards of the plan. Raises `ClosedError`, the first error of a task, and
    `ShardError` when the tries of a shard are used up.
    """
    tasks = Tasks(
        work=partial(_write, str(folder), plan_id, engine.threads),
        arguments=lambda number: (number,),
        name=files.__getitem__,
        raises=(ClosedError,),
        way_out="the same command resumes from the finished shards",
    )
    for _, written in engine.run(tasks, numbers):
        yield written


def _write(folder: str, plan_id: str, threads: int, number: int) -> Written:
    """Write a shard; the function of a task."""
    report = write_planned_shard(folder, plan_id, number, threads=threads)
    return Written(report.samples, report.bytes, len(report.rejects))
