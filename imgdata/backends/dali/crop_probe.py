"""A GPU -> whether its decoder can be trusted with crops: tried in another process, once for each version and GPU.

nvImageCodec 0.9.0 ended the process on some GPUs, and failed on others, when only a part of a JPEG was decoded.
"""

import json
import os
import signal
import subprocess
import sys
import warnings
from importlib import import_module
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgdata.backends.dali.available import driver_cuda, load
from imgdata.backends.dali.faults import DecodeError
from imgdata.backends.dali.geometry import Shape
from imgdata.backends.dali.pipeline import Graph, GraphSpec
from imgdata.errors import OutputError
from imgdata.storage.atomic import output_error, write_atomic
from imgdata.storage.cache_folder import CacheWarning, cache_folder
from imgdata.storage.reading import read_json

_TIMEOUT_S = 120.0
_ROUNDS = 3
_PICTURES = 64
_SAFE, _UNSAFE = 0, 3
"""What the process of the trial ends with; a signal is as good as the latter, and all else says nothing."""
_MOST_APART = 3.0
"""Mean difference in steps of 255 between a crop and the same part of the whole picture."""


def crop_decode_is_safe(device_id: int, folder: Path | None = None) -> bool:
    """Return the verdict of a trial on this GPU; try again where the driver, DALI or the GPU has changed since.

    `folder` keeps the verdicts; by default the cache folder. Warns with `CacheWarning` where it can't. A trial that
    could not be made, for want of memory say, counts as a failure for now and is not kept.
    """
    path = (folder or cache_folder()) / "dali-crop.json"
    name = machine(device_id)
    verdict = _read(path).get(name)
    if verdict is not None:
        return verdict
    verdict = _try(device_id)
    if verdict is not None:
        _keep(path, name, verdict)
    return verdict is True


def machine(device_id: int) -> str:
    """Return the name of what a verdict is valid for: GPU, driver, DALI and codec."""
    import torch

    dali = load()
    codec = import_module("nvidia.dali.backend_impl").GetNvimgcodecVersion()
    return f"{torch.cuda.get_device_name(device_id)}, CUDA {driver_cuda()}, DALI {dali.__version__}, codec {codec}"


def _try(device_id: int) -> bool | None:
    """Return whether a trial in another process succeeded; None where it could not be made."""
    command = [sys.executable, "-m", __name__, str(device_id)]
    # Where this process finds the package, it finds it.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command, timeout=_TIMEOUT_S, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    if done.returncode < 0:
        # Killed from outside, as for want of memory, or by its own fault.
        return None if done.returncode == -signal.SIGKILL else False
    return {_SAFE: True, _UNSAFE: False}.get(done.returncode)


def _read(path: Path) -> dict[str, bool]:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        # Not there yet; or it can't be read, and then `_keep` will say so.
        return {}
    if not isinstance(content, dict):
        return {}
    return {name: verdict for name, verdict in content.items() if isinstance(verdict, bool)}


def _keep(path: Path, name: str, verdict: bool) -> None:
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


def trial(device_id: int | None) -> bool:
    """Return whether crops of many kinds of JPEG equal the same parts of whole pictures; `None` is the processor."""
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
                return False
            if apart > _MOST_APART:
                return False
    return True


def _windows(
    graph: Graph, encoded: list[NDArray[np.uint8]], arrays: dict[str, NDArray[np.generic]]
) -> NDArray[np.int64]:
    from torch.utils.dlpack import from_dlpack

    graph.start(encoded, arrays)
    return from_dlpack(graph.take()).cpu().numpy().astype(np.int64)


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


if __name__ == "__main__":
    sys.exit(_SAFE if trial(int(sys.argv[1])) else _UNSAFE)
