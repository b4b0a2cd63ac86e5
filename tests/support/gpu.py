"""What tests of a GPU share. Each takes the device and runs on the processor as well, so that it was run at all."""

import gc
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
on_devices = pytest.mark.parametrize("device", DEVICES)
"""For tests that say the same of the processor and of a GPU."""
SLACK = 64 * 2**20
"""Bytes by which used memory may differ: others use the machine and the GPU as well, and allocators round up."""


def used_bytes(device: str) -> int:
    """Memory that is in use: of the GPU, by all; or this process's own."""
    gc.collect()
    if device == "cpu":
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import torch  # Not above: pages of tests that need no PyTorch import this file.

    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    return total - free


def assert_shows(
    found: np.ndarray,
    expected: np.ndarray,
    device: str,
    step: float = 1.0,
    mean_apart: float | None = None,
    rows_apart: float | None = None,
) -> None:
    """The rows show the same pictures, decoded in another way: by the engine of a GPU, its cores, or the processor.

    `step` is what a step of 255 is in these values. Decoders round differently, and on a GPU they may interpolate the
    chroma of small pictures differently, which is a step or two in the mean. Other pictures, and windows that are a
    pixel beside the right one, are ten steps apart and more.
    """
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    apart = np.abs(found.astype(np.float32) - expected.astype(np.float32)) / step
    assert apart.mean() < (mean_apart or (0.6 if device == "cpu" else 2.0))
    assert apart.reshape(len(apart), -1).mean(1).max() < (rows_apart or (2.0 if device == "cpu" else 6.0))


@contextmanager
def busy_side_stream(device: str) -> Iterator[Callable[[], None]]:
    """Make a stream of its own the current one; what is yielded gives it milliseconds of work, without waiting."""
    if device == "cpu":
        yield lambda: None
        return
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    square = [torch.ones(4096, 4096, device=device)]

    def work() -> None:
        square[0] = square[0] @ square[0] / 4096

    with torch.cuda.stream(side):
        yield work
    side.synchronize()


@contextmanager
def no_waits(device: str) -> Iterator[None]:
    """Raise an error where PyTorch lets the host wait for a GPU."""
    if device == "cpu":
        yield
        return
    import torch

    torch.cuda.synchronize()
    with warnings.catch_warnings():
        # PyTorch says so when the mode is set for the first time, and tests take warnings for errors.
        warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype feature")
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
