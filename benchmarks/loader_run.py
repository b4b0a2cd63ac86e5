"""A loader and a folder of data -> its rate and processor time, measured in a process of its own.

`python -m benchmarks.loader_run NAME DATA --images N` prints one JSON line. The first batches are not counted, so start
of workers, compilers and caches are over; then as many batches as `--images` asks for, from the same epoch. Processor
time is that of the whole tree of processes, in nanoseconds from their clocks.
"""

import argparse
import json
import os
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.loader_peers.registry import DTYPES, PEERS, Peer
from benchmarks.loader_peers.task import SIDE, Task
from imgdata.measure.timing import cpu_s, process_tree

WARM_BATCHES = 4
CORES = 2


def main() -> None:
    """Measure one loader and print its figures, or why it can't run."""
    # The peers' environment has no click.
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("data", type=Path)
    parser.add_argument("--dtype", default="uint8", choices=DTYPES)
    parser.add_argument("--threads", type=int, default=CORES)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--cores", type=int, default=CORES)
    wanted = parser.parse_args()
    # Threads begin later, and inherit it.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: wanted.cores])
    # Peers chat on standard output; the figures go where it was.
    figures = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    task = Task(data=wanted.data, dtype=wanted.dtype, threads=wanted.threads, batch=wanted.batch)
    try:
        found = measure(PEERS[wanted.name], task, wanted.images)
    except ImportError as error:
        found = {"missing": str(error)}
    print(json.dumps(found), file=figures, flush=True)
    # Some peers leave threads that never end.
    os._exit(0)


def measure(peer: Peer, task: Task, images: int) -> dict[str, Any]:
    """images/s, CPU-ms/image, seconds from the imports until the first batch, MB at the end."""
    begun = time.perf_counter()
    stream = iter(peer.open(task))
    _check(next(stream), task, peer.name)
    start_s = time.perf_counter() - begun
    for _ in range(WARM_BATCHES - 1):
        next(stream)
    cpu_begun, started, done = tree_cpu_s(), time.perf_counter(), 0
    while done < images:
        _, labels = next(stream)
        done += len(labels)
    seconds, took_cpu_s = time.perf_counter() - started, tree_cpu_s() - cpu_begun
    return {
        "images_per_s": done / seconds,
        "cpu_ms_per_image": 1000 * took_cpu_s / done,
        "start_s": start_s,
        "memory_mb": tree_memory_mb(),
        "version": _version(peer.package),
    }


def tree_cpu_s() -> float:
    """Return the processor time of this process, its children and theirs, living and ended, in seconds."""
    return cpu_s(process_tree())


def tree_memory_mb() -> float:
    """Return the memory of this process, its children and theirs, in MB; what several share is counted once."""
    total_kb = 0
    for pid in process_tree():
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total_kb += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total_kb / 1024


def _check(batch: Any, task: Task, name: str) -> None:
    """Check that the loader makes what was asked for: size, kind, order of axes, range. Bounds make no images."""
    images, labels = batch
    assert len(labels) == task.batch, f"{name}: a batch must have {task.batch} labels, got {len(labels)}"
    if images is None:
        return
    shape, dtype = tuple(images.shape), str(images.dtype).removeprefix("torch.")
    first, last = (task.batch, 3, SIDE, SIDE), (task.batch, SIDE, SIDE, 3)
    assert shape == first or (shape == last and not task.is_float), f"{name}: got shape {shape}"
    assert dtype == task.dtype, f"{name}: images must be {task.dtype}, got {dtype}"
    low, high = (-3, 3) if task.is_float else (10, 245)
    mean = float(np.asarray(images[:8]).mean())
    assert low < mean < high, f"{name}: the mean of the pixels must be {low} to {high}, got {mean}"


def _version(package: str) -> str:
    try:
        return version(package) if package else ""
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    # Settings of libraries that count threads for themselves.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
