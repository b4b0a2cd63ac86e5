"""Loaders that decode JPEGs in batches on the job's device, opened for a job: torchvision and TorchCodec.

    positions -> threads: encoded images -> a batch decoded at once -> v2 operators on the device -> batches

On an NVIDIA GPU both decode by nvJPEG. What the decoder refuses, such as JPEGs of CMYK, is decoded on the host.
"""

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import torch
import torchvision as tv
from numpy.typing import NDArray
from PIL import Image

from imgdata.errors import ImgdataError
from imgdata.loose.opened import open as open_dataset
from imgdata.measure import torch_codec
from imgdata.measure.bench.job import Job
from imgdata.measure.bench.opened import Opened
from imgdata.measure.bench.peers import MOST_AT_ONCE
from imgdata.measure.bench.transforms import applied, decode_on_host, encoded_tensor, erasing, finishing, operators

_JPEG = b"\xff\xd8"
"""The first bytes of every JPEG."""
_ENOUGH = 32
"""JPEGs from which on it counts how many of them the decoder refused."""
Decode = Callable[[list[torch.Tensor]], list[torch.Tensor]]
"""Encoded JPEGs, uint8 `(bytes,)` on the host -> uint8 `(3, H, W)` each, on the device."""


def torchvision(job: Job) -> Opened:
    """Open a loader that decodes by torchvision's `decode_jpeg`. Raises `ImgdataError` where it can't."""

    def decode(encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        images: list[torch.Tensor] = tv.io.decode_jpeg(encoded, tv.io.ImageReadMode.RGB, device=job.options.device)
        return images

    return _opened(job, decode, tv.__version__)


def torchcodec(job: Job) -> Opened:
    """Open a loader that decodes by TorchCodec's `decode_jpeg`. Raises `ImgdataError` where it can't."""
    decoders, version = torch_codec.load()

    def decode(encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        images: list[torch.Tensor] = decoders.decode_jpeg(encoded, mode="RGB", device=job.options.device)
        return images

    return _opened(job, decode, version)


def _opened(job: Job, decode: Decode, version: str) -> Opened:
    _try(decode, job)
    makers = job.options.threads
    if job.options.device == "cpu":
        # Each thread has a batch of its own; operators with threads of theirs would only take turns.
        torch.set_num_threads(1)
    else:
        makers = min(makers, MOST_AT_ONCE)
    return Opened(_batches(_Maker(job, decode), _positions(job), makers), version, group=makers)


def _try(decode: Decode, job: Job) -> None:
    """Decode a small JPEG: what the library can't do on this device must not be done by the host in its place."""
    file = BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    try:
        decode([encoded_tensor(file.getvalue())])
    except (RuntimeError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise ImgdataError(f"{job.loader} can't decode JPEGs on {job.options.device}: {reason}") from error


def _positions(job: Job) -> Iterator[NDArray[np.int64]]:
    """Yield the positions of each batch of the rank, epoch after epoch, in random order."""
    samples, batch_size = len(open_dataset(job.dataset)[job.split]), job.options.batch_size
    for epoch in itertools.count():
        order_N = np.random.Generator(np.random.Philox(key=[1, epoch])).permutation(samples)
        own_N = order_N[job.rank :: job.world_size]
        for start in range(0, len(own_N) - batch_size + 1, batch_size):
            yield own_N[start : start + batch_size]


class _Maker:
    """Positions -> a batch, in any of several threads; on a GPU each thread has a stream of its own."""

    def __init__(self, job: Job, decode: Decode) -> None:
        self._split = open_dataset(job.dataset)[job.split]
        self._decode, self._device = decode, torch.device(job.options.device)
        recipe, dtype = job.options.recipe, job.options.dtype
        self._operators, self._finishing = operators(recipe), finishing(recipe, dtype)
        self._erasing = erasing(recipe)
        self._own = threading.local()
        self._jpegs = self._refused = 0

    def __call__(self, position_N: NDArray[np.int64]) -> tuple[torch.Tensor, torch.cuda.Event | None]:
        """Return a batch `(N, 3, H, W)`, and an event on a GPU: what uses the batch there must wait for the event."""
        encoded = [self._split.read(position) for position in position_N.tolist()]
        if self._device.type == "cpu":
            return self._made(encoded), None
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream: torch.cuda.Stream = self._own.stream
        # nvJPEG's engines may write before the stream's earlier work has read that memory: torchvision waits for none.
        stream.synchronize()
        with torch.cuda.stream(stream):
            return self._made(encoded), stream.record_event()

    def _made(self, encoded: list[bytes]) -> torch.Tensor:
        images = [applied(self._operators, image) for image in self._decoded(encoded)]
        # One call for all of them, instead of one each.
        batch_NCHW = applied(self._finishing, torch.stack(images))
        if not self._erasing:
            return batch_NCHW
        return torch.stack([applied(self._erasing, image) for image in batch_NCHW])

    def _decoded(self, encoded: list[bytes]) -> list[torch.Tensor]:
        jpegs = {at: encoded_tensor(data) for at, data in enumerate(encoded) if data.startswith(_JPEG)}
        self._jpegs += len(jpegs)
        try:
            images = dict(zip(jpegs, self._decode(list(jpegs.values())), strict=True)) if jpegs else {}
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # One picture that the decoder refuses fails all.
            images = self._one_by_one(jpegs)
            self._refused += len(jpegs) - len(images)
            if self._jpegs >= _ENOUGH and self._refused > self._jpegs // 2:
                raise ImgdataError(f"most JPEGs can't be decoded on {self._device}: {error}") from error
        return [
            images[at] if at in images else decode_on_host(data).to(self._device) for at, data in enumerate(encoded)
        ]

    def _one_by_one(self, jpegs: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
        """Return those that can be decoded."""
        images = {}
        for at, jpeg in jpegs.items():
            try:
                images[at] = self._decode([jpeg])[0]
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:
                continue
        return images


def _batches(make: _Maker, positions: Iterator[NDArray[np.int64]], makers: int) -> Iterator[torch.Tensor]:
    """Yield batches in order; twice as many as there are threads are made ahead, as by `DataLoader`."""
    pool = ThreadPoolExecutor(makers)
    try:
        pending = deque(pool.submit(make, next(positions)) for _ in range(2 * makers))
        while True:
            images, made = pending.popleft().result()
            pending.append(pool.submit(make, next(positions)))
            if made is not None:
                current = torch.cuda.current_stream(images.device)
                current.wait_event(made)
                images.record_stream(current)
            yield images
    finally:
        pool.shutdown(cancel_futures=True)
