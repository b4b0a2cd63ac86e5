"""A program: a batch by DALI while no memory is left on the device, and one when there is again.

In a process of its own, since nobody promises that a library survives that. Prints what the first batch raised, how
many pictures are remembered as ones that DALI refuses, and how many of the second batch failed.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from imgdata.backends.dali.backend import DaliBackend
from imgdata.recipes import HorizontalFlip, RandomResizedCrop, Recipe
from support.dali_faults import SHORTAGES, Faulty
from support.dali_work import NORMALIZE, made, setup, work

RECIPE = Recipe(RandomResizedCrop(size=224), HorizontalFlip(), NORMALIZE)
"""Batches of 36 MB."""


@contextmanager
def no_memory(device: str) -> Iterator[None]:
    """Take all memory of the GPU; on the processor let DALI say that there is none."""
    if device == "cpu":
        with pytest.MonkeyPatch.context() as patch:
            Faulty(patch, lambda spec, inputs: SHORTAGES[0])
            yield
        return
    held, size = list[torch.Tensor](), 2**30
    while size >= 2**20:
        try:
            held.append(torch.empty(size, dtype=torch.uint8, device=device))
        except torch.OutOfMemoryError:
            size //= 2
    try:
        yield
    finally:
        held.clear()
        torch.cuda.empty_cache()


def main(folder: str, device: str) -> dict[str, Any]:
    given = setup(
        Path(folder), RECIPE, device=device, dtype="float32", dali_options={"crop_decode": False, "preallocate": False}
    )
    todo = work(given, range(60))
    with closing(DaliBackend(given)) as backend:
        with no_memory(device):
            try:
                made(backend, todo)
                told = ""
            except (MemoryError, RuntimeError) as error:
                told = f"{type(error).__name__}: {error}"
        remembered = sum(
            len(file.read_text().splitlines()) for file in Path(os.environ["IMGDATA_CACHE"]).glob("dali-*.jsonl")
        )
        _, failed = made(backend, todo)
    return {"told": told, "remembered": remembered, "failed": len(failed)}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
