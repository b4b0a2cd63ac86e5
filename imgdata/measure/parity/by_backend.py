"""A loader's backend -> an executor: pictures become a small dataset, which the backend makes into one batch."""

import io
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imgdata.augment.mix import MixParams
from imgdata.augment.params import BatchParams
from imgdata.backends.options import LoaderOptions
from imgdata.backends.protocol import BackendKind, BackendSetup, BatchRequest
from imgdata.dataset.manifest import MAX_PIXELS
from imgdata.dataset.split import Split
from imgdata.errors import ShardError
from imgdata.measure.parity.executors import Executor
from imgdata.measure.parity.pictures import Picture
from imgdata.recipes.functions import BatchApply
from imgdata.recipes.ops import CutMix, Cutout, MixUp, MixUpOrCutMix, Normalize, RandomErasing
from imgdata.recipes.recipe import Recipe
from imgdata.shards.index_tars import index

_BEHIND = Normalize | RandomErasing | Cutout | MixUp | CutMix | MixUpOrCutMix | BatchApply


def by_backend(kind: BackendKind) -> Executor:
    """Return the executor of that backend on the processor; its result is None for a recipe that it refuses."""

    def execute(pictures: Sequence[Picture], params: BatchParams, recipe: Recipe) -> NDArray[np.uint8] | None:
        steps = Recipe(*takewhile(lambda op: not isinstance(op, _BEHIND), recipe.ops))
        with tempfile.TemporaryDirectory() as folder:
            setup = _setup(_dataset(Path(folder), pictures), steps)
            if kind.refuses(setup) is not None:
                return None
            backend = kind.make(setup)
            try:
                pending = backend.start(_work(params))
                failed = pending.wait()
                if failed:
                    row, error = next(iter(failed.items()))
                    raise ShardError(f"{pictures[row].name}: the backend {kind.name} can't make it: {error}")
                return pending.images().permute(0, 2, 3, 1).numpy().copy()
            finally:
                backend.close()

    return execute


def _dataset(folder: Path, pictures: Sequence[Picture]) -> Split:
    # One extension for all: the bytes decide how they are decoded.
    with tarfile.open(folder / "parity-train-000000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, picture in enumerate(pictures):
            for extension, data in (("jpg", picture.data), ("cls", b"0")):
                member = tarfile.TarInfo(f"{number:06d}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return index(folder, workers=1)["train"]


def _setup(split: Split, recipe: Recipe) -> BackendSetup:
    options = LoaderOptions(batch_size=len(split), recipe=recipe, dtype="uint8", channels_last=True, threads=1)
    return BackendSetup(split=split, options=options, buffers=1, max_pixels=MAX_PIXELS)


def _work(params: BatchParams) -> BatchRequest:
    """Return the request for a batch, without what comes after `Normalize` in its parameters."""
    count = len(params)
    params = replace(params, erase_N4=np.zeros_like(params.erase_N4))
    unmixed = MixParams(kind="none", lam=1.0, box_4=(0, 0, 0, 0), partner_N=np.arange(count))
    return BatchRequest(epoch=0, params=params, position_N=np.arange(count), skip_N=np.zeros(count, bool), mix=unmixed)
