"""A folder of data -> what our loader costs besides pixels; prints one JSON line.

`python -m benchmarks.loader_costs DATA`: seconds until the first batch, at the start and after 4,000 of 5,000 steps;
milliseconds in `next` for a batch that is ready; processor time of Python's threads per batch.
"""

import json
import os
import statistics
import sys
import threading
import time
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

from benchmarks.loader_peers.ours import recipe
from benchmarks.loader_peers.task import Task

_BATCH = 256
_THREADS = 2
_REST_S = 0.3
"""Longer than a batch takes: the next one is ready."""
_STEPS = 5000
_RESUME_AT = 4000


def main(data: Path) -> None:
    """Measure and print."""
    # Imports are no part of it.
    import torch

    import imgdata
    from imgdata import Loader

    torch.set_num_threads(1)
    task = Task(data=data, dtype="uint8", threads=_THREADS, batch=_BATCH)
    options: dict[str, Any] = {
        "split": "train",
        "recipe": recipe(task),
        "threads": _THREADS,
        "shuffle": "global",
        "drop_last": True,
    }

    def first_batch_s(batch: int, state: dict[str, Any] | None = None) -> float:
        begun = time.perf_counter()
        with Loader(data / "shards", batch_size=batch, **options) as loader:
            if state is not None:
                loader.load_state_dict(state)
            next(iter(loader))
            return time.perf_counter() - begun

    def state_at(batch: int, step: int) -> dict[str, Any]:
        with Loader(data / "shards", batch_size=batch, **options) as loader:
            for _ in islice(loader, step):
                pass
            state: dict[str, Any] = loader.state_dict()
            return state

    num_samples = len(imgdata.open(data / "shards")["train"])
    small = max(num_samples // _STEPS, 1)
    step = _RESUME_AT * (num_samples // small) // _STEPS
    costs = {"first_batch_s": round(first_batch_s(_BATCH), 4)}
    with Loader(data / "shards", batch_size=_BATCH, **options) as loader:
        costs |= _per_batch(loader)
    state = state_at(small, step)
    fresh, resumed = ([first_batch_s(small, at) for _ in range(5)] for at in (None, state))
    costs |= {
        "resume_batch": small,
        "resume_step": step,
        "start_s": round(statistics.median(fresh), 4),
        "resume_s": round(statistics.median(resumed), 4),
    }
    print(json.dumps(costs))


def _per_batch(loader: Any) -> dict[str, float]:
    """Milliseconds in `next` while a batch is ready, and processor time of all Python threads for one batch."""
    # One epoch after the other: the data may be few.
    batches = chain.from_iterable(repeat(loader))
    for _ in range(3):
        next(batches)
    waits_ms, cpu_ms = [], []
    for _ in range(6):
        before = _python_cpu_s()
        time.sleep(_REST_S)
        begun = time.perf_counter()
        next(batches)
        waits_ms.append(1000 * (time.perf_counter() - begun))
        cpu_ms.append(1000 * (_python_cpu_s() - before))
    return {
        "next_ms": round(statistics.median(waits_ms), 3),
        "python_threads_cpu_ms_per_batch": round(statistics.median(cpu_ms), 3),
    }


def _python_cpu_s() -> float:
    """Of the threads that Python knows; without the extension these decode as well."""
    clocks = (time.pthread_getcpuclockid(thread.ident) for thread in threading.enumerate() if thread.ident)
    return sum(map(time.clock_gettime, clocks))


if __name__ == "__main__":
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:_THREADS])
    main(Path(sys.argv[1]))
