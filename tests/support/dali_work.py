"""What the tests of the DALI backend share: work for a backend without a loader around it, and damaged JPEGs."""

from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

import imgdata
from imgdata.augment.mix import mix_params
from imgdata.augment.params import params
from imgdata.backends.dali.backend import DaliBackend
from imgdata.backends.options import LoaderOptions
from imgdata.backends.protocol import Backend, BackendSetup, BatchRequest
from imgdata.recipes import Normalize, Recipe
from support.loaders import damaged, sample

NORMALIZE = Normalize(mean=(0.4, 0.5, 0.6), std=(0.25, 0.25, 0.25))


def setup(folder: Path, recipe: Recipe, **changes: Any) -> BackendSetup:
    dataset = imgdata.open(folder)
    buffers, device = changes.pop("buffers", 4), changes.pop("device", "cpu")
    defaults: dict[str, Any] = {"seed": 3, "batch_size": 64, "dtype": "uint8", "channels_last": True, "threads": 2}
    options = LoaderOptions(recipe=recipe, **{**defaults, **changes})
    # Not checked: what is said of a GPU can be tested without one.
    object.__setattr__(options, "device", device)
    return BackendSetup(
        split=dataset["train"], options=options, buffers=buffers, max_pixels=dataset.manifest.max_pixels
    )


def work(setup: BackendSetup, positions: Iterable[int], epoch: int = 0, skip: Iterable[int] = ()) -> BatchRequest:
    position_N = np.array(list(positions))
    index = setup.split.index
    return BatchRequest(
        epoch=epoch,
        params=params(
            setup.options.recipe,
            index.width_N[position_N],
            index.height_N[position_N],
            seed=setup.options.seed,
            epoch=epoch,
            position_N=position_N,
        ),
        position_N=position_N,
        skip_N=np.isin(np.arange(len(position_N)), list(skip)),
        mix=mix_params(setup.options.recipe, len(position_N), seed=setup.options.seed, epoch=epoch, offset=0),
    )


def made(backend: Backend, todo: BatchRequest) -> tuple[np.ndarray, Mapping[int, imgdata.ImageError]]:
    """Its pixels, and the rows that failed."""
    pending = backend.start(todo)
    failed = pending.wait()
    return pending.images().cpu().numpy().copy(), dict(failed)


def by_dali(setup: BackendSetup, todo: BatchRequest) -> tuple[np.ndarray, Mapping[int, imgdata.ImageError]]:
    with closing(DaliBackend(setup)) as backend:
        return made(backend, todo)


def without_tables(number: int) -> bytes:
    """A JPEG of the same length whose quantization tables are comments: the header is right, no decoder reads it."""
    return sample(number).replace(b"\xff\xdb", b"\xff\xfe")


BAD = {5: without_tables(5), 20: b"no image at all", 21: damaged(21), 44: without_tables(44)}
"""Positions in a dataset of `loaders.dataset` -> bytes that are no good image."""
