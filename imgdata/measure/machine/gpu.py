"""NVIDIA's driver, PyTorch, nvJPEG -> the GPUs of this machine, and what PyTorch and DALI can do with them."""

import ctypes
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_QUERY = "name,memory.total,driver_version"
_PATIENCE_S = 30.0
"""A driver in trouble answers never."""
_HARDWARE = 3
"""`NVJPEG_BACKEND_HARDWARE` of nvjpeg.h."""
_NO_ENGINES = (7, 9)
"""`NVJPEG_STATUS_ARCH_MISMATCH` and `..._IMPLEMENTATION_NOT_SUPPORTED`: the answers of a GPU without engines."""
_LIBRARIES = ("cu*/lib/libnvjpeg.so*", "nvjpeg/lib/libnvjpeg.so*")
"""nvJPEG in the folder `nvidia` of installed packages: since CUDA 13 all libraries share one folder, `cu13`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One GPU."""

    name: str
    memory_bytes: int
    driver: str | None
    """Version of NVIDIA's driver; None where `nvidia-smi` is missing."""
    jpeg_engines: int | None
    """Decoders of JPEGs in hardware (NVJPEG); None where their number is unknown."""
    jpeg_cores: int | None = None
    """Cores of each engine; None where their number is unknown."""
    jpeg_fault: str | None = None
    """Why the number of engines is unknown; None where it is known."""


class JpegEngines(NamedTuple):
    """nvJPEG's answer."""

    engines: int | None
    """Number of engines; None where it is unknown."""
    cores: int | None = None
    """Cores of each engine."""
    fault: str | None = None
    """Why the number is unknown: `status 5`, or that nvJPEG is missing."""


def find_gpus() -> tuple[Gpu, ...]:
    """Return all GPUs that the driver knows; else all that PyTorch sees."""
    rows = _by_driver() or _by_torch()
    if not rows:
        return ()
    engines, cores, fault = jpeg_engines()
    return tuple(
        Gpu(
            name=name,
            memory_bytes=num_bytes,
            driver=driver,
            jpeg_engines=engines,
            jpeg_cores=cores,
            jpeg_fault=fault,
        )
        for name, num_bytes, driver in rows
    )


def jpeg_engines() -> JpegEngines:
    """Return the JPEG engines of the first GPU by nvJPEG, which comes with DALI and with PyTorch.

    In another process: it makes a context on the GPU, which would take memory here until the end. Where several are
    installed, such as one for CUDA 12 and one for CUDA 13, the first that knows counts: one of them may not suit the
    driver.
    """
    answer = JpegEngines(None, fault="nvJPEG is not installed")
    for library in nvjpeg_libraries():
        # By its file: the package would be imported first, and PyTorch with it.
        text = _output([sys.executable, str(Path(__file__)), str(library)])
        answer = JpegEngines(*json.loads(text)) if text else JpegEngines(None, fault="nvJPEG can't be loaded")
        if answer.engines is not None:
            break
    return answer


def _by_driver() -> list[tuple[str, int, str | None]]:
    rows: list[tuple[str, int, str | None]] = []
    for line in _output(["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]).splitlines():
        name, mebibytes, driver = (word.strip() for word in line.rsplit(",", 2))
        # Some boards share the host's memory, and have "[N/A]" here.
        rows.append((name, int(mebibytes) * 2**20 if mebibytes.isdecimal() else 0, driver))
    return rows


def _by_torch() -> list[tuple[str, int, str | None]]:
    import torch

    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [(one.name, one.total_memory, None) for one in found]


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout


def nvjpeg_libraries() -> list[Path]:
    """Return the files of nvJPEG among the packages of NVIDIA that are installed, that of the newest CUDA first."""
    from importlib.util import find_spec

    spec = find_spec("nvidia")
    folders = [] if spec is None else spec.submodule_search_locations or []
    found = [file for folder in folders for pattern in _LIBRARIES for file in Path(folder).glob(pattern)]
    # The number behind `.so.` is that of CUDA.
    return sorted(found, key=lambda file: (file.suffix, str(file)), reverse=True)


def _ask_nvjpeg(library: str) -> JpegEngines:
    """Return the engines: a GPU without any refuses that backend (nvJPEG, "Hardware Acceleration")."""
    nvjpeg = ctypes.CDLL(library)
    handle, engines, cores = ctypes.c_void_p(), ctypes.c_uint(), ctypes.c_uint()
    status = nvjpeg.nvjpegCreateEx(_HARDWARE, None, None, 0, ctypes.byref(handle))
    if not status:
        status = nvjpeg.nvjpegGetHardwareDecoderInfo(handle, ctypes.byref(engines), ctypes.byref(cores))
    if status in _NO_ENGINES:
        return JpegEngines(0, 0)
    return JpegEngines(None, fault=f"status {status}") if status else JpegEngines(engines.value, cores.value)


if __name__ == "__main__":
    print(json.dumps(_ask_nvjpeg(sys.argv[1])))
