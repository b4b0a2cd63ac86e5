"""Which sample comes when, and what is drawn for it -> plain values and hashes.

Whole numbers are recorded by the sha256 of all, as int64 with the lowest byte first. Floats are recorded as they are
and compared within 1e-6: some come from logarithms and cosines, which differ between processors in the last digit.
"""

import hashlib
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata import recipes
from recorded.places import Order, erasing_noise, mix_params, params, spread

SHARD_SIZES = (17, 40, 3, 25, 1, 60, 32, 9, 50, 13)
SAMPLES = sum(SHARD_SIZES)
ORDERS: dict[str, dict[str, Any]] = {
    "global": {"seed": 0},
    "global, largest seed": {"seed": 2**63 - 1},
    "window of 3": {"shuffle": "window", "window_shards": 3, "seed": 4},
    "window of 1": {"shuffle": "window", "window_shards": 1, "seed": 4},
    "window of all": {"shuffle": "window", "window_shards": 16, "seed": 5},
    "none": {"shuffle": "none"},
}
EPOCHS = (0, 1, 2, 17, 2**32 - 1)
RANKS = (1, 2, 4)

PICTURES = 64
FIRST = 4
"""Rows of floats that are recorded."""
DRAWS = ((0, 0), (3, 2), (2**63 - 1, 11))
"""Seeds and epochs."""

_CROP = recipes.RandomResizedCrop(size=64)
RECIPES: dict[str, recipes.Recipe] = {
    "imagenet_train": recipes.imagenet_train(224),
    "imagenet_eval": recipes.imagenet_eval(224),
    "cifar_train": recipes.cifar_train(cutout=8),
    "cifar_eval": recipes.cifar_eval(),
    "classifier_train": recipes.classifier_train(48),
    "classifier_eval": recipes.classifier_eval(48),
    "random crop of another shape": recipes.Recipe(
        recipes.RandomResizedCrop(size=(96, 64), scale=(0.3, 0.9), ratio=(0.4, 2.5), interpolation="bicubic")
    ),
    "random crop that seldom fits": recipes.Recipe(
        recipes.RandomResizedCrop(size=32, scale=(0.9, 1.0), ratio=(0.1, 10.0))
    ),
    "resize, random place, black margins": recipes.Recipe(
        recipes.Resize(size=70), recipes.PadRandomCrop(size=64, padding=6), recipes.VerticalFlip(p=0.3)
    ),
    "resize to both sides, middle": recipes.Recipe(
        recipes.Resize(size=(50, 90), interpolation="bicubic"), recipes.CenterCrop(size=(44, 60))
    ),
    "middle with margins": recipes.Recipe(recipes.CenterCrop(size=(300, 200))),
    "schedule": recipes.Recipe(recipes.RandomResizedCrop(size=recipes.Schedule(((0, 32), (2, 48), (10, 64))))),
    "ramp": recipes.imagenet_train(recipes.Ramp(end_epoch=13, start_size=160, end_size=224)),
    "flips and turns": recipes.Recipe(
        _CROP, recipes.HorizontalFlip(p=0.4), recipes.VerticalFlip(), recipes.Rotate(degrees=(-10.0, 95.0), p=0.7)
    ),
    "RandAugment": recipes.Recipe(_CROP, recipes.RandAugment(n=3, m=11)),
    "TrivialAugment": recipes.Recipe(_CROP, recipes.TrivialAugment()),
    "AutoAugment imagenet": recipes.Recipe(_CROP, recipes.AutoAugment()),
    "AutoAugment cifar10": recipes.Recipe(_CROP, recipes.AutoAugment(policy="cifar10")),
    "AutoAugment svhn": recipes.Recipe(_CROP, recipes.AutoAugment(policy="svhn")),
    "colours": recipes.Recipe(
        _CROP,
        recipes.ColorJitter(brightness=0.4, contrast=(0.5, 1.7), saturation=0.3, hue=0.1, p=0.8),
        recipes.Grayscale(p=0.2),
        recipes.Normalize(mean=recipes.IMAGENET_MEAN, std=recipes.IMAGENET_STD),
    ),
    "erasing": recipes.Recipe(_CROP, recipes.RandomErasing(p=0.6, value="random")),
    "erasing that seldom fits": recipes.Recipe(
        _CROP, recipes.RandomErasing(p=1.0, scale=(0.5, 0.99), ratio=(0.05, 20.0))
    ),
    "cutout": recipes.Recipe(_CROP, recipes.Cutout(size=17, value=0.5)),
}
MIXES: dict[str, recipes.Recipe] = {
    "none": recipes.Recipe(_CROP),
    "mixup": recipes.Recipe(_CROP, recipes.MixUp(alpha=0.3)),
    "cutmix": recipes.Recipe(_CROP, recipes.CutMix(alpha=1.0, p=0.7)),
    "either": recipes.Recipe(_CROP, recipes.MixUpOrCutMix(p=0.9)),
}


def orders() -> dict[str, Any]:
    """By name of the order: its epochs as hashes with their first samples, and one epoch's batches for every rank."""
    found: dict[str, Any] = {}
    for name, settings in ORDERS.items():
        order = Order(num_samples=SAMPLES, global_batch=24, shard_sizes=SHARD_SIZES, **settings)
        epochs = {str(epoch): order.epoch_positions(epoch) for epoch in EPOCHS}
        found[name] = {
            "steps": len(order),
            "spread": spread(order),
            "epochs": {epoch: [digest(array), array[:8].tolist()] for epoch, array in epochs.items()},
            "ranks": {str(world): [ranks_digest(order, rank, world) for rank in range(world)] for world in RANKS},
        }
    dropped = Order(num_samples=SAMPLES, global_batch=24, drop_last=True, seed=1)
    found["global, last one left out"] = {"steps": len(dropped), "ranks": ranks_digest(dropped, 1, 3)}
    found["global, from the middle"] = [array.tolist() for array in dropped.batch_at(6, 11, 2, 3)]
    return found


def ranks_digest(order: Any, rank: int, world_size: int) -> str:
    """Hash of all batches of a rank in epoch 3, with which samples are valid."""
    batches = [order.batch(3, number, rank, world_size) for number in range(len(order))]
    return digest(np.concatenate([np.concatenate([position_B, valid_B]) for position_B, valid_B in batches]))


def parameters() -> dict[str, Any]:
    """By name of the recipe: the recipe as JSON, and for seeds and epochs all that is drawn for `PICTURES` pictures."""
    number_N = np.arange(PICTURES)
    width_N, height_N = 40 + number_N * 37 % 460, 40 + number_N * 53 % 360
    position_N = number_N * 104_729 % 1_281_167
    found: dict[str, Any] = {}
    for name, recipe in RECIPES.items():
        found[name] = {"recipe": recipe.to_dict()}
        for seed, epoch in DRAWS:
            made = params(recipe, width_N, height_N, seed=seed, epoch=epoch, position_N=position_N)
            values = {field.name: getattr(made, field.name) for field in fields(made)}
            for name_of_steps in ("done_NS", "value_NV"):
                # These came later: none of the recipes recorded here has any.
                assert values.pop(name_of_steps).shape[1] == 0
            found[name][f"seed {seed}, epoch {epoch}"] = {key: _plain(value) for key, value in values.items()}
    return found


def mixes() -> dict[str, Any]:
    """By name of the recipe: kind, share, box and partners of some batches."""
    found: dict[str, Any] = {}
    for name, recipe in MIXES.items():
        made = [
            mix_params(recipe, count, seed=seed, epoch=epoch, offset=offset)
            for count in (8, 5)
            for seed, epoch in DRAWS
            for offset in (0, 8, 4096)
        ]
        found[name] = [[one.kind, one.lam, list(one.box_4), one.partner_N.tolist()] for one in made]
    return found


def noise() -> list[Any]:
    """What pictures are painted over with, for some seeds, epochs and positions."""
    arrays = [erasing_noise(seed, epoch, 1234 * seed % 999, 3, 5) for seed, epoch in DRAWS]
    return [array.ravel().tolist() for array in arrays]


def digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array.astype("<i8")).tobytes()).hexdigest()


def _plain(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind == "f":
        return [round(number, 9) for number in value[:FIRST].ravel().tolist()]
    return f"{list(value.shape)} {digest(value)}"
