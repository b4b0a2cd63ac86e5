"""Perhaps a dataset -> the whole report: the machine, its problems, the time of the pipeline's stages, advice."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.backends import registry
from imgdata.backends.options import BackendName
from imgdata.backends.pillow import operators
from imgdata.backends.protocol import BackendKind, BackendSetup
from imgdata.loader.loader import Loader
from imgdata.loader.remote_cache import with_cache
from imgdata.measure.doctor.advice import Advice, Measured, advise
from imgdata.measure.doctor.inputs import Case, DoctorOptions, make_case
from imgdata.measure.doctor.pipeline import Pipeline, list_stages
from imgdata.measure.doctor.problems import Needs, Problem, find_problems
from imgdata.measure.doctor.stages import StageTimes, draw_sample, time_stages
from imgdata.measure.doctor.trials import Sharded, try_crop_ready, try_in_memory, try_resized, try_shards, written
from imgdata.measure.doctor.tune import Tuned, tune
from imgdata.measure.machine.disk import DiskRates, time_disk
from imgdata.measure.machine.host import Machine, look_at_machine
from imgdata.measure.machine.store import is_remote
from imgdata.measure.timing import Rate, loader_rate
from imgdata.shards.options import ShardOptions
from imgdata.storage.shard_state import CacheFacts

_SECONDS = 1.5
"""Time of each run of the real loader."""
_SMALL_BATCH, _LARGER_BATCH = 64, 256
Step = Callable[[str], None]
"""Called with what is measured next."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """The measurements of one dataset."""

    case: Case
    times: StageTimes
    disk: DiskRates
    pipeline: Pipeline
    advice: tuple[Advice, ...]
    """The best first."""
    tuned: Tuned | None
    sharded: Sharded | None = None
    """Measurements of some images in shards; None where the dataset is sharded."""
    cache: CacheFacts | None = None
    """What the cache of shards did in the loader's run; None where there is none."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        case = self.case
        return {
            "data": {
                "folder": case.dataset,
                "split": case.opened.view.split,
                "samples": case.samples,
                "median_shorter_side": case.side,
                "mean_bytes": self.times.mean_bytes,
                "recipe": case.recipe.to_dict(),
                "batch_size": case.options.batch_size,
                "dtype": case.options.dtype,
                "device": case.options.device,
                "backend": case.kind.name,
                "backend_text": case.description,
                "sampled": self.times.images,
                "disk": asdict(self.disk),
            },
            "stages": [stage.to_dict() for stage in self.pipeline.stages],
            "bottleneck": self.pipeline.to_dict(),
            "advice": [asdict(one) for one in self.advice],
            "tuned": None if self.tuned is None else self.tuned.to_dict(),
            **({} if self.sharded is None else {"sharded": asdict(self.sharded)}),
            **({} if self.cache is None else {"cache": {**asdict(self.cache), "hit_share": self.cache.hit_share}}),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """All that `imgdata doctor` has to say."""

    machine: Machine
    problems: tuple[Problem, ...]
    """The worst first."""
    findings: Findings | None
    """Measurements of the dataset; None without one."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON; what needs a dataset is empty without one."""
        rest: dict[str, Any] = {"data": None, "stages": [], "bottleneck": None, "advice": [], "tuned": None}
        return {
            "machine": self.machine.to_dict(),
            "problems": [asdict(problem) for problem in self.problems],
            **(rest if self.findings is None else self.findings.to_dict()),
        }


def doctor(
    dataset: str | Path | None = None, options: DoctorOptions | None = None, *, step: Step = lambda what: None
) -> Report:
    """Look at the machine; with the folder of a dataset also time its stages and its loader, in about 20 seconds.

    Stages are timed on a sample, in processor time of one core; the loader, and a network's steps, by the clock. The
    split's shards are taken out of the page cache once. Nothing is written but what backends keep in the cache folder.

    Raises `OptionError`, `ShardError` where the dataset can't be read, `MissingExtraError`, `TrainingError`.
    """
    given = options or DoctorOptions()
    # What is wrong with the options or the dataset shows before anything takes time.
    case = None if dataset is None else make_case(dataset, given)
    step("looking at the machine")
    machine = look_at_machine()
    if case is None:
        return Report(machine=machine, problems=tuple(find_problems(machine)), findings=None)
    needs = Needs(formats=case.opened.split.index.words("format"), operates=operators.works_on_pixels(case.recipe))
    findings = measure(case, given, machine, step)
    return Report(machine=machine, problems=tuple(find_problems(machine, needs)), findings=findings)


def measure(case: Case, given: DoctorOptions, machine: Machine, step: Step) -> Findings:
    """Time the whole pipeline."""
    sample_M = draw_sample(case.setup, case.opened.view.position_N)
    if not is_remote(case.opened.split.folder):
        step("reading from disk")
        disk = time_disk(case.opened.split, sample_M, case.options.threads)
        return _measure(case, given, machine, step, disk, case.setup, sample_M)
    step("reading from the object store")
    cache = with_cache(case.opened, case.options.cache, case.options.window_shards).split.cache
    disk = time_disk(case.opened.split, sample_M, case.options.threads, cache)
    with written(case.setup, sample_M, ShardOptions()) as local:
        return _measure(case, given, machine, step, disk, local, np.arange(len(local.split)))


def _measure(
    case: Case,
    given: DoctorOptions,
    machine: Machine,
    step: Step,
    disk: DiskRates,
    setup: BackendSetup,
    sample_M: NDArray[np.int64],
) -> Findings:
    """Time all but the reading; `setup` reads the samples `sample_M` on this machine."""
    step("decoding in one thread")
    times = time_stages(setup, sample_M)
    copied = stepped = None
    if case.options.device.startswith("cuda"):
        from imgdata.measure.doctor.device import copy_ms

        step("copying to the device")
        copied = copy_ms(case)
    if given.model is not None:
        from imgdata.measure.doctor.device import step_ms

        step(f"training {given.model}")
        stepped = step_ms(case, given.model)
    step("running the loader")
    rate, facts = _loader_rate(case)
    cores = machine.cpu.usable
    pipeline = Pipeline(
        stages=list_stages(
            times,
            disk,
            width=min(case.options.threads, cores),
            kind=case.kind,
            memory_bytes=machine.memory.usable_bytes,
            measured=rate,
            dtype=case.setup.options.dtype,
            copy_ms=None if case.kind.makes_on_device else copied,
            step_ms=stepped,
            model=given.model or "",
        ),
        threads=case.options.threads,
        cores=cores,
        measured=rate,
        model_on_cpu=given.model is not None and case.options.device == "cpu",
        streams=case.kind.is_reference,
    )
    sharded = None
    if case.opened.split.is_loose:
        step("reading a part of the sample from shards")
        sharded = try_shards(case.setup, sample_M)
    advice = _advice(case, times, disk, pipeline, machine, setup, sample_M, sharded, step)
    tuned = None
    if given.tune_seconds is not None:
        step("trying settings")
        decoded = 1000 * min(case.options.threads, cores) / times.total_ms
        tuned = tune(case, given.tune_seconds, cores=cores, decode_images_per_s=decoded)
    return Findings(
        case=case,
        times=times,
        disk=disk,
        pipeline=pipeline,
        advice=tuple(advice),
        tuned=tuned,
        sharded=sharded,
        cache=facts,
    )


def _advice(
    case: Case,
    times: StageTimes,
    disk: DiskRates,
    pipeline: Pipeline,
    machine: Machine,
    setup: BackendSetup,
    sample_M: NDArray[np.int64],
    sharded: Sharded | None,
    step: Step,
) -> list[Advice]:
    resized = crop_ready = in_memory = larger = None
    others: list[tuple[BackendKind, float]] = []
    if case.kind.is_reference:
        step("re-encoding a part of the sample")
        resized = try_resized(setup, sample_M)
        crop_ready = try_crop_ready(setup, sample_M)
        in_memory = try_in_memory(case.setup, case.opened.view, machine.memory.usable_bytes)
    if case.options.batch_size < _SMALL_BATCH and case.samples >= _LARGER_BATCH:
        step("running the loader with larger batches")
        larger = _LARGER_BATCH, _loader_rate(case, batch_size=_LARGER_BATCH)[0].images_per_s
    if case.kind.is_reference and case.options.device != "cpu":
        for kind in registry.KINDS:
            if kind.makes_on_device and not kind.decodes_once and kind.refuses(case.setup) is None:
                step(f"running the loader with the backend {kind.name}")
                others.append((kind, _loader_rate(case, backend=kind.name)[0].images_per_s))
    return advise(
        Measured(
            pipeline=pipeline,
            disk=disk,
            kind=case.kind,
            dtype=case.setup.options.dtype,
            device=case.options.device,
            finish_ms=times.finish_ms,
            resized=resized,
            crop_ready=crop_ready,
            sharded=sharded,
            in_memory=in_memory,
            others=tuple(others),
            larger_batch=larger,
        )
    )


def _loader_rate(
    case: Case, *, batch_size: int | None = None, backend: BackendName | None = None
) -> tuple[Rate, CacheFacts | None]:
    """Return the rate of the real loader, and what its cache of shards did."""
    options = replace(case.options, batch_size=batch_size or case.options.batch_size, backend=backend or case.kind.name)
    with Loader.from_options(case.opened.view, options, rank=0, world_size=1) as loader:
        return loader_rate(loader, _SECONDS), loader.cache_facts
