"""This machine -> the facts that decide how fast images are loaded: cores, memory, GPUs, versions, settings."""

import importlib
import os
import platform
import re
import resource
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from imgdata import native
from imgdata.backends.dali.available import refusal
from imgdata.cgroups import ROOT, cpu_quota, memory_limit, read_text
from imgdata.devices import own_cores
from imgdata.measure.machine.gpu import Gpu, find_gpus
from imgdata.storage.cache_folder import cache_folder, existing_folder
from imgdata.version import __version__

_FEATURES = ("sse4_2", "avx2", "avx512f", "avx512bw", "avx512_vnni", "asimd", "sve")
"""Features of processors that decoders and resizes use, as Linux spells them."""
_DALI = ("nvidia-dali-cuda120", "nvidia-dali-cuda130", "nvidia-dali-cuda110")
_VARIABLES = re.compile(
    r"(OMP|MKL|OPENBLAS|TORCH|PYTORCH|CUDA|NCCL|DALI|IMGDATA)_\w+|PYTHON(DEVMODE|MALLOC|FAULTHANDLER|TRACEMALLOC)"
    r"|MALLOC_\w+|LD_PRELOAD|(LOCAL_)?WORLD_SIZE"
)
"""Environment variables that change how fast something is, and no others, since reports are shown to others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cpu:
    """The processor, and the part of the processor that this process may use."""

    model: str
    features: tuple[str, ...]
    cores: int
    """Cores of the machine, threads of a core counted."""
    allowed: int
    """Cores that this process may run on (affinity)."""
    physical: int
    """Allowed cores, without second threads of the same core."""
    quota: float | None
    """Cores' worth of time that its control group may use; None without a limit."""
    load: float
    """Threads that wanted to run in the last minute, on average, before anything was measured."""

    @property
    def usable(self) -> float:
        """Cores' worth of time that this process can use."""
        return self.allowed if self.quota is None else min(self.allowed, self.quota)


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes."""

    total_bytes: int
    available_bytes: int
    """Memory in bytes that is free for this process; files in the page cache count as free."""
    limit_bytes: int | None
    """Limit of the control group; None without one."""
    shm_bytes: int | None
    """/dev/shm as a whole, where workers of PyTorch's `DataLoader` put their batches; None where there is none."""
    shm_free_bytes: int | None

    @property
    def usable_bytes(self) -> int:
        """Bytes that files can take in the page cache, at most."""
        return self.available_bytes if self.limit_bytes is None else min(self.available_bytes, self.limit_bytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """The facts that `imgdata doctor` knows without a dataset."""

    cpu: Cpu
    memory: Memory
    gpus: tuple[Gpu, ...]
    torch_gpus: int
    """GPUs that PyTorch can use."""
    torch_threads: int
    versions: Mapping[str, str | None]
    """Versions of Python and packages; None for what isn't installed."""
    native: bool
    """Whether the compiled extension is active."""
    native_fault: str | None
    """Why it isn't."""
    simd: str | None
    """Instructions that it uses."""
    dali_fault: str | None
    """Why DALI, which is installed, can't be used for this machine's best device; None where it can, or is missing."""
    open_files: tuple[int, int]
    """The limit now, and the one up to which the process may raise it."""
    cache: str
    """Folder in which decoded splits are kept."""
    cache_free_bytes: int
    cache_writable: bool
    environment: Mapping[str, str]
    """Variables that decide how fast something is."""

    def to_dict(self) -> dict[str, Any]:
        """Return all facts as plain values, for JSON."""
        return {**asdict(self), "versions": dict(self.versions), "environment": dict(self.environment)}


def look_at_machine(root: Path = ROOT) -> Machine:
    """Return all facts, in about two seconds; imports PyTorch and DALI. `root` holds `proc` and `sys`."""
    import torch

    gpus = find_gpus()
    versions = _versions(torch.__version__, torch.version.cuda)
    cache, free_bytes = _cache()
    return Machine(
        cpu=look_at_cpu(root),
        memory=look_at_memory(root),
        gpus=gpus,
        torch_gpus=torch.cuda.device_count(),
        torch_threads=torch.get_num_threads(),
        versions=versions,
        native=native.AVAILABLE,
        native_fault=None if native.AVAILABLE else _native_fault(),
        simd=native.SIMD[-1] if native.SIMD else None,
        dali_fault=refusal("cuda" if gpus else "cpu") if versions["dali"] else None,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE),
        cache=str(cache_folder()),
        cache_free_bytes=free_bytes,
        cache_writable=os.access(cache, os.W_OK),
        environment={name: value for name, value in sorted(os.environ.items()) if _VARIABLES.fullmatch(name)},
    )


def look_at_cpu(root: Path = ROOT) -> Cpu:
    """Return the processor; a fact that the system doesn't report is "unknown", and a limit is taken as absent."""
    lines = read_text(root / "proc/cpuinfo").splitlines()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    cores = own_cores()
    siblings = {
        read_text(root / f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list") or str(core)
        for core in cores
    }
    return Cpu(
        model=facts.get("model name") or platform.processor() or platform.machine() or "unknown",
        features=tuple(name for name in _FEATURES if name in flags),
        cores=os.cpu_count() or len(cores),
        allowed=len(cores),
        physical=len(siblings),
        quota=cpu_quota(root),
        load=os.getloadavg()[0],
    )


def machine_summary(devices: Sequence[str]) -> dict[str, Any]:
    """Return what has to be known of this machine beside a rate; `devices` are the ones that were used.

    `cpu`, `cores` of this process, `memory_gb` (10^9 bytes), `system`, and `gpus`, the names of those among `devices`.
    """
    cpu = look_at_cpu()
    gpus = [device for device in devices if device.startswith("cuda")]
    if gpus:
        import torch

        gpus = [torch.cuda.get_device_name(device) for device in gpus]
    return {
        "cpu": cpu.model,
        "cores": cpu.allowed,
        "memory_gb": round(_physical_bytes() / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "gpus": gpus,
    }


def loader_versions() -> dict[str, str]:
    """Return the versions of what our loader runs with. Pillow-SIMD's has `.post` in it."""
    import PIL
    import torch

    return {
        "imgdata": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def look_at_memory(root: Path = ROOT) -> Memory:
    """Return sizes in bytes."""
    kibibytes = dict(re.findall(r"^(\w+): +(\d+) kB$", read_text(root / "proc/meminfo"), re.MULTILINE))
    total = int(kibibytes["MemTotal"]) * 1024 if "MemTotal" in kibibytes else _physical_bytes()
    shm = root / "dev/shm"
    usage = shutil.disk_usage(shm) if shm.is_dir() else None
    return Memory(
        total_bytes=total,
        available_bytes=int(kibibytes["MemAvailable"]) * 1024 if "MemAvailable" in kibibytes else total,
        limit_bytes=memory_limit(root),
        shm_bytes=None if usage is None else usage.total,
        shm_free_bytes=None if usage is None else usage.free,
    )


def _physical_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _versions(torch: str, cuda: str | None) -> dict[str, str | None]:
    import PIL
    from PIL import features

    dali = next((f"{version} ({name})" for name in _DALI if (version := _installed(name))), None)
    return {
        "imgdata": __version__,
        "python": platform.python_version(),
        "torch": torch,
        "torch_cuda": cuda,
        "torchvision": _installed("torchvision"),
        "timm": _installed("timm"),
        "dali": dali,
        # Which of the two is there: both fill the folder PIL, so the one that is imported counts.
        "pillow": None if is_simd(PIL.__version__) else PIL.__version__,
        "pillow_simd": PIL.__version__ if is_simd(PIL.__version__) else None,
        "libjpeg_turbo": native.libjpeg_version() if native.AVAILABLE else None,
        "libjpeg_turbo_of_pillow": features.version("libjpeg_turbo"),
        "simplejpeg": _installed("simplejpeg"),
    }


def is_simd(pillow: str) -> bool:
    """Return whether that is a version of Pillow-SIMD: Pillow's, followed by `.post0`."""
    return ".post" in pillow


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _native_fault() -> str:
    """Return why the compiled module can't be imported."""
    name = "imgdata.native._compiled"
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        others = sorted(file.name for folder in native.__path__ for file in Path(folder).glob("_compiled*.so"))
        if others:
            return f"it was built for another Python than {platform.python_version()}: {', '.join(others)}"
        return "it was not built when imgdata was installed"
    except ImportError as error:
        return f"it can't be loaded: {error}"
    return "it was switched off"


def _cache() -> tuple[Path, int]:
    """Return the nearest folder above the cache folder that exists, or that itself; bytes free in it."""
    folder = existing_folder()
    return folder, shutil.disk_usage(folder).free
