"""NVIDIA's management library -> whether it lets a thread be bound to the cores near the GPU."""

import ctypes
from typing import Any


def set_affinity() -> dict[str, Any] | str:
    """Bind the calling thread to the cores near GPU 0; return the code and text of the answer, or why there is none.

    Some virtual machines refuse the call, and DALI then takes its decoder's thread for failed.
    """
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return "there is no libnvidia-ml.so.1, which comes with NVIDIA's driver"
    nvml.nvmlErrorString.restype = ctypes.c_char_p
    code = nvml.nvmlInit_v2()
    if code:
        return f"NVML does not start: {nvml.nvmlErrorString(code).decode()}"
    device = ctypes.c_void_p()
    code = nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)) or nvml.nvmlDeviceSetCpuAffinity(device)
    return {"code": code, "text": nvml.nvmlErrorString(code).decode()}
