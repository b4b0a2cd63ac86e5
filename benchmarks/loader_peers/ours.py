"""imgdata's own loader over its shards."""

from typing import Any

from benchmarks.loader_peers.task import SIDE, Batches, Task


def recipe(task: Task) -> Any:
    """Crop and flip, and `Normalize` for float batches."""
    from imgdata import recipes

    ops: list[Any] = [recipes.RandomResizedCrop(size=SIDE), recipes.HorizontalFlip()]
    if task.is_float:
        ops.append(recipes.Normalize(mean=recipes.IMAGENET_MEAN, std=recipes.IMAGENET_STD))
    return recipes.Recipe(*ops)


def open_loader(task: Task) -> Batches:
    from imgdata import Loader

    loader: Batches = Loader(
        task.data / "shards",
        split="train",
        batch_size=task.batch,
        recipe=recipe(task),
        threads=task.threads,
        shuffle="global",
        drop_last=True,
    )
    return loader
