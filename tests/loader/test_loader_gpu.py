"""Batches on a GPU are those of the processor, whatever else uses the GPU."""

from itertools import zip_longest

import numpy as np
import pytest
import torch

from imgdata.recipes import MixUp, Normalize, RandomErasing
from support.gpu import SLACK, assert_shows, busy_side_stream, on_devices, used_bytes
from support.loaders import loader

NORMALIZE = Normalize(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
OPTIONS = {
    "0 to 1": {},
    "normalised": {"more": [NORMALIZE]},
    "float16, channels last": {"more": [NORMALIZE], "dtype": "float16", "channels_last": True},
    "bytes": {"more": [NORMALIZE], "dtype": "uint8"},
    "erased, mixed": {"more": [NORMALIZE, RandomErasing(), MixUp()]},
}


def on(device, images, **options):
    return loader(images, device=device, **options)


def step_of(name):
    """What a step of 255 is in the values of these options: that of the smallest deviation."""
    return {"0 to 1": 1 / 255, "bytes": 1.0}.get(name, 1 / 255 / 0.2)


def assert_nearly(backend, found, expected, device, step=1.0):
    """Equal but for rounding, where the host decodes; by DALI as near as two decoders are."""
    if backend == "dali":
        assert_shows(found, expected, device, step)
    else:
        rtol, atol = (0, 1) if found.dtype == np.uint8 else (2e-3, 2e-3)
        np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), rtol, atol)


@on_devices
@pytest.mark.parametrize("name", OPTIONS)
def test_the_pixels_are_those_of_the_processor(images, backend, name, device):
    with on("cpu", images, **OPTIONS[name]) as here, on(device, images, **OPTIONS[name]) as there:
        for _ in range(2):
            for one, other in zip(here, there, strict=True):
                assert other.images.device.type == other.labels.device.type == device
                assert other.positions.device.type == "cpu"
                assert other.images.stride() == one.images.stride()
                assert torch.equal(other.labels.cpu(), one.labels)
                assert_nearly(backend, other.images.cpu().numpy(), one.images.numpy(), device, step_of(name))


def copies(batches):
    return [batch.images.cpu().numpy().copy() for batch in batches]


@on_devices
def test_a_busy_gpu_never_sees_memory_that_is_filled_anew(images, backend, device):
    with on(device, images, dtype="uint8") as idle, on(device, images, dtype="uint8") as there:
        expected = [image for _ in range(5) for image in copies(idle)]
        held = []
        with busy_side_stream(device) as work:
            for _ in range(5):
                for batch in there:
                    # The copies wait behind this, while the loader goes on.
                    work()
                    held.append(batch.images.clone())
        for one, other in zip(expected, held, strict=True):
            assert_nearly(backend, other.cpu().numpy(), one, device)


@on_devices
def test_two_loaders_at_once_give_what_each_gives_alone(images, backend, device):
    options = ({"seed": 1, "dtype": "uint8"}, {"seed": 2, "dtype": "uint8", "batch_size": 16, "drop_last": False})
    alone = []
    for given in options:
        with on(device, images, **given) as batches:
            alone.append([image for _ in range(2) for image in copies(batches)])
    together = [[], []]
    with on(device, images, **options[0]) as one, on(device, images, **options[1]) as other:
        for _ in range(2):
            for batches in zip_longest(one, other):
                for found, batch in zip(together, batches, strict=True):
                    found += copies([batch] if batch else [])
    for found, expected in zip(together, alone, strict=True):
        for one_image, other_image in zip(found, expected, strict=True):
            assert_nearly(backend, one_image, other_image, device)


@on_devices
def test_memory_does_not_grow_over_ten_epochs(images, backend, device):
    used = []
    with on(device, images) as batches:
        for epoch in range(10):
            for batch in batches:
                del batch
            if epoch in (4, 9):
                used.append(used_bytes(device))
    assert used[1] <= used[0] + SLACK
