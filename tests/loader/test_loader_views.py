"""Several views of each picture in one batch: a tuple of tensors, of one order and one seed, from one decoding."""

import json
import pickle
import warnings

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

import imgdata
from imgdata import BadImageWarning, OptionError, native, recipes
from imgdata.backends.dali.kind import DaliKind
from imgdata.native import Crops
from imgdata.recipes import (
    Apply,
    BatchApply,
    CenterCrop,
    ColorJitter,
    HorizontalFlip,
    MixUp,
    Normalize,
    PadRandomCrop,
    RandomErasing,
    RandomResizedCrop,
    Recipe,
    Resize,
    Views,
    five_crop,
    ten_crop,
    views,
)
from imgdata.recipes.presets import VIEW_PRESETS, named_recipe, read_recipe
from support.loaders import HAS_DALI, TRAIN, damaged, dataset, recipe_for
from support.native_crops import Files, Geometry, encode, gentle, submit

BAD = {5: damaged(5), 20: b"no image at all", 44: damaged(44)}
SMALL = Recipe(Resize(size=(12, 12)), PadRandomCrop(size=8, padding=4), HorizontalFlip())
"""A second view that every backend takes."""


@pytest.fixture(scope="module")
def flawed(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("flawed"), BAD)


def loader(images, recipe, **options):
    return imgdata.Loader(images, **{**TRAIN, "recipe": recipe, **options})


def taken(batches):
    return [
        (batch.positions.tolist(), batch.labels.tolist(), [images.numpy().copy() for images in batch.views])
        for batch in batches
    ]


def assert_same(found, expected):
    for (positions, labels, images), others in zip(found, expected, strict=True):
        assert (positions, labels) == others[:2]
        assert all(np.array_equal(one, other) for one, other in zip(images, others[2], strict=True))


@pytest.mark.parametrize("more", [(), (ColorJitter(brightness=0.5), RandomErasing(p=0.5, value="random"))])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_first_view_is_what_its_recipe_makes_alone(images, backend, more, dtype):
    first = recipe_for(backend, *more)
    with loader(images, views(first, 2, SMALL), dtype=dtype) as several, loader(images, first, dtype=dtype) as one:
        for batch, alone in zip(several, one, strict=True):
            assert isinstance(batch.images, tuple)
            assert np.array_equal(batch.images[0], alone.images)
            assert batch.labels.tolist() == alone.labels.tolist()
            assert [tuple(view.shape) for view in batch.images] == [(8, 3, 16, 16), (8, 3, 8, 8), (8, 3, 8, 8)]
            assert all(str(view.dtype) == f"torch.{dtype}" for view in batch.images)


def test_five_and_ten_crops_are_torchvisions(images, backend):
    recipe, dataset = Recipe(Resize(20), CenterCrop(13)), imgdata.open(images)["train"]
    streams = backend in ("cpu", "pillow")
    options = {"shuffle": "none", "exact": streams}
    with loader(images, five_crop(recipe), **options) as five, loader(images, ten_crop(recipe), **options) as ten:
        for few, many in zip(five, ten, strict=True):
            assert all(torch.equal(one, other) for one, other in zip(few.views, many.views, strict=False))
            for row, position in enumerate(many.positions.tolist()):
                crops = v2.functional.ten_crop(v2.functional.resize(dataset[position].pil(), [20]), 13)
                for view, crop in zip(many.views, crops, strict=True):
                    difference = (view[row].int() - v2.functional.pil_to_tensor(crop)).abs().float()
                    # Others round a resize differently, and interpolate chroma in another way.
                    assert difference.max() == 0 if streams else difference.mean() < 3


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(Resize((13, 13))), "several crops need a recipe of one view with CenterCrop"),
        (Recipe(CenterCrop(13), HorizontalFlip()), "ten crops need a recipe without HorizontalFlip"),
        (views(Recipe(CenterCrop(13)), Recipe(CenterCrop(9))), "several crops need a recipe of one view"),
    ],
)
def test_ten_crops_of_other_recipes_are_refused(recipe, message):
    with pytest.raises(OptionError, match=message):
        ten_crop(recipe)


def test_views_of_one_recipe_differ_and_come_again(images, backend):
    recipe = views(2, recipe_for(backend))
    with loader(images, recipe) as one, loader(images, recipe, threads=1, prefetch=1) as other:
        found = taken(one)
        assert_same(found, taken(other))
        assert not any(np.array_equal(*made) for _, _, made in found)


def test_a_batch_of_views_is_resumed_and_shared_by_ranks(images, backend):
    recipe = views(recipe_for(backend), SMALL)
    with loader(images, recipe) as whole:
        expected = taken(whole)
    with loader(images, recipe) as begun:
        batches = iter(begun)
        next(batches)
        state = json.loads(json.dumps(begun.state_dict()))
    with loader(images, recipe) as resumed:
        resumed.load_state_dict(state)
        assert_same(taken(resumed), expected[1:])
    made = []
    for rank in range(2):
        with loader(images, recipe, batch_size=4, rank=rank, world_size=2) as part:
            made.append(taken(part))
    for (positions, _, pictures), (begin, _, first), (end, _, second) in zip(expected, *made, strict=True):
        assert positions == begin + end
        assert all(
            np.array_equal(view, np.concatenate(two)) for view, *two in zip(pictures, first, second, strict=True)
        )


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_bad_picture_is_bad_in_all_views(flawed, backend, dtype):
    normalize = Normalize(mean=(0.5,) * 3, std=(0.5,) * 3)
    recipe = views(recipe_for(backend, normalize), Recipe(*SMALL.ops, normalize))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BadImageWarning)
        with loader(flawed, recipe, shuffle="none", dtype=dtype) as batches:
            seen = list(batches)
            bad = {image.position for image in batches.bad}
        with loader(flawed, recipe, dtype=dtype) as replaced:
            positions = [position for batch in replaced for position in batch.positions.tolist()]
    assert bad == set(BAD)
    for batch in seen:
        for row, position in enumerate(batch.positions.tolist()):
            black = [bool((view[row] == (0 if dtype == "uint8" else -1)).all()) for view in batch.views]
            if position in BAD:
                assert all(black)
                assert not batch.valid[row]
            else:
                assert not any(black)
    assert not set(positions) & set(BAD)


def test_each_view_has_its_own_normalisation(images):
    half = Normalize(mean=(0.5,) * 3, std=(0.5,) * 3)
    with loader(images, views(Recipe(Resize((8, 8))), Recipe(Resize((8, 8)), half)), shuffle="none") as batches:
        plain, normalized = next(iter(batches)).images
    np.testing.assert_allclose(normalized, 2 * plain - 1, atol=1e-6)


def test_batches_of_views_say_what_they_hold_and_move(images):
    with loader(images, views(2, SMALL)) as batches:
        batch = next(iter(batches))
        assert "2 views" in repr(batches)
    assert "uint8 (8, 3, 8, 8) and uint8 (8, 3, 8, 8) on cpu" in repr(batch)
    assert isinstance(batch.to("cpu").images, tuple)
    (first, second), labels = batch
    assert len(first) == len(second) == len(labels)


def test_batches_of_views_that_are_kept_stay_as_they_are_and_others_lend_their_memory_on(images):
    with loader(images, views(2, SMALL)) as batches:
        kept = [(batch, [view.clone() for view in batch.views]) for batch in batches]
        for batch, copies in kept:
            assert all(map(torch.equal, batch.views, copies))
        del batch, copies
        del kept
        places = [view.data_ptr() for _ in range(4) for batch in batches for view in batch.views]
        assert len(set(places)) < len(places) / 3


def test_a_loader_of_views_is_closed_and_pickled_like_any_other(images):
    recipe = views(2, recipe_for("native", ColorJitter(brightness=0.5)))
    with loader(images, recipe) as batches:
        iterator = iter(batches)
        next(iterator)
        assert len(list(pickle.loads(pickle.dumps(batches)))) == len(batches) - 1
    with pytest.raises(OptionError, match="this loader is closed"):
        next(iterator)


def test_a_function_that_fails_in_a_further_view_names_the_sample(images):
    def fails(pixels, generator):
        raise ValueError("no")

    with (
        loader(images, views(SMALL, Recipe(*SMALL.ops, Apply(fails)))) as batches,
        pytest.raises(imgdata.FunctionError, match=r"s00\d\d in demo-train"),
    ):
        next(iter(batches))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: views(), "1 to 64 views, got 0"),
        (lambda: views(65, SMALL), "got 65"),
        (lambda: views(2), "in front of a recipe, got 2 at the end"),
        (lambda: views("dino"), "got 'dino'"),
        (lambda: views(SMALL, views(2, SMALL)), "a view must be a Recipe, got views"),
        (lambda: views(2, Recipe(*SMALL.ops, MixUp())), "MixUp must not stand in a view, got it in view 0"),
        (lambda: views(2, Recipe(*SMALL.ops, BatchApply(print))), "BatchApply must not stand in a view"),
        (lambda: named_recipe("dino"), "one picture of each sample here, got 10 views"),
    ],
)
def test_what_is_no_recipe_of_views_is_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buckets": [(8, 8), (8, 16)]}, "buckets can.t be used with several views of a picture"),
        ({"channels": 4, "recipe": views(SMALL, Recipe(*SMALL.ops, ColorJitter(hue=0.1)))}, "ColorJitter works on red"),
    ],
)
def test_what_views_can_not_be_combined_with_is_refused(images, options, message):
    with pytest.raises(OptionError, match=message):
        loader(images, **{"recipe": views(2, SMALL), **options})


@pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
def test_auto_leaves_views_to_a_backend_that_decodes_a_picture_once(images, monkeypatch):
    monkeypatch.setattr(DaliKind, "prefers", lambda *_: True)
    crop = Recipe(RandomResizedCrop(16))
    with loader(images, crop) as one, loader(images, views(2, crop)) as two:
        assert (one.backend, two.backend) == ("dali", "cpu")
        assert "not dali: it decodes a picture for each of 2 views" in two.backend_description


@pytest.mark.parametrize("name", VIEW_PRESETS)
def test_ready_views_come_back_from_json_and_by_name(name, tmp_path):
    recipe = recipes.named(name, 56)
    assert recipe == getattr(recipes, name)(56)
    file = tmp_path / "views.json"
    file.write_text(json.dumps(recipe.to_dict()))
    assert recipes.named(str(file)) == recipe
    assert eval(repr(recipe), vars(recipes)) == recipe
    for refuse in (lambda: read_recipe(file), lambda: Recipe.from_dict(recipe.to_dict())):
        with pytest.raises(OptionError, match=r"views, which imgdata.Loader alone takes|several `views`, which"):
            refuse()


def test_dino_has_two_large_and_eight_small_views(images):
    with loader(images, "dino", batch_size=2) as batches:
        assert isinstance(recipes.dino(), Views)
        sizes = [view.shape[-1] for view in next(iter(batches)).images]
    assert sizes == [224] * 2 + [96] * 8


@pytest.mark.skipif(not native.AVAILABLE, reason="the extension was not built")
@pytest.mark.parametrize("kind", ["baseline", "progressive", "crop-ready"])
@pytest.mark.parametrize("sampling", ["4:2:0", "4:4:4", "gray"])
def test_crops_that_are_made_together_have_the_pixels_that_they_have_alone(sampling, kind):
    geometries = [
        Geometry(box=(0, 0, 320, 240), resized=(30, 24)),
        Geometry(box=(31, 7, 200, 180), resized=(64, 50), flip=True),
        Geometry(box=(200, 150, 40, 50), resized=(16, 20), vflip=True, bicubic=True),
        Geometry(box=(0, 0, 320, 240), resized=(320, 240), offset=(300, 220), output=(40, 40), mirrored_margins=True),
        Geometry(box=(0, 0, 320, 240), resized=(12, 9)),
    ]
    pictures = [gentle(320, 240, seed, 200).convert("L" if sampling == "gray" else "RGB") for seed in range(3)]
    files = [encode(picture, sampling, progressive=kind == "progressive") for picture in pictures]
    if kind == "crop-ready":
        files = [ready[0] for file in files if (ready := native.make_crop_ready(file)) is not None]
    pool = native.Pool(2)

    def empty(geometry):
        return np.zeros((3, geometry.size[1], geometry.size[0], 3), np.uint8)

    def crops(geometry):
        return Crops(
            empty(geometry),
            False,
            np.array([geometry.box]),
            np.array([geometry.resized]),
            np.array([geometry.offset]),
            np.array([geometry.flip]),
            np.array([geometry.vflip]),
            geometry.bicubic,
            geometry.mirrored_margins,
        )

    assert len(files) == 3
    with Files(files) as opened:
        first, more = empty(geometries[0]), [crops(geometry) for geometry in geometries[1:]]
        job = submit(pool, opened, [(320, 240)] * 3, geometries[0], first, more=more)
        assert job.wait().tolist() == [native.DONE] * 3
        for geometry, together in zip(geometries, [first, *(one.images for one in more)], strict=True):
            alone = empty(geometry)
            assert submit(pool, opened, [(320, 240)] * 3, geometry, alone).wait().tolist() == [native.DONE] * 3
            assert np.array_equal(alone, together)
    pool.close()
