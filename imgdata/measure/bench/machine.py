"""This machine -> what has to be known of it beside a figure: processor, cores, memory, GPUs, versions."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch

from imgdata.devices import own_cores
from imgdata.version import __version__


def machine(devices: Sequence[str]) -> dict[str, Any]:
    """`cpu`, `cores` for this process, `memory_gb` (10^9 bytes), `system`, and `gpus`: the names of `devices`."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": _cpu_model(),
        "cores": len(own_cores()),
        "memory_gb": round(pages / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "gpus": [torch.cuda.get_device_name(device) for device in devices if device.startswith("cuda")],
    }


def versions() -> dict[str, str]:
    """Of what our loader runs with. Pillow-SIMD's has `.post` in it."""
    return {
        "imgdata": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def _cpu_model() -> str:
    # Not everywhere, and not on every processor.
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
