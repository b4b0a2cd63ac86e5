"""What the machine can do at most: copy memory, read files, and on a GPU copy to it and decode there."""

import numpy as np
import pytest

from benchmarks.loader_peers.task import SIDE

BYTES = 256_000_000
IMAGE = 3 * SIDE * SIDE
"""Bytes of a picture of 224x224 in uint8."""


@pytest.mark.benchmark(group="limits: memory")
@pytest.mark.parametrize("name", ["copy", "fill"])
def test_memory(stage, name):
    source_B, target_B = np.ones(BYTES, np.uint8), np.ones(BYTES, np.uint8)
    work = {"copy": lambda: np.copyto(target_B, source_B), "fill": lambda: target_B.fill(3)}[name]
    # As pictures of 224x224, which is what a loader hands out.
    stage(f"memory, {name}, one thread", work, images=BYTES // IMAGE, num_bytes=BYTES)


@pytest.mark.benchmark(group="limits: files")
def test_read_shards(stage, data, num_images):
    tars = sorted((data / "shards").glob("*.tar"))
    num_bytes = sum(tar.stat().st_size for tar in tars)
    stage(
        "read shards, page cache warm",
        lambda: [len(t.read_bytes()) for t in tars],
        images=num_images,
        num_bytes=num_bytes,
    )


@pytest.mark.gpu
@pytest.mark.benchmark(group="limits: GPU")
def test_copy_to_gpu(stage):
    import torch

    source = torch.ones(BYTES, dtype=torch.uint8).pin_memory()
    target = torch.empty_like(source, device="cuda")
    work = lambda: target.copy_(source, non_blocking=True)  # noqa: E731
    stage("copy to the GPU, pinned memory", work, images=BYTES // IMAGE, num_bytes=BYTES, device="cuda")


@pytest.mark.gpu
@pytest.mark.benchmark(group="limits: GPU")
def test_decode_on_gpu(stage, pictures):
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    encoded = [torch.frombuffer(bytearray(picture), dtype=torch.uint8) for picture in pictures]
    stage(
        "decode only, nvJPEG of torchvision",
        lambda: decode_jpeg(encoded, mode=ImageReadMode.RGB, device="cuda"),
        images=len(pictures),
        num_bytes=sum(map(len, pictures)),
        device="cuda",
    )
