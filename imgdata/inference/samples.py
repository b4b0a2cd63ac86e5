"""A dataset, a view, a trained network -> the samples that the network sees, in batches."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from imgdata.backends.options import BackendName
from imgdata.dataset.dataset import Dataset
from imgdata.errors import OptionError
from imgdata.inference.trained import Trained
from imgdata.loader.bad_images import BadImageWarning
from imgdata.loader.loader import Loader
from imgdata.recipes.presets import with_crops
from imgdata.recipes.recipe import Recipe
from imgdata.views.saved import open_view
from imgdata.views.view import View


def open_shown(dataset: Dataset, split: str, view: str) -> View:
    """Return the view of a split. Raises `OptionError`, `ShardError`."""
    if split not in dataset:
        raise OptionError(f"split must be one of {', '.join(dataset)}, got {split!r}")
    return open_view(dataset, split, view)


def crops_of(trained: Trained, crops: int, flip_test: bool | None = None) -> tuple[Recipe, bool]:
    """Return the recipe for so many crops of each picture, and whether mirror images of them are computed too.

    Without `flip_test` it is as the network was validated, but for ten crops, half of which are mirror images.
    Raises `OptionError`.
    """
    recipe = with_crops(trained.recipe, crops)
    if crops < 10:
        return recipe, trained.flip_test if flip_test is None else flip_test
    if flip_test:
        raise OptionError("flip_test must be left out with 10 crops, half of which are mirror images")
    return recipe, False


@contextmanager
def loaded(
    shown: View,
    recipe: Recipe,
    *,
    device: torch.device,
    batch_size: int,
    backend: BackendName,
    threads: int | None,
    exact: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Loader]:
    """Yield a loader of float32 images that has each sample once, in order; the caller names bad images in its result.

    A batch has at most `batch_size` samples of a rank, and no more than there are: what fills up a batch is computed,
    too.
    """
    with (
        warnings.catch_warnings(),
        Loader(
            shown,
            batch_size=min(batch_size, math.ceil(len(shown) / world_size)),
            recipe=recipe,
            device=device,
            backend=backend,
            shuffle="none",
            dtype="float32",
            threads=threads,
            exact=exact,
            rank=rank,
            world_size=world_size,
        ) as loader,
    ):
        warnings.simplefilter("ignore", BadImageWarning)
        yield loader
