"""A job on standard input -> one loader measured in this process, its figures on standard output.

`python -m imgdata.measure.bench.one` reads the job, opens the loader, warms it up and prints `ready`; batches are read
until another line comes, and measured from then on. So several processes can begin together, and none measures batches
that were prefetched before. An error of ours is printed as `{"error": ..., "message": ...}`.
"""

import json
import os
import resource
import select
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

import numpy as np
import torch

from imgdata.errors import ImgdataError
from imgdata.loose.asked import reading_as
from imgdata.measure.bench.job import OURS, Job, Measured
from imgdata.measure.bench.opened import Opened
from imgdata.measure.bench.peers import PEERS
from imgdata.measure.timing import Ticks, cpu_s, peak_mb, process_tree, sees_children

WARM_UP = 4
"""Batches before the measured ones, at least; two of each worker process, if they are more."""
READY = "ready"


def main() -> None:
    """Read, measure, print."""
    # A decoder that crashes would leave a file of all its memory.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    # Loaders may print; the figures go where standard output was.
    figures = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    orders = os.fdopen(0, closefd=False)
    line = orders.readline()
    if not line:
        # Whoever started this process has ended before it could ask for anything.
        return
    job = Job.from_json(line)

    def ready() -> None:
        print(READY, file=figures, flush=True)

    def may_begin() -> bool:
        return bool(select.select([0], [], [], 0)[0])

    try:
        with reading_as(job.dataset, job.read):
            answer = measure(job, ready, may_begin).to_json()
    except ImgdataError as error:
        answer = json.dumps({"error": type(error).__name__, "message": str(error)})
    except BaseException:
        # Some loaders have threads that would keep the process for ever.
        traceback.print_exc()
        os._exit(1)
    # Whoever asked may have been killed.
    with suppress(BrokenPipeError):
        print(answer, file=figures, flush=True)
    os._exit(0)


def measure(job: Job, ready: Callable[[], None], may_begin: Callable[[], bool]) -> Measured:
    """Open the loader, warm up, say `ready`, measure once `may_begin`."""
    module, _, function = ("ours:imgdata" if job.loader == OURS else PEERS[job.loader].place).partition(":")
    open_loader: Callable[[Job], Opened] = getattr(import_module(f"imgdata.measure.bench.{module}"), function)
    # Also where all cores are there for PyTorch: the others are asked for so many, and no more.
    torch.set_num_threads(job.options.threads)
    if job.options.device.startswith("cuda"):
        # Before anything runs: whoever asks for the current GPU, as threads that pin memory do, must not get GPU 0.
        torch.cuda.set_device(torch.device(job.options.device))
    ticks = Ticks(job.options.device)
    free_before = _gpu_free(job.options.device)
    begun = time.perf_counter()
    loader = open_loader(job)
    batch = next(loader.batches)
    ticks.wait()
    first_batch_s = time.perf_counter() - begun
    _check(batch, job)
    warm_up = 1
    while warm_up < max(WARM_UP, 2 * loader.group):
        batch = next(loader.batches)
        warm_up += 1
    ready()
    while warm_up % loader.group or not may_begin():
        batch = next(loader.batches)
        warm_up += 1
    ticks.wait()
    pids = process_tree()
    cpu_begun, cache_begun = cpu_s(pids), loader.cache()
    started = ticks.mark()
    images = batches = 0
    while time.perf_counter() - started < job.seconds:
        # As many of each worker, so that none has made more ahead in the end than in the beginning.
        for _ in range(loader.group):
            batch = next(loader.batches)
            ticks.mark()
            images += len(batch)
            batches += 1
    ticks.wait()
    seconds = time.perf_counter() - started
    took_cpu_s = cpu_s(pids) - cpu_begun
    cache = None if cache_begun is None else (loader.cache() or cache_begun).since(cache_begun)
    p50_ms, p95_ms, p99_ms = np.percentile(ticks.gaps_ms(), (50, 95, 99)).tolist()
    return Measured(
        images=images,
        images_per_s=images / seconds,
        cpu_s=took_cpu_s if loader.group == 1 or sees_children() else None,
        p50_ms=p50_ms,
        p95_ms=p95_ms,
        p99_ms=p99_ms,
        first_batch_s=first_batch_s,
        warm_up_batches=warm_up,
        batches=batches,
        peak_mb=peak_mb(pids),
        gpu_mb=_gpu_mb(job.options.device, free_before),
        bad=loader.bad(),
        version=loader.version,
        cache_hits=None if cache is None else cache.hit_share,
        fetched_mb_per_s=None if cache is None else cache.fetched_bytes / seconds / 1e6,
        store_wait_s=None if cache is None else cache.waited_s,
    )


def _gpu_free(device: str) -> int:
    """Return free memory of an NVIDIA GPU in bytes, after CUDA has taken its own memory."""
    return torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else 0


def _gpu_mb(device: str, free_before: int) -> float | None:
    if device == "mps":
        return torch.mps.driver_allocated_memory() / 1e6
    return None if device == "cpu" else (free_before - _gpu_free(device)) / 1e6


def _check(batch: torch.Tensor, job: Job) -> None:
    """Check that the loader makes what was asked for: a figure for something else is worth nothing."""
    height, width = job.options.recipe.output_size(0)
    expected = (job.options.batch_size, 3, height, width), job.options.dtype, torch.device(job.options.device).type
    found = tuple(batch.shape), str(batch.dtype).removeprefix("torch."), batch.device.type
    if found != expected:
        raise ImgdataError(f"{job.loader}: a batch must be {expected}, got {found}")


if __name__ == "__main__":
    main()
