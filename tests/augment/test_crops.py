"""The same draws, through torchvision's own code, give the same boxes; so do its sizes and places."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from imgdata.augment import philox
from imgdata.augment.mix import cut_box
from imgdata.recipes import CenterCrop, FixedCrop, RandomErasing, RandomResizedCrop, Recipe, Resize, ten_crop
from support.draws import EPOCH, SEED, made

SIDE = st.integers(1, 3000)


class FedTorch:
    """`torch`, as torchvision's modules see it, with random numbers that were drawn before."""

    def __init__(self, evens=(), integers=()):
        self.evens, self.integers = iter(evens), iter(integers)

    def __getattr__(self, name):
        return getattr(torch, name)

    def empty(self, *_):
        return SimpleNamespace(uniform_=self._uniform)

    def _uniform(self, low, high):
        low, high = torch.as_tensor(low, dtype=torch.float64), torch.as_tensor(high, dtype=torch.float64)
        return low + (high - low) * next(self.evens)

    def randint(self, *limits, size):
        low, high = limits if len(limits) == 2 else (0, *limits)
        return torch.tensor([low + int((high - low) * next(self.integers))])


def tries_and_place(stream, position):
    """(area, ratio of all ten tries, top and left): the numbers that `params` uses for `made`."""
    draw_D = philox.uniform(SEED, EPOCH, np.array([position]), stream, 22)[0]
    return np.delete(draw_D, [2, 3]), draw_D[2:4]


SIZES = [(500, 375), (375, 500), (64, 64), (32, 31), (1000, 30), (30, 1000), (7, 2), (1, 1), (1, 60), (4000, 3000)]


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize(
    ("scale", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.9, 1.0), (0.5, 0.6)), ((0, 1), (1.5, 9))]
)
def test_crops_are_those_of_torchvisions_code_with_the_same_draws(width, height, scale, ratio, monkeypatch):
    boxes = made(Recipe(RandomResizedCrop(size=9, scale=scale, ratio=ratio)), width, height, count=60).box_N4
    crop = v2.RandomResizedCrop(9, scale=scale, ratio=ratio)
    crop._log_ratio = torch.log(torch.tensor(ratio, dtype=torch.float64))
    image = torch.zeros(3, height, width, device="meta")
    for position, box in enumerate(boxes.tolist()):
        monkeypatch.setattr("torchvision.transforms.v2._geometry.torch", FedTorch(*tries_and_place(0, position)))
        theirs = crop.make_params([image])
        assert box == [theirs[side] for side in ("left", "top", "width", "height")]


@pytest.mark.parametrize(("width", "height"), [(224, 224), (32, 48), (3, 2), (300, 8)])
@pytest.mark.parametrize("scale", [(0.02, 0.33), (0.5, 1.0), (0, 0.01)])
def test_erased_boxes_are_those_of_torchvisions_code_with_the_same_draws(width, height, scale, monkeypatch):
    recipe = Recipe(RandomResizedCrop(size=(height, width)), RandomErasing(p=1, scale=scale))
    erase = v2.RandomErasing(p=1, scale=scale)
    erase._log_ratio = torch.log(torch.tensor((0.3, 3.3), dtype=torch.float64))
    image = torch.zeros(3, height, width)
    for position, box in enumerate(made(recipe, count=60).erase_N4.tolist()):
        monkeypatch.setattr("torchvision.transforms.v2._augment.torch", FedTorch(*tries_and_place(5, position)))
        theirs = erase.make_params([image])
        expected = [0, 0, 0, 0] if theirs["v"] is None else [theirs[side] for side in "jiwh"]
        assert box == expected


@given(lam=st.floats(0, 1), height=SIDE, width=SIDE, x=st.floats(0, 1, exclude_max=True))
def test_cutmix_boxes_are_those_of_torchvisions_code_with_the_same_draws(lam, height, width, x):
    cutmix = v2.CutMix(num_classes=2)
    cutmix._dist = SimpleNamespace(sample=lambda _: lam)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchvision.transforms.v2._augment.torch", FedTorch(integers=[x, 1 - 2**-53]))
        theirs = cutmix.make_params([torch.zeros(1, 3, height, width, device="meta")])
    left, top, box_width, box_height = cut_box(lam, height, width, np.array([x, 1 - 2**-53]))
    assert (left, top, left + box_width, top + box_height) == theirs["box"]


@given(width=SIDE, height=SIDE, shorter=st.integers(1, 600), share=st.floats(0.01, 1))
@settings(deadline=None)
def test_resize_and_center_crop_have_torchvisions_sizes_and_places(width, height, shorter, share):
    crop = max(int(shorter * share), 1)
    batch = made(Recipe(Resize(size=shorter), CenterCrop(size=crop)), width, height, count=1)
    resized = v2.functional.resize(torch.zeros(1, height, width, device="meta"), [shorter])
    assert batch.resized_N2.tolist() == [[*resized.shape[:0:-1]]]
    assert batch.box_N4.tolist() == [[0, 0, width, height]]
    assert batch.offset_N2.tolist() == [window(resized.shape[2], resized.shape[1], crop)]


@given(width=st.integers(1, 60), height=st.integers(1, 60), crop=st.integers(1, 60))
@settings(deadline=None)
def test_a_center_crop_alone_has_torchvisions_place_and_margins(width, height, crop):
    batch = made(Recipe(CenterCrop(size=crop)), width, height, count=1)
    assert batch.resized_N2.tolist() == [[width, height]]
    assert batch.offset_N2.tolist() == [window(width, height, crop)]


@pytest.mark.parametrize("crop", [7, (5, 8)])
@pytest.mark.parametrize(("width", "height"), [(8, 8), (9, 8), (8, 13), (20, 11), (21, 12), (30, 31)])
def test_ten_crops_are_torchvisions_pixel_for_pixel(width, height, crop):
    pixels_HW = np.arange(width * height).reshape(height, width)
    theirs = v2.functional.ten_crop(torch.from_numpy(pixels_HW)[None], crop)
    for recipe, expected in zip(ten_crop(Recipe(CenterCrop(crop))).recipes, theirs, strict=True):
        batch = made(recipe, width, height, count=1)
        left, top = batch.offset_N2[0].tolist()
        cut = pixels_HW[top : top + batch.height, left : left + batch.width]
        assert np.array_equal(cut[:, ::-1] if batch.flip_N[0] else cut, expected[0])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("place", ["top-left", "bottom-right", "middle"])
def test_a_crop_larger_than_the_picture_has_it_in_the_middle(place, mirrored):
    batch = made(Recipe(FixedCrop(10, place=place, mirrored=mirrored)), 5, 30, count=1)
    left, top = batch.offset_N2[0].tolist()
    assert top == {"top-left": 0, "middle": 10, "bottom-right": 20}[place]
    assert left == (-3 if mirrored else -2)


def window(width, height, crop):
    """(left, top) of torchvision's center crop, read from a picture of coordinates."""
    left = v2.functional.center_crop(torch.arange(1, width + 1).repeat(1, height, 1), [height, crop])[0, 0]
    top = v2.functional.center_crop(torch.arange(1, height + 1).repeat(1, width, 1), [width, crop])[0, 0]
    return [int(line.max()) - 1 - int(line.argmax()) for line in (left, top)]


@pytest.mark.parametrize(("width", "height"), [(333, 500), (640, 401), (100, 130)])
def test_the_stated_formula_makes_torchvisions_pixels_from_the_window_alone(width, height):
    pixels = np.random.Generator(np.random.Philox(1)).integers(0, 256, (height, width, 3)).astype(np.uint8)
    picture = Image.fromarray(pixels)
    expected = v2.Compose([v2.Resize(96), v2.CenterCrop(80)])(picture)
    batch = made(Recipe(Resize(size=96), CenterCrop(size=80)), width, height, count=1)
    step_2 = batch.box_N4[0, 2:] / batch.resized_N2[0]
    begin_2, end_2 = batch.offset_N2[0] * step_2, (batch.offset_N2[0] + 80) * step_2
    ours = picture.resize((80, 80), Image.Resampling.BILINEAR, box=(*begin_2, *end_2))
    # Fixed-point filters of Pillow, at places that differ by a rounding.
    assert np.abs(np.asarray(ours, int) - np.asarray(expected, int)).max() <= 1
