"""The simplest fast loop: simplejpeg and Pillow(-SIMD) in bare threads, one batch ahead."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from benchmarks.loader_peers.pillow import Augment
from benchmarks.loader_peers.task import SIDE, Batches, Task


def full_decode(task: Task) -> Batches:
    """Decode whole images with simplejpeg, and do nothing else."""
    return _batches(task, lambda data, rng: simplejpeg.decode_jpeg(data), None)


def open_loader(task: Task) -> Batches:
    augment = Augment(task)
    shape = (3, SIDE, SIDE) if task.is_float else (SIDE, SIDE, 3)
    return _batches(task, lambda data, rng: augment.cut(Image.fromarray(simplejpeg.decode_jpeg(data)), rng), shape)


def _batches(task: Task, decode: Any, shape: tuple[int, ...] | None) -> Batches:
    rng = np.random.Generator(np.random.Philox(key=[1, 0]))
    files = sorted((task.data / "folders").rglob("*.jpg"))
    classes = sorted({path.parent.name for path in files})
    order = rng.permutation(len(files))
    label_N = np.array([classes.index(path.parent.name) for path in files])

    def fill(out_N: Any, n: int, at: int) -> None:
        # A generator of its own for each image: they are not safe in several threads.
        image = decode(files[at].read_bytes(), np.random.Generator(np.random.Philox(key=[2, at])))
        if out_N is not None:
            out_N[n] = image

    def start(rows: Any) -> tuple[Any, Any, list[Future[None]]]:
        out_N = None if shape is None else np.empty((len(rows), *shape), np.dtype(task.dtype))
        return out_N, label_N[rows], [pool.submit(fill, out_N, n, int(at)) for n, at in enumerate(rows)]

    with ThreadPoolExecutor(task.threads) as pool:
        cuts = [order[i : i + task.batch] for i in range(0, len(order) - task.batch + 1, task.batch)]
        ahead = start(cuts[0])
        for rows in [*cuts[1:], None]:
            images_N, labels, futures = ahead
            if rows is not None:
                ahead = start(rows)
            for future in futures:
                future.result()
            yield images_N, labels
