"""Recipes: what they may be made of, their size, their text and their JSON."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2

from imgdata import OptionError, recipes
from imgdata.recipes import (
    Affine,
    AugMix,
    AutoAugment,
    AutoContrast,
    CenterCrop,
    ColorJitter,
    CutMix,
    Cutout,
    Equalize,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    Invert,
    MixUp,
    MixUpOrCutMix,
    Normalize,
    PadRandomCrop,
    Perspective,
    Posterize,
    Ramp,
    RandAugment,
    RandomApply,
    RandomChoice,
    RandomErasing,
    RandomResize,
    RandomResizedCrop,
    Recipe,
    Resize,
    Rotate,
    ScaleJitter,
    Schedule,
    Sharpness,
    Solarize,
    ThreeAugment,
    TrivialAugment,
    VerticalFlip,
)
from imgdata.recipes.recipe import STAGES

CROP = RandomResizedCrop(size=64)
SCALE = Normalize(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
EVERYTHING = Recipe(
    RandomResizedCrop(size=Ramp(start_epoch=2, end_epoch=30, start_size=128, end_size=224), interpolation="bicubic"),
    HorizontalFlip(p=1),
    VerticalFlip(p=0),
    Rotate(degrees=(-5, 90.5), fill=(1, 2, 3.5)),
    TrivialAugment(bins=10),
    ColorJitter(brightness=0.4, hue=(-0.1, 0.3), p=0.8),
    Grayscale(),
    SCALE,
    RandomErasing(value="random"),
    MixUpOrCutMix(),
)
CHOICES = Recipe(
    RandomResize(256, 481),
    PadRandomCrop(size=224),
    RandomChoice(
        (ThreeAugment(threshold=100), RandomApply((ColorJitter(hue=0.1), Rotate(degrees=5)), p=0.8)), weights=(1, 2)
    ),
    Solarize(128, p=0.2),
    Grayscale(),
    ColorJitter(brightness=0.4),
    RandomApply(
        [GaussianBlur(23), Affine(9, translate=(0.1, 0.2), scale=(0.5, 2), shear=(-3, 3, 1, 2), fill=(1, 2, 3))]
    ),
    Perspective(),
    AugMix(depth=2, all_ops=False),
    Posterize(3),
    Equalize(),
    AutoContrast(p=1),
    Sharpness(2),
    Invert(0.3),
)
RECIPES = [
    EVERYTHING,
    CHOICES,
    Recipe(ScaleJitter(size=(48, 64), scale=(0.5, 1.5), interpolation="bicubic"), ThreeAugment()),
    recipes.imagenet_train(),
    recipes.imagenet_train(Schedule(((0, 128), (6, 160)))),
    recipes.imagenet_eval(),
    recipes.cifar_train(),
    recipes.cifar_train(cutout=16),
    recipes.cifar_eval(),
    recipes.classifier_train(),
    recipes.classifier_eval(),
    Recipe(Resize(size=(48, 64)), RandAugment(), CutMix()),
    Recipe(Resize(size=72), PadRandomCrop(size=64), AutoAugment(policy="svhn"), Cutout(size=8), MixUp(alpha=0.2)),
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_survives_json(recipe):
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_prints_as_the_code_that_makes_it(recipe):
    names = {name: getattr(recipes, name) for name in recipes.__all__}
    assert eval(repr(recipe), names) == recipe


def test_recipes_with_the_same_operators_are_equal_and_cannot_be_changed():
    assert Recipe(CROP) == Recipe(RandomResizedCrop(size=64))
    assert len({Recipe(CROP), Recipe(RandomResizedCrop(size=64))}) == 1
    assert Recipe(CROP) != Recipe(CROP, HorizontalFlip())
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe(CROP).ops = ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        CROP.size = 3


def test_an_operator_is_found_by_its_type():
    assert EVERYTHING.find(Grayscale) == Grayscale(p=0.1)
    assert EVERYTHING.find(Cutout) is None


def test_the_public_names_exist_and_cover_every_operator():
    assert [name for name in recipes.__all__ if not hasattr(recipes, name)] == []
    assert {kind.__name__ for stage in STAGES for kind in stage} <= set(recipes.__all__)


# Of torchvision's operators of the same meaning: our field, their attribute.
@pytest.mark.parametrize(
    ("ours", "theirs", "names"),
    [
        (RandomResizedCrop(size=9), v2.RandomResizedCrop(9), {"scale": "scale", "ratio": "ratio"}),
        (HorizontalFlip(), v2.RandomHorizontalFlip(), {"p": "p"}),
        (VerticalFlip(), v2.RandomVerticalFlip(), {"p": "p"}),
        (Grayscale(), v2.RandomGrayscale(), {"p": "p"}),
        (Rotate(degrees=9), v2.RandomRotation(9), {"interpolation": "interpolation", "fill": "fill"}),
        (RandAugment(), v2.RandAugment(), {"n": "num_ops", "m": "magnitude", "bins": "num_magnitude_bins"}),
        (TrivialAugment(), v2.TrivialAugmentWide(), {"bins": "num_magnitude_bins"}),
        (RandomErasing(), v2.RandomErasing(), {"p": "p", "scale": "scale", "ratio": "ratio"}),
        (GaussianBlur(9), v2.GaussianBlur(9), {"sigma": "sigma"}),
        (Solarize(128), v2.RandomSolarize(128), {"threshold": "threshold", "p": "p"}),
        (Posterize(4), v2.RandomPosterize(4), {"bits": "bits", "p": "p"}),
        (Equalize(), v2.RandomEqualize(), {"p": "p"}),
        (AutoContrast(), v2.RandomAutocontrast(), {"p": "p"}),
        (Sharpness(2), v2.RandomAdjustSharpness(2), {"factor": "sharpness_factor", "p": "p"}),
        (Invert(), v2.RandomInvert(), {"p": "p"}),
        (Affine(9), v2.RandomAffine(9), {"interpolation": "interpolation", "fill": "fill"}),
        (
            Perspective(),
            v2.RandomPerspective(),
            {"distortion": "distortion_scale", "p": "p", "interpolation": "interpolation", "fill": "fill"},
        ),
        (ScaleJitter(size=9), v2.ScaleJitter((9, 9)), {"scale": "scale_range", "interpolation": "interpolation"}),
        (RandomResize(9, 10), v2.RandomResize(9, 10), {"interpolation": "interpolation"}),
        (RandomApply((Invert(),)), v2.RandomApply([v2.RandomInvert()]), {"p": "p"}),
        (
            AugMix(),
            v2.AugMix(),
            {
                "severity": "severity",
                "width": "mixture_width",
                "depth": "chain_depth",
                "alpha": "alpha",
                "all_ops": "all_ops",
                "interpolation": "interpolation",
            },
        ),
        (MixUp(), v2.MixUp(num_classes=2), {"alpha": "alpha"}),
        (CutMix(), v2.CutMix(num_classes=2), {"alpha": "alpha"}),
    ],
)
def test_defaults_are_torchvisions(ours, theirs, names):
    other = {name: getattr(theirs, attribute) for name, attribute in names.items()}
    lists_as_tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in other.items()}
    assert {name: getattr(ours, name) for name in names} == lists_as_tuples


@pytest.mark.parametrize("value", [0.4, 1.5, (0.2, 0.7), 0])
def test_the_limits_of_the_jitter_are_torchvisions(value):
    ours = ColorJitter(brightness=value, contrast=value, saturation=value, hue=0.2).limits
    theirs = v2.ColorJitter(brightness=value, contrast=value, saturation=value, hue=0.2)
    neutral = (1.0, 1.0)
    assert ours == tuple(getattr(theirs, n) or neutral for n in ("brightness", "contrast", "saturation", "hue"))


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (Recipe(RandomResizedCrop(size=(96, 128))), {0: (96, 128), 50: (96, 128)}),
        (Recipe(Resize(size=256), CenterCrop(size=224)), {0: (224, 224)}),
        (Recipe(Resize(size=(30, 40))), {0: (30, 40)}),
        (Recipe(Resize(size=(30, 40)), CenterCrop(size=(20, 40))), {0: (20, 40)}),
        (Recipe(CenterCrop(size=7)), {0: (7, 7)}),
        (
            recipes.imagenet_train(Schedule(((0, 128), (6, 160), (12, 224)))),
            {0: (128, 128), 5: (128, 128), 6: (160, 160), 11: (160, 160), 12: (224, 224), 999: (224, 224)},
        ),
    ],
)
def test_the_output_size_of_an_epoch(recipe, expected):
    assert {epoch: recipe.output_size(epoch) for epoch in expected} == expected


@given(
    sizes=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    start=st.integers(0, 20),
    length=st.integers(1, 40),
    multiple=st.sampled_from([1, 16, 32]),
)
def test_a_ramp_is_linear_and_rounded_to_its_multiple(sizes, start, length, multiple):
    first, last = (size * multiple for size in sizes)
    ramp = Ramp(start_epoch=start, end_epoch=start + length, start_size=first, end_size=last, multiple=multiple)
    for epoch in range(start + length + 3):
        share = min(max((epoch - start) / length, 0), 1)
        assert ramp.side(epoch) % multiple == 0
        assert abs(ramp.side(epoch) - (first + (last - first) * share)) <= multiple / 2 + 1e-6
    assert (ramp.side(0), ramp.side(start + length)) == (first, last)


def test_the_ramp_of_ffcvs_imagenet_training():
    # rn50_configs: min_res 160, max_res 192, start_ramp 65, end_ramp 76, of its 88 epochs.
    ramp = Ramp(start_epoch=65, end_epoch=76, start_size=160, end_size=192)
    assert [ramp.side(epoch) for epoch in (0, 65, 70, 71, 76, 87)] == [160, 160, 160, 192, 192, 192]


def test_operators_on_pixels_stand_in_any_order():
    one = Recipe(CROP, Grayscale(), ColorJitter(hue=0.1), GaussianBlur(5), Rotate(degrees=3))
    assert [type(op).__name__ for op in one.pixel_ops] == ["Grayscale", "ColorJitter", "GaussianBlur", "Rotate"]
    assert EVERYTHING.pixel_ops == EVERYTHING.ops[3:7]


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ((), "must begin with a crop or Resize, which sets the size"),
        ((HorizontalFlip(), SCALE), "must begin with a crop or Resize"),
        ((Resize(size=256),), r"Resize\(size=256\) sets the shorter side alone.* put CenterCrop behind it"),
        ((Resize(size=Schedule(((0, 9),))),), "sets the shorter side alone"),
        ((Resize(size=64), CROP), "RandomResizedCrop resizes as well; leave Resize out"),
        (
            (HorizontalFlip(), CROP),
            "RandomResizedCrop must stand before HorizontalFlip, got it behind; the order is Res",
        ),
        ((CROP, SCALE, Rotate(degrees=3)), "Rotate must stand before Normalize"),
        ((CROP, MixUp(), RandomErasing()), "RandomErasing must stand before MixUp"),
        ((CROP, Grayscale(), Grayscale()), "Grayscale must stand once in a recipe, got it twice"),
        ((CROP, GaussianBlur(9), GaussianBlur(5)), "GaussianBlur must stand once in a recipe, got it twice"),
        ((CROP, GaussianBlur(129)), "GaussianBlur.kernel_size must be at most 127 where a side .* got 129 at epoch 0"),
        ((CROP, RandomApply((GaussianBlur(129),))), "GaussianBlur.kernel_size must be at most 127"),
        ((RandomResizedCrop(6), ThreeAugment()), "GaussianBlur.kernel_size must be at most 11"),
        ((RandomResize(64, 80),), "RandomResize makes pictures of random size; put CenterCrop or PadRandomCrop behind"),
        ((RandomResize(64, 80), CROP), "RandomResizedCrop resizes as well; leave RandomResize out"),
        ((Resize(size=64), ScaleJitter(64)), "ScaleJitter resizes as well; leave Resize out"),
        ((RandomResize(60, 80), CenterCrop(64)), "CenterCrop.size must be at most 60x60, which RandomResize leaves"),
        ((CROP, CenterCrop(size=3)), "only one of RandomResizedCrop and CenterCrop, got both"),
        ((CROP, RandAugment(), TrivialAugment()), "only one of RandAugment and TrivialAugment"),
        ((CROP, "flip"), "a recipe is made of Resize, RandomResize, .* got 'flip'"),
        ((Resize(size=200), CenterCrop(size=224)), "CenterCrop.size must be at most 200x200, which Resize leaves"),
        ((Resize(size=(30, 20)), CenterCrop(size=(20, 30))), "must be at most 30x20, .* got 20x30 at epoch 0"),
        ((Resize(size=32), PadRandomCrop(size=48, padding=4)), "must be at most 40x40, which Resize and padding leave"),
        (
            (Resize(size=160), CenterCrop(size=Schedule(((0, 128), (5, 224))))),
            "must be at most 160x160, which Resize leaves, got 224x224 at epoch 5",
        ),
    ],
)
def test_what_is_no_recipe_says_why(ops, message):
    with pytest.raises(OptionError, match=message):
        Recipe(*ops)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (RandomResizedCrop, {"size": 0}, "RandomResizedCrop.size must be an integer from 1 to 65535, got 0"),
        (RandomResizedCrop, {"size": True}, "size must be an integer"),
        (RandomResizedCrop, {"size": 224.0}, "size must be an integer"),
        (RandomResizedCrop, {"size": (1, 2, 3)}, r"must be a side, \(height, width\) or a Schedule, got \(1, 2, 3\)"),
        (RandomResizedCrop, {"size": 9, "scale": (0.5, 0.1)}, "scale must be two numbers"),
        (RandomResizedCrop, {"size": 9, "scale": (0.5, 1.1)}, r"from 0 to 1, got \(0.5, 1.1\)"),
        (RandomResizedCrop, {"size": 9, "ratio": (0, 1.1)}, "ratio must be two numbers"),
        (RandomResizedCrop, {"size": 9, "ratio": [1, 1.1]}, "ratio must be two numbers"),
        (RandomResizedCrop, {"size": 9, "interpolation": "nearest"}, "'bilinear' or 'bicubic', got 'nearest'"),
        (PadRandomCrop, {"size": 9, "padding": -1}, "padding must be an integer"),
        (PadRandomCrop, {"size": 9, "mode": "edge"}, "mode must be 'zero' or 'reflect', got 'edge'"),
        (HorizontalFlip, {"p": 1.01}, "HorizontalFlip.p must be a number from 0 to 1, got 1.01"),
        (VerticalFlip, {"p": float("nan")}, "VerticalFlip.p must be a number from 0 to 1, got nan"),
        (Rotate, {"degrees": -3}, "Rotate.degrees must be a number from 0 to 360, got -3"),
        (Rotate, {"degrees": (3, -3)}, "Rotate.degrees must be two numbers"),
        (Rotate, {"degrees": 3, "fill": (1, 2)}, "Rotate.fill must be a number, or three"),
        (Rotate, {"degrees": 3, "fill": 256}, "Rotate.fill must be a number, or three"),
        (ColorJitter, {"brightness": -0.1}, "brightness must be a number of at least 0, got -0.1"),
        (ColorJitter, {"contrast": (-1, 2)}, "contrast must be two numbers"),
        (ColorJitter, {"hue": 0.6}, "hue must be a number from 0 to 0.5, got 0.6"),
        (ColorJitter, {"hue": (-0.6, 0)}, "hue must be two numbers"),
        (RandAugment, {"n": 0}, "RandAugment.n must be an integer from 1 to 64, got 0"),
        (RandAugment, {"m": 31}, "RandAugment.m must be an integer from 0 to 30, got 31"),
        (TrivialAugment, {"bins": 1}, "bins must be an integer from 2"),
        (AutoAugment, {"policy": "cifar"}, "policy must be 'imagenet' or 'cifar10' or 'svhn', got 'cifar'"),
        (GaussianBlur, {"kernel_size": 4}, "GaussianBlur.kernel_size must be odd, got 4"),
        (GaussianBlur, {"kernel_size": 5, "sigma": (0, 2)}, "GaussianBlur.sigma must be a number above 0, got 0"),
        (GaussianBlur, {"kernel_size": 5, "sigma": 2}, "GaussianBlur.sigma must be two numbers"),
        (Solarize, {"threshold": 256}, "Solarize.threshold must be a number from 0 to 255, got 256"),
        (Posterize, {"bits": 0}, "Posterize.bits must be an integer from 1 to 8, got 0"),
        (Sharpness, {"factor": -1}, "Sharpness.factor must be a number of at least 0"),
        (Affine, {"degrees": -3}, "Affine.degrees must be a number from 0 to 360, got -3"),
        (Affine, {"degrees": 3, "translate": 0.1}, "Affine.translate must be two shares, of width and height, got 0.1"),
        (Affine, {"degrees": 3, "translate": (0.1, 1.1)}, "Affine.translate must be a number from 0 to 1, got 1.1"),
        (Affine, {"degrees": 3, "scale": (0, 1)}, "Affine.scale must be two numbers"),
        (Affine, {"degrees": 3, "shear": (1, 2, 3)}, "Affine.shear must be two numbers"),
        (Affine, {"degrees": 3, "shear": 90}, "Affine.shear must be a number from 0 to 89"),
        (Perspective, {"distortion": 1.1}, "Perspective.distortion must be a number from 0 to 1"),
        (RandomResize, {"min_size": 9, "max_size": 9}, "RandomResize.max_size must be an integer from 10 to"),
        (ScaleJitter, {"size": 9, "scale": (0, 1)}, "ScaleJitter.scale must be two numbers"),
        (RandomApply, {"ops": ()}, r"RandomApply.ops must be operators on pixels, such as \(GaussianBlur\(9\),\), got"),
        (RandomApply, {"ops": (HorizontalFlip(),)}, r"operators on pixels \(Rotate, .*\), got HorizontalFlip"),
        (RandomChoice, {"ops": (Invert(),), "weights": (1, 2)}, "RandomChoice.weights must be 1 numbers"),
        (
            RandomChoice,
            {"ops": (Invert(),), "weights": (0,)},
            "the sum of RandomChoice.weights must be a number above 0",
        ),
        (ThreeAugment, {"kernel_size": 2}, "GaussianBlur.kernel_size must be odd, got 2"),
        (AugMix, {"severity": 11}, "AugMix.severity must be an integer from 1 to 10, got 11"),
        (AugMix, {"depth": 0}, "AugMix.depth must be an integer from 1 to 16, got 0"),
        (AugMix, {"all_ops": 1}, "AugMix.all_ops must be True or False, got 1"),
        (Normalize, {"mean": (0, 0), "std": (1, 1, 1)}, "Normalize.mean must be three numbers"),
        (Normalize, {"mean": (0, 0, 0), "std": (1, 0, 1)}, "Normalize.std must be a number above 0, got 0"),
        (RandomErasing, {"value": "noise"}, "RandomErasing.value must be a number, or three"),
        (RandomErasing, {"scale": (0.1, 1.2)}, "RandomErasing.scale must be two numbers"),
        (Cutout, {"size": 0}, "Cutout.size must be an integer of at least 1"),
        (MixUp, {"alpha": 0}, "MixUp.alpha must be a number above 0, got 0"),
        (CutMix, {"p": 2}, "CutMix.p must be a number"),
        (MixUpOrCutMix, {"cutmix_p": -1}, "cutmix_p must be a number"),
        (Ramp, {"end_epoch": 0, "start_size": 32, "end_size": 64}, "Ramp.end_epoch must be an integer of at least 1"),
        (Ramp, {"end_epoch": 9, "start_size": 30, "end_size": 64}, "start_size must be a multiple of 32, got 30"),
    ],
)
def test_values_without_meaning_are_refused(kind, values, message):
    with pytest.raises(OptionError, match=message):
        kind(**values)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((), "must be pairs"),
        (((1, 128),), r"epochs must start at 0 and rise, got \[1\]"),
        (((0, 128), (5, 160), (5, 224)), r"got \[0, 5, 5\]"),
        (((0, 0),), "a size must be an integer"),
        ([(0, 128)], "must be pairs"),
    ],
)
def test_schedules_without_meaning_are_refused(steps, message):
    with pytest.raises(OptionError, match=message):
        Schedule(steps)


FLIP = {"op": "HorizontalFlip"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"version": 2, "ops": []}, "version must be 1, got 2; .*upgrade imgdata"),
        (
            {"version": 1, "ops": [], "seed": 3},
            "must have `version` and `ops` and nothing else, got version, ops, seed",
        ),
        ([], r"nothing else, got \[\]"),
        ({"version": 1, "ops": {}}, "ops must be a list"),
        ({"version": 1, "ops": [{"op": "Blur"}]}, "must be one of Resize, .* got 'Blur'"),
        ({"version": 1, "ops": ["Blur"]}, "must be one of Resize, .* got 'Blur'"),
        ({"version": 1, "ops": [FLIP | {"prob": 1}]}, "HorizontalFlip has no field 'prob'; it has p"),
        ({"version": 1, "ops": [{"op": "Resize"}]}, "Resize must have 'size', got nothing"),
        ({"version": 1, "ops": [{"op": "Resize", "size": {"steps": 3}}]}, "Resize.size must be an integer"),
        ({"version": 1, "ops": [{"op": "Resize", "size": {"ramp": {"to": 3}}}]}, "Ramp has no field 'to'"),
        ({"version": 1, "ops": [{"op": "RandomApply", "ops": [{"op": "Blur"}]}]}, "must be one of .* got 'Blur'"),
        ({"version": 1, "ops": [FLIP | {"p": "1"}]}, "HorizontalFlip.p must be a number"),
    ],
)
def test_json_that_is_no_recipe_says_why(content, message):
    with pytest.raises(OptionError, match=message):
        Recipe.from_dict(content)
