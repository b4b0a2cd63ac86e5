"""A raw dataset -> a dataset folder that the machines of a cluster write: plan, every shard as a task, the end."""

import dataclasses
import os
import time
from pathlib import Path

from imgdata.cluster import RayEngine, RayOptions
from imgdata.errors import ImageError
from imgdata.shards.begun import with_advice
from imgdata.shards.engines.ray import write_by_ray
from imgdata.shards.options import ShardOptions
from imgdata.shards.part_files import ClosedError
from imgdata.shards.part_places import planned_in
from imgdata.shards.parts import Work, begin_parts, closed, finish_parts
from imgdata.shards.summary import ShardSummary, Watcher
from imgdata.sources.options import SourceOptions
from imgdata.storage.local_paths import any_path


def shard_on_cluster(
    source: str | os.PathLike[str],
    out: str | Path,
    options: ShardOptions,
    *,
    read: SourceOptions,
    workers: int | None,
    overwrite: bool,
    work: str | os.PathLike[str] | None,
    watch: Watcher,
    cluster: RayOptions,
) -> ShardSummary:
    """Turn the raw dataset `source` into the dataset folder `out`, as `shard` does, by tasks on a Ray cluster.

    Source and `out` must have the same paths, or URLs, on all machines. Raises `MissingExtraError` without Ray, and as
    `shard` does.
    """
    started = time.perf_counter()
    out = any_path(out).absolute()
    engine = RayEngine(cluster, told=watch.retried)
    engine.check()
    begun = begin_parts(source, out, options, read=read, workers=workers, overwrite=overwrite, work=work, watch=watch)
    samples = resumed = 0
    if not begun["complete"]:
        with planned_in(out, work) as found:
            if found is not None:
                place, frozen = found
                reports = place.written(frozen, range(frozen.num_shards))
                todo = [number for number in range(frozen.num_shards) if number not in reports]
                resumed = len(reports)
                samples = int(frozen.shard_samples[todo].sum())
                watch.stage("writing")
                watch.planned(
                    Work(int(frozen.shard_samples.sum()), frozen.num_shards), int(frozen.shard_samples.sum()) - samples
                )
                try:
                    with engine:
                        for one in write_by_ray(engine, place.folder, frozen.facts.plan_id, todo, frozen.files):
                            watch.advanced(one.samples + one.rejects, one.bytes, one.rejects)
                except ImageError as error:
                    raise with_advice(error) from error
                except ClosedError as error:
                    raise closed(out) from error
    summary = finish_parts(out, work=work, watch=watch)
    return dataclasses.replace(
        summary, seconds=time.perf_counter() - started, samples_written=samples, resumed_shards=resumed
    )
