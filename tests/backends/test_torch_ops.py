"""Operators in torch: each picture of a batch is torchvision's on tensors, and close to Pillow's."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imgdata.augment.params import JITTERS
from imgdata.augment.policies import OPS, strengths
from imgdata.backends.pillow import operators
from imgdata.measure.parity import reference
from imgdata.recipes import AutoAugment, ColorJitter, Grayscale, RandAugment, Rotate, TrivialAugment
from support.device_batches import ALL, FILL, HEIGHT, WIDTH, applied, batch, difference, one_thread, photos  # noqa: F401

pytestmark = pytest.mark.usefixtures("one_thread")

MOVES = OPS[1:6]
TONES = [name for name in OPS[6:] if name != "Solarize"]
EXACT = {"TranslateX", "TranslateY", "Brightness", "Posterize", "AutoContrast", "Equalize", "Invert"}
NEUTRAL = (1.0, 1.0, 1.0, 0.0)
BORDER = 1e-3
"""So near, in pixels, to the border between two source pixels float32 may take either."""


def by_torchvision(recipe, drawn, images):
    return torch.stack([reference.window(image, drawn, row, recipe) for row, image in enumerate(images)])


def by_pillow(recipe, drawn, images):
    pixels = [np.ascontiguousarray(image.permute(1, 2, 0)) for image in images]
    rows = [operators.apply(pixels_HWC, drawn, row, recipe) for row, pixels_HWC in enumerate(pixels)]
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)


def one_operation(name, strength_S, images, interpolation="nearest"):
    """Each image with each strength of an operation: recipe, parameters, images."""
    images = images.repeat_interleave(len(strength_S), 0)
    recipe, drawn = batch(RandAugment(n=1, interpolation=interpolation, fill=FILL), images=images)
    strength_N = np.tile(strength_S, len(images) // len(strength_S))
    op_N = np.full(len(images), OPS.index(name))
    return recipe, replace(drawn, op_NP=op_N[:, None], strength_NP=strength_N[:, None]), images


def every_strength(name):
    """Of both spaces, with both signs, where the operation has any."""
    op = OPS.index(name)
    signs = (1, -1) if 0 < op < OPS.index("Posterize") else (1,)
    tables = [strengths(31, HEIGHT, WIDTH, wide=wide)[op] for wide in (False, True)]
    return sorted({sign * value for sign in signs for table in tables for value in table.tolist()})


def at_a_border(name, strength_N, height, width):
    """Whether a pixel comes from about the border between two, bool `(N, 1, H, W)`; by the operations' definitions."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    strength = np.asarray(strength_N)[:, None, None, None]
    if name == "Rotate":
        turn, from_x, from_y = np.radians(strength), x - width / 2, y - height / 2
        place_x = np.cos(turn) * from_x - np.sin(turn) * from_y + width / 2
        place_y = np.sin(turn) * from_x + np.cos(turn) * from_y + height / 2
    else:
        place_x = x + strength * y if name == "ShearX" else x - np.trunc(strength) * (name == "TranslateX")
        place_y = y + strength * x if name == "ShearY" else y - np.trunc(strength) * (name == "TranslateY")
    near = [np.abs(place - np.rint(place)) < BORDER for place in np.broadcast_arrays(place_x, place_y)]
    return torch.from_numpy(near[0] | near[1])


def assert_moved_alike(ours, theirs, name, strength_N):
    """Equal but at borders, where either of two neighbours may come."""
    border = at_a_border(name, strength_N, *ours.shape[2:])
    assert border.float().mean() < 0.1
    assert torch.equal(torch.where(border, 0, ours), torch.where(border, 0, theirs))


# --- each operator -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TONES)
def test_a_tone_is_torchvisions_within_a_step(name):
    case = one_operation(name, every_strength(name), photos())
    steps = difference(applied(*case), by_torchvision(*case))
    assert steps.max() <= (name not in EXACT)
    assert (steps > 0).float().mean() < 0.01


def test_solarize_is_pillows_and_torchvisions_where_float32_holds_the_threshold():
    strength_S = every_strength("Solarize")
    case = one_operation("Solarize", strength_S, photos())
    assert torch.equal(applied(*case), by_pillow(*case))
    threshold_S = 255.0 * np.array(strength_S)
    # 51.0000008, for one: torchvision inverts 51 as well.
    rounded_S = threshold_S.astype(np.float32)
    moved_S = (rounded_S < threshold_S) & (rounded_S == np.rint(rounded_S))
    assert 0 < moved_S.sum() < 10
    at_threshold = torch.from_numpy(np.tile(np.where(moved_S, rounded_S, -1), 4))[:, None, None, None] == case[2]
    differs = applied(*case) != by_torchvision(*case)
    assert differs.any()
    assert torch.equal(differs, at_threshold)


@pytest.mark.parametrize("name", MOVES)
def test_a_move_to_the_nearest_pixel_is_torchvisions(name):
    strength_S = every_strength(name)
    case = one_operation(name, strength_S, photos())
    assert_moved_alike(applied(*case), by_torchvision(*case), name, np.tile(strength_S, 4))
    if name in EXACT:
        assert torch.equal(applied(*case), by_torchvision(*case))


@pytest.mark.parametrize("name", MOVES)
def test_a_move_between_pixels_is_torchvisions_within_a_step(name):
    case = one_operation(name, every_strength(name)[::3], photos(), "bilinear")
    assert difference(applied(*case), by_torchvision(*case)).max() <= (name not in EXACT)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_a_rotation_is_torchvisions(interpolation):
    angle_S = [*np.linspace(-179.3, 181.1, 23), 45.0, 30.0, 1e-9]
    images = photos().repeat_interleave(len(angle_S), 0)
    angle_N = np.tile(angle_S, 4)
    recipe, drawn = batch(Rotate(degrees=180.0, interpolation=interpolation, fill=FILL), images=images)
    case = recipe, replace(drawn, angle_N=angle_N), images
    if interpolation == "nearest":
        assert_moved_alike(applied(*case), by_torchvision(*case), "Rotate", angle_N)
    else:
        assert difference(applied(*case), by_torchvision(*case)).max() <= 1


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
def test_quarter_turns_of_a_square_lose_nothing(quarters, interpolation):
    images = photos(50, 50)
    recipe, drawn = batch(Rotate(degrees=180.0, interpolation=interpolation), images=images)
    turned = applied(recipe, replace(drawn, angle_N=np.full(4, 90.0 * quarters)), images)
    assert torch.equal(turned, torch.rot90(images, quarters, (2, 3)))


@pytest.mark.parametrize("column", range(4), ids=JITTERS)
@given(share=st.floats(0, 1))
@settings(max_examples=20)
def test_a_jitter_is_torchvisions_within_a_step(column, share):
    recipe, drawn = batch(ColorJitter(hue=0.5), images=photos())
    jitter_N4 = np.tile(NEUTRAL, (4, 1))
    jitter_N4[:, column] = share - 0.5 if JITTERS[column] == "hue" else 2 * share
    case = recipe, replace(drawn, jitter_N4=jitter_N4), photos()
    steps = difference(applied(*case), by_torchvision(*case))
    assert steps.max() <= (JITTERS[column] != "brightness")
    if JITTERS[column] == "hue":
        assert (steps > 0).float().mean() < 5e-4


def test_gray_is_torchvisions():
    case = *batch(Grayscale(p=1.0), images=photos()), photos()
    assert torch.equal(applied(*case), by_torchvision(*case))


@given(
    name=st.sampled_from([*MOVES, *TONES]),
    share=st.floats(-1, 1),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 999),
)
@settings(max_examples=150)
def test_pictures_of_any_size_are_torchvisions(name, share, shape, seed):
    most = {"Rotate": 180.0, "Posterize": 8.0, "TranslateX": 33.0, "TranslateY": 33.0}.get(name, 1.0)
    strength = most * (share if name in OPS[1:10] else abs(share))
    noise = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (2, 3, *shape), np.uint8))
    case = one_operation(name, [strength], noise)
    ours, theirs = applied(*case), by_torchvision(*case)
    if name in MOVES:
        border = at_a_border(name, [strength] * 2, *shape)
        assert torch.equal(torch.where(border, 0, ours), torch.where(border, 0, theirs))
    else:
        assert difference(ours, theirs).max() <= (name not in EXACT)


@pytest.mark.parametrize("side", [1, 2, 7, 40])
def test_a_shift_out_of_the_picture_leaves_the_filling(side):
    # 32 pixels are the most of TrivialAugment, whatever the size.
    recipe, drawn, images = one_operation("TranslateX", [32.0, -32.0], photos(side, side))
    filling = torch.tensor(FILL)[:, None, None].expand_as(images[:, :, :, :32])
    assert torch.equal(applied(recipe, drawn, images)[::2, :, :, :32].float(), filling[::2])
    assert torch.equal(applied(recipe, drawn, images)[1::2, :, :, -32:].float(), filling[1::2])


# Mean difference from Pillow's pixels, at most, in steps of 255; 0.01 where nothing stands.
FROM_PILLOW = {
    "ShearX": 0.1,
    "ShearY": 0.1,
    "Rotate": 0.1,
    "Color": 0.5,
    "Contrast": 0.5,
    "Solarize": 1e-9,
}


@pytest.mark.parametrize("name", OPS[1:])
def test_the_difference_from_pillow_is_stated(name):
    case = one_operation(name, every_strength(name)[::3], photos())
    assert difference(applied(*case), by_pillow(*case)).float().mean() < FROM_PILLOW.get(name, 0.01)


@pytest.mark.parametrize(
    ("op", "most"), [(ColorJitter(hue=0.5), 0.7), (Grayscale(p=1.0), 0.7), (RandAugment(), 0.3), (AutoAugment(), 0.3)]
)
def test_the_difference_of_a_recipe_from_pillow_is_stated(op, most):
    images = photos().repeat(12, 1, 1, 1)
    case = *batch(op, images=images), images
    assert difference(applied(*case), by_pillow(*case)).float().mean() < most


# --- their order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ops", [(RandAugment(n=3, m=12),), (TrivialAugment(),), (AutoAugment(policy="svhn"),), ALL[2:], ALL]
)
def test_a_recipe_is_torchvisions(ops):
    images = photos().repeat(12, 1, 1, 1)
    case = *batch(*ops, images=images), images
    steps = difference(applied(*case), by_torchvision(*case)).flatten(1)
    # A step or a pixel at a border grows where contrast is stretched afterwards.
    assert (steps <= 2).float().mean() > 0.995
    assert steps.float().mean(1).max() < 1.5


def test_operations_come_in_the_order_that_was_drawn():
    images = photos().repeat(6, 1, 1, 1)
    recipe, drawn = batch(*ALL, images=images)
    assert len({tuple(order) for order in drawn.order_N4.tolist()}) > 10
    still = {
        "angle_N": np.zeros(24),
        "op_NP": np.zeros((24, 1), int),
        "strength_NP": np.zeros((24, 1)),
        "jitter_N4": np.tile(NEUTRAL, (24, 1)),
        "gray_N": np.zeros(24, bool),
    }
    alone = [{"angle_N": drawn.angle_N}]
    alone += [{"op_NP": drawn.op_NP[:, [p]], "strength_NP": drawn.strength_NP[:, [p]]} for p in range(2)]
    for slot in range(4):
        now = np.arange(4) == drawn.order_N4[:, [slot]]
        alone.append({"jitter_N4": np.where(now, drawn.jitter_N4, NEUTRAL)})
    expected = images
    for change in [*alone, {"gray_N": drawn.gray_N}]:
        expected = applied(recipe, replace(drawn, **{**still, **change}), expected)
    assert torch.equal(applied(recipe, drawn, images), expected)
