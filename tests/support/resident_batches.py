"""What the tests of the resident backend share: small splits, recipes, batches of a backend alone."""

from dataclasses import replace

import pytest

import imgdata
from imgdata import recipes
from imgdata.backends.options import LoaderOptions
from imgdata.backends.protocol import BackendSetup
from imgdata.loader.planner import Planner
from imgdata.order.epoch_order import Order
from imgdata.recipes import (
    AutoAugment,
    CenterCrop,
    ColorJitter,
    CutMix,
    Cutout,
    Grayscale,
    HorizontalFlip,
    MixUp,
    Normalize,
    PadRandomCrop,
    RandAugment,
    RandomErasing,
    Recipe,
    Resize,
    Rotate,
    TrivialAugment,
    VerticalFlip,
)
from imgdata.views.view import whole
from support.loaders import damaged, dataset
from support.rawdata import encoded

BATCH = 8
WIDTH, HEIGHT = 40, 32
NORMALIZE = Normalize(mean=recipes.CIFAR_MEAN, std=recipes.CIFAR_STD)
FLIPS = (HorizontalFlip(), VerticalFlip())
MOVING = PadRandomCrop(size=(28, 34), padding=4, mode="reflect")


@pytest.fixture
def resident_cache(tmp_path, monkeypatch):
    """An empty folder for decoded pixels."""
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "resident"


def picture(number):
    kind = {3: ("JPEG", "L"), 4: ("JPEG", "CMYK"), 5: ("PNG", "RGB")}.get(number % 6, ("JPEG", "RGB"))
    return encoded(number, (WIDTH, HEIGHT), *kind)


@pytest.fixture(scope="session")
def one_size(tmp_path_factory):
    """30 pictures of one size: JPEGs in colour, in gray and of CMYK, PNGs."""
    return dataset(tmp_path_factory.mktemp("one_size"), {number: picture(number) for number in range(30)}, 30)


def setup_of(folder, recipe, *, buffers=4, max_pixels=10**6, **options):
    settings = {"seed": 3, "batch_size": BATCH, "dtype": "uint8", "channels_last": True, "threads": 2, **options}
    return BackendSetup(
        split=imgdata.open(folder)["train"],
        options=LoaderOptions(recipe=recipe, **settings),
        buffers=buffers,
        max_pixels=max_pixels,
    )


def with_options(setup, **changes):
    """The same setup with other settings of the loader."""
    return replace(setup, options=replace(setup.options, **changes))


def planner_of(setup):
    view = whole(imgdata.open(setup.split.folder.path), "train")
    order = Order(
        num_samples=len(view),
        global_batch=setup.options.batch_size,
        shuffle="global",
        seed=setup.options.seed,
        drop_last=True,
        shard_sizes=(),
        window_shards=1,
    )
    return Planner(index=setup.split.index, view=view, order=order, recipe=setup.options.recipe, rank=0, world_size=1)


def batches(backend, count=3, epoch=0):
    """The first batches of an epoch, with what was bad in each."""
    planner = planner_of(backend.setup)
    works = [planner.work(planner.draft(epoch, number * BATCH)) for number in range(count)]
    begun = [backend.start(work) for work in works]
    found = []
    for pending in begun:
        failed = pending.wait()
        found.append((pending.images().cpu(), {row: str(error) for row, error in failed.items()}))
    return found


def images_of(kind, setup, **options):
    import torch  # Not above: this file is read for all tests, and PyTorch takes a second.

    backend = kind(setup)
    try:
        return torch.stack([images for images, _ in batches(backend, **options)])
    finally:
        backend.close()


GEOMETRY = {
    "mirrored margins": Recipe(MOVING, *FLIPS),
    "black margins": Recipe(PadRandomCrop(size=(36, 30), padding=5), *FLIPS),
    "no margins": Recipe(PadRandomCrop(size=20)),
    "middle": Recipe(CenterCrop(size=(24, 20)), *FLIPS),
    "middle of more": Recipe(CenterCrop(size=(35, 45)), HorizontalFlip()),
    "resized": Recipe(Resize(size=(21, 27), interpolation="bicubic"), HorizontalFlip()),
    "resized, margins": Recipe(Resize(size=26), PadRandomCrop(size=(26, 30), padding=2), HorizontalFlip()),
    "shorter side": Recipe(Resize(size=20), CenterCrop(size=16), VerticalFlip()),
}


PIXELS = {
    "cifar": recipes.Recipe(MOVING, HorizontalFlip(), NORMALIZE, Cutout(size=16)),
    "values by channel": Recipe(MOVING, NORMALIZE, RandomErasing(p=1.0, value=(0.5, -1.0, 0.25))),
    "noise": Recipe(MOVING, NORMALIZE, RandomErasing(p=0.7, value="random")),
    "not normalised": Recipe(MOVING, RandomErasing(p=0.7, value=0.5)),
    "turned": Recipe(MOVING, Rotate(degrees=30.0, interpolation="bilinear"), NORMALIZE),
    "RandAugment": Recipe(MOVING, RandAugment(), NORMALIZE),
    "AutoAugment": Recipe(MOVING, AutoAugment(policy="cifar10"), NORMALIZE),
    "TrivialAugment": Recipe(CenterCrop(size=24), TrivialAugment(), NORMALIZE),
    "colours": Recipe(
        MOVING, ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1), Grayscale(p=0.5), NORMALIZE
    ),
    "MixUp": Recipe(MOVING, HorizontalFlip(), NORMALIZE, MixUp()),
    "CutMix": Recipe(MOVING, HorizontalFlip(), NORMALIZE, CutMix()),
}


@pytest.fixture
def spoilt(tmp_path):
    folder = tmp_path / "spoilt"
    folder.mkdir()
    return dataset(
        folder, {**{number: picture(number) for number in range(24)}, 5: picture(5)[:-60], 11: damaged(11)}, 24
    )
