"""Whole batches in torch: a row is the same in any batch and order of memory, and nothing waits for the device."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.v2 import functional

from imgdata.augment.params import JITTERS
from imgdata.augment.policies import OPS
from imgdata.backends import postprocess, torch_ops
from imgdata.recipes import (
    ColorJitter,
    Cutout,
    Grayscale,
    HorizontalFlip,
    RandAugment,
    RandomErasing,
    Rotate,
    TrivialAugment,
    VerticalFlip,
)
from support.device_batches import ALL, FILL, HEIGHT, NORMALIZE, WIDTH, applied, batch, difference, one_thread, photos  # noqa: F401
from support.gpu import no_waits

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("ops", [ALL, (Rotate(degrees=90.0, interpolation="bilinear"), TrivialAugment())])
@given(data=st.data())
@settings(max_examples=10)
def test_a_row_is_the_same_in_any_batch(ops, data):
    images = photos().repeat(20, 1, 1, 1)
    recipe, drawn = batch(*ops, images=images)
    whole = _whole(ops)
    first = data.draw(st.integers(0, 79))
    rows = slice(first, data.draw(st.integers(first + 1, 80)))
    part = batch(*ops, images=images[rows], first=first)[1]
    np.testing.assert_array_equal(part.op_NP, drawn.op_NP[rows])
    assert torch.equal(applied(recipe, part, images[rows]), whole[rows])


@cache
def _whole(ops):
    images = photos().repeat(20, 1, 1, 1)
    return applied(*batch(*ops, images=images), images)


def test_threads_change_nothing():
    images = photos().repeat(20, 1, 1, 1)
    try:
        torch.set_num_threads(2)
        assert torch.equal(applied(*batch(*ALL, images=images), images), _whole(ALL))
    finally:
        torch.set_num_threads(1)


def layouts(images):
    """The same pixels in several orders of memory."""
    wide = torch.full((len(images), 3, HEIGHT + 5, WIDTH + 7), 9, dtype=images.dtype)
    wide[:, :, 2 : 2 + HEIGHT, 3 : 3 + WIDTH] = images
    return {
        "channels last": images.clone(memory_format=torch.channels_last),
        "window": wide[:, :, 2 : 2 + HEIGHT, 3 : 3 + WIDTH],
    }


@pytest.mark.parametrize("layout", ["channels last", "window"])
def test_any_order_of_memory_will_do_and_stays(layout):
    images = photos().repeat(20, 1, 1, 1)
    other = layouts(images)[layout]
    strides, (recipe, drawn) = other.stride(), batch(*ALL, images=images)
    assert torch_ops.apply(other, drawn, recipe) is other
    assert other.stride() == strides
    assert torch.equal(other, _whole(ALL))


class Calls(TorchDispatchMode):
    """Counts what is done with tensors."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_what_draws_nothing_costs_nothing():
    images = photos().clone()
    ops = Rotate(degrees=30.0, p=0.0), ColorJitter(hue=0.2, p=0.0), Grayscale(p=0.0), RandomErasing(p=0.0)
    recipe, drawn = batch(*ops, images=images)
    with Calls() as calls:
        assert torch_ops.apply(images, drawn, recipe) is images
        assert torch_ops.flip(images, drawn.flip_N, drawn.vflip_N) is images
        assert torch_ops.erase(images, drawn, recipe, 3, 0) is images
    assert calls.count == 0
    assert torch.equal(images, photos())


def test_rows_that_draw_nothing_stay_as_they_are():
    images = photos().repeat(10, 1, 1, 1)
    recipe, drawn = batch(Grayscale(p=0.3), images=images)
    changed = (applied(recipe, drawn, images) != images).flatten(1).any(1)
    assert changed.tolist() == drawn.gray_N.tolist()
    assert 0 < drawn.gray_N.sum() < 40


@pytest.mark.parametrize("size", [(32, 32), (224, 224)])
@pytest.mark.parametrize("erasing", [RandomErasing(p=0.5), RandomErasing(p=0.5, value="random"), Cutout(size=16)])
def test_no_value_is_asked_of_the_device(erasing, size):
    # On this device tensors have shapes, and no values: whatever needs one raises.
    images = torch.empty(40, 3, *size, dtype=torch.uint8, device="meta")
    flips = HorizontalFlip(), VerticalFlip()
    recipe, drawn = batch(*flips, *ALL, NORMALIZE, erasing, images=images)
    images = torch_ops.flip(images, drawn.flip_N, drawn.vflip_N)
    images = torch_ops.apply(images, drawn, recipe)
    images = torch_ops.normalise(images, *postprocess.scale_shift(recipe), torch.float16, channels_last=True)
    assert torch_ops.erase(images, drawn, recipe, 3, 0).shape == (40, 3, *size)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", [*OPS[1:], *JITTERS, "gray", "rotation", "flip"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_no_operator_asks_the_device_for_a_value_or_mixes_devices(name, interpolation, layout):
    images = torch.empty(6, 3, HEIGHT, WIDTH, dtype=torch.uint8, device="meta").to(memory_format=layout)
    ops = Rotate(degrees=30.0, interpolation=interpolation, fill=FILL), RandAugment(n=1, interpolation=interpolation)
    recipe, drawn = batch(*ops, ColorJitter(brightness=0.4), Grayscale(p=0.5), images=images)
    some_N = np.array([True, False, True, True, False, True])
    nothing = {"angle_N": np.zeros(6), "op_NP": np.zeros((6, 1), int), "strength_NP": np.full((6, 1), 0.5)}
    nothing |= {"jitter_N4": np.tile([1.0, 1.0, 1.0, 0.0], (6, 1)), "gray_N": np.zeros(6, bool)}
    if name in OPS:
        one = {"op_NP": np.where(some_N, OPS.index(name), 0)[:, None]}
    elif name in JITTERS:
        one = {"jitter_N4": np.where(np.arange(4) == JITTERS.index(name), 0.3, nothing["jitter_N4"])}
    else:
        one = {"gray": {"gray_N": some_N}, "rotation": {"angle_N": 20.0 * some_N}, "flip": {}}[name]
    with Calls() as calls:
        if name == "flip":
            torch_ops.flip(images, some_N, ~some_N)
        assert torch_ops.apply(images, replace(drawn, **nothing | one), recipe) is images
    assert calls.count > 0


@pytest.mark.gpu
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_gpu_gives_the_processors_pixels_without_being_waited_for(channels_last):
    images = photos().repeat(20, 1, 1, 1)
    recipe, drawn = batch(*ALL, images=images)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    there = images.to("cuda", memory_format=layout)
    torch_ops.apply(there.clone(), drawn, recipe)
    with no_waits("cuda"):
        torch_ops.apply(there, drawn, recipe)
    steps = difference(there.cpu(), _whole(ALL)).float()
    # A GPU adds products without rounding them first: few values fall on the other side of a whole number, and what
    # solarizes or equalizes makes many steps of that one.
    assert (steps > 0).float().mean() < 5e-3
    assert steps.mean() < 2e-2


# --- flips, and what comes last ------------------------------------------------------------------------


def test_flips_are_torchvisions():
    images = photos()
    flip_N, vflip_N = np.array([False, True, False, True]), np.array([False, False, True, True])
    expected = images.clone()
    for row in range(4):
        expected[row] = functional.horizontal_flip(expected[row]) if flip_N[row] else expected[row]
        expected[row] = functional.vertical_flip(expected[row]) if vflip_N[row] else expected[row]
    assert torch.equal(torch_ops.flip(images.clone(), flip_N, vflip_N), expected)
    for other in layouts(images).values():
        assert torch.equal(torch_ops.flip(other, flip_N, vflip_N), expected)


def finished_by_host(images, recipe, dtype):
    """What `postprocess.write` makes of the batch."""
    made = np.zeros(images.shape, dtype)
    for pixels, out in zip(images.permute(0, 2, 3, 1).numpy(), made, strict=True):
        postprocess.write(pixels, out, *postprocess.scale_shift(recipe))
    return torch.from_numpy(made)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("ops", [(NORMALIZE,), ()], ids=["normalised", "0 to 1"])
def test_normalised_values_are_those_of_the_host(ops, dtype, channels_last):
    images = photos().repeat(20, 1, 1, 1)
    recipe, _ = batch(*ops, images=images)
    expected = finished_by_host(images, recipe, dtype)
    for other in (images, *layouts(images).values()):
        made = torch_ops.normalise(other, *postprocess.scale_shift(recipe), getattr(torch, dtype), channels_last)
        assert torch.equal(made, expected)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        assert made.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 1)])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
def test_one_picture_or_none_of_any_size_goes_through_all(count, size, channels_last, dtype):
    images = photos(*size)[:count].clone()
    erasing = RandomErasing(p=1.0, scale=(1.0, 1.0), ratio=(size[0] / size[1],) * 2, value=0.5)
    recipe, drawn = batch(*ALL, NORMALIZE, erasing, images=images)
    images = torch_ops.flip(images, np.ones(count, bool), np.ones(count, bool))
    assert torch.equal(images, photos(*size)[:count].flip((2, 3)))
    images = torch_ops.apply(images, drawn, recipe)
    made = torch_ops.normalise(images, *postprocess.scale_shift(recipe), dtype, channels_last)
    assert (made.shape, made.dtype) == ((count, 3, *size), dtype)
    expected = finished_by_host(images, recipe, "uint8" if dtype == torch.uint8 else "float32").to(dtype)
    assert torch.equal(made, expected)
    for row, (left, top, width, height) in enumerate(drawn.erase_N4.tolist()):
        value = torch.from_numpy(postprocess.as_bytes(np.full((3, 1, 1), 0.5, np.float32), recipe))
        value = value if dtype == torch.uint8 else torch.tensor(0.5)
        expected[row, :, top : top + height, left : left + width] = value.to(dtype)
    assert torch.equal(torch_ops.erase(made, drawn, recipe, 3, 0), expected)


def test_bfloat16_is_rounded_once():
    scale_shift = postprocess.scale_shift(batch(NORMALIZE, images=photos())[0])
    made = [torch_ops.normalise(photos(), *scale_shift, dtype, False) for dtype in (torch.bfloat16, torch.float32)]
    assert torch.equal(made[0], made[1].bfloat16())


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("normalize", [(NORMALIZE,), ()], ids=["normalised", "0 to 1"])
@pytest.mark.parametrize(
    "erasing",
    [
        RandomErasing(p=0.7),
        RandomErasing(p=0.7, value=0.3),
        RandomErasing(p=0.7, value=(0.1, 0.5, 0.9)),
        RandomErasing(p=0.7, value="random"),
        Cutout(size=16, value=0.4),
    ],
    ids=["zero", "gray", "colour", "noise", "cutout"],
)
def test_erased_pixels_are_those_of_the_host(erasing, normalize, dtype, channels_last, at_once, monkeypatch):
    # One by one is the way of processors, at once that of GPUs.
    monkeypatch.setattr("imgdata.backends.torch_ops.postprocess._one_by_one", lambda device: not at_once)
    images = photos().repeat(3, 1, 1, 1)
    recipe, drawn = batch(*normalize, erasing, images=images)
    made = finished_by_host(images, recipe, dtype)
    expected = made.clone()
    for row, out in enumerate(expected.numpy()):
        postprocess.erase(out, drawn, row, recipe, seed=3, epoch=0)
    assert not torch.equal(made, expected)
    made = made.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    assert torch_ops.erase(made, drawn, recipe, 3, 0) is made
    assert torch.equal(made, expected)
