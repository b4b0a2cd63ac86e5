"""Batches on a GPU are those of the processor."""

import pytest
import torch

from imgdata.recipes import MixUp, Normalize, RandomErasing
from support.loaders import loader, take

NORMALIZE = Normalize(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))

pytestmark = pytest.mark.gpu


def on(device, images, **options):
    return loader(images, device=device, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"more": [NORMALIZE]},
        {"more": [NORMALIZE], "dtype": "float16", "channels_last": True},
        {"more": [NORMALIZE], "dtype": "uint8"},
        {"more": [NORMALIZE, RandomErasing(), MixUp()]},
    ],
)
def test_the_pixels_are_those_of_the_processor(images, backend, options):
    with on("cpu", images, **options) as here, on("cuda", images, **options) as there:
        for _ in range(2):
            for one, other in zip(here, there, strict=True):
                assert other.images.device.type == other.labels.device.type == "cuda"
                assert other.positions.device.type == "cpu"
                assert other.images.stride() == one.images.stride()
                assert torch.equal(other.labels.cpu(), one.labels)
                torch.testing.assert_close(other.images.cpu(), one.images, atol=2e-3, rtol=2e-3)


def test_a_busy_gpu_never_sees_memory_that_is_filled_anew(images, backend):
    with on("cpu", images) as here, on("cuda:0", images) as there:
        expected = [batch.images for batch in (image for _ in range(5) for image in take(here))]
        held = []
        work = torch.ones(4096, 4096, device="cuda")
        for _ in range(5):
            for batch in there:
                # The copies wait behind this, while the loader goes on.
                work = work @ work / 4096
                held.append(batch.images.clone())
        for one, other in zip(expected, held, strict=True):
            assert (one == other.cpu().numpy()).all()
