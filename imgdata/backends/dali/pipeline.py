"""Settings -> a DALI pipeline: encoded bytes and geometry in, windows of pixels out.

Every random choice is an input: the pipeline itself draws nothing.
"""

import ctypes
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.backends.dali.available import load
from imgdata.backends.dali.faults import DecodeError, names_a_picture
from imgdata.backends.dali.geometry import Shape
from imgdata.backends.dali.options import decoder_place

Encoded = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphSpec:
    """What the pipeline does, and with what."""

    batch_size: int
    """Samples of a run at most; it may have fewer."""
    threads: int
    device_id: int | None
    """Number of the GPU; None for the processor."""
    shape: Shape
    flips: bool
    """Left and right may change places."""
    vflips: bool
    dtype: str
    """uint8, or normalised float16 or float32."""
    channels_last: bool
    mean_3: tuple[float, float, float]
    """Means of red, green and blue, on the scale from 0 to 255; not used for uint8, as their deviations."""
    std_3: tuple[float, float, float]
    crop_decode: bool
    """Decode the crop alone. On the processor it always does."""
    hw_decoder_load: float | None
    largest_2: tuple[int, int] | None
    """Width and height of the largest usual picture, for which a GPU's decoder takes memory at once."""


class Graph:
    """A pipeline that was built. To be used by one thread."""

    def __init__(self, spec: GraphSpec) -> None:
        """Build it. Raises what DALI raises."""
        self._pipeline = _build(spec)
        _ALIVE.add(self._pipeline)

    def start(self, encoded: Encoded, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Begin a run, behind those before it. DALI holds the bytes until it is through.

        On the processor it doesn't copy them; for a GPU it puts them into pinned memory.
        """
        self._pipeline.feed_input("encoded", list(encoded))
        for name, array in arrays.items():
            self._pipeline.feed_input(name, array)
        self._pipeline.schedule_run()

    def take(self) -> Any:
        """Return the windows of the oldest run, once they are done: DALI's tensor, `(N, H, W, 3)` or `(N, 3, H, W)`.

        Raises `DecodeError`, and what else DALI raises; then nothing more comes of this pipeline.
        """
        try:
            (windows,) = self._pipeline.outputs()
        except RuntimeError as error:
            if not names_a_picture(error):
                raise
            fault = DecodeError(str(error))
        else:
            return windows.as_tensor()
        # Here, so that it doesn't reference the error of DALI, whose traceback references the pipeline.
        raise fault


# --- forks: a pipeline's threads stay behind, and joining them would end the child -------------------------------

_ALIVE: "weakref.WeakSet[Any]" = weakref.WeakSet()
_PARENTS_GPUS: set[int] = set()


def parent_used_gpu() -> bool:
    """Return whether this process was forked from one with a pipeline on a GPU: CUDA can't be used here."""
    return bool(_PARENTS_GPUS)


def _leave_behind() -> None:
    """Never destroy the parent's pipelines in a forked child, and forget one that was being built."""
    global _BUILDING
    _BUILDING = threading.Lock()
    for pipeline in list(_ALIVE):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(pipeline))
        if pipeline.device_id is not None:
            _PARENTS_GPUS.add(pipeline.device_id)
    _ALIVE.clear()


os.register_at_fork(after_in_child=_leave_behind)


# --- the operators -----------------------------------------------------------------------------------------------

_BUILDING = threading.Lock()
"""DALI counts its operators for the whole process."""


def _build(spec: GraphSpec) -> Any:
    load()
    make: Any = import_module("nvidia.dali.pipeline").Pipeline
    with _BUILDING:
        # A depth of 1 bounds the runs that DALI would begin by itself before the first; here each is begun by a call.
        pipeline = make(
            batch_size=spec.batch_size,
            num_threads=spec.threads,
            device_id=spec.device_id,
            prefetch_queue_depth=1,
            exec_dynamic=True,
        )
        with pipeline:
            pipeline.set_outputs(_windows(spec))
        pipeline.build()
    return pipeline


def _windows(spec: GraphSpec) -> Any:
    fn, types = _dali()
    shape, kinds = spec.shape, {"uint8": types.UINT8, "float16": types.FLOAT16, "float32": types.FLOAT}
    images = _decoded(spec)
    if shape.resizes:
        images = fn.resize(
            images,
            size=_input("size", types.FLOAT),
            roi_start=_input("roi_start", types.FLOAT),
            roi_end=_input("roi_end", types.FLOAT),
            antialias=True,
            subpixel_scale=False,
            interp_type=types.INTERP_CUBIC if shape.radius == 2 else types.INTERP_LINEAR,
        )
    if shape.margins:
        images = fn.slice(
            images,
            _input("start", types.INT32),
            _input("window", types.INT32),
            out_of_bounds_policy="reflect_101" if shape.mirrored else "pad",
        )
    planar = spec.dtype != "uint8" or not spec.channels_last
    mirror: dict[str, Any] = {}
    if spec.flips and planar and not spec.vflips:
        mirror["mirror"] = _input("flip", types.INT32, ndim=0)
    elif spec.flips or spec.vflips:
        images = fn.flip(
            images,
            horizontal=_input("flip", types.INT32, ndim=0) if spec.flips else 0,
            vertical=_input("vflip", types.INT32, ndim=0) if spec.vflips else 0,
        )
    if not planar:
        return images
    scale = {} if spec.dtype == "uint8" else {"mean": list(spec.mean_3), "std": list(spec.std_3)}
    return fn.crop_mirror_normalize(
        images, dtype=kinds[spec.dtype], output_layout="HWC" if spec.channels_last else "CHW", **mirror, **scale
    )


def _decoded(spec: GraphSpec) -> Any:
    """Return the part of each picture that is needed, as stored: EXIF is not applied."""
    fn, types = _dali()
    encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1, no_copy=True)
    part = _input("anchor", types.INT32), _input("extent", types.INT32)
    options: dict[str, Any] = {
        **decoder_place(spec.device_id),
        "output_type": types.RGB,
        "adjust_orientation": False,
        # Chroma as libjpeg makes it, and so Pillow.
        "jpeg_fancy_upsampling": True,
    }
    if spec.device_id is not None:
        if spec.hw_decoder_load is not None:
            options["hw_decoder_load"] = spec.hw_decoder_load
        if spec.largest_2 is not None:
            options["preallocate_width_hint"], options["preallocate_height_hint"] = spec.largest_2
    if spec.device_id is None or spec.crop_decode:
        return fn.decoders.image_slice(encoded, *part, **options)
    return fn.slice(fn.decoders.image(encoded, **options), *part)


def _input(name: str, dtype: Any, ndim: int = 1) -> Any:
    fn, _ = _dali()
    return fn.external_source(name=name, dtype=dtype, ndim=ndim)


def _dali() -> tuple[Any, Any]:
    """Return DALI's operators and types, which exist only once DALI is imported: type checkers don't know them."""
    return import_module("nvidia.dali.fn"), import_module("nvidia.dali.types")
