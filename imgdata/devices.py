"""The environment, a device's name -> the cores that this process may use, the device with its number."""

import os
import re
import warnings
from typing import TYPE_CHECKING

from imgdata.errors import OptionError
from imgdata.extras import has_torch, require_torch

if TYPE_CHECKING:
    import torch

_NO_MEMORY = (
    # CUDA's and PyTorch's words for a GPU, pinned memory or a context.
    "out of memory",
    "OUT_OF_MEMORY",
    "cudaErrorMemoryAllocation",
    # PyTorch's for the processor's memory.
    "DefaultCPUAllocator",
    # DALI's.
    "CUDA allocation failed",
    "Can't allocate",
    "bad_alloc",
    # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED, NVJPEG_STATUS_ALLOCATOR_FAILURE.
    "_ALLOC_FAILED",
    "ALLOCATOR_FAILURE",
)


def says_no_device_memory(text: str) -> bool:
    """Return whether an error of PyTorch's, DALI's or CUDA's says that memory is out."""
    return any(sign in text for sign in _NO_MEMORY)


def own_cores() -> list[int]:
    """Return the numbers of the cores that this process may use, in order."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores_per_rank() -> int:
    """Return how many of its cores this process should use: torchrun and mpirun start several on one machine."""
    cores = len(own_cores())
    for name in ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"):
        neighbours = os.environ.get(name, "")
        if neighbours.isdecimal() and int(neighbours):
            return max(1, cores // int(neighbours))
    return cores


def choose_device(device: "str | torch.device", *, by_rank: bool = False) -> str:
    """Return `cpu`, `mps` or `cuda:N` for a device's name, or one of PyTorch's devices.

    `auto` is a GPU where there is one. A GPU without a number is the current one, or with `by_rank` the one of
    `LOCAL_RANK`, which torchrun sets. The number is part of the answer, since which GPU is the current one may change,
    and differs by thread. Raises `OptionError` for a device that isn't there.
    """
    name = str(device)
    if re.fullmatch(r"auto|cpu(:0)?|mps(:0)?|cuda(:[0-9]+)?", name) is None:
        raise OptionError(f"device must be auto, cpu, cuda, cuda:0, cuda:1, ..., or mps, got {name!r}")
    if name.startswith("cpu") or (name == "auto" and not has_torch()):
        return "cpu"
    require_torch(f"device {name!r}")
    import torch

    if name == "auto" and not torch.cuda.is_available():
        return "cpu"
    if name.startswith("mps"):
        if not torch.backends.mps.is_available():
            raise OptionError(
                "device must be cpu where PyTorch finds no Apple GPU, got 'mps' (torch.backends.mps.is_available() "
                "says whether it works)"
            )
        return "mps"
    if not torch.cuda.is_available():
        raise OptionError(
            f"device must be cpu where PyTorch finds no GPU, got {name!r}; install NVIDIA's driver and a PyTorch with "
            "CUDA (torch.cuda.is_available() says whether it works)"
        )
    text = name.partition(":")[2] or (os.environ.get("LOCAL_RANK") if by_rank else None)
    number = int(text) if text else torch.cuda.current_device()
    if not text:
        _warn_of_a_shared_gpu(number, torch.cuda.device_count())
    if number >= torch.cuda.device_count():
        processes = "; start as many processes as there are GPUs" if ":" not in name else ""
        raise OptionError(
            f"device must be cuda:0 to cuda:{torch.cuda.device_count() - 1} here, got cuda:{number}{processes}"
        )
    return f"cuda:{number}"


def _warn_of_a_shared_gpu(number: int, gpus: int) -> None:
    """Warn where this process, another one than the first on this machine, has taken the first of several GPUs."""
    rank = os.environ.get("LOCAL_RANK", "")
    if number or gpus < 2 or not rank.isdecimal() or not int(rank):
        return
    warnings.warn(
        f"device 'cuda' is cuda:0 in this process, whose LOCAL_RANK is {rank}: all processes share the first of {gpus} "
        f"GPUs; name the GPU, device='cuda:{rank}', or call torch.cuda.set_device({rank}) before",
        stacklevel=6,  # Where `Loader(...)` was called.
    )
