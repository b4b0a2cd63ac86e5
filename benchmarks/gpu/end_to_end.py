"""The phase `end_to_end`: networks that train -> images/s with the loader, without it, and the time spent waiting."""

from dataclasses import asdict
from typing import Any

from benchmarks.gpu import pictures
from benchmarks.gpu.running import NotMeasuredError, Running, Settings

_LEAST_S = 12.0
"""Seconds that a network needs at least: PyTorch, kernels, two rounds."""


def run(phase: Running) -> None:
    """Time the small network first: its figure depends on the host, and is the one that is least known."""
    needs_s = _LEAST_S if phase.sizes.apart else 0.0
    if not pictures.ready(phase, "jpegs", "small"):
        return
    for batch in phase.sizes.small_batches:
        _time(phase, f"resnet9, {batch}", needs_s, model="resnet9", backend="resident", batch_size=batch)
    for model, backend, batch in phase.sizes.networks:
        _time(phase, f"{model}, {batch}", needs_s, model=model, backend=backend, batch_size=batch)
    batch = phase.sizes.small_batches[0]
    arguments = {"model": "resnet9", "backend": "resident", "batch_size": batch, "compile": True}
    _time(phase, f"resnet9, {batch}, compiled", needs_s, **arguments)


def _time(phase: Running, name: str, needs_s: float, **arguments: Any) -> None:
    phase.apart("networks", name, function="end_to_end:measure", arguments=arguments, needs_s=needs_s)


def measure(settings: Settings, *, model: str, backend: str, batch_size: int, compile: bool = False) -> dict[str, Any]:
    """Return the figures of one network, in this process."""
    from imgdata.training.options import TrainOptions
    from imgdata.training.throughput import end_to_end

    if compile and not settings.on_gpu:
        raise NotMeasuredError("compiling takes a minute on a processor, and says nothing about a GPU")
    small, sizes = model == "resnet9", settings.sizes
    options = TrainOptions(
        model=model,
        backend=backend,
        batch_size=batch_size,
        size=None if small else sizes.side,
        hold_out=0.05 if settings.on_gpu else 0.25,
        device=settings.device,
        amp="bf16" if settings.on_gpu else "none",
        compile=compile,
    )
    steps = sizes.steps * (4 if small else 1)
    found = end_to_end(
        pictures.folder(settings, "small" if small else "jpegs"), options, rounds=sizes.rounds, steps=steps
    )
    figures = {name: value for name, value in asdict(found).items() if name != "config"}
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}
