"""Shards of a dataset -> their faults, by tasks on the machines of a Ray cluster.

A task gets the rows of its shard, some 70 bytes a sample, from the index that was read and compared here: no other
machine reads an index. It reads the shard where it lies, and answers with the faults.
"""

import dataclasses
import functools
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from imgdata.cluster import RayEngine, Tasks
from imgdata.dataset.manifest import MANIFEST, Manifest, ShardRecord
from imgdata.dataset.remote_manifest import remote_folder
from imgdata.errors import ShardError
from imgdata.shards.remote_copy import files_alone
from imgdata.shards.sidecars import dali_index_path
from imgdata.shards.verify_shard import Fault, ShardRows, check_tar
from imgdata.storage.local_paths import url_scheme

_remote_folder = functools.cache(remote_folder)
"""One for all tasks of a process, with its connections."""


def checked_by_ray(
    engine: RayEngine,
    place: str,
    manifest: Manifest,
    max_pixels: int | None,
    shards: Sequence[ShardRecord],
    rows: Callable[[int], tuple[ShardRows | None, list[Fault]]],
    progress: Callable[[int, int], None] | None,
) -> Iterator[list[Fault]]:
    """Yield the faults of each of the `shards` of the dataset at `place`, a folder or URL, in their order.

    `rows` is a function of a shard's number: its rows, and faults that are known. Raises `ShardError`.
    """
    # What a shard is compared with: the lists of all shards and files stay here.
    facts = dataclasses.replace(manifest, splits=(), files={}, versions=())
    tasks = Tasks(
        work=functools.partial(_check, place, facts, max_pixels),
        arguments=lambda number: (shards[number], *rows(number)),
        name=lambda number: shards[number].file,
        way_out="run the same command again",
    )
    found: dict[int, list[Fault]] = {}
    with engine:
        for done, (number, faults) in enumerate(engine.run(tasks, range(len(shards))), 1):
            if faults:
                found[number] = faults
            if progress is not None:
                progress(done, len(shards))
    yield from (found[number] for number in sorted(found))


def _check(
    place: str,
    manifest: Manifest,
    max_pixels: int | None,
    shard: ShardRecord,
    rows: ShardRows | None,
    known: list[Fault],
) -> list[Fault]:
    """Check a shard; the function of a task."""
    if url_scheme(place) is not None:
        names = (shard.file, dali_index_path(Path(shard.file)).name)
        with files_alone(_remote_folder(place), names) as folder:
            return known + check_tar(folder, shard, rows, manifest, max_pixels)
    if not Path(place, MANIFEST).exists():
        raise ShardError(
            f"{place}: not on the machine {socket.gethostname()}; the dataset must have the same path on all machines"
        )
    return known + check_tar(Path(place), shard, rows, manifest, max_pixels)
