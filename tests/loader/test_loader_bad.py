"""Bad images and damaged shards: a run goes on with the same others in their place, or says what is wrong."""

import os
import resource
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest

import imgdata
from imgdata import BadImageWarning, ImageError, ShardError
from imgdata.recipes import Cutout, MixUp, Normalize, PadRandomCrop, RandomResizedCrop, Recipe, Resize
from support.loaders import (
    KEPT,
    SAMPLES,
    SHARD_SAMPLES,
    as_saved,
    assert_same,
    damaged,
    dataset,
    epochs,
    loader,
    positions,
    take,
)
from support.rawdata import encoded

BAD = {5: damaged(5), 20: b"no image at all", 21: damaged(21), 44: damaged(44)}
REASONS = {5: "truncated", 20: "not-an-image", 21: "truncated", 44: "truncated"}


@pytest.fixture(scope="module")
def flawed(tmp_path_factory):
    """A dataset in which the images `BAD` are."""
    return dataset(tmp_path_factory.mktemp("flawed"), BAD)


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BadImageWarning)
        yield


def test_training_goes_on_with_others_in_their_place(flawed, backend, quiet):
    with loader(flawed, batch_size=10) as batches:
        taken = epochs(batches, 3)
        assert {image.position: image.reason for image in batches.bad} == REASONS
        assert {image.key for image in batches.bad} == {"s0005", "s0020", "s0021", "s0044"}
    assert len(taken) == 18
    assert not set(positions(taken)) & set(BAD)
    assert all(all(batch.valid) for batch in taken)
    assert all(label == p % 3 for batch in taken for p, label in zip(batch.positions, batch.labels, strict=True))
    # Good ones are where they would be.
    order = batches._planner.order.epoch_positions(0)
    assert sum(p != q for p, q in zip(positions(taken[:6]), order.tolist(), strict=True)) == len(BAD)


def test_the_pixels_are_those_of_the_sample_that_came_in(flawed, images, backend, quiet):
    with loader(flawed) as batches:
        taken = take(batches)
    with loader(images) as good:
        pixels = {p: image for batch in take(good) for p, image in zip(batch.positions, batch.images, strict=True)}
    shown = [(p, image) for batch in taken for p, image in zip(batch.positions, batch.images, strict=True)]
    compared = [np.array_equal(pixels[p], image) for p, image in shown if p in pixels]
    assert len(compared) > 50
    assert all(compared)


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_same_ones_come_in_at_any_number_of_ranks(flawed, backend, quiet, world_size):
    with loader(flawed, batch_size=20) as alone:
        expected = epochs(alone, 2)
        bad = {image.position for image in alone.bad}
    parts, found = [], set()
    for rank in range(world_size):
        with loader(flawed, batch_size=20 // world_size, rank=rank, world_size=world_size) as one:
            parts.append(epochs(one, 2))
            found |= {image.position for image in one.bad}
    assert found == bad == set(BAD)
    for number, batch in enumerate(expected):
        assert batch.positions == [p for part in parts for p in part[number].positions]
        assert np.array_equal(batch.images, np.concatenate([part[number].images for part in parts]))


def test_the_same_ones_come_in_after_a_resume(flawed, backend, quiet):
    with loader(flawed) as first:
        expected = epochs(first, 2)
        first.set_epoch(0)
        take(first, 5)
        state = as_saved(first.state_dict())
    with loader(flawed) as resumed:
        resumed.load_state_dict(state)
        assert_same(epochs(resumed, 2), expected[5:])


HALF_BAD = range(0, SAMPLES, 4)
LARGE = Recipe(RandomResizedCrop(size=16, scale=(0.08, 0.3)))


def large(number, damage):
    """A JPEG that most crops are a small part of, half of it gone (`cut`), or damaged low down (`hurt`)."""
    data = encoded(number, (128, 128))
    scan = data.index(b"\xff\xda")
    middle = scan + (len(data) - scan) // 2
    if damage == "cut":
        return data[:middle]
    return data[:middle] + b"\xff\xd3" * 20 + data[middle + 40 :]


SHOWS_WHAT_IS_HURT = {"native": True, "pillow": False, "dali": True, "resident": False}
"""Whether crops that lie above the damage are made: not by Pillow, and a resident split is decoded whole."""
CROPS = {"resident": KEPT}
"""In place of `LARGE`."""


@pytest.fixture(scope="module", params=["cut", "hurt"])
def half_bad(request, tmp_path_factory):
    """What is wrong with the lower halves of some images, and the dataset."""
    return request.param, dataset(
        tmp_path_factory.mktemp(request.param), {number: large(number, request.param) for number in HALF_BAD}
    )


def test_what_was_read_before_changes_nothing(half_bad, backend, quiet):
    damage, folder = half_bad
    options = {"recipe": CROPS.get(backend, LARGE), "batch_size": 10, "view": "balance,length=120"}
    with loader(folder, **options) as batches:
        whole = [take(batches) for _ in range(3)]
        found = {image.position for image in batches.bad}
    for epoch, expected in enumerate(whole):
        with loader(folder, **options, prefetch=6) as fresh:
            fresh.set_epoch(epoch)
            assert_same(take(fresh), expected)
    parts = []
    for rank in range(2):
        with loader(folder, **{**options, "batch_size": 5}, rank=rank, world_size=2) as one:
            parts.append(take(one))
    pairs = zip(*parts, strict=True)
    assert [batch.positions for batch in whole[0]] == [left.positions + right.positions for left, right in pairs]
    shown = {position for batches in whole for position in positions(batches)}
    # Of a file that is cut short nobody shows anything.
    assert bool(shown & set(HALF_BAD)) == (damage == "hurt" and SHOWS_WHAT_IS_HURT[backend])
    assert found <= set(HALF_BAD)


def test_a_jpeg_that_is_cut_short_is_bad_for_every_backend(half_bad, monkeypatch, quiet):
    damage, folder = half_bad
    with loader(folder, recipe=LARGE) as batches:
        first = take(batches)
    monkeypatch.setattr(imgdata.native, "AVAILABLE", False)
    with loader(folder, recipe=LARGE) as batches:
        same = [batch.positions for batch in take(batches)] == [batch.positions for batch in first]
    assert same or damage == "hurt"


def test_evaluation_leaves_them_black_and_marks_them(flawed, backend, quiet):
    with loader(flawed, shuffle="none", batch_size=9) as batches:
        for _ in range(2):
            taken = take(batches)
            assert positions(taken)[:SAMPLES] == list(range(SAMPLES))
            rows = [
                (p, valid, image.any())
                for batch in taken
                for p, valid, image in zip(batch.positions, batch.valid, batch.images, strict=True)
            ]
            assert [p for p, valid, _ in rows[:SAMPLES] if not valid] == sorted(BAD)
            assert [p for p, _, shown in rows[:SAMPLES] if not shown] == sorted(BAD)
        assert len(batches.bad) == len(BAD)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_a_skipped_picture_is_what_black_pixels_become(flawed, backend, quiet, dtype):
    # Nothing is painted over it.
    more = Normalize(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)), Cutout(size=8, value=1.0)
    black = [0, 0, 0] if dtype == "uint8" else [-2.0, -2.0, -2.0]
    with loader(flawed, shuffle="none", batch_size=SAMPLES, more=more, dtype=dtype) as batches:
        (batch,) = take(batches)
    for position in BAD:
        np.testing.assert_allclose(batch.images[position].transpose(1, 2, 0).reshape(-1, 3), [black] * 256, atol=1e-6)


def test_nobody_gets_a_share_of_a_skipped_ones_class(flawed, backend, quiet):
    with loader(flawed, shuffle="none", batch_size=SAMPLES, more=[MixUp()]) as batches:
        (batch,) = take(batches)
    labels = np.array(batch.labels)
    for position in BAD:
        # Neighbours are mixed: of 20 and 21 both are bad.
        assert labels[position, position % 3] == 0
        assert labels[position ^ 1, position % 3] == 0
    assert (labels.sum(axis=1) > 0.999).sum() == SAMPLES - 6


def test_raise_raises_in_its_turn(flawed, backend):
    with loader(flawed, shuffle="none", batch_size=5, on_bad="raise", prefetch=8) as batches:
        taken = iter(batches)
        next(taken)
        with (
            pytest.warns(BadImageWarning),
            pytest.raises(ImageError, match=r"truncated: s0005 in split train: .*on_bad="),
        ):
            next(taken)
        # It stays what comes next.
        with pytest.raises(ImageError, match="s0005 in split train"):
            next(taken)
        assert batches.state_dict()["samples"] == 5


def test_an_image_without_a_size_in_the_index_raises_in_its_turn(flawed, backend, quiet):
    with loader(flawed, view="where label==2", shuffle="none", batch_size=1, on_bad="raise", prefetch=8) as batches:
        taken = iter(batches)
        next(taken)
        with pytest.raises(ImageError, match="s0005"):
            next(taken)
    with loader(flawed, view="exclude=s0005", shuffle="none", batch_size=19, on_bad="raise") as batches:
        taken = iter(batches)
        next(taken)
        with pytest.raises(ImageError, match="not-an-image: s0020 in split train: the index has no size of it"):
            next(taken)


def test_all_that_was_tried_in_the_place_of_a_bad_one_is_listed(tmp_path, backend, quiet):
    bytes_ = {number: damaged(number) if number % 2 else b"no image at all" for number in range(9)}
    folder = dataset(tmp_path, bytes_, count=12)
    most = 0
    for seed in range(8):
        with loader(folder, batch_size=1, seed=seed) as batches:
            planner, tried = batches._planner, set()
            draft = planner.draft(0, 0)
            while draft.position_N[0] in bytes_:
                tried.add(int(draft.position_N[0]))
                planner.replace(draft, np.array([0]))
            (batch,) = take(batches, 1)
            assert batch.positions == draft.position_N.tolist()
            assert {image.position for image in batches.bad} == tried
            most = max(most, len(tried))
    assert most > 3


def test_one_warning_and_then_silence(flawed, backend):
    with loader(flawed) as batches, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        epochs(batches, 2)
    (warning,) = caught
    assert warning.category is BadImageWarning
    assert "in split train is bad" in str(warning.message)
    assert "bad images: 3 truncated, 1 not-an-image (on_bad='replace')" in repr(batches)


def test_a_warning_that_is_an_error_loses_no_batch(flawed, backend):
    with loader(flawed) as batches:
        with pytest.raises(BadImageWarning):
            epochs(batches, 1)
        samples = batches.state_dict()["samples"]
        batches.load_state_dict(batches.state_dict())
        rest = take(batches)
    with loader(flawed) as again, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(rest, take(again)[samples // 8 :])


@pytest.mark.parametrize("bytes_", [b"no image at all", damaged(1)], ids=["no header", "truncated"])
def test_where_all_are_bad_the_loader_gives_up(tmp_path, backend, quiet, bytes_):
    folder = dataset(tmp_path, dict.fromkeys(range(12), bytes_), count=12)
    with (
        loader(folder, batch_size=4) as batches,
        pytest.raises(ImageError, match="and 32 samples drawn before it are bad"),
    ):
        next(iter(batches))
    with loader(folder, batch_size=4, shuffle="none") as batches:
        assert [batch.valid for batch in take(batches)] == [[False] * 4] * 3


def test_an_image_that_is_larger_than_the_index_says_is_bad(images, tmp_path, backend, quiet):
    folder = shutil.copytree(images, tmp_path / "copy")
    # Another JPEG in the place of the first one: its header says another size.
    shard = folder / "demo-train-000000.tar"
    data = bytearray(shard.read_bytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\x00\x10\x00\x10"
    shard.write_bytes(data)
    with loader(folder, shuffle="none") as batches:
        next(iter(batches))
        assert [(image.key, image.reason) for image in batches.bad] == [("s0000", "corrupt")]
        assert "16 x 16 pixels, the index says jpeg of 48 x 40" in batches.bad[0].detail


# --- shards ------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(images, tmp_path):
    return shutil.copytree(images, tmp_path / "copy")


BATCHES_BEFORE_SHARD_3 = {"native": 3, "pillow": 3, "dali": 3, "resident": 0}
"""Of a shard each, unshuffled. The first batch of a resident split reads all shards."""
READS_IN_EACH_BATCH = {"native": True, "pillow": True, "dali": True, "resident": False}
"""Whether batches behind the first need the shards."""


def test_a_shard_that_is_gone_is_named_and_the_run_goes_on_when_it_is_back(copy, images, backend):
    shard, before = "demo-train-000003.tar", BATCHES_BEFORE_SHARD_3[backend]
    (copy / shard).unlink()
    with loader(copy, shuffle="none", batch_size=SHARD_SAMPLES) as batches:
        taken = iter(batches)
        assert positions(take(taken, before)) == list(range(before * SHARD_SAMPLES))
        for _ in range(2):
            with pytest.raises(
                ShardError, match=r"demo-train-000003\.tar: No such file or directory; copy the shard again"
            ):
                next(taken)
            assert batches.state_dict()["samples"] == before * SHARD_SAMPLES
        shutil.copy(images / shard, copy)
        rest = take(taken)
    with loader(images, shuffle="none", batch_size=SHARD_SAMPLES) as whole:
        assert_same(rest, take(whole)[before:])


def test_a_shard_that_is_cut_short_is_named_and_the_run_goes_on_when_it_is_back(copy, images, backend):
    with loader(images) as good:
        expected = take(good)
    with loader(copy, prefetch=1) as batches:
        taken = iter(batches)
        assert_same(take(taken, 1), expected[:1])
        for shard in copy.glob("*.tar"):
            os.truncate(shard, 1000)
        if READS_IN_EACH_BATCH[backend]:
            # What was read before is still good.
            with pytest.raises(
                ShardError, match=r"demo-train-00000\d\.tar: cut short, s00\d\d ends at byte \d+; copy the"
            ):
                take(taken)
            with pytest.raises(ShardError, match="cut short"):
                next(taken)
            for shard in copy.glob("*.tar"):
                # The same file: it is still open.
                shard.write_bytes((images / shard.name).read_bytes())
        done = batches.state_dict()["samples"] // 8
        assert_same(take(taken), expected[done:])


def test_shards_deleted_under_an_open_loader_are_read_on(copy, backend):
    with loader(copy, shuffle="none", batch_size=30) as batches:
        taken = iter(batches)
        next(taken)
        for shard in copy.glob("*.tar"):
            shard.unlink()
        assert len(take(taken)) == 1


def test_more_shards_than_files_may_be_open(images, backend, monkeypatch):
    with loader(images) as batches:
        expected = epochs(batches, 2)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8, 8))
    monkeypatch.setattr("imgdata.backends.shard_files.LEAST_FILES", 3)
    with loader(images) as batches:
        assert_same(epochs(batches, 2), expected)


FEW_FILES = """
import os, resource, sys, imgdata
from imgdata.recipes import RandomResizedCrop, Recipe

loader = imgdata.Loader(sys.argv[1], split="train", batch_size=60, recipe=Recipe(RandomResizedCrop(size=8)), threads=1)
import torch
used = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (used + 3, int(sys.argv[2]) or used + 3))
try:
    print(len(next(iter(loader))))
except imgdata.ShardError as error:
    print(error)
"""


@pytest.mark.parametrize(("hard", "said"), [(200, "60"), (0, "too many open files; raise the limit (`ulimit -n`)")])
def test_the_limit_of_open_files_is_raised_where_it_can_be(images, hard, said):
    command = [sys.executable, "-c", FEW_FILES, images, str(hard)]
    assert said in subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def test_a_skipped_picture_has_mirrored_margins_as_wide_as_the_recipe_has(tmp_path, backend, quiet):
    # Wider than a picture of the crop's size, which is all that is known of a bad one.
    one_size = [Resize(size=(40, 40))] if backend == "resident" else []
    crop = Recipe(*one_size, PadRandomCrop(size=16, padding=39, mode="reflect"))
    folder = dataset(tmp_path, {3: damaged(3)})
    with loader(folder, recipe=crop, shuffle="none", on_bad="skip") as batches:
        assert sum(int(batch.valid.sum()) for batch in batches) == SAMPLES - 1
