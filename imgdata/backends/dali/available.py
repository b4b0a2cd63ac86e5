"""This machine, a device -> why DALI can't be used for it, with the way out; or that it can."""

import ctypes
import re
from typing import Any

from imgdata.errors import MissingExtraError

LEAST_VERSION = (2, 4)
"""First version of DALI that this was tried with."""
_NO_DEVICE = 100
_INIT_FAULTS = {
    2: ("CUDA_ERROR_OUT_OF_MEMORY", "end what else uses the GPU, which `nvidia-smi` shows"),
    3: ("CUDA_ERROR_NOT_INITIALIZED", "a process forked from one that used a GPU can't use it: start it by 'spawn'"),
    46: ("CUDA_ERROR_DEVICE_UNAVAILABLE", "another process has the GPU for itself; end it, or choose another GPU"),
    101: ("CUDA_ERROR_INVALID_DEVICE", "CUDA_VISIBLE_DEVICES must name GPUs that are there"),
    802: ("CUDA_ERROR_SYSTEM_NOT_READY", "start NVIDIA's fabric manager, which GPUs joined by NVSwitch need"),
    803: ("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "restart the machine: its kernel module is of another driver"),
    804: ("CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", "take CUDA's compatibility library off the library path"),
    999: ("CUDA_ERROR_UNKNOWN", "load its kernel modules (`nvidia-modprobe -u`), or restart the machine"),
}
"""What the driver's first call returns -> its name in `cuda.h`, and what to do."""
_INSTALL = "pip install 'imgdata[dali]' for CUDA 12, 'imgdata[dali-cuda130]' for CUDA 13"


def load() -> Any:
    """Return the module `nvidia.dali`. Raises `MissingExtraError` where it isn't installed, or can't be loaded here."""
    try:
        import nvidia.dali
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"backend 'dali' needs NVIDIA DALI: {_INSTALL}") from error
    except (ImportError, OSError) as error:
        raise MissingExtraError(
            f"NVIDIA DALI is installed but can't be loaded ({error}); install it again: {_INSTALL}"
        ) from error
    return nvidia.dali


def refusal(device: str) -> str | None:
    """Return why DALI can't work on `device` (`cpu`, `cuda:1`) here, in one line with the way out; None if it can."""
    try:
        dali = load()
    except MissingExtraError as error:
        return str(error)
    if _version(dali.__version__) < LEAST_VERSION:
        return f"NVIDIA DALI must be {_text(LEAST_VERSION)} or later, got {dali.__version__}; {_INSTALL}"
    if device == "cpu":
        return None
    driver = driver_cuda()
    if driver is None:
        code = _init_code()
        if code in (None, 0, _NO_DEVICE):
            return (
                f"device {device!r} needs an NVIDIA GPU and its driver, got none; use device='cpu', or install the "
                "driver"
            )
        name, advice = _INIT_FAULTS.get(code, ("an error", "see what `nvidia-smi` says"))
        return (
            f"device {device!r} can't be used: the NVIDIA driver gives {name} ({code}); {advice}, or use device='cpu'"
        )
    # 12.9.86 without its points; two digits are the major version.
    built_for = int(str(dali.__cuda_version__)[:2])
    if driver[0] < built_for:
        return (
            f"the NVIDIA driver must support CUDA {built_for}, for which this DALI was built, got one for CUDA "
            f"{_text(driver)}; update the driver, or install the other DALI: {_INSTALL}"
        )
    return None


def driver_cuda() -> tuple[int, int] | None:
    """Return the newest CUDA (major, minor) that the driver supports; None without a driver or without a GPU."""
    if _init_code() != 0:
        return None
    cuda = ctypes.CDLL("libcuda.so.1")
    version, count = ctypes.c_int(), ctypes.c_int()
    # Every call returns 0 where it worked.
    if cuda.cuDriverGetVersion(ctypes.byref(version)) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return None
    return divmod(version.value // 10, 100) if count.value else None


def _init_code() -> int | None:
    """Return the error code of the driver's first call, 0 where it works; None without a driver."""
    try:
        return int(ctypes.CDLL("libcuda.so.1").cuInit(0))
    except OSError:
        return None


def _version(text: str) -> tuple[int, int]:
    """Return the first two numbers of `2.4.0`."""
    major, minor = re.findall(r"\d+", text)[:2]
    return int(major), int(minor)


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
