"""Batches of several shapes: each of one, the same on all ranks, every sample once, resumed anywhere."""

from pathlib import Path

import numpy as np
import pytest

import imgdata
from imgdata.loader.buckets import Buckets, bucket_recipe
from imgdata.recipes import CenterCrop, HorizontalFlip, MixUp, RandomResizedCrop, Recipe, Resize, views
from support.loaders import as_saved, assert_same, loader, take
from support.rawdata import encoded

SIZES = [(48, 24), (32, 32), (24, 48)]
"""(height, width) of the buckets, by ratio: 0.5, 1, 2."""
SAMPLES = 45
FLAT = Recipe(RandomResizedCrop(size=16), HorizontalFlip())


def side_of(number: int) -> tuple[int, int]:
    """Width and height of a picture: upright, square or wide."""
    return [(40, 80), (60, 64), (90, 40), (64, 66)][number % 4]


def bucket_of(number: int) -> int:
    return [0, 1, 2, 1][number % 4]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of three shapes; not to be changed."""
    folder = tmp_path_factory.mktemp("shapes")
    items = [{"image": encoded(number, side_of(number)), "label": number % 3} for number in range(SAMPLES)]
    imgdata.shard(items, folder / "out", shard_samples=7, shuffle=False, workers=1)
    return folder / "out"


def buckets(folder: Path, **options):
    return loader(folder, **{"buckets": SIZES, "recipe": FLAT, "batch_size": 4, **options})


def test_every_batch_has_the_shape_of_its_pictures(shapes):
    with buckets(shapes, drop_last=False) as batches:
        taken = list(batches)
        assert len(taken) == len(batches)
    for batch in taken:
        (bucket,) = {bucket_of(position) for position in batch.positions.tolist()}
        assert tuple(batch.images.shape) == (4, 3, *SIZES[bucket])
        assert batch.labels.tolist() == [position % 3 for position in batch.positions.tolist()]
    shown = [p for batch in taken for p in batch.positions[batch.valid].tolist()]
    assert sorted(shown) == list(range(SAMPLES))


def test_epochs_differ_and_are_repeated_exactly(shapes):
    with buckets(shapes) as one, buckets(shapes, threads=1, prefetch=5) as other:
        first, second = take(one), take(one)
        assert_same(first + second, take(other) + take(other))
    assert [batch.positions for batch in first] != [batch.positions for batch in second]


def test_ranks_have_one_shape_at_each_step(shapes):
    parts = []
    for rank in range(2):
        with buckets(shapes, batch_size=2, rank=rank, world_size=2) as batches:
            parts.append(take(batches))
    with buckets(shapes) as batches:
        whole = take(batches)
    for one, other, both in zip(*parts, whole, strict=True):
        assert one.images.shape[1:] == other.images.shape[1:] == both.images.shape[1:]
        assert one.positions + other.positions == both.positions
        assert np.array_equal(np.concatenate([one.images, other.images]), both.images)


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_a_run_is_resumed_with_other_ranks(shapes, taken):
    with buckets(shapes) as batches:
        running = iter(batches)
        for _ in range(taken):
            next(running)
        state = as_saved(batches.state_dict())
        rest = take(running)
    with buckets(shapes, batch_size=2, rank=0, world_size=2) as batches:
        batches.load_state_dict(state)
        for one, whole in zip(take(batches), rest, strict=True):
            assert one.positions == whole.positions[:2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 2}, r"other global batches than 2 \(batch_size times ranks\)"),
        ({"buckets": SIZES[:2]}, r"with other buckets"),
        ({"buckets": None}, r"saved with another dataset, view or shuffle"),
    ],
)
def test_a_state_of_other_batches_is_refused(shapes, change, message):
    with buckets(shapes) as batches:
        state = batches.state_dict()
    with buckets(shapes, **change) as batches, pytest.raises(imgdata.OptionError, match=message):
        batches.load_state_dict(state)


def test_pictures_are_mixed_within_their_shape(shapes):
    with buckets(shapes, recipe=Recipe(*FLAT.ops, MixUp(alpha=1.0))) as batches:
        assert {tuple(batch.images.shape[2:]) for batch in batches} <= set(SIZES)


def test_views_have_their_own_buckets(shapes):
    with buckets(shapes, view="where height<70", drop_last=False) as batches:
        assert {tuple(batch.images.shape[2:]) for batch in batches} == {SIZES[1], SIZES[2]}


def test_the_summary_states_padding_and_what_is_cut(shapes):
    with buckets(shapes, drop_last=False) as batches:
        found = batches.buckets
        text = repr(batches)
    assert found is not None
    # 12 upright, 11 wide, 22 square: the last batches of two are not full.
    assert (found.samples, found.batches) == ((12, 22, 11), (3, 6, 3))
    assert (found.padded, found.dropped, found.shown) == (3, 0, 48)
    assert found.padding == pytest.approx(3 / 48)
    assert found.cut < found.cut_square / 4
    assert "padding 3 of 48 places (6.2%)" in str(found)
    assert "shapes: 3 buckets" in text
    with buckets(shapes) as batches:
        found = batches.buckets
    assert found is not None
    assert (found.padded, found.dropped) == (0, 5)
    with loader(shapes) as batches:
        assert batches.buckets is None


@pytest.mark.parametrize(
    ("made", "sizes"),
    [
        (Buckets(area=224 * 224, ratios=(1.0,)), ((224, 224),)),
        (Buckets(area=224 * 224, ratios=(2.0, 0.5)), ((320, 160), (160, 320))),
        (Buckets(area=64 * 64, ratios=(1.0, 1.01), multiple_of=32), ((64, 64),)),
        (Buckets(sizes=((24, 48), (48, 24))), ((48, 24), (24, 48))),
        (Buckets(area=100, ratios=(4.0,), multiple_of=1), ((5, 20),)),
    ],
)
def test_sizes_of_an_area(made, sizes):
    assert made.sizes == sizes


def test_a_picture_goes_to_the_nearest_ratio():
    made = Buckets(sizes=((20, 10), (10, 10), (10, 20)))
    width_N = np.array([10, 7, 71, 100, 141, 142, 200, 0], np.int32)
    height_N = np.array([100, 10, 100, 100, 100, 100, 100, 0], np.int32)
    assert made.of(width_N, height_N).tolist() == [0, 0, 1, 1, 1, 2, 2, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"Buckets must have an area, such as 224 \* 224, or sizes"),
        ({"area": 100, "sizes": ((1, 1),)}, r"Buckets must have an area"),
        ({"sizes": ((10, 20), (20, 40))}, r"must have different ratios, got \(10, 20\) and \(20, 40\)"),
        ({"sizes": (224, 224)}, r"sizes must be pairs \(height, width\), got \(224, 224\)"),
        ({"area": 100, "ratios": 1.0}, r"ratios must be numbers, such as .*, got 1\.0"),
        ({"sizes": ((10, 0),)}, r"a side must be an integer of at least 1, got 0"),
        ({"area": 100, "ratios": (0.0,)}, r"a ratio must be a number from 0\.015625 to 64, got 0"),
    ],
)
def test_shapes_that_can_not_be_are_refused(options, message):
    with pytest.raises(imgdata.OptionError, match=message):
        Buckets(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buckets": 7}, r"buckets must be Buckets\(area=\.\.\.\) or a list of \(height, width\), got 7"),
        ({"backend": "resident"}, r"buckets need the backend cpu, which makes batches of any shape, got 'resident'"),
        ({"recipe": views(2, Recipe(RandomResizedCrop(32)))}, r"buckets can't be used with several views"),
        ({"columns": 5}, r"columns must be names of columns, such as .*, got 5"),
        ({"view": "balance"}, r"buckets can't be used with a balanced view"),
        ({"batch_size": 23}, r"batch_size times world_size must be at most 22, the samples of the largest bucket"),
    ],
)
def test_what_buckets_can_not_do_is_refused(shapes, options, message):
    with pytest.raises(imgdata.OptionError, match=message):
        buckets(shapes, **options)


def test_a_state_within_a_batch_is_damaged(shapes):
    with (
        buckets(shapes) as batches,
        pytest.raises(imgdata.OptionError, match=r"must be a multiple of \d+, got 1; it is"),
    ):
        batches.load_state_dict({**batches.state_dict(), "samples": 1})


@pytest.mark.parametrize(
    ("ops", "made"),
    [
        ([RandomResizedCrop(size=16, ratio=(0.5, 2.0))], [RandomResizedCrop(size=(10, 40), ratio=(2.0, 8.0))]),
        ([Resize(size=256), CenterCrop(size=224)], [Resize(size=(11, 46)), CenterCrop(size=(10, 40))]),
        ([Resize(size=(64, 64))], [Resize(size=(10, 40))]),
    ],
)
def test_a_recipe_gets_the_shape_of_its_bucket(ops, made):
    assert bucket_recipe(Recipe(*ops, HorizontalFlip()), (10, 40)) == Recipe(*made, HorizontalFlip())


def test_evaluation_shows_each_picture_once(shapes):
    recipe = Recipe(Resize(size=36), CenterCrop(size=32))
    with buckets(shapes, recipe=recipe, shuffle="none") as batches:
        valid = [p for batch in batches for p in batch.positions[batch.valid].tolist()]
    assert sorted(valid) == list(range(SAMPLES))
