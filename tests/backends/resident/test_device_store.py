"""Kept pixels on a device: no batch waits for it, mixes devices, or takes more operations than it must.

On the device `meta` tensors have shapes and no values: what needs one there raises. That the values are those of the
processor's store is shown in `test_resident.py`.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from imgdata.backends import postprocess
from imgdata.backends.resident.device_store import DeviceStore
from imgdata.backends.resident.window import kept
from imgdata.recipes import CutMix, MixUp, RandomErasing, Recipe
from support.resident_batches import BATCH, GEOMETRY, MOVING, NORMALIZE, PIXELS, planner_of, setup_of

META = torch.device("meta")
RECIPES = {
    **GEOMETRY,
    **PIXELS,
    "MixUp of noise": Recipe(MOVING, NORMALIZE, RandomErasing(p=1.0, value="random"), MixUp()),
    "CutMix of colours": Recipe(MOVING, NORMALIZE, RandomErasing(p=1.0, value=(0.1, 0.2, 0.3)), CutMix()),
}
VIEWS = (
    "view",
    "permute",
    "unsqueeze",
    "expand",
    "slice",
    "select",
    "detach",
    "unbind",
    "alias",
    "as_strided",
    "lift_fresh",
)
"""Operators that a device hears nothing of."""


class Launches(TorchDispatchMode):
    """Keeps the names of what is done on the device: kernels, copies, memory."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not any(view in str(func) for view in VIEWS):
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def made(one_size, resident_cache, monkeypatch):
    """Return a function that makes and mixes a batch on `meta`, and says what the device had to do."""
    # No user can ask for this device.
    monkeypatch.setattr("imgdata.backends.options.choose_device", str)

    def make(recipe, *, skipped=0, **options):
        setup = setup_of(one_size, recipe, device="meta", **options)
        store, planner = DeviceStore(setup, kept(setup)), planner_of(setup)
        store.put(0, np.zeros((2, store._window.height, store._window.width, 3), np.uint8))
        work = replace(planner.work(planner.draft(0, 0)), skip_N=np.arange(setup.options.batch_size) < skipped)
        with Launches() as launches:
            images = postprocess.mix_images(store.make(work), work.mix)
        assert (images.device, len(images)) == (META, setup.options.batch_size)
        return launches.names

    return make


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_no_batch_asks_the_device_for_a_value_or_mixes_devices(made, recipe, dtype):
    for skipped in (0, 3):
        assert made(recipe, dtype=dtype, skipped=skipped)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("cifar", 8),  # Gathered, multiplied and added, a mask of rectangles filled; memory for it, places copied.
        ("black margins", 2),  # What is outside is a pixel that is kept, too: no mask.
        ("mirrored margins", 2),
        ("noise", 18),
        ("MixUp", 7),
        ("CutMix", 7),
    ],
)
def test_a_batch_is_few_operations_however_many_samples_it_has(made, name, most):
    dtype = "uint8" if name.endswith("margins") else "float16"
    for batch_size in (BATCH, 30):
        names = made(RECIPES[name], dtype=dtype, batch_size=batch_size)
        assert len(names) <= most, names
