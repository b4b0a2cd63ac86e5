"""A dataset -> how many JPEGs of it the decoder alone makes: DALI's own reader and decoder, whole pictures, no more."""

import os
import time
from importlib import import_module
from typing import Any

from benchmarks.gpu import pictures
from benchmarks.gpu.running import NotMeasuredError, Settings
from imgdata.backends.dali.available import load, refusal
from imgdata.dataset import open as open_dataset
from imgdata.devices import own_cores
from imgdata.measure.timing import cpu_s, process_tree, synchronize

_WARM_UP = 4
_SHUFFLE_BUFFER = 1024


def measure(settings: Settings) -> dict[str, Any]:
    """Return images/s and the other figures of `loaders`, measured in this process."""
    device = "cuda:0" if settings.on_gpu else "cpu"
    if (reason := refusal(device)) is not None:
        raise NotMeasuredError(reason)
    import torch

    free = torch.cuda.mem_get_info(0)[0] if settings.on_gpu else 0
    pipeline = _pipeline(settings)
    begun = time.perf_counter()
    pipeline.run()
    first_s = time.perf_counter() - begun
    for _ in range(_WARM_UP):
        pipeline.run()
    synchronize(device)
    pids, images = process_tree(), 0
    cpu_begun, begun = cpu_s(pids), time.perf_counter()
    while time.perf_counter() - begun < settings.sizes.seconds:
        (found,) = pipeline.run()
        images += len(found)
    synchronize(device)
    seconds = time.perf_counter() - begun
    return {
        "images_per_s": round(images / seconds, 1),
        "cpu_ms_per_image": round(1000 * (cpu_s(pids) - cpu_begun) / images, 4),
        "gpu_mb": round((free - torch.cuda.mem_get_info(0)[0]) / 1e6) if settings.on_gpu else None,
        "first_batch_s": round(first_s, 2),
        "version": load().__version__,
    }


def _pipeline(settings: Settings) -> Any:
    fn, types = import_module("nvidia.dali.fn"), import_module("nvidia.dali.types")
    tars = open_dataset(pictures.folder(settings, "jpegs"))["train"].shards
    pipeline = import_module("nvidia.dali.pipeline").Pipeline(
        batch_size=settings.sizes.batch,
        num_threads=len(own_cores()),
        device_id=0 if settings.on_gpu else None,
        seed=1,
    )
    options: dict[str, Any] = {"device": "mixed", "affine": False} if settings.on_gpu else {"device": "cpu"}
    with pipeline:
        encoded = fn.readers.webdataset(
            paths=list(map(os.fspath, tars)),
            index_paths=[os.fspath(tar.with_suffix(".idx")) for tar in tars],
            ext=["jpg"],
            random_shuffle=True,
            initial_fill=_SHUFFLE_BUFFER,
        )
        # As our loader asks for it: the same quality of the chroma, which costs something.
        images = fn.decoders.image(encoded, output_type=types.RGB, jpeg_fancy_upsampling=True, **options)
        pipeline.set_outputs(images)
    pipeline.build()
    return pipeline
