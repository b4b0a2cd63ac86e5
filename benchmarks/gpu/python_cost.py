"""The DALI backend -> microseconds of Python an image: the work of its threads that holds Python's lock."""

import threading
import time
from importlib import import_module
from itertools import islice
from typing import Any

from benchmarks.gpu import pictures
from benchmarks.gpu.running import NotMeasuredError, Settings
from imgdata.backends.dali.available import refusal

_BATCHES = 64


def measure(settings: Settings) -> dict[str, Any]:
    """Return it; time inside DALI's own `outputs`, which waits for the GPU on a busy core, is left out."""
    device = "cuda:0" if settings.on_gpu else "cpu"
    if (reason := refusal(device)) is not None:
        raise NotMeasuredError(reason)
    import imgdata

    sizes, waited = settings.sizes, _Waited()
    with (
        waited,
        imgdata.Loader(
            pictures.folder(settings, "jpegs"),
            split="train",
            batch_size=sizes.batch,
            recipe=imgdata.recipes.imagenet_train(sizes.side),
            dtype="float16",
            device=device,
            backend="dali",
        ) as loader,
    ):
        batches = iter(loader)
        for _ in islice(batches, 2):
            pass
        begun, images = _python_s() - waited.seconds, 0
        for batch in islice(batches, _BATCHES):
            images += len(batch.positions)
        took = _python_s() - waited.seconds - begun
    return {"python_us_per_image": round(1e6 * took / images, 2), "images": images}


class _Waited:
    """Processor time that threads spend in `Pipeline.outputs`, while the block lasts."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock = threading.Lock()

    def __enter__(self) -> "_Waited":
        self._class = import_module("nvidia.dali.pipeline").Pipeline
        self._outputs = outputs = self._class.outputs

        def timed(*arguments: Any, **options: Any) -> Any:
            begun = time.thread_time()
            try:
                return outputs(*arguments, **options)
            finally:
                took = time.thread_time() - begun
                with self._lock:
                    self.seconds += took

        self._class.outputs = timed
        return self

    def __exit__(self, *_: object) -> None:
        self._class.outputs = self._outputs


def _python_s() -> float:
    clocks = (time.pthread_getcpuclockid(thread.ident) for thread in threading.enumerate() if thread.ident)
    return sum(map(time.clock_gettime, clocks))
