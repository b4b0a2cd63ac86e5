"""A report of `imgdata doctor` -> text: problems, the machine, a table of stages with bars, advice."""

from typing import TYPE_CHECKING

from rich.bar import Bar
from rich.console import Console
from rich.progress import SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from imgdata.tables import WIDTH, new_table

from .console import BAD, GOOD, ODD, Display, screen, tell

if TYPE_CHECKING:
    from imgdata.measure.doctor.problems import Problem
    from imgdata.measure.doctor.run import Findings, Report
    from imgdata.measure.doctor.trials import Sharded
    from imgdata.measure.doctor.tune import Tuned
    from imgdata.measure.machine.gpu import Gpu
    from imgdata.measure.machine.host import Machine
    from imgdata.measure.machine.store import StoreRates

_BAR = 16
_COLOURS = {"error": BAD, "warning": ODD, "note": "cyan"}
_TAKEN = 0.25
"""Cores that other programs took, from which on it is said."""


class Steps(Display):
    """The current step of the measurement."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(SpinnerColumn(), TextColumn("{task.description}"), quiet=quiet)
        self._task = self.bar.add_task("", total=None)

    def show(self, what: str) -> None:
        """Say what comes next."""
        if self.live:
            self.bar.update(self._task, description=what)
        elif self.line_is_due:
            self.console.print(what)


def print_report(report: "Report") -> None:
    """Print the whole report, problems first."""
    console = screen(stderr=False)
    _print_problems(report.problems, console)
    console.print(_machine(report.machine))
    if report.findings is not None:
        _print_findings(report.findings, console)


def _print_problems(problems: "tuple[Problem, ...]", console: Console) -> None:
    if not problems:
        tell(console, GOOD, "no problems", "with this machine")
    for problem in problems:
        tell(console, _COLOURS[problem.severity], problem.severity, problem.what, wrap=True)
        console.print(f"  remedy: {problem.remedy}", soft_wrap=not console.is_terminal)
    console.print()


def _machine(machine: "Machine") -> Table:
    cpu, memory, versions = machine.cpu, machine.memory, machine.versions
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    table.add_row("processor", f"{cpu.model}; {', '.join(cpu.features) or 'features unknown'}")
    quota = "no quota" if cpu.quota is None else f"a quota of {cpu.quota:g}"
    second = f", {cpu.physical} without second threads" if cpu.physical < cpu.allowed else ""
    table.add_row(
        "cores",
        f"{cpu.usable:g} usable: {cpu.cores} present, {cpu.allowed} allowed{second}, {quota}; load {cpu.load:.1f}",
    )
    limit = "" if memory.limit_bytes is None else f", limit {_size(memory.limit_bytes)}"
    shm = "" if memory.shm_bytes is None else f"; /dev/shm {_size(memory.shm_bytes)}"
    table.add_row("memory", f"{_size(memory.available_bytes)} available of {_size(memory.total_bytes)}{limit}{shm}")
    for gpu in machine.gpus:
        driver = gpu.driver or "unknown"
        table.add_row("GPU", f"{gpu.name}, {_size(gpu.memory_bytes)}, driver {driver}, JPEG engines: {_engines(gpu)}")
    if not machine.gpus:
        table.add_row("GPU", "no GPU")
    state = f"active, uses {machine.simd}" if machine.native else f"not active: {machine.native_fault}"
    table.add_row("extension", f"{state}{_after(', libjpeg-turbo ', versions['libjpeg_turbo'])}")
    pillow = f"Pillow-SIMD {versions['pillow_simd']}" if versions["pillow_simd"] else f"Pillow {versions['pillow']}"
    cuda = versions["torch_cuda"]
    table.add_row(
        "versions",
        f"imgdata {versions['imgdata']}, Python {versions['python']}, torch {versions['torch']} "
        f"({'no CUDA' if cuda is None else f'CUDA {cuda}'}), torchvision {versions['torchvision'] or 'missing'}, "
        f"timm {versions['timm'] or 'missing'}, DALI {versions['dali'] or 'missing'}, {pillow}"
        f"{_after(' with libjpeg-turbo ', versions['libjpeg_turbo_of_pillow'])}",
    )
    omp = machine.environment.get("OMP_NUM_THREADS")
    table.add_row("threads", f"torch {machine.torch_threads}, OMP_NUM_THREADS {omp or 'not set'}")
    table.add_row("cache", f"{machine.cache}, {_size(machine.cache_free_bytes)} free")
    return table


def _engines(gpu: "Gpu") -> str:
    """Return the JPEG engines of a GPU, with their cores where they have several."""
    if gpu.jpeg_engines is None:
        return f"unknown{_after(': ', gpu.jpeg_fault)}"
    return f"{gpu.jpeg_engines} of {gpu.jpeg_cores} cores" if (gpu.jpeg_cores or 0) > 1 else str(gpu.jpeg_engines)


def _print_findings(findings: "Findings", console: Console) -> None:
    case, pipeline, rate = findings.case, findings.pipeline, findings.pipeline.measured
    console.print()
    console.print(
        f"{case.samples:,} samples of {case.opened.view.split!r}, shorter side {case.side:,} pixels (median), "
        f"{findings.times.mean_bytes / 1000:,.0f} kB; {case.recipe_code}, batches of {case.options.batch_size}, "
        f"{case.options.dtype} on {case.options.device}",
        soft_wrap=True,
    )
    console.print(f"backend {case.description}{'' if findings.disk.store else chr(10)}", soft_wrap=True)
    if findings.disk.store is not None:
        console.print(f"store   {_store_text(findings.disk.store, findings.disk.split_bytes)}\n", soft_wrap=True)
    console.print(_stages(findings, bars=console.width >= WIDTH))
    if findings.disk.why_not_cold is not None:
        tell(console, ODD, "note", f"reading from disk was not timed: {findings.disk.why_not_cold}")
    console.print()
    tell(console, GOOD, f"{rate.images_per_s:,.0f}", f"images/s by the real loader, {rate.cores:.1f} cores at work")
    if findings.cache is not None:
        tell(console, GOOD, "cache", f"{findings.cache}: what this run of the loader found, and had to wait for")
    if pipeline.taken > _TAKEN:
        tell(
            console,
            ODD,
            "note",
            f"other programs took {pipeline.taken:.1f} cores that it was ready to use; alone it would give about "
            f"{pipeline.alone:,.0f} images/s",
            wrap=True,
        )
    _print_bottleneck(findings, console)
    for advice in findings.advice:
        tell(
            console,
            GOOD,
            f"{advice.predicted_images_per_s:,.0f}",
            f"images/s with {advice.setting}: {advice.why}",
            wrap=True,
        )
    if not findings.advice:
        console.print("no setting is known that would help by 5% or more")
    if findings.sharded is not None:
        tell(console, ODD, "not sharded", _sharded_text(findings.sharded), wrap=True)
    if findings.tuned is not None:
        _print_tuned(findings.tuned, console)


def _store_text(store: "StoreRates", split_bytes: int) -> str:
    kept = (
        f"{store.cache_bytes / 1e9:,.1f} GB of shards may be kept in {store.cache}" if store.cache else "none is kept"
    )
    at_once = f"{store.requests} requests at a time" if store.requests > 1 else "one request"
    return (
        f"{store.url}: {store.latency_ms:,.1f} ms for a small request, {store.mb_per_s:,.0f} MB/s by {at_once}; "
        f"the split has {split_bytes / 1e9:,.1f} GB, {kept}"
    )


def _sharded_text(sharded: "Sharded") -> str:
    text = (
        f"in shards an image takes {1 / sharded.gain:.0%} of the processor's time that a loose one takes "
        f"({sharded.after.total_ms:.3f} instead of {sharded.before.total_ms:.3f} ms, by {sharded.after.images} images)"
    )
    if sharded.loose_cold is not None and sharded.shards_cold is not None:
        text += (
            f"; from the disk, {sharded.shards_cold.mb_per_s:,.0f} MB/s of a shard in order instead of "
            f"{sharded.loose_cold.mb_per_s:,.0f} of loose files"
        )
    return text


def _print_bottleneck(findings: "Findings", console: Console) -> None:
    from imgdata.measure.doctor.pipeline import LANES

    pipeline = findings.pipeline
    ceiling, lane = pipeline.ceiling()
    slowest = pipeline.slowest()
    if pipeline.streams:
        console.print(f"{pipeline.predicted:,.0f} images/s of the loader alone, by its stages: threads / sum of ms")
    console.print(f"{ceiling:,.0f} images/s are the ceiling, set by {LANES[lane]}")
    share = f" ({pipeline.share(slowest):.0%} of the processor's time)" if lane == "cpu" else ""
    if lane == "device" and not pipeline.model_on_cpu:
        share = f"; the loader gives {pipeline.predicted / ceiling:.1f} times what it takes"
    tell(console, ODD, "bottleneck", f"{slowest.name}{share}")


def _stages(findings: "Findings", *, bars: bool) -> Table:
    """Return the table of stages, with longer bars for slower ones; none for stages that this pipeline lacks."""
    pipeline = findings.pipeline
    table = new_table()
    table.caption = (
        f"each stage alone; of the cores in one thread, and with {pipeline.threads} "
        f"thread{'s' if pipeline.threads > 1 else ''} on {pipeline.cores:g}"
    )
    table.add_column("stage", no_wrap=True)
    for name in ("images/s", "per core", "ms/image", "MB/s"):
        table.add_column(name, justify="right", no_wrap=True)
    if bars:
        table.add_column("", no_wrap=True, width=_BAR)
    table.add_column("")
    longest = max(1 / stage.images_per_s for stage in pipeline.stages if stage.counted)
    for stage in pipeline.stages:
        bar = Bar(longest, 0, 1 / stage.images_per_s, width=_BAR, color=ODD) if stage.counted else Text("")
        table.add_row(
            Text(stage.name, "" if stage.counted else "dim"),
            f"{stage.images_per_s:,.0f}",
            "" if stage.per_core is None else f"{stage.per_core:,.0f}",
            f"{stage.ms_per_image:.3f}",
            "" if stage.mb_per_s is None else f"{stage.mb_per_s:,.0f}",
            *[bar] * bars,
            Text(stage.note, "dim"),
        )
    return table


def _print_tuned(tuned: "Tuned", console: Console) -> None:
    table = new_table()
    for name in ("backend", "threads", "prefetch", "dtype", "images/s"):
        table.add_column(name, justify="left" if name in ("backend", "dtype") else "right", no_wrap=True)
    for trial in tuned.trials:
        setting = trial.setting
        more = "".join(f", {name} {value}" for name, value in setting.dali_options.items())
        table.add_row(
            f"{setting.backend}{more}",
            str(setting.threads),
            str(setting.prefetch),
            setting.dtype,
            f"{trial.images_per_s:,.0f}",
            style=GOOD if trial == tuned.best else "",
        )
    console.print()
    console.print(table)
    if tuned.left_out:
        console.print(f"{tuned.left_out} further settings were not tried: --seconds {tuned.seconds:g} were over")
    if tuned.best.setting.dtype == "uint8" and tuned.trials[0].setting.dtype != "uint8":
        tell(console, ODD, "note", "uint8 batches are not normalised: do it on the device that trains")
    console.print("the best of them:\n")
    console.print(tuned.code, soft_wrap=True)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:,.1f} GiB"


def _after(words: str, version: str | None) -> str:
    return "" if version is None else f"{words}{version}"
