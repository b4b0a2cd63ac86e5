"""NVIDIA's driver, PyTorch, nvJPEG -> the GPUs of this machine, and what PyTorch and DALI can do with them."""

import ctypes
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_QUERY = "name,memory.total,driver_version"
_PATIENCE_S = 30.0
"""A driver in trouble answers never."""
_HARDWARE = 3
"""`NVJPEG_BACKEND_HARDWARE` of nvjpeg.h."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One GPU."""

    name: str
    memory_bytes: int
    driver: str | None
    """Version of NVIDIA's driver; None where `nvidia-smi` is missing."""
    jpeg_engines: int | None
    """Decoders of JPEGs in hardware (NVJPEG); None where nobody can be asked."""


def find_gpus() -> tuple[Gpu, ...]:
    """Return all GPUs that the driver knows; else all that PyTorch sees."""
    rows = _by_driver() or _by_torch()
    engines = jpeg_engines() if rows else None
    return tuple(
        Gpu(name=name, memory_bytes=num_bytes, driver=driver, jpeg_engines=engines) for name, num_bytes, driver in rows
    )


def jpeg_engines() -> int | None:
    """Return the JPEG engines of the first GPU by nvJPEG, which comes with DALI; None where it isn't installed.

    In another process: it makes a context on the GPU, which would take memory here until the end.
    """
    library = _nvjpeg()
    if library is None:
        return None
    # By its file: the package would be imported first, and PyTorch with it.
    answer = _output([sys.executable, str(Path(__file__)), str(library)])
    return int(answer) if answer.strip().isdecimal() else None


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


def _nvjpeg() -> Path | None:
    """Return the library, which is beside the packages of DALI; None where there is none."""
    from importlib.util import find_spec

    spec = find_spec("nvidia")
    folders = [] if spec is None else spec.submodule_search_locations or []
    found = [file for folder in folders for file in sorted(Path(folder).glob("nvjpeg/lib/libnvjpeg.so*"))]
    return found[-1] if found else None


def _count_engines(library: str) -> int:
    """Return the number of engines: a GPU without any refuses that backend (nvJPEG, "Hardware Acceleration")."""
    nvjpeg = ctypes.CDLL(library)
    handle, engines, cores = ctypes.c_void_p(), ctypes.c_uint(), ctypes.c_uint()
    if nvjpeg.nvjpegCreateEx(_HARDWARE, None, None, 0, ctypes.byref(handle)):
        return 0
    failed = nvjpeg.nvjpegGetHardwareDecoderInfo(handle, ctypes.byref(engines), ctypes.byref(cores))
    return 0 if failed else engines.value


if __name__ == "__main__":
    print(_count_engines(sys.argv[1]))
