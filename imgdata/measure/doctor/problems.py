"""A machine, the formats of a dataset -> the machine's problems in loading images, each with its remedy."""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from imgdata.measure.machine.host import Machine
from imgdata.training.threads import crowding

Severity = Literal["error", "warning", "note"]
"""Something doesn't work or costs a multiple; something costs time, or may fail; good to know."""

_GIB = 2**30
_SHM_BYTES = _GIB
"""Below it PyTorch's workers run out: eight of them with two batches of 256 float pictures each take 2.5 GB."""
_CACHE_BYTES = _GIB
"""The most that the resident backend keeps unasked."""
_OPEN_FILES, _ENOUGH_FILES = 4096, 65_536
"""ImageNet in shards of 256 MB has 600; a batch may need one from each of them, beside PyTorch's own."""
_BUSY = 0.5
"""Share of the cores that other programs want."""
_DEBUG = {
    "CUDA_LAUNCH_BLOCKING": "the GPU computes one thing at a time",
    "PYTORCH_NO_CUDA_MEMORY_CACHING": "each tensor on a GPU asks the driver for memory",
    "PYTHONDEVMODE": "Python checks itself",
    "PYTHONMALLOC": "Python's memory is not its usual one",
    "PYTHONTRACEMALLOC": "Python notes who takes memory",
    "MALLOC_CHECK_": "the C library checks its memory",
    "MALLOC_PERTURB_": "the C library fills memory",
    "NCCL_DEBUG": "ranks report what they say to each other",
    "TORCH_DISTRIBUTED_DEBUG": "ranks check what they say to each other",
}
"""Variables for finding faults, and what they cost time by."""
_HARMLESS = ("", "0", "OFF", "VERSION", "WARN", "pymalloc", "default")
_BUILD = (
    "install a C compiler and the headers of libjpeg-turbo and Python (Debian: `apt install gcc libjpeg-dev "
    "python3-dev`), then in the folder of imgdata's source `pip install --force-reinstall --no-deps --no-cache-dir .`"
)
_SIMD = "`pip uninstall pillow && pip install pillow-simd` (it needs gcc and the headers of libjpeg and zlib)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong."""

    severity: Severity
    what: str
    remedy: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """The work that a dataset and its recipe leave to Pillow."""

    formats: Collection[str]
    """Formats of the images, such as `jpeg`, `png`."""
    operates: bool
    """Whether the recipe rotates pictures or changes their colours."""


def find_problems(machine: Machine, needs: Needs | None = None) -> list[Problem]:
    """Return all problems, the worst first. Without `needs`, those that any images may have."""
    found = [problem for rule in _RULES for problem in rule(machine)]
    found += _pillow(machine, needs)
    order: tuple[Severity, ...] = ("error", "warning", "note")
    return sorted(found, key=lambda problem: order.index(problem.severity))


def _native(machine: Machine) -> Iterator[Problem]:
    if not machine.native:
        yield Problem(
            severity="error",
            what=f"the compiled extension is not active, so Pillow decodes every JPEG whole: {machine.native_fault}",
            remedy=_BUILD,
        )


def _torch(machine: Machine) -> Iterator[Problem]:
    if not machine.gpus or machine.torch_gpus:
        return
    what = f"PyTorch can't use the GPU ({machine.gpus[0].name}): "
    if machine.versions["torch_cuda"] is None:
        yield Problem(
            severity="error",
            what=f"{what}this PyTorch {machine.versions['torch']} was built without CUDA",
            remedy="install one with CUDA: `pip install --force-reinstall torch torchvision`, see pytorch.org",
        )
    elif machine.environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        yield Problem(
            severity="error",
            what=f"{what}CUDA_VISIBLE_DEVICES hides it",
            remedy="`unset CUDA_VISIBLE_DEVICES`, or give the number of a GPU",
        )
    else:
        yield Problem(
            severity="error",
            what=f"{what}it is for CUDA {machine.versions['torch_cuda']}, the driver is {machine.gpus[0].driver}",
            remedy="update NVIDIA's driver, or install a PyTorch for an older CUDA",
        )


def _dali(machine: Machine) -> Iterator[Problem]:
    dali, cuda = machine.versions["dali"], machine.versions["torch_cuda"]
    if machine.dali_fault is not None:
        yield Problem(
            severity="warning" if machine.gpus else "note",
            what=f"DALI is installed, and can't be used: {machine.dali_fault}",
            remedy="install the DALI for this driver: `pip install 'imgdata[dali]'` for CUDA 12, "
            "`'imgdata[dali-cuda130]'` for CUDA 13",
        )
    elif machine.gpus and dali is None:
        yield Problem(
            severity="note",
            what="DALI is not installed: the processor decodes all images, the GPU none",
            remedy="`pip install 'imgdata[dali]'` for CUDA 12, `'imgdata[dali-cuda130]'` for CUDA 13",
        )
    elif machine.gpus and dali is not None and cuda is not None:
        built_for = re.search(r"cuda(\d\d)", dali)
        if built_for is not None and built_for[1] != cuda.partition(".")[0]:
            yield Problem(
                severity="note",
                what=f"DALI is for CUDA {built_for[1]}, PyTorch for CUDA {cuda}: two sets of CUDA's libraries are "
                "loaded",
                remedy="it works where the driver is new enough; the same major version of both takes less memory",
            )


def _cores(machine: Machine) -> Iterator[Problem]:
    cpu = machine.cpu
    if cpu.quota is not None and cpu.quota < cpu.allowed:
        threads = max(1, int(cpu.quota))
        yield Problem(
            severity="warning",
            what=f"the control group allows the time of {cpu.quota:g} cores, but {cpu.allowed} are seen: threads for "
            "all of them are stopped again and again",
            remedy=f"Loader(threads={threads}), `--threads {threads}`, OMP_NUM_THREADS={threads}; or raise the limit "
            "(`docker run --cpus`, `resources.limits.cpu`)",
        )
    crowded = crowding(threads=machine.torch_threads, cores=cpu.usable, load=0.0)
    if crowded is not None:
        yield Problem(severity="warning", what=crowded.what, remedy=crowded.remedy)
    if cpu.load > _BUSY * cpu.usable:
        free = max(1, int(cpu.usable - cpu.load))
        fewer = f"`--threads {free}`, Loader(threads={free}), OMP_NUM_THREADS={free}"
        yield Problem(
            severity="warning" if cpu.load > cpu.usable else "note",
            what=f"other programs keep the cores busy: on average {cpu.load:.1f} threads wanted to run in the last "
            f"minute, on {cpu.usable:g} cores; rates are lower than they could be, and uncertain",
            remedy=f"stop what else is running and measure again; or leave the busy cores to it: {fewer}",
        )


def _shared_memory(machine: Machine) -> Iterator[Problem]:
    size = machine.memory.shm_bytes
    if size is not None and size < _SHM_BYTES:
        yield Problem(
            severity="warning",
            what=f"/dev/shm has {size / 2**20:,.0f} MiB: workers of PyTorch's DataLoader end with a bus error (Loader "
            "has threads, and needs none of it)",
            remedy="`docker run --shm-size=8g` or `--ipc=host`; in Kubernetes an emptyDir with medium: Memory",
        )


def _open_files(machine: Machine) -> Iterator[Problem]:
    # The loader raises its own limit as far as it may.
    most = machine.open_files[1]
    if 0 <= most < _OPEN_FILES:
        yield Problem(
            severity="warning",
            what=f"only {most:,} files may be open: a dataset of more shards opens them again and again, or fails",
            remedy=f"`ulimit -n {_ENOUGH_FILES}`, or `docker run --ulimit nofile={_ENOUGH_FILES}`",
        )


def _environment(machine: Machine) -> Iterator[Problem]:
    for name, value in machine.environment.items():
        if name in _DEBUG and value not in _HARMLESS:
            yield Problem(severity="warning", what=f"{name}={value} is set: {_DEBUG[name]}", remedy=f"`unset {name}`")


def _cache(machine: Machine) -> Iterator[Problem]:
    ways_out = "set IMGDATA_CACHE to a folder on a disk with space"
    if not machine.cache_writable:
        yield Problem(
            severity="warning",
            what=f"the cache folder can't be written: {machine.cache}; small splits are decoded again in every run",
            remedy=ways_out,
        )
    elif machine.cache_free_bytes < _CACHE_BYTES:
        yield Problem(
            severity="warning",
            what=f"{machine.cache_free_bytes / 2**20:,.0f} MiB are free for the cache folder, {machine.cache}: decoded "
            "splits may not fit",
            remedy=f"free some, or {ways_out}",
        )


def _pillow(machine: Machine, needs: Needs | None) -> Iterator[Problem]:
    """Yield a problem where plain Pillow resizes or changes colours, which Pillow-SIMD does much faster."""
    plain = machine.versions["pillow"]
    if plain is None or "avx2" not in machine.cpu.features:
        return
    if needs is None:
        yield Problem(
            severity="note",
            what=f"Pillow {plain} runs, not Pillow-SIMD: PNGs, WebPs and operators on pixels are slower",
            remedy=f"{_SIMD}; JPEGs with crop, resize and flip don't need it",
        )
        return
    others = sorted(set(needs.formats) - {"jpeg"})
    uses = ([f"decodes and resizes {', '.join(others)}"] if others else []) + ["rotates and recolours"] * needs.operates
    if not machine.native and not others:
        uses.insert(0, "resizes")
    if uses:
        yield Problem(
            severity="warning",
            what=f"Pillow {plain} {' and '.join(uses)} here, not Pillow-SIMD, which resizes in a third of the time",
            remedy=_SIMD,
        )


_RULES: tuple[Callable[[Machine], Iterator[Problem]], ...] = (
    _native,
    _torch,
    _dali,
    _cores,
    _shared_memory,
    _open_files,
    _environment,
    _cache,
)
