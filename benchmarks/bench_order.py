"""(samples, seed, epoch, rank) -> positions, and positions -> parameters: what is decided before a byte is read."""

import itertools

import numpy as np
import pytest

import imgdata
from benchmarks.synthetic_index import plant
from imgdata import recipes
from imgdata.augment.params import params
from imgdata.loader.planner import Planner
from imgdata.order.epoch_order import Order
from imgdata.views.view import whole

IMAGENET_TRAIN = 1_281_167
SHARDS = 600
BATCH, BATCHES = 256, 50


def _shard_sizes():
    return tuple(np.bincount(np.arange(IMAGENET_TRAIN) * SHARDS // IMAGENET_TRAIN).tolist())


@pytest.mark.benchmark(group="an epoch's order, 1,281,167 samples")
@pytest.mark.parametrize("shuffle", ["global", "window", "none"])
def test_order_of_an_epoch(stage, shuffle):
    settings = {"num_samples": IMAGENET_TRAIN, "global_batch": BATCH, "shuffle": shuffle, "seed": 3}
    sizes = _shard_sizes()

    def fresh():
        return (Order(**settings, shard_sizes=sizes),)

    stage(f"imgdata, {shuffle}", lambda order: order.epoch_positions(1), images=IMAGENET_TRAIN, setup=fresh)


@pytest.mark.benchmark(group="an epoch's order, 1,281,167 samples")
def test_permutation_of_numpy(stage):
    generator = np.random.default_rng(3)
    stage("numpy permutation", lambda: generator.permutation(IMAGENET_TRAIN), images=IMAGENET_TRAIN)


@pytest.mark.benchmark(group="parameters, batches of 256")
@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("imgdata, crop and flip", recipes.imagenet_train(224)),
        ("imgdata, RandAugment", recipes.Recipe(recipes.RandomResizedCrop(size=224), recipes.RandAugment())),
    ],
    ids=["crop", "randaugment"],
)
def test_parameters(stage, name, recipe):
    side_N = np.full(BATCH, 400)
    numbers = itertools.count()

    def batches():
        for _ in range(BATCHES):
            position_N = np.arange(BATCH) + BATCH * next(numbers)
            params(recipe, side_N, side_N, seed=3, epoch=1, position_N=position_N)

    stage(name, batches, images=BATCH * BATCHES)


@pytest.mark.benchmark(group="plan a rank's batches of 256, 1,281,167 samples")
@pytest.mark.parametrize("world_size", [1, 64])
def test_plan_batches(stage, work_folder, world_size):
    folder = work_folder / f"planned{world_size}"
    view = whole(imgdata.open(plant(folder, IMAGENET_TRAIN, SHARDS)), "train")
    planner = Planner(
        index=view.index,
        view=view,
        order=Order(num_samples=len(view), global_batch=BATCH * world_size, drop_last=True),
        recipe=recipes.imagenet_train(224),
        rank=world_size - 1,
        world_size=world_size,
    )
    planner.draft(0, 0)

    def batches():
        for number in range(BATCHES):
            planner.work(planner.draft(0, number * BATCH * world_size))

    stage(f"imgdata, {world_size} ranks", batches, images=BATCH * BATCHES)
