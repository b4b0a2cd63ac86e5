"""What a loader takes and refuses: settings, devices, numbers of NumPy, states; what its batches look like."""

import inspect
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import MISSING, fields

import numpy as np
import pytest
import torch

import imgdata
from imgdata import recipes
from imgdata.backends.options import LoaderOptions
from imgdata.loader.bad_images import BadImageWarning
from imgdata.order.epoch_order import Order
from imgdata.recipes import (
    CenterCrop,
    CutMix,
    Cutout,
    Grayscale,
    HorizontalFlip,
    MixUp,
    PadRandomCrop,
    RandomErasing,
    RandomResizedCrop,
    Recipe,
    Resize,
    Rotate,
    VerticalFlip,
)
from support.loaders import RECIPE, SAMPLES, assert_same, dataset, loader, positions, seen, take
from support.rawdata import encoded

# --- settings --------------------------------------------------------------------------------------------------------


def test_keywords_of_a_loader_are_its_settings_with_the_same_defaults():
    keywords = inspect.signature(imgdata.Loader).parameters
    for one in fields(LoaderOptions):
        default = {} if one.name == "dali_options" else one.default
        expected = inspect.Parameter.empty if default is MISSING else default or None
        assert (keywords[one.name].default or None) == expected, one.name


def test_settings_come_back_from_json_with_nothing_left_open():
    options = LoaderOptions(batch_size=4, recipe=recipes.imagenet_train(16), shuffle="none")
    assert LoaderOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options
    decided = (options.drop_last, options.dtype, options.channels_last, options.on_bad)
    assert decided == (False, "float32", False, "skip")


def test_a_loader_of_settings_is_that_of_keywords(images):
    options = LoaderOptions(batch_size=8, recipe=RECIPE, threads=2)
    with imgdata.Loader.from_options(images, options, split="train") as one, loader(images) as other:
        assert_same(take(one), take(other))


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu"), torch.device("cpu", 0)])
def test_the_processor_has_several_names(images, device):
    with loader(images, device=device) as batches:
        assert batches.device == "cpu"
        assert len(next(iter(batches))) == 8


def test_integers_of_numpy_are_integers(images):
    with loader(images, batch_size=np.int64(8), threads=np.int32(2), seed=np.uint8(3)) as one:
        one.set_epoch(np.int64(3))
        state = json.loads(json.dumps(one.state_dict()))
        assert (state["epoch"], state["seed"]) == (3, 3)
        numbers = {name: np.int64(state[name]) for name in ("seed", "epoch", "samples")}
        one.load_state_dict({**state, **numbers})
        with loader(images, seed=3) as other:
            other.set_epoch(3)
            assert_same(take(one, 2), take(other, 2))
    for value in (True, np.bool_(True), 2.0, "3"):
        with pytest.raises(imgdata.OptionError, match="batch_size must be a whole number"):
            loader(images, batch_size=value)


def test_a_recipe_of_numpys_numbers_is_plain_in_json():
    recipe = Recipe(RandomResizedCrop(size=np.int64(16)), HorizontalFlip(p=np.float64(0.25)))
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize("state", [None, [], "x", 3])
def test_what_is_no_state_is_refused(images, state):
    with (
        loader(images) as batches,
        pytest.raises(imgdata.OptionError, match="state must be a dict as `state_dict` gives it"),
    ):
        batches.load_state_dict(state)


def test_an_epoch_that_no_memory_holds_is_refused(images):
    view = imgdata.open_view(imgdata.open(images), "train", f"balance,length={10**12}")
    with pytest.raises(imgdata.OptionError, match=r"at most 4,294,967,296, .* got 1,000,000,000,000; make the view"):
        imgdata.Loader(view, batch_size=8, recipe=RECIPE)
    assert len(Order(num_samples=2**32, global_batch=2**31)) == 2


# --- recipes by name and by position ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["imagenet", "imagenet_train"])
def test_a_recipe_may_be_named(images, name):
    with (
        imgdata.Loader(images, split="train", batch_size=8, recipe=name) as one,
        imgdata.Loader(images, split="train", batch_size=8, recipe=recipes.imagenet_train(224)) as other,
    ):
        assert_same(take(one, 1), take(other, 1))
    with pytest.raises(imgdata.OptionError, match="recipe must be one of imagenet, cifar, "):
        imgdata.Loader(images, split="train", batch_size=8, recipe="imagnet")


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (RandomResizedCrop, "size", 224),
        (Resize, "size", (20, 30)),
        (CenterCrop, "size", 224),
        (PadRandomCrop, "size", 32),
        (HorizontalFlip, "p", 0.25),
        (VerticalFlip, "p", 0.25),
        (Rotate, "degrees", 15.0),
        (Grayscale, "p", 0.5),
        (RandomErasing, "p", 0.25),
        (Cutout, "size", 8),
        (MixUp, "alpha", 0.2),
        (CutMix, "alpha", 0.5),
    ],
)
def test_the_obvious_argument_may_stand_by_position(kind, name, value):
    assert kind(value) == kind(**{name: value})
    with pytest.raises(TypeError, match="positional"):
        kind(value, 0.5)


# --- batches ---------------------------------------------------------------------------------------------------------


def test_a_batch_is_a_pair_that_can_be_subscripted_and_printed(images):
    with loader(images) as batches:
        batch = next(iter(batches))
    assert batch[0] is batch.images
    assert batch[1] is batch[-1] is batch.labels
    assert len(batch) == 8
    with pytest.raises(IndexError):
        batch[2]
    assert repr(batch) == "<Batch images uint8 (8, 3, 16, 16) on cpu, labels int64 (8,), 8 of 8 valid>"


def test_threads_that_share_an_iterator_get_each_batch_once(images):
    with loader(images, batch_size=2, drop_last=False) as batches, ThreadPoolExecutor(4) as threads:
        shared, together = iter(batches), threading.Barrier(4)

        def drain() -> list:
            together.wait()
            return [seen(batch) for batch in shared]

        found = [one for part in [threads.submit(drain) for _ in range(4)] for one in part.result()]
    assert sorted(positions(found)) == list(range(SAMPLES))


def test_the_sampler_sets_the_epoch(images):
    with loader(images) as one, loader(images) as other:
        one.map(tuple).sampler.set_epoch(2)
        other.set_epoch(2)
        assert one.epoch == 2
        assert_same(take(one, 1), take(other, 1))


# --- exact pixels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shorter", "side"), [(64, 64), (48, 40)])
def test_exact_pixels_are_torchvisions_whatever_the_shape(tmp_path, shorter, side):
    from torchvision.transforms import v2

    sizes = [(400, 30), (30, 400), (21, 380), (390, 20), (40, 40), (200, 60)]
    folder = dataset(
        tmp_path, {number: encoded(number, size, "PNG") for number, size in enumerate(sizes)}, count=len(sizes)
    )
    split, theirs = imgdata.open(folder)["train"], v2.Compose([v2.Resize(shorter), v2.CenterCrop(side)])
    recipe = Recipe(Resize(shorter), CenterCrop(side))
    with imgdata.Loader(
        folder, split="train", batch_size=len(sizes), recipe=recipe, shuffle="none", exact=True
    ) as batches:
        (batch,) = batches
    for row in range(len(sizes)):
        expected = theirs(pillow(split[row].image))
        assert np.array_equal(batch.images[row].permute(1, 2, 0).numpy(), np.asarray(expected))


def test_exact_pixels_of_a_picture_that_grows_beyond_a_gigabyte_are_refused(tmp_path):
    folder = dataset(tmp_path, {0: encoded(0, (20_000, 1), "PNG")}, count=1)
    with (
        imgdata.Loader(
            folder, split="train", batch_size=1, recipe=Recipe(Resize(224), CenterCrop(224)), shuffle="none", exact=True
        ) as batches,
        pytest.warns(BadImageWarning, match="too-large"),
    ):
        (batch,) = batches
    assert not batch.valid.any()
    assert "pixels when resized, the limit is 268435456" in batches.bad[0].detail


def pillow(data):
    import io

    from PIL import Image

    return Image.open(io.BytesIO(data)).convert("RGB")
