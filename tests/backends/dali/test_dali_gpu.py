"""The DALI backend on a GPU: the batches of the processor, handed over so that no stream sees memory filled anew.

The cache folder is that of all tests, so that crops are tried once, which takes 10 s and more.
"""

import json
import subprocess
import sys
from contextlib import closing

import pytest
import torch

from imgdata.backends.dali.backend import DaliBackend
from imgdata.backends.dali.crop_probe import crop_decode_is_safe
from imgdata.recipes import MixUp, Normalize, RandomErasing, Recipe, TrivialAugment
from support.dali_faults import Faulty
from support.dali_work import made, setup, without_tables, work
from support.gpu import SLACK, assert_shows, busy_side_stream, on_devices, used_bytes
from support.loaders import RECIPE, damaged, dataset, sample

NORMALIZED = Recipe(*RECIPE.ops, Normalize(mean=(0.4, 0.5, 0.6), std=(0.25, 0.25, 0.25)))
RECIPES = {
    "whole": (RECIPE, {}, False),
    "bytes": (RECIPE, {}, None),
    "float16": (NORMALIZED, {"dtype": "float16"}, None),
    "float32": (NORMALIZED, {"dtype": "float32", "channels_last": False}, None),
    "mixed": (Recipe(*NORMALIZED.ops, RandomErasing(p=1.0), MixUp()), {"dtype": "float32"}, None),
}
WHOLE = {"crop_decode": False}


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty cache folder: with `WHOLE` no crops are tried."""
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@on_devices
@pytest.mark.parametrize(("recipe", "options", "crop_decode"), RECIPES.values(), ids=RECIPES)
def test_pixels_are_nearly_those_of_the_processor(images, recipe, options, crop_decode, device):
    here = setup(images, recipe, **options)
    there = setup(images, recipe, device=device, **options, dali_options={"crop_decode": crop_decode})
    with closing(DaliBackend(here)) as one, closing(DaliBackend(there)) as other:
        expected, _ = made(one, work(here, range(60)))
        found, failed = made(other, work(there, range(60)))
    assert failed == {}
    assert_shows(found, expected, device, 1.0 if here.options.dtype == "uint8" else 1 / 255 / 0.25)


@on_devices
def test_batches_are_pytorchs_and_lie_where_they_are_wanted(images, device):
    place = torch.device(device, 0) if device == "cuda" else torch.device(device)
    given = setup(images, NORMALIZED, device=str(place), dtype="float16")
    with closing(DaliBackend(given)) as backend:
        pending = backend.start(work(given, range(20)))
        pending.wait()
        assert pending.images().device == place
        assert pending.images().is_contiguous(memory_format=torch.channels_last)


@on_devices
@pytest.mark.parametrize("recipe", [RECIPE, Recipe(*RECIPE.ops, TrivialAugment())], ids=["crops", "operators"])
def test_a_busy_side_stream_never_sees_memory_that_is_filled_anew(images, recipe, device):
    given = setup(images, recipe, device=device)
    parts = [range(first, first + 10) for first in range(0, 60, 10)]
    held = []
    with closing(DaliBackend(given)) as backend:
        expected = [made(backend, work(given, part))[0] for part in parts]
        with busy_side_stream(device) as busy:
            for _ in range(5):
                pending = [backend.start(work(given, part)) for part in parts]
                for one in pending:
                    for _ in range(4):
                        busy()
                    one.wait()
                    # Read behind all that; the batch itself is given up at once.
                    held.append(one.images().clone())
                del one, pending
    # Operators turn a step of rounding into many, in a few pixels.
    bounds = {} if recipe is RECIPE else {"mean_apart": 5.0, "rows_apart": 25.0}
    for number, image in enumerate(held):
        assert_shows(image.cpu().numpy(), expected[number % len(parts)], device, **bounds)


@on_devices
def test_bad_images_are_found_and_the_other_rows_are_as_ever(tmp_path, images, own_cache, device):
    bad = {5: without_tables(5), 12: damaged(12), 14: b"no image at all"}
    folder = tmp_path / "flawed"
    folder.mkdir()
    given = setup(dataset(folder, bad, count=20), RECIPE, device=device, dali_options=WHOLE)
    good = setup(images, RECIPE, device=device, dali_options=WHOLE)
    rows = [row for row in range(20) if row != 14]
    with closing(DaliBackend(given)) as backend, closing(DaliBackend(good)) as other:
        expected, _ = made(other, work(good, rows))
        for _ in range(2):
            found, failed = made(backend, work(given, rows))
            # Whether a GPU decodes a picture without tables is its own affair; that one ends, no decoder denies.
            assert set(failed) - {5} == {12}
            fine = [row for row in range(len(rows)) if row not in (5, 12)]
            assert_shows(found[fine], expected[fine], device)


@on_devices
def test_a_picture_that_dali_refuses_costs_nobody_else_anything_and_is_remembered(
    images, own_cache, monkeypatch, device
):
    """The fault is made, and all that follows is real: pipelines of the device that end, are built again, and tried."""

    def says(spec, inputs):
        rows = [bytes(data) for data in inputs["encoded"]]
        return f"Failed to decode sample #{rows.index(sample(5))} : " if sample(5) in rows else None

    given = setup(images, RECIPE, device=device, dali_options=WHOLE)
    parts = [range(10), range(10, 20), range(20, 30)]
    with closing(DaliBackend(given)) as backend:
        expected = [made(backend, work(given, part))[0] for part in parts]
    faulty = Faulty(monkeypatch, says, on_its_device=True)
    with closing(DaliBackend(given)) as backend:
        pending = [backend.start(work(given, part)) for part in parts]
        assert [dict(one.wait()) for one in pending] == [{}] * 3
        found = [one.images().cpu().numpy() for one in pending]
    for one, other in zip(found, expected, strict=True):
        assert_shows(one, other, device)
    (file,) = own_cache.glob("dali-*.jsonl")
    assert json.loads(file.read_text())[::2] == [5, ""]
    built = len(faulty.built)
    with closing(DaliBackend(given)) as backend:
        assert made(backend, work(given, parts[0]))[1] == {}
    assert len(faulty.built) == built + 1


@on_devices
def test_short_memory_is_told_blames_no_picture_and_is_survived(images, own_cache, device):
    done = subprocess.run(
        [sys.executable, "-m", "support.short_memory", str(images), device],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    # By DALI, by its decoder of each picture, or by PyTorch, for the copy.
    assert "memory" in result["told"]
    assert (result["remembered"], result["failed"]) == (0, 0)


@pytest.mark.gpu
def test_the_verdict_on_crops_is_kept():
    verdict = crop_decode_is_safe(0)
    assert crop_decode_is_safe(0) is verdict


@on_devices
def test_memory_does_not_grow(images, device):
    given = setup(images, NORMALIZED, device=device, dtype="float16")
    used = []
    with closing(DaliBackend(given)) as backend:
        for _ in range(2):
            for _ in range(100 if device == "cuda" else 5):
                made(backend, work(given, range(60)))
            used.append(used_bytes(device))
    assert used[1] <= used[0] + SLACK
