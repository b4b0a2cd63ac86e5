"""The phase `loaders`: ours and others on the same JPEGs -> images/s, CPU-ms an image, memory of the GPU.

Each loader runs in a process of its own, in turns; the first round is whole before anything is measured a second time,
and ratios are medians of pairs of the same round. What the limit leaves no time for is named. Our loader's faults are
faults of the phase; another loader that breaks is a figure that is missing.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.gpu import pictures
from benchmarks.gpu.running import NotMeasuredError, Running, message
from imgdata import recipes
from imgdata.backends.dali.available import refusal
from imgdata.backends.options import LoaderOptions
from imgdata.devices import own_cores
from imgdata.measure.bench.job import OURS, Job, Measured
from imgdata.measure.bench.one import measure
from imgdata.measure.bench.peers import PEERS
from imgdata.measure.bench.processes import run_together

LEFT_OUT = ("torchvision-pil", "webdataset")
"""Peers that decode on the processor, as `torchvision` does faster."""
SLOW = ("torchvision", "dali-fused")
"""Peers that are measured with one dtype alone: they have not been the fastest, and time is short."""
BY_HAND, DECODING = "dali", "decoding alone"
MOST_THREADS = 16
_PEER_S = 30.0
"""Seconds that another loader may take in all, measured time included."""
_LOADS = (0.65, 0.95, 1.0)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One loader in one setting."""

    group: str
    name: str
    measure: Callable[[float], dict[str, Any]]
    """Returns its figures, within so many seconds."""
    again: bool = False
    """It is measured in each round: others are compared with it."""


def run(phase: Running) -> None:
    """Measure the first round, and as many more as there is time for."""
    if not pictures.ready(phase, "jpegs", "odd", "small"):
        return
    entries = list(_entries(phase))
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    took: dict[tuple[str, str], float] = {}
    for number in range(phase.sizes.loader_rounds):
        for entry in entries:
            key = entry.group, entry.name
            if number and (not entry.again or len(runs.get(key, ())) < number):
                continue
            needs_s = took.get(key, phase.sizes.start_s + phase.sizes.seconds)
            if number and phase.left_s < needs_s:
                return
            begun = time.monotonic()
            _measure(phase, entry, runs.setdefault(key, []), needs_s)
            took[key] = time.monotonic() - begun


def _measure(phase: Running, entry: Entry, runs: list[dict[str, Any]], needs_s: float) -> None:
    """Measure once more, and keep the medians over all rounds so far."""

    def work() -> dict[str, Any]:
        runs.append(entry.measure(phase.left_s))
        medians = {name: _median([one[name] for one in runs]) for name in runs[0] if name != "version"}
        rounds = {"rounds": [one["images_per_s"] for one in runs]} if "images_per_s" in runs[0] else {}
        return {**runs[0], **medians, **rounds}

    phase.attempt(entry.group, entry.name, work=work, needs_s=needs_s)


def _entries(phase: Running) -> Iterator[Entry]:
    """Yield what is measured, the most valuable first."""
    peers = sorted((name for name in PEERS if name not in LEFT_OUT), key=lambda name: name != BY_HAND)
    yield _ours(phase, "float16", "imgdata, dali", backend="dali", again=True)
    for name in peers:
        yield _other(phase, "float16", name)
    yield Entry(group="float16", name=DECODING, measure=lambda _: dict(phase.call("decode_only:measure")), again=True)
    yield _ours(phase, "float16", "imgdata, cpu", backend="cpu", again=True)
    yield _small(phase)
    yield from _threads(phase)
    yield Entry(group="python", name="imgdata, dali", measure=lambda _: dict(phase.call("python_cost:measure")))
    yield _ours(phase, "uint8", "imgdata, dali", backend="dali", again=True)
    for name in peers:
        if name not in SLOW:
            yield _other(phase, "uint8", name)
    yield _ours(phase, "uint8", "imgdata, cpu", backend="cpu", again=True)
    for load in _LOADS:
        options = {"hw_decoder_load": load}
        yield _ours(phase, "uint8", f"imgdata, dali, hw_decoder_load={load:g}", backend="dali", dali_options=options)
    for crops in (False, True):
        name = f"imgdata, dali, crop_decode={crops}"
        yield _ours(phase, "uint8", name, backend="dali", dali_options={"crop_decode": crops})
    yield Entry(
        group="uint8, with CMYK and an outlier",
        name="imgdata, dali",
        measure=_by_bench(phase, "odd", dtype="uint8", backend="dali"),
    )


def _ours(phase: Running, dtype: str, name: str, *, again: bool = False, **options: Any) -> Entry:
    measured = _by_bench(phase, "jpegs", dtype=dtype, **options)
    return Entry(group=dtype, name=name, measure=measured, again=again)


def _other(phase: Running, dtype: str, name: str) -> Entry:
    def measured(limit_s: float) -> dict[str, Any]:
        job = _job(phase, "jpegs", loader=name, dtype=dtype)
        reason = PEERS[name].refuses(job.options.recipe, job.options.dtype, job.options.device)
        if reason is not None:
            raise NotMeasuredError(reason)
        try:
            return _run(phase, job, min(limit_s, _PEER_S))
        except Exception as error:  # Another loader that breaks must cost nothing but its own figure.
            raise NotMeasuredError(f"it failed: {message(error)}") from error

    return Entry(group=dtype, name=name, measure=measured, again=True)


def _threads(phase: Running) -> Iterator[Entry]:
    """Yield the CPU backend with one thread, and with one for each of 16 cores; batches stay on the host."""
    for threads in (1, min(MOST_THREADS, len(own_cores()))):
        options = {"dtype": "uint8", "backend": "cpu", "threads": threads, "device": "cpu"}
        yield Entry(group="cpu threads", name=str(threads), measure=_by_bench(phase, "jpegs", **options))


def _small(phase: Running) -> Entry:
    recipe = recipes.cifar_train(cutout=16)
    measured = _by_bench(phase, "small", dtype="float16", backend="resident", recipe=recipe)
    return Entry(group="resident", name="imgdata, resident", measure=measured)


def _by_bench(phase: Running, dataset: str, **options: Any) -> Callable[[float], dict[str, Any]]:
    """Return what measures our loader: an option that it refuses costs that figure alone."""

    def measured(limit_s: float) -> dict[str, Any]:
        job = _job(phase, dataset, **options)
        if job.options.backend == "dali" and (reason := refusal(job.options.device)) is not None:
            raise NotMeasuredError(reason)
        return _run(phase, job, limit_s)

    return measured


def _job(phase: Running, dataset: str, *, loader: str = OURS, **options: Any) -> Job:
    sizes, device = phase.sizes, "cuda:0" if phase.settings.on_gpu else "cpu"
    given = {
        "batch_size": sizes.batch,
        "recipe": recipes.imagenet_train(sizes.side),
        "device": device,
        "threads": len(own_cores()),
        **options,
    }
    return Job(
        loader=loader,
        dataset=str(pictures.folder(phase.settings, dataset)),
        split="train",
        options=LoaderOptions(**given),
        rank=0,
        world_size=1,
        seconds=sizes.seconds,
    )


def _run(phase: Running, job: Job, limit_s: float) -> dict[str, Any]:
    if phase.sizes.apart:
        (found,) = run_together([job], limit_s=max(limit_s, 0.1))
    else:
        found = measure(job, lambda: None, lambda: True)
    return _figures(found)


def _figures(found: Measured) -> dict[str, Any]:
    return {
        "images_per_s": round(found.images_per_s, 1),
        "cpu_ms_per_image": None if found.cpu_s is None else round(1000 * found.cpu_s / found.images, 4),
        "gpu_mb": None if found.gpu_mb is None else round(found.gpu_mb),
        "memory_mb": round(found.peak_mb),
        "p99_ms": round(found.p99_ms, 2),
        "first_batch_s": round(found.first_batch_s, 2),
        "bad": found.bad,
        "version": found.version,
    }


def _median(values: list[Any]) -> Any:
    return None if None in values else median(values)
