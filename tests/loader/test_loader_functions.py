"""Functions of the user's in a recipe: what they get, when they draw the same, what is said of their faults."""

import json
import subprocess
import sys
import threading
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

import imgdata
from imgdata import FunctionError, OptionError, recipes
from imgdata.recipes import Apply, BatchApply, Invert, MixUp, RandomApply, Recipe
from support.loaders import assert_same, loader, take

EVERY_BUT_DALI = pytest.mark.parametrize("backend", ["native", "pillow", "resident"], indirect=True)


def noisy(pixels, generator):
    """Changes the array that it gets, and draws."""
    pixels += generator.integers(0, 50, pixels.shape, dtype=np.uint8)
    return pixels


def brighter(images, generator):
    return images + torch.randint(0, 50, images.shape[:1], generator=generator, dtype=images.dtype)[:, None, None, None]


NOISY = "support.functions:noisy"


@EVERY_BUT_DALI
def test_a_function_gets_the_crop_and_a_generator_in_the_loaders_threads(images, backend):
    seen = []

    def look(pixels, generator):
        seen.append((pixels.shape, pixels.dtype, type(generator), threading.current_thread().name))
        return pixels

    with loader(images, more=[Apply(look)]) as batches, loader(images) as plain:
        assert_same(take(batches, 2), take(plain, 2))
    assert {row[:3] for row in seen} == {((16, 16, 3), np.dtype(np.uint8), np.random.Generator)}
    assert all(row[3].startswith("imgdata") for row in seen)


@EVERY_BUT_DALI
def test_what_it_draws_is_the_same_in_any_threads_and_after_a_resume(images, backend):
    with loader(images, more=[Apply(noisy)], threads=4) as batches:
        whole = take(batches)
        assert not np.array_equal(whole[0].images, take(batches, 1)[0].images)
    with loader(images, more=[Apply(noisy)], threads=1) as batches:
        first = take(batches, 3)
        state = batches.state_dict()
    with loader(images, more=[Apply(noisy)], threads=3) as batches:
        batches.load_state_dict(state)
        assert_same([*first, *take(batches)], whole)


def test_what_it_draws_is_the_same_on_any_rank(images):
    def shown(**options):
        with loader(images, more=[Apply(noisy)], **options) as batches:
            pairs = [pair for batch in take(batches) for pair in zip(batch.positions, batch.images, strict=True)]
        return dict(pairs)

    alone = shown()
    for rank in range(2):
        for position, picture in shown(batch_size=4, rank=rank, world_size=2).items():
            assert np.array_equal(picture, alone[position])


def test_each_function_of_a_recipe_draws_for_itself(images):
    drawn = []

    def draw(pixels, generator):
        drawn.append(int(generator.integers(2**60)))
        return pixels

    with loader(images, more=[Apply(draw), Apply(draw), RandomApply((Apply(draw),), p=0.5)], threads=1) as batches:
        taken = len(take(batches, 1)) * 8
    assert len(set(drawn)) == len(drawn)
    assert 2 * taken < len(drawn)


def test_operators_before_and_behind_it_keep_their_order(images):
    def halved(pixels, generator):
        return pixels // 2

    with loader(images, more=[Invert(1.0), Apply(halved)]) as batches, loader(images) as plain:
        (behind,), (as_it_is,) = take(batches, 1), take(plain, 1)
    with loader(images, more=[Apply(halved), Invert(1.0)]) as batches:
        (before,) = take(batches, 1)
    assert np.array_equal(behind.images, (255 - as_it_is.images) // 2)
    assert np.array_equal(before.images, 255 - as_it_is.images // 2)


# --- faults --------------------------------------------------------------------------------------------------------


@EVERY_BUT_DALI
def test_a_function_that_fails_names_the_sample_and_keeps_the_traceback(images, backend):
    def fails(pixels, generator):
        raise ZeroDivisionError("nothing to divide by")

    more = [Apply(fails)]
    with loader(images, more=more, shuffle="none", threads=1) as batches, pytest.raises(FunctionError) as caught:
        next(iter(batches))
    message = str(caught.value)
    assert message.startswith("s000")
    assert " in demo-train-00000" in message
    assert "fails) raised ZeroDivisionError: nothing to divide by (test_loader_functions.py, line " in message
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "fails" in [frame.name for frame in _frames(caught.value.__cause__)]


def _frames(error):
    import traceback

    return traceback.extract_tb(error.__traceback__)


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (lambda pixels: pixels.astype(np.float32), r"got float32 \(16, 16, 3\)"),
        (lambda pixels: pixels[:8], r"got uint8 \(8, 16, 3\)"),
        (lambda pixels: None, "got NoneType"),
    ],
)
def test_what_is_no_picture_is_refused(images, made, found):
    message = rf"s00.* must return uint8 \(16, 16, 3\), {found}"
    more = [Apply(lambda pixels, generator: made(pixels))]
    with loader(images, more=more) as batches, pytest.raises(FunctionError, match=message):
        next(iter(batches))


def test_a_backend_on_a_device_refuses_functions_by_name(images):
    if find_spec("nvidia.dali") is None:
        pytest.skip("DALI is not installed")
    with pytest.raises(OptionError, match=r"backend 'dali' can't call Apply\('support.functions:noisy'\) for each pic"):
        loader(images, more=[RandomApply((Apply(NOISY),))], backend="dali")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("noisy", "must be a function, or package.module:function, got 'noisy'"),
        ("a b:c", "must be a function, or package.module:function"),
        (3, "must be a function, or package.module:function, got 3"),
    ],
)
@pytest.mark.parametrize("kind", [Apply, BatchApply])
def test_what_is_no_function_is_refused_when_the_recipe_is_made(kind, function, message):
    with pytest.raises(OptionError, match=f"{kind.__name__}.function {message}"):
        kind(function)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("no_such_module:function", "No module named 'no_such_module'"),
        ("support.functions:nothing", "has no attribute 'nothing'"),
        ("support.functions:NUMBER", "which is int"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_when_the_loader_is_made(images, function, message):
    with pytest.raises(OptionError, match=f"Apply must name a function.*{message}"):
        loader(images, more=[Apply(function)])


# --- names ---------------------------------------------------------------------------------------------------------


def test_a_recipe_with_named_functions_survives_json_and_makes_the_same_batches(images):
    from support import functions

    recipe = Recipe(recipes.CenterCrop(16), RandomApply((Apply(functions.noisy),)), BatchApply(NOISY))
    text = json.dumps(recipe.to_dict())
    read = Recipe.from_dict(json.loads(text))
    assert json.dumps(read.to_dict()) == text
    assert repr(read.ops[1]) == "RandomApply(ops=(Apply('support.functions:noisy'),), p=0.5)"
    direct, by_name = (Recipe(recipes.CenterCrop(16), Apply(one)) for one in (functions.noisy, NOISY))
    with loader(images, recipe=direct) as one, loader(images, recipe=by_name) as other:
        assert_same(take(one, 2), take(other, 2))


def test_reading_a_recipe_runs_no_code():
    content = {"version": 1, "ops": [{"op": "CenterCrop", "size": 9}, {"op": "Apply", "function": "antigravity:x"}]}
    Recipe.from_dict(content)
    assert "antigravity" not in sys.modules


def test_a_function_without_a_name_cannot_be_saved():
    recipe = Recipe(recipes.CenterCrop(16), Apply(lambda pixels, generator: pixels))
    with pytest.raises(OptionError, match=r"Apply: a recipe that is saved.* must have functions with a name.*lambda"):
        recipe.to_dict()


def test_a_recipe_with_a_function_of_a_script_cannot_be_saved():
    code = (
        "from imgdata.recipes import *\n"
        "def mine(pixels, generator): return pixels\n"
        "try: Recipe(CenterCrop(9), Apply(mine)).to_dict()\n"
        "except Exception as error: print(error)"
    )
    said = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert "got __main__:mine; put the function into a module" in said


# --- torchvision and albumentations --------------------------------------------------------------------------------

TRANSFORMS = {
    "v2": v2.Compose([v2.RandAugment(), v2.ColorJitter(0.4, 0.4), v2.RandomHorizontalFlip(), v2.RandomErasing(p=0)]),
    "noise": v2.Compose([v2.RandomChoice([v2.GaussianBlur(3), v2.RandomPosterize(3)]), v2.ElasticTransform(sigma=1.0)]),
    "augmix": v2.AugMix(),
}


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_of_torchvision_draws_by_sample_in_any_number_of_threads(images, name, tensors):
    op = recipes.from_torchvision(TRANSFORMS[name], tensors=tensors)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with loader(images, more=[op], threads=4) as batches:
        whole = take(batches, 3)
    with loader(images, more=[op], threads=1) as batches, loader(images) as plain:
        assert_same(take(batches, 3), whole)
        assert not np.array_equal(take(plain, 1)[0].images, whole[0].images)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_transform_of_torchvision_makes_the_pixels_that_its_generator_says():
    op = recipes.from_torchvision(v2.ColorJitter(0.4, 0.4))
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    made = op.called(pixels.copy(), np.random.default_rng(5))
    torch.manual_seed(int(np.random.default_rng(5).integers(2**63)))
    from PIL import Image

    assert np.array_equal(made, np.asarray(v2.ColorJitter(0.4, 0.4)(Image.fromarray(pixels))))


def test_a_transform_that_makes_floats_is_refused(images):
    op = recipes.from_torchvision(v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]))
    with (
        loader(images, more=[op]) as batches,
        pytest.raises(FunctionError, match=r"torchvision's Compose\) must return uint8 .* got float32"),
    ):
        next(iter(batches))


@pytest.mark.parametrize("what", [3, None])
def test_what_is_no_transform_is_refused(what):
    with pytest.raises(OptionError, match="transform must be a transform of torchvision, got"):
        recipes.from_torchvision(what)


def test_without_albumentations_its_name_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "albumentations", None)
    with pytest.raises(imgdata.MissingExtraError, match="pip install albumentations"):
        recipes.from_albumentations(object())


def test_a_transform_of_albumentations_draws_by_sample_in_any_number_of_threads(images):
    albumentations = pytest.importorskip("albumentations")
    op = recipes.from_albumentations(
        albumentations.Compose([albumentations.RandomBrightnessContrast(p=0.8), albumentations.GaussNoise(p=0.5)])
    )
    with loader(images, more=[op], threads=4) as batches:
        whole = take(batches, 3)
    with loader(images, more=[op], threads=1) as batches, loader(images) as plain:
        assert_same(take(batches, 3), whole)
        assert not np.array_equal(take(plain, 1)[0].images, whole[0].images)
    single = recipes.from_albumentations(albumentations.HorizontalFlip(p=1.0))
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert np.array_equal(single.called(pixels.copy(), np.random.default_rng(0)), pixels[:, ::-1])


# --- whole batches -------------------------------------------------------------------------------------------------


def test_a_function_of_batches_gets_what_the_loader_hands_out_and_resumes(images, backend):
    more = [MixUp(), BatchApply(brighter)]
    with loader(images, more=more) as batches, loader(images, more=more[:1]) as plain:
        whole = take(batches)
        assert not np.array_equal(whole[0].images, take(plain, 1)[0].images)
    with loader(images, more=more) as batches:
        first = take(batches, 3)
        state = batches.state_dict()
    with loader(images, more=more) as batches:
        batches.load_state_dict(state)
        for one, other in zip([*first, *take(batches)], whole, strict=True):
            assert np.array_equal(one.images, other.images)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda images, generator: images.float(), r"must return uint8 \(8, 3, 16, 16\) on cpu, got float32"),
        (lambda images, generator: images[:3], r"got uint8 \(3, 3, 16, 16\) on cpu"),
        (lambda images, generator: None, "got NoneType"),
        (lambda images, generator: 1 / 0, "raised ZeroDivisionError: division by zero"),
    ],
)
def test_a_function_of_batches_that_fails_names_the_batch(images, function, message):
    message = rf"the batch of epoch 0 that begins at its sample 0: .*{message}"
    with loader(images, more=[BatchApply(function)]) as batches, pytest.raises(FunctionError, match=message):
        next(iter(batches))
