"""A GPU -> whether its decoder shall get crops: tried in another process, once for each version and GPU.

nvImageCodec 0.9.0 ended the process on some GPUs, and failed on others, when only a part of a JPEG was decoded; and
where nvJPEG doesn't take crops the host decodes them, slower than the GPU decodes whole pictures.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from importlib import import_module
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgdata.backends.dali.available import driver_cuda, load
from imgdata.backends.dali.faults import DecodeError
from imgdata.backends.dali.geometry import Shape
from imgdata.backends.dali.nvjpeg import decodes_crops, nvjpeg_version
from imgdata.backends.dali.pipeline import Graph, GraphSpec
from imgdata.devices import says_no_device_memory
from imgdata.errors import DeviceMemoryError, OutputError
from imgdata.storage.atomic import output_error, write_atomic
from imgdata.storage.cache_folder import CacheWarning, cache_folder
from imgdata.storage.reading import read_json

_TIMEOUT_S = 120.0
_ROUNDS = 3
_TIMED_ROUNDS = 5
_PICTURES = 64
_MEMORY = 2 * 2**30
"""Bytes that must be free on the GPU for a trial: less may fail for want of memory."""
CROPS, UNSAFE, SLOWER = "crops", "unsafe", "slower than whole pictures"
TOO_OLD = "left to the host by this nvJPEG"
_ENDS = {0: CROPS, 3: UNSAFE, 4: SLOWER}
"""What the process of the trial ends with. A signal is as good as `UNSAFE`, and all else says nothing."""
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that others send: the system for want of memory, a user."""
_MOST_APART = 3.0
"""Mean difference in steps of 255 between a crop and the same part of the whole picture."""


def crop_decode_is_safe(device_id: int, folder: Path | None = None) -> bool:
    """Return whether crops are decoded rightly on this GPU, and faster than whole pictures: see `crop_verdict`."""
    return crop_verdict(device_id, folder) == CROPS


def crop_verdict(device_id: int, folder: Path | None = None) -> str | None:
    """Return `CROPS`, `UNSAFE`, `SLOWER`, `TOO_OLD`, or None where this GPU could not be tried.

    A trial is made once for each GPU, driver and version of DALI, and not at all where nvJPEG is too old for crops.
    `folder` keeps the verdicts; by default the cache folder. Warns with `CacheWarning` where it can't. A trial that
    could not be made, for want of memory or time, warns with `RuntimeWarning`, and is made again the next time.
    """
    if not decodes_crops():
        return TOO_OLD
    path = (folder or cache_folder()) / "dali-crop.json"
    name = machine(device_id)
    verdict = _read(path).get(name)
    if verdict is None:
        verdict = _try(device_id)
        if verdict is not None:
            _keep(path, name, verdict)
    return verdict


def machine(device_id: int) -> str:
    """Return the name of what a verdict is valid for: GPU, driver, DALI, codec and nvJPEG."""
    import torch

    dali = load()
    codec = import_module("nvidia.dali.backend_impl").GetNvimgcodecVersion()
    return (
        f"{torch.cuda.get_device_name(device_id)}, CUDA {driver_cuda()}, DALI {dali.__version__}, codec {codec}, "
        f"nvJPEG {nvjpeg_version()}"
    )


def _try(device_id: int) -> str | None:
    """Return the verdict of a trial in another process; None, with a warning, where it could not be made."""
    command = [sys.executable, "-m", __name__, str(device_id)]
    # Where this process finds the package, it finds it.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command, timeout=_TIMEOUT_S, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except subprocess.TimeoutExpired:
        _warn_untried(device_id, f"no end within {_TIMEOUT_S:g} s")
        return None
    said = done.stderr.decode(errors="replace").strip()
    if done.returncode in _ENDS:
        return _ENDS[done.returncode]
    if done.returncode < 0 and -done.returncode not in _FROM_OUTSIDE and not says_no_device_memory(said):
        return UNSAFE
    _warn_untried(device_id, said.splitlines()[-1] if said else f"the process ended with {done.returncode}")
    return None


def _warn_untried(device_id: int, reason: str) -> None:
    warnings.warn(
        f"whether DALI may decode crops on cuda:{device_id} could not be tried ({reason}); this run decodes whole "
        "pictures, the next one tries again: dali_options={'crop_decode': False} spares the trial",
        RuntimeWarning,
        stacklevel=3,
    )


def _read(path: Path) -> dict[str, str]:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        # Not there yet; or it can't be read, and then `_keep` will say so.
        return {}
    if not isinstance(content, dict):
        return {}
    # Older versions kept True or False, without having timed anything.
    return {name: verdict for name, verdict in content.items() if verdict in _ENDS.values()}


def _keep(path: Path, name: str, verdict: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Read again: another process may have tried another GPU meanwhile.
        write_atomic(path, json.dumps({**_read(path), name: verdict}, indent=1).encode())
    except (OSError, OutputError) as error:
        reason = error if isinstance(error, OutputError) else output_error(error, path)
        warnings.warn(
            f"{reason}; whether DALI may decode crops is tried anew in each run: set IMGDATA_CACHE to a folder for it",
            CacheWarning,
            stacklevel=2,
        )


def trial(device_id: int | None) -> str:
    """Return whether crops of many kinds of JPEG equal the same parts of whole pictures, and are made faster.

    `None` is the processor, which decodes crops in both cases. Raises what DALI raises where whole pictures fail.
    """
    random = np.random.Generator(np.random.Philox(key=[1, 0]))
    pictures = [_picture(number, random) for number in range(_PICTURES)]
    specs = [
        GraphSpec(
            batch_size=_PICTURES,
            threads=4,
            device_id=device_id,
            shape=Shape(resizes=True, radius=1, margins=False, mirrored=False),
            flips=False,
            vflips=False,
            dtype="uint8",
            channels_last=True,
            mean_3=(0.0, 0.0, 0.0),
            std_3=(1.0, 1.0, 1.0),
            crop_decode=crop,
            hw_decoder_load=load,
            largest_2=None,
        )
        for crop, load in ((False, None), (True, None), (True, 0.0), (True, 1.0))
    ]
    whole, *crops = [Graph(spec) for spec in specs]
    for _ in range(_ROUNDS):
        arrays = _crops([size for _, size in pictures], random)
        encoded = [np.frombuffer(data, np.uint8) for data, _ in pictures]
        wanted = _windows(whole, encoded, arrays)
        for graph in crops:
            try:
                apart = np.abs(_windows(graph, encoded, arrays) - wanted).mean()
            except DecodeError:
                # Where whole pictures fail by now, crops are not at fault, and there is no verdict.
                _windows(whole, encoded, arrays)
                return UNSAFE
            if apart > _MOST_APART:
                return UNSAFE
    if device_id is None:
        return CROPS
    seconds_G = _seconds((whole, crops[0]), encoded, arrays)
    return CROPS if seconds_G[1] < seconds_G[0] else SLOWER


def _windows(
    graph: Graph, encoded: list[NDArray[np.uint8]], arrays: dict[str, NDArray[np.generic]]
) -> NDArray[np.int64]:
    from torch.utils.dlpack import from_dlpack

    graph.start(encoded, arrays)
    return from_dlpack(graph.take()).cpu().numpy().astype(np.int64)


def _seconds(
    graphs: Sequence[Graph], encoded: list[NDArray[np.uint8]], arrays: dict[str, NDArray[np.generic]]
) -> list[float]:
    """Return the shortest time of each pipeline for a run, in rounds of them all."""
    found: list[list[float]] = [[] for _ in graphs]
    for _ in range(_TIMED_ROUNDS):
        for graph, times in zip(graphs, found, strict=True):
            begin = time.perf_counter()
            graph.start(encoded, arrays)
            graph.take()
            times.append(time.perf_counter() - begin)
    return [min(times) for times in found]


def _crops(sizes: list[tuple[int, int]], random: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    side_N2 = np.array(sizes)
    extent_N2 = (side_N2 * random.uniform(0.2, 1.0, side_N2.shape)).astype(np.int64).clip(1)
    anchor_N2 = (random.uniform(0.0, 1.0, side_N2.shape) * (side_N2 - extent_N2 + 1)).astype(np.int64)
    return {
        "anchor": anchor_N2.astype(np.int32),
        "extent": extent_N2.astype(np.int32),
        "size": np.full(side_N2.shape, 64, np.float32),
        "roi_start": np.zeros(side_N2.shape, np.float32),
        "roi_end": extent_N2[:, ::-1].astype(np.float32),
    }


def _picture(number: int, random: np.random.Generator) -> tuple[bytes, tuple[int, int]]:
    size = int(random.integers(32, 1200)), int(random.integers(32, 1200))
    coarse = Image.fromarray(random.integers(0, 256, (7, 9, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    file = BytesIO()
    coarse.convert("L" if number % 8 == 7 else "RGB").save(
        file, "JPEG", quality=75 + number % 25, subsampling=number % 3, progressive=number % 5 == 4
    )
    return file.getvalue(), size


def main(device_id: int) -> int:
    """Make the trial, and return the exit code of its process."""
    import torch

    # A segmentation fault would leave gigabytes: a process that uses a GPU maps all of its memory.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    free, _ = torch.cuda.mem_get_info(device_id)
    if free < _MEMORY:
        raise DeviceMemoryError(f"cuda:{device_id} must have {_MEMORY / 2**30:.0f} GiB free, got {free / 2**30:.1f}")
    verdict = trial(device_id)
    return next(code for code, end in _ENDS.items() if end == verdict)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
