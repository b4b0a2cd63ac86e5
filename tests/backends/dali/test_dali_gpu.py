"""The DALI backend on a GPU: the batches of the processor, handed over so that no stream sees memory filled anew."""

from contextlib import closing

import numpy as np
import pytest
import torch

from imgdata.backends.dali.backend import DaliBackend
from imgdata.backends.dali.crop_probe import crop_decode_is_safe
from imgdata.recipes import MixUp, Normalize, RandomErasing, Recipe, TrivialAugment
from support.dali_work import made, setup, without_tables, work
from support.loaders import RECIPE, dataset

pytestmark = pytest.mark.gpu

NORMALIZED = Recipe(*RECIPE.ops, Normalize(mean=(0.4, 0.5, 0.6), std=(0.25, 0.25, 0.25)))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("crop_decode", [False, None])
@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        (RECIPE, {}),
        (NORMALIZED, {"dtype": "float16"}),
        (NORMALIZED, {"dtype": "float32", "channels_last": False}),
        (Recipe(*NORMALIZED.ops, RandomErasing(p=1.0), MixUp()), {"dtype": "float32"}),
    ],
)
def test_pixels_are_nearly_those_of_the_processor(images, recipe, options, crop_decode):
    here = setup(images, recipe, **options)
    there = setup(images, recipe, device="cuda", **options, dali_options={"crop_decode": crop_decode})
    with closing(DaliBackend(here)) as one, closing(DaliBackend(there)) as other:
        expected, _ = made(one, work(here, range(60)))
        found, failed = made(other, work(there, range(60)))
    assert failed == {}
    apart = np.abs(found.astype(float) - expected) * (1.0 if here.dtype == "uint8" else 255 * 0.25)
    assert apart.mean() < 0.6


def test_batches_are_pytorchs_and_lie_where_they_are_wanted(images):
    given = setup(images, NORMALIZED, device="cuda:0", dtype="float16")
    with closing(DaliBackend(given)) as backend:
        pending = backend.start(work(given, range(20)))
        pending.wait()
        assert pending.images().device == torch.device("cuda:0")
        assert pending.images().is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("recipe", [RECIPE, Recipe(*RECIPE.ops, TrivialAugment())])
def test_a_busy_side_stream_never_sees_memory_that_is_filled_anew(images, recipe):
    given = setup(images, recipe, device="cuda")
    parts = [range(first, first + 10) for first in range(0, 60, 10)]
    with closing(DaliBackend(given)) as backend:
        expected = [made(backend, work(given, part))[0] for part in parts]
        side, held = torch.cuda.Stream(), []
        busy = torch.ones(4096, 4096, device="cuda")
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(5):
                pending = [backend.start(work(given, part)) for part in parts]
                for one in pending:
                    for _ in range(4):
                        busy = busy @ busy / 4096
                    one.wait()
                    # Read behind all that; the batch itself is given up at once.
                    held.append(one.images().clone())
                del one, pending
        side.synchronize()
    for number, image in enumerate(held):
        assert np.array_equal(image.cpu().numpy(), expected[number % len(parts)])


def test_bad_images_are_found(tmp_path):
    folder = dataset(tmp_path, {5: without_tables(5)}, count=20)
    given = setup(folder, RECIPE, device="cuda")
    with closing(DaliBackend(given)) as backend:
        pending = [backend.start(work(given, part)) for part in (range(10), range(10, 20))]
        assert [list(one.wait()) for one in pending] == [[5], []]


def test_the_verdict_on_crops_is_kept(tmp_path):
    verdict = crop_decode_is_safe(0, tmp_path)
    assert crop_decode_is_safe(0, tmp_path) is verdict
    assert (tmp_path / "dali-crop.json").exists()


def test_memory_does_not_grow(images):
    given = setup(images, NORMALIZED, device="cuda", dtype="float16")
    used = []
    with closing(DaliBackend(given)) as backend:
        for _ in range(10):
            for _ in range(20):
                made(backend, work(given, range(60)))
            torch.cuda.synchronize()
            free, total = torch.cuda.mem_get_info()
            used.append(total - free)
    assert used[-1] <= used[0] + 2**20
