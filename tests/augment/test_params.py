"""Parameters are a pure function of recipe, picture size, seed, epoch and position."""

import hashlib
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgdata import OptionError, recipes
from imgdata.augment.crops import exp
from imgdata.augment.params import params
from imgdata.recipes import (
    Affine,
    AugMix,
    AutoAugment,
    CenterCrop,
    ColorJitter,
    Cutout,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    PadRandomCrop,
    Perspective,
    RandAugment,
    RandomApply,
    RandomChoice,
    RandomErasing,
    RandomResize,
    Recipe,
    Resize,
    Rotate,
    ScaleJitter,
    Schedule,
    Solarize,
    ThreeAugment,
    TrivialAugment,
    VerticalFlip,
)
from support.draws import CROP, EPOCH, SEED, made

RANDOM = [HorizontalFlip(), VerticalFlip(p=0.2), Rotate(degrees=(-10, 30), p=0.7)]
COLORS = [ColorJitter(brightness=0.4, contrast=(0.5, 2), saturation=0.4, hue=0.1, p=0.8), Grayscale(p=0.2)]
RECIPES = [
    Recipe(CROP, *RANDOM, RandAugment(), *COLORS, RandomErasing(scale=(0.5, 1.0))),
    Recipe(Resize(size=40), PadRandomCrop(size=32, padding=3, mode="reflect"), *RANDOM, TrivialAugment(), *COLORS),
    Recipe(CROP, AutoAugment(policy="svhn"), Cutout(size=16)),
    recipes.imagenet_eval(),
]
FURTHER = Recipe(
    RandomResize(40, 64),
    CenterCrop(size=32),
    Grayscale(p=0.5),
    RandomChoice((ThreeAugment(), RandomApply((ColorJitter(hue=0.1), Rotate(degrees=5), TrivialAugment())))),
    Affine(9, translate=(0.2, 0.1), scale=(0.5, 2), shear=10),
    Perspective(),
    GaussianBlur(9, p=0.5),
    AugMix(),
    Solarize(128),
)
"""What came later: operators whose draws are steps."""
NATURAL = st.integers(0, 2**63 - 1)
SIDE = st.integers(1, 3000)
IMAGES = st.lists(st.tuples(NATURAL, SIDE, SIDE), min_size=1, max_size=12)


def arrays(batch):
    return {name: getattr(batch, name) for name in batch.__slots__ if name not in ("height", "width")}


@given(images=IMAGES, seed=NATURAL, epoch=NATURAL, recipe=st.sampled_from([*RECIPES, FURTHER]), pick=st.data())
@settings(max_examples=60, deadline=None)
def test_a_sample_has_the_same_parameters_alone_and_in_any_batch(images, seed, epoch, recipe, pick):
    position_N, width_N, height_N = (np.array(column) for column in zip(*images, strict=True))
    row_M = np.array(pick.draw(st.lists(st.integers(0, len(images) - 1), min_size=1, max_size=5)))
    whole = params(recipe, width_N, height_N, seed=seed, epoch=epoch, position_N=position_N)
    part = params(recipe, width_N[row_M], height_N[row_M], seed=seed, epoch=epoch, position_N=position_N[row_M])
    for name, array in arrays(whole).items():
        assert np.array_equal(array[row_M], getattr(part, name)), name


@pytest.mark.parametrize("recipe", [*RECIPES, FURTHER, Recipe(ScaleJitter(32))])
def test_every_row_of_a_batch_is_that_of_a_batch_of_one(recipe):
    whole = made(recipe, 375, 500, count=100)
    for position in range(100):
        alone = params(recipe, [375], [500], seed=SEED, epoch=EPOCH, position_N=[position])
        for name, array in arrays(whole).items():
            assert np.array_equal(array[position], getattr(alone, name)[0]), name


@pytest.mark.parametrize("changed", [{"seed": 4}, {"epoch": 3}])
def test_another_seed_or_epoch_gives_other_parameters(changed):
    before, after = made(RECIPES[0], count=200), made(RECIPES[0], count=200, **changed)
    for name in ("box_N4", "angle_N", "op_NP", "order_N4", "jitter_N4", "erase_N4"):
        same = (getattr(before, name) == getattr(after, name)).reshape(200, -1).all(axis=1)
        assert same.mean() < 0.7, name


def test_operators_do_not_change_each_others_draws():
    lean, full = made(Recipe(CROP, HorizontalFlip()), count=500), made(RECIPES[0], count=500)
    assert np.array_equal(lean.box_N4, full.box_N4)
    assert np.array_equal(lean.flip_N, full.flip_N)


def test_parameters_stay_what_they_are_in_every_version():
    # A run that is resumed with another version of imgdata goes on with the same pictures.
    hashed = hashlib.sha256()
    for recipe in RECIPES:
        for array in arrays(made(recipe, 500, 375, count=64)).values():
            hashed.update(np.round(array.astype(np.float64), 9).tobytes())
    assert hashed.hexdigest()[:16] == "5582baf1cc99a16e"


def test_parameters_of_further_operators_stay_what_they_are_too():
    hashed = hashlib.sha256()
    for recipe in (FURTHER, Recipe(ScaleJitter(32))):
        for array in arrays(made(recipe, 500, 375, count=64)).values():
            hashed.update(np.round(array.astype(np.float64), 9).tobytes())
    assert hashed.hexdigest()[:16] == "3555117827a6e04b"


def test_arrays_are_read_only_and_of_the_stated_types():
    batch = made(RECIPES[0], count=5)
    assert len(batch) == 5
    for name, array in arrays(batch).items():
        assert not array.flags.writeable, name
        assert array.flags.c_contiguous, name
        assert array.dtype in (np.int64, np.float64, np.bool_), name
        assert len(array) == 5, name
    with pytest.raises(ValueError, match="read-only"):
        batch.box_N4[0] = 1


def test_an_evaluation_recipe_is_neutral_but_for_its_geometry():
    batch = made(recipes.imagenet_eval(), count=3)
    assert not batch.flip_N.any()
    assert not batch.vflip_N.any()
    assert not batch.gray_N.any()
    assert batch.op_NP.shape == batch.done_NS.shape == batch.value_NV.shape == (3, 0)
    assert batch.jitter_N4.tolist() == [[1, 1, 1, 0]] * 3
    assert not batch.erase_N4.any()
    assert not batch.angle_N.any()


def test_an_empty_batch_has_no_rows():
    for recipe in RECIPES:
        assert {len(array) for array in arrays(made(recipe, count=0)).values()} == {0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, r"seed must be from 0 to 2\*\*63 - 1, got -1"),
        ({"epoch": 2**63}, "epoch must be from 0"),
        ({"position_N": np.array([3, -4])}, "positions must be at least 0, got -4"),
        ({"position_N": np.array([3])}, r"the same length, got shapes \(1,\), \(2,\) and \(2,\)"),
        ({"width_N": np.array([9, 0])}, "must be at least 1, got 0x9 at position 8; .*build it again"),
    ],
)
def test_arguments_without_meaning_are_refused(arguments, message):
    good = {"seed": 1, "epoch": 1, "position_N": np.array([7, 8]), "width_N": np.array([9, 9])}
    with pytest.raises(OptionError, match=message):
        params(RECIPES[0], height_N=np.array([9, 9]), **good | arguments)


def test_the_size_changes_by_epoch_and_the_crop_does_not_depend_on_it():
    small = made(recipes.imagenet_train(Schedule(((0, 128), (2, 192)))), 500, 375, count=50)
    large = made(recipes.imagenet_train(), 500, 375, count=50)
    assert (small.height, small.width) == (192, 192)
    assert small.resized_N2.tolist() == [[192, 192]] * 50
    assert np.array_equal(small.box_N4, large.box_N4)


@pytest.mark.parametrize(
    ("crop", "width", "height", "message"),
    [
        (PadRandomCrop(size=32, padding=4), 32, 23, "got 32x23 .width x height. at position 0; put Resize before it"),
        (PadRandomCrop(size=8, padding=4, mode="reflect"), 4, 40, "got 4x40"),
    ],
)
def test_pictures_that_are_too_small_for_the_crop_are_refused(crop, width, height, message):
    with pytest.raises(OptionError, match=message):
        made(Recipe(crop), width, height, count=2)


@given(x=st.floats(-20, 20))
def test_the_exponential_is_exact_to_the_last_bits(x):
    # Of 28 digits; that of NumPy is another one on other processors.
    assert exp(np.array([x]))[0] == pytest.approx(float(Decimal(x).exp()), rel=5e-16)
