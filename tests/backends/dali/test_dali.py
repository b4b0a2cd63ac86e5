"""The DALI backend on the processor makes the batches of the CPU backend, whatever is in the shards."""

import gc
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from imgdata import native
from imgdata.backends.cpu.backend import CpuBackend
from imgdata.backends.dali import pipeline
from imgdata.backends.dali.backend import DaliBackend, _largest
from imgdata.backends.dali.kind import DaliKind
from imgdata.backends.registry import choose
from imgdata.errors import OptionError
from imgdata.recipes import (
    CenterCrop,
    HorizontalFlip,
    MixUp,
    PadRandomCrop,
    RandomErasing,
    RandomResizedCrop,
    Recipe,
    Resize,
    Rotate,
    Schedule,
    VerticalFlip,
)
from support.dali_work import NORMALIZE, by_dali, made, setup, work
from support.loaders import RECIPE, dataset
from support.patience import PATIENCE_S
from support.places import TESTS
from support.rawdata import encoded

STEP = {"uint8": 1.0, "float16": 255 * 0.25, "float32": 255 * 0.25}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))


RECIPES = {
    "crop": (RECIPE, {}),
    "cubic crop": (Recipe(RandomResizedCrop(size=(24, 32), interpolation="bicubic"), VerticalFlip()), {}),
    "both flips": (Recipe(*RECIPE.ops, VerticalFlip()), {}),
    "planar": (RECIPE, {"channels_last": False}),
    "float32": (Recipe(*RECIPE.ops, NORMALIZE), {"dtype": "float32", "channels_last": False}),
    "float16, last": (Recipe(*RECIPE.ops, VerticalFlip(), NORMALIZE), {"dtype": "float16"}),
    "resize, crop": (Recipe(Resize(size=30), CenterCrop(size=28)), {}),
    "cubic resize": (Recipe(Resize(size=60, interpolation="bicubic"), CenterCrop(size=28)), {}),
    "fixed size": (Recipe(Resize(size=(20, 30)), HorizontalFlip()), {}),
    "black margins": (Recipe(CenterCrop(size=64)), {}),
    "padded": (Recipe(Resize(size=(32, 32)), PadRandomCrop(size=32, padding=9)), {}),
    "margins alone": (Recipe(Resize(size=(8, 8)), PadRandomCrop(size=4, padding=8)), {}),
    "mirrored": (Recipe(PadRandomCrop(size=32, padding=9, mode="reflect")), {}),
    "mirrored, resized": (Recipe(Resize(size=(32, 32)), PadRandomCrop(size=32, padding=9, mode="reflect")), {}),
    "erased, mixed": (
        Recipe(*RECIPE.ops, NORMALIZE, RandomErasing(p=1.0, value="random"), MixUp()),
        {"dtype": "float32", "channels_last": False},
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_pixels_are_those_of_the_cpu_backend(images, monkeypatch, name):
    recipe, options = RECIPES[name]
    monkeypatch.setattr(native, "AVAILABLE", False)
    given = setup(images, recipe, **options)
    todo = work(given, range(60), skip=[3])
    with closing(CpuBackend(given)) as backend:
        expected, _ = made(backend, todo)
    found, failed = by_dali(given, todo)
    assert failed == {}
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    apart = np.abs(found.astype(float) - expected.astype(float)).mean(axis=(1, 2, 3)) * STEP[given.options.dtype]
    assert apart.mean() < 0.25
    # A crop of a few pixels has few values to average.
    assert apart.max() < 0.6


def test_operators_on_pixels_come_before_normalize(images):
    plain = setup(images, Recipe(CenterCrop(size=32), NORMALIZE), dtype="float32", channels_last=False)
    turned = setup(images, Recipe(CenterCrop(size=32), Rotate(degrees=(90, 90)), NORMALIZE), dtype="float32")
    one, _ = by_dali(plain, work(plain, range(20)))
    other, _ = by_dali(turned, work(turned, range(20)))
    np.testing.assert_allclose(np.rot90(one, axes=(2, 3)), other, atol=1e-5)


def test_pixels_that_dali_does_not_make_are_the_hosts(images):
    given = setup(images, RECIPE)
    # Every tenth is a CMYK JPEG, every tenth a PNG.
    todo = work(given, [8, 9, 18, 19])
    with closing(CpuBackend(given)) as backend:
        expected, _ = made(backend, todo)
    assert np.array_equal(by_dali(given, todo)[0], expected)


def test_a_size_that_grows_with_the_epochs(images):
    given = setup(images, Recipe(RandomResizedCrop(size=Schedule(((0, 16), (1, 24))))))
    with closing(DaliBackend(given)) as backend:
        pending = [backend.start(work(given, range(8), epoch)) for epoch in (0, 1, 0)]
        for one in pending:
            one.wait()
        assert [tuple(one.images().shape[2:]) for one in pending] == [(16, 16), (24, 24), (16, 16)]


def test_a_row_does_not_depend_on_its_batch(images):
    given = setup(images, RECIPE)
    with closing(DaliBackend(given)) as backend:
        together, _ = made(backend, work(given, range(60)))
        for position in (0, 7, 8, 31):
            assert np.array_equal(made(backend, work(given, [position]))[0][0], together[position])


def test_images_are_dalis_memory_and_stay_as_they_are(images):
    given = setup(images, RECIPE)
    with closing(DaliBackend(given)) as backend:
        pending = [backend.start(work(given, range(first, first + 10))) for first in range(0, 60, 10)]
        gc.collect()
        held = []
        for one in pending:
            one.wait()
            held.append(one.images())
        copies = [image.clone() for image in held]
        for _ in range(5):
            made(backend, work(given, range(60)))
    del pending, backend
    gc.collect()
    assert all(torch.equal(image, copy) for image, copy in zip(held, copies, strict=True))
    assert held[0].is_contiguous(memory_format=torch.channels_last)


def test_batches_may_be_given_up_in_any_order(images):
    given = setup(images, RECIPE)
    with closing(DaliBackend(given)) as backend:
        expected, _ = made(backend, work(given, range(20, 30)))
        for order in ([0, 1], [1, 0], [0], [1], []):
            pending = [backend.start(work(given, range(first, first + 10))) for first in (0, 10, 20)]
            for number in order:
                pending[number].cancel()
            pending[2].wait()
            assert np.array_equal(pending[2].images().numpy(), expected)


# --- the whole ---------------------------------------------------------------------------------------------------


def test_a_closed_backend_says_so(images):
    given = setup(images, RECIPE)
    backend = DaliBackend(given)
    pending = backend.start(work(given, range(60)))
    backend.close()
    backend.close()
    for use in (lambda: backend.start(work(given, [0])), pending.wait):
        with pytest.raises(OptionError, match="this loader is closed"):
            use()


def test_the_description_says_what_runs(images):
    given = setup(images, RECIPE, dali_options={"depth": 3})
    assert DaliKind().describe(given).startswith("dali: NVIDIA DALI 2.")
    assert DaliKind().describe(given).endswith("on the processor, 2 threads, depth 3, Pillow for png")
    assert DaliKind().refuses(given) is None


@pytest.mark.parametrize(
    ("recipe", "options", "value_bytes"),
    [
        (RECIPE, {}, 1),
        (Recipe(*RECIPE.ops, NORMALIZE), {"dtype": "float32"}, 4),
        # Operators work on bytes of their own.
        (Recipe(*RECIPE.ops, Rotate(degrees=10), NORMALIZE), {"dtype": "float32"}, 4 + 1),
        # On a GPU a batch is a copy.
        (RECIPE, {"device": "cuda:0"}, 2),
    ],
)
def test_memory_is_that_of_the_batches(images, recipe, options, value_bytes):
    given = setup(images, recipe, **options, batch_size=10, buffers=3)
    assert DaliKind().memory(given, 0) == 3 * 10 * 3 * 16 * 16 * value_bytes


def test_memory_is_taken_for_the_largest_image_that_dali_may_get(images):
    given = setup(images, RECIPE)
    index = given.split.index
    largest = int((index.width_N.astype(int) * index.height_N).argmax())
    size = int(index.width_N[largest]), int(index.height_N[largest])
    with closing(DaliBackend(given)) as backend:
        assert backend.spec.largest_2 == size
    # Of a bad one the index may say anything.
    width_N = index.width_N.copy()
    width_N[0] = 2**30
    index._arrays["width"] = width_N
    with closing(DaliBackend(given)) as backend:
        assert backend.spec.largest_2 == size
    with closing(DaliBackend(setup(images, RECIPE, dali_options={"preallocate": False}))) as backend:
        assert backend.spec.largest_2 is None


@pytest.mark.parametrize(
    ("width", "height", "count", "expected"),
    [
        (9000, 6700, 1, (500, 375)),  # one of 2,000: its memory is taken when it comes
        (600, 400, 3, (600, 400)),  # more than one of a thousand
        (6000, 5000, 1000, (500, 375)),  # 30 megapixels, for every picture of the engine's share
        (6000, 4000, 1000, (6000, 4000)),
        (6000, 5000, 2000, None),
    ],
)
def test_no_memory_is_taken_for_outliers_and_giants(images, width, height, count, expected):
    given = setup(images, RECIPE)
    index = MagicMock(
        width_N=np.where(np.arange(2000) < count, width, 500), height_N=np.where(np.arange(2000) < count, height, 375)
    )
    index.__len__.return_value = 2000
    index.words.return_value, index.array.return_value = ["jpeg"], np.zeros(2000, np.int64)
    assert _largest(replace(given, split=MagicMock(index=index))) == expected


def test_options_are_checked_whatever_backend_is_chosen(images):
    with pytest.raises(OptionError, match="got 'speed'"):
        choose("cpu", setup(images, RECIPE, dali_options={"speed": 1}))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"speed": 1}, r"dali_options must be some of hw_decoder_load, depth, .*, got 'speed'"),
        ({"hw_decoder_load": 2}, "must be a number from 0 to 1, got 2"),
        ({"depth": 0}, "must be a whole number of at least 1, got 0"),
        ({"crop_decode": "yes"}, "must be True or False"),
    ],
)
def test_options_are_checked(images, options, said):
    with pytest.raises(OptionError, match=said):
        DaliBackend(setup(images, RECIPE, dali_options=options))


def test_a_dataset_without_jpegs_is_refused(tmp_path):
    folder = dataset(tmp_path, {number: encoded(number, format="PNG") for number in range(3)}, count=3)
    assert DaliKind().refuses(setup(folder, RECIPE)) == "backend 'dali' must have JPEGs, got png; use backend='cpu'"


def test_a_fork_of_a_process_that_used_a_gpu_is_refused(images, monkeypatch):
    class Pipeline:
        device_id = 0

    alive = Pipeline()
    monkeypatch.setattr(pipeline, "_ALIVE", {alive})
    monkeypatch.setattr(pipeline, "_PARENTS_GPUS", set())
    pipeline._leave_behind()
    assert "start it by multiprocessing's 'spawn'" in (DaliKind().refuses(setup(images, RECIPE, device="cuda")) or "")
    assert DaliKind().refuses(setup(images, RECIPE)) is None


FORK = """
import os, sys
sys.path.insert(0, sys.argv[2])
import gc, warnings
import numpy as np
from support.dali_work import DaliBackend, made, setup, work
from imgdata.backends.dali import pipeline
from support.loaders import RECIPE
warnings.simplefilter("ignore", DeprecationWarning)
given = setup(sys.argv[1], RECIPE)
backend = DaliBackend(given)
expected = made(backend, work(given, range(20)))[0]
ahead = backend.start(work(given, range(20)))
# Another thread may be building one.
building = pipeline._BUILDING
building.acquire()
child = os.fork()
if child == 0:
    del ahead, backend
    gc.collect()
    backend = DaliBackend(given)
    same = np.array_equal(made(backend, work(given, range(20)))[0], expected)
    backend.close()
    os._exit(0 if same else 1)
building.release()
_, status = os.waitpid(child, 0)
ahead.wait()
print(os.waitstatus_to_exitcode(status), np.array_equal(ahead.images().numpy(), expected))
"""


def test_parent_and_child_go_on_after_a_fork(images):
    command = [sys.executable, "-c", FORK, images, TESTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.stdout, done.stderr) == ("0 True\n", "")
