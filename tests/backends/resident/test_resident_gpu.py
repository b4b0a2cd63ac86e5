"""Batches out of memory of a GPU: the host never waits for the GPU to make them."""

import pytest
import torch

from imgdata.backends.resident.backend import ResidentBackend
from support.gpu import no_waits, on_devices
from support.resident_batches import BATCH, PIXELS, images_of, planner_of, setup_of, with_options

pytestmark = pytest.mark.usefixtures("resident_cache")


@on_devices
@pytest.mark.parametrize("dtype", ["uint8", "float16"])
@pytest.mark.parametrize("name", PIXELS)
def test_the_host_never_waits_for_a_batch(one_size, name, dtype, device):
    setup = with_options(setup_of(one_size, PIXELS[name], dtype=dtype), device=device)
    planner, found = planner_of(setup), []
    backend = ResidentBackend(setup)
    try:

        def make(epoch):
            pending = [backend.start(planner.work(planner.draft(epoch, number * BATCH))) for number in range(3)]
            for one in pending:
                assert one.wait() == {}
            return [one.images() for one in pending]

        # The pictures come to the device, and so do kernels and memory.
        expected = make(0)
        with no_waits(device):
            found = make(0)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    finally:
        backend.close()


@on_devices
def test_two_backends_at_once_give_what_each_gives_alone(one_size, device):
    setups = [
        with_options(setup_of(one_size, PIXELS[name], dtype="float16"), device=device) for name in ("cifar", "MixUp")
    ]
    alone = [images_of(ResidentBackend, setup) for setup in setups]
    backends = [ResidentBackend(setup) for setup in setups]
    pending = []
    for number in range(3):
        for backend, setup in zip(backends, setups, strict=True):
            planner = planner_of(setup)
            pending.append(backend.start(planner.work(planner.draft(0, number * BATCH))))
    for one in pending:
        one.wait()
    found = [one.images().cpu() for one in pending]
    for backend in backends:
        backend.close()
    assert torch.equal(torch.stack(found[::2]), alone[0])
    assert torch.equal(torch.stack(found[1::2]), alone[1])
