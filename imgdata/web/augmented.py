"""One sample, a recipe, an epoch -> the picture that training gets, the same pixels as the loader's."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.dataset.dataset import Dataset
from imgdata.errors import ImageError
from imgdata.web.rows import only
from imgdata.web.runs import Run

MOST_EPOCHS = 100_000


def recipe_of(dataset: Dataset, split: str, run: Run | None) -> tuple[Any, int, str]:
    """Return the recipe of a run, or the usual one for the pictures; the seed; in words whose recipe that is."""
    from imgdata.recipes.recipe import Recipe

    if run is not None:
        return Recipe.from_dict(run.config["recipe"]), run.seed, f"the recipe of run {run.name}"
    from imgdata.loader.opened import Given, open_source
    from imgdata.measure.doctor.inputs import DoctorOptions, choose_recipe

    recipe, code = choose_recipe(DoctorOptions(split=split, device="cpu"), open_source(Given(dataset, split)))
    return recipe, 0, code.removeprefix("imgdata.recipes.")


def augmented(dataset: Dataset, split: str, position: int, recipe: Any, seed: int, epoch: int) -> NDArray[np.uint8]:
    """Return what the recipe makes of a sample in an epoch, counted from 0, uint8 `(H, W, 3)`.

    What mixes a batch (MixUp, CutMix) has nothing to mix with. Raises `ImageError`, `ShardError`.
    """
    from imgdata.loader.bad_images import BadImageWarning
    from imgdata.loader.loader import Loader

    with (
        warnings.catch_warnings(),
        Loader(
            only(dataset, split, position),
            batch_size=1,
            recipe=recipe,
            backend="cpu",
            dtype="uint8",
            shuffle="none",
            seed=seed,
            rank=0,
            world_size=1,
            threads=1,
            on_bad="skip",
        ) as loader,
    ):
        warnings.simplefilter("ignore", BadImageWarning)
        loader.set_epoch(epoch)
        batch = next(iter(loader))
    if not bool(batch.valid[0]):
        raise ImageError("corrupt", "the picture can't be decoded")
    pixels_HWC: NDArray[np.uint8] = batch.images[0].permute(1, 2, 0).numpy().copy()
    return pixels_HWC
