"""DALI with faults: its own words, raised where DALI raises them, for the runs that a test chooses."""

import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from imgdata.backends.dali import pipeline
from imgdata.backends.dali.geometry import Shape
from imgdata.backends.dali.pipeline import GraphSpec

_AROUND = """Critical error in pipeline:
Error in MIXED operator `nvidia.dali.fn.decoders.image`,
which was used in the pipeline definition with the following traceback:

  File "/home/cuda/nvml/alloc.py", line 13, in run
    pipeline.set_outputs(fn.decoders.image(encoded))

encountered:

{said}
Current pipeline object is no longer valid."""

SHORTAGES = (
    "CUDA allocation failed",
    "Can't allocate 1610612736 bytes on device 0.",
    "CUDA runtime API error cudaErrorMemoryAllocation (2):\nout of memory",
    "CUDA driver API error CUDA_ERROR_OUT_OF_MEMORY (2):\nout of memory",
    "Error in thread 3: std::bad_alloc",
)
"""What DALI says where a GPU's memory is short (`cuda_error.h`, `thread_pool.cc`)."""
OTHER_FAULTS = (
    "Error in thread 0: nvml error: Not Supported",
    "CUDA runtime API error cudaErrorIllegalAddress (700):\nan illegal memory access was encountered",
    "CUDA driver API error CUDA_ERROR_ECC_UNCORRECTABLE (214):\nuncorrectable ECC error encountered",
    "The cropping window [0..64, 0..65] is not valid for image dimensions [64 x 64]",
)
"""What it says of other faults that no picture has."""
NAMES_ROW = "Failed to decode sample #0 : \nCurrent pipeline object is no longer valid."
NAMES_NONE = "nvImageCodec failure: '#8'"
Says = Callable[[GraphSpec, dict[str, Any]], str | None]
"""What is said of a run with these inputs; None if it succeeds."""

SPEC = GraphSpec(
    batch_size=3,
    threads=2,
    device_id=None,
    shape=Shape(resizes=True, radius=1, margins=False, mirrored=False),
    flips=False,
    vflips=False,
    dtype="uint8",
    channels_last=True,
    mean_3=(0.0, 0.0, 0.0),
    std_3=(1.0, 1.0, 1.0),
    crop_decode=True,
    hw_decoder_load=None,
    largest_2=None,
)
"""A pipeline of crops on the processor."""


def error_text(said: str) -> str:
    """What DALI raises: its words in the middle of where the operator was defined."""
    return _AROUND.format(said=said)


def on_gpu(spec: GraphSpec, **changes: Any) -> GraphSpec:
    return replace(spec, device_id=0, **changes)


def crops(count: int, width: int = 64, height: int = 64) -> dict[str, np.ndarray]:
    """Inputs of `SPEC` beside the bytes: the upper left corner of each."""
    return {
        "anchor": np.zeros((count, 2), np.int32),
        "extent": np.tile(np.array([[width, height]], np.int32), (count, 1)),
        "size": np.full((count, 2), 32, np.float32),
        "roi_start": np.zeros((count, 2), np.float32),
        "roi_end": np.tile(np.array([[height, width]], np.float32), (count, 1)),
    }


class _Pipeline:
    """A pipeline of DALI's that fails where the test says so."""

    def __init__(self, real: Any, spec: GraphSpec, says: Says) -> None:
        self._real, self._spec, self._says = real, spec, says
        self._fed: dict[str, Any] = {}
        self._runs: deque[dict[str, Any]] = deque()
        self.device_id = spec.device_id

    def feed_input(self, name: str, value: Any) -> None:
        self._fed[name] = value
        self._real.feed_input(name, value)

    def schedule_run(self) -> None:
        self._runs.append(self._fed)
        self._fed = {}
        self._real.schedule_run()

    def outputs(self) -> Any:
        said = self._says(self._spec, self._runs.popleft())
        if said is not None:
            raise RuntimeError(error_text(said))
        return self._real.outputs()


class Faulty:
    """From here on, pipelines fail as `says` has it. `built` are the specs of all, `alive` those still there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, says: Says, *, on_its_device: bool = False) -> None:
        self.says, self.built = says, list[GraphSpec]()
        self.alive: weakref.WeakSet[_Pipeline] = weakref.WeakSet()
        build = pipeline._build

        def building(spec: GraphSpec) -> _Pipeline:
            self.built.append(spec)
            # What is built for a GPU runs on the processor where there is none.
            real = build(spec if on_its_device else replace(spec, device_id=None))
            made = _Pipeline(real, spec, lambda *run: self.says(*run))
            self.alive.add(made)
            return made

        monkeypatch.setattr(pipeline, "_build", building)
