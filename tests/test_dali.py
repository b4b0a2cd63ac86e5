"""The DALI backend on the processor makes the batches of the CPU backend, whatever is in the shards."""

import gc
import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from dalis import by_dali, made, setup, without_tables, work
from loaders import RECIPE, damaged, dataset, sample
from rawdata import encoded

from imgdata import native
from imgdata.backends.cpu import CpuBackend
from imgdata.backends.dali import graph, line
from imgdata.backends.dali.backend import DaliBackend
from imgdata.backends.dali.fit import describe, refuses
from imgdata.errors import ImageError, OptionError, ShardError
from imgdata.recipes import (
    CenterCrop,
    HorizontalFlip,
    MixUp,
    Normalize,
    PadRandomCrop,
    RandomErasing,
    RandomResizedCrop,
    Recipe,
    Resize,
    Rotate,
    Schedule,
    VerticalFlip,
)

NORMALIZE = Normalize(mean=(0.4, 0.5, 0.6), std=(0.25, 0.25, 0.25))
STEP = {"uint8": 1.0, "float16": 255 * 0.25, "float32": 255 * 0.25}
BAD = {5: without_tables(5), 20: b"no image at all", 21: damaged(21), 44: without_tables(44)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def flawed(tmp_path_factory):
    """A dataset in which the images `BAD` are."""
    return dataset(tmp_path_factory.mktemp("flawed"), BAD)


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
    apart = np.abs(found.astype(float) - expected.astype(float)).mean(axis=(1, 2, 3)) * STEP[given.dtype]
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


# --- bad images --------------------------------------------------------------------------------------------------


def test_bad_images_are_found_and_the_other_rows_are_as_ever(flawed, images):
    given, good = setup(flawed, RECIPE), setup(images, RECIPE)
    rows = [position for position in range(60) if position != 20]
    found, failed = by_dali(given, work(given, rows))
    expected, _ = by_dali(good, work(good, rows))
    bad = {rows.index(position): error for position, error in ((5, "corrupt"), (21, "truncated"), (44, "corrupt"))}
    assert {row: error.reason for row, error in failed.items()} == bad
    assert all(isinstance(error, ImageError) for error in failed.values())
    assert not found[list(bad)].any()
    fine = [row for row in range(len(rows)) if row not in bad]
    assert np.array_equal(found[fine], expected[fine])


def test_batches_in_flight_survive_a_bad_one_beside_them(flawed, images):
    given, good = setup(flawed, RECIPE), setup(images, RECIPE)
    parts = [range(0, 10), range(22, 32), range(40, 50), range(50, 60)]
    with closing(DaliBackend(given)) as backend, closing(DaliBackend(good)) as other:
        pending = [backend.start(work(given, part)) for part in parts]
        failed = [one.wait() for one in pending]
        assert [list(rows) for rows in failed] == [[5], [], [4], []]
        # Others take their place.
        assert pending[0].redo(np.array([5]), work(given, [33])) == {}
        assert list(pending[2].redo(np.array([4]), work(given, [5]))) == [4]
        assert pending[2].redo(np.array([4]), work(given, [8])) == {}
        for one, positions in zip(
            pending,
            ([0, 1, 2, 3, 4, 33, 6, 7, 8, 9], parts[1], [40, 41, 42, 43, 8, *range(45, 50)], parts[3]),
            strict=True,
        ):
            assert np.array_equal(one.images().numpy(), made(other, work(good, positions))[0])


def test_bad_images_are_remembered_for_the_next_run(flawed, monkeypatch, cache):
    given = setup(flawed, RECIPE)
    todo = work(given, [4, 5, 6, 44])
    first, failed = by_dali(given, todo)
    (file,) = cache.glob("dali-*.jsonl")
    assert len(file.read_text().splitlines()) == 2
    with open(file, "ab") as half:
        half.write(b"[7, 12")
    monkeypatch.setattr(line._Driver, "_recover", lambda *_: pytest.fail("found by a failure again"))
    again, failed_again = by_dali(given, todo)
    assert np.array_equal(again, first)
    assert {row: str(error) for row, error in failed_again.items()} == {
        row: str(error) for row, error in failed.items()
    }


def test_what_is_remembered_holds_for_those_bytes_alone(flawed, images, tmp_path):
    copy = shutil.copytree(flawed, tmp_path / "copy")
    given = setup(copy, RECIPE)
    todo = work(given, [4, 5])
    assert list(by_dali(given, todo)[1]) == [1]
    shard = copy / given.split.index.row(5).shard
    shard.write_bytes(shard.read_bytes().replace(BAD[5], sample(5)))
    repaired, failed = by_dali(given, todo)
    assert failed == {}
    assert np.array_equal(repaired, by_dali(setup(images, RECIPE), todo)[0])


def test_a_cache_that_cannot_be_written_is_warned_of(flawed, cache, monkeypatch):
    cache.write_bytes(b"a file where the folder should be")
    given = setup(flawed, RECIPE)
    with closing(DaliBackend(given)) as backend:
        pending = backend.start(work(given, [5]))
        with pytest.raises(UserWarning, match=r"can't be written .*: set IMGDATA_CACHE"):
            pending.wait()


def test_a_crop_that_dali_refuses_and_the_host_does_not_is_the_hosts(images, monkeypatch, cache):
    given = setup(images, RECIPE)
    todo = work(given, [0, 1, 2])
    monkeypatch.setattr(native, "AVAILABLE", False)
    refused = []
    take = line.Graph.take

    def failing(graph):
        pixels = take(graph)
        if not refused:
            refused.append(1)
            raise RuntimeError("Error in fn.decoders: Failed to decode sample #1 : \n")
        return pixels

    monkeypatch.setattr(line.Graph, "take", failing)
    found, failed = by_dali(given, todo)
    assert failed == {}
    with closing(CpuBackend(given)) as backend:
        expected, _ = made(backend, todo)
    assert np.array_equal(found[1], expected[1])
    # DALI can make other crops of it, and will.
    assert not list(cache.glob("*"))


def test_a_failure_that_names_no_row_is_tried_row_by_row(flawed, monkeypatch):
    monkeypatch.setattr(line, "_NAMED", re.compile("never"))
    given = setup(flawed, RECIPE)
    _, failed = by_dali(given, work(given, [0, 5, 6, 44]))
    assert sorted(failed) == [1, 3]


def test_other_faults_of_dali_are_not_a_pictures(images, monkeypatch):
    given = setup(images, RECIPE)

    def failing(graph):
        raise RuntimeError("out of memory")

    with closing(DaliBackend(given)) as backend, monkeypatch.context() as patch:
        patch.setattr(line.Graph, "take", failing)
        pending = [backend.start(work(given, [number])) for number in range(3)]
        for one in pending:
            with pytest.raises(RuntimeError, match="out of memory"):
                one.wait()
        patch.undo()
        assert made(backend, work(given, [0]))[1] == {}


def test_a_shard_that_is_gone_is_named(images, tmp_path):
    copy = shutil.copytree(images, tmp_path / "copy")
    given = setup(copy, RECIPE)
    os.unlink(copy / "demo-train-000000.tar")
    with closing(DaliBackend(given)) as backend:
        pending = backend.start(work(given, range(10)))
        with pytest.raises(ShardError, match=r"demo-train-000000\.tar: No such file"):
            pending.wait()


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
    assert describe(given).startswith("dali: NVIDIA DALI 2.")
    assert describe(given).endswith("on the processor, 2 threads, depth 3, Pillow for png")
    assert refuses(given) is None


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
    assert refuses(setup(folder, RECIPE)) == "backend 'dali' must have JPEGs, got png; use backend='cpu'"


def test_a_fork_of_a_process_that_used_a_gpu_is_refused(images, monkeypatch):
    class Pipeline:
        device_id = 0

    alive = Pipeline()
    monkeypatch.setattr(graph, "_ALIVE", {alive})
    monkeypatch.setattr(graph, "_PARENTS_GPUS", set())
    graph._leave_behind()
    assert "start it by multiprocessing's 'spawn'" in (refuses(setup(images, RECIPE, device="cuda")) or "")
    assert refuses(setup(images, RECIPE)) is None


FORK = """
import os, sys
sys.path.insert(0, sys.argv[2])
import gc, warnings
import numpy as np
from dalis import DaliBackend, made, setup, work
from loaders import RECIPE
warnings.simplefilter("ignore", DeprecationWarning)
given = setup(sys.argv[1], RECIPE)
backend = DaliBackend(given)
expected = made(backend, work(given, range(20)))[0]
ahead = backend.start(work(given, range(20)))
child = os.fork()
if child == 0:
    del ahead, backend
    gc.collect()
    backend = DaliBackend(given)
    same = np.array_equal(made(backend, work(given, range(20)))[0], expected)
    backend.close()
    os._exit(0 if same else 1)
_, status = os.waitpid(child, 0)
ahead.wait()
print(os.waitstatus_to_exitcode(status), np.array_equal(ahead.images().numpy(), expected))
"""


def test_parent_and_child_go_on_after_a_fork(images):
    command = [sys.executable, "-c", FORK, images, Path(__file__).parent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("0 True\n", "")
