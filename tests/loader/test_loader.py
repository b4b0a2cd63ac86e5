"""Batches of the loader: shapes, types, labels, epochs, options, memory."""

import os
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import torch

import imgdata
from imgdata import native, recipes
from imgdata.loader.shuffle_quality import ShuffleWarning
from imgdata.recipes import CenterCrop, MixUp, MixUpOrCutMix, Normalize, RandomErasing, Recipe, Resize, TrivialAugment
from imgdata.views.saved import open_view
from support.loaders import SAMPLES, assert_same, dataset, epochs, loader, on_streaming, positions, seen, take
from support.rawdata import encoded
from support.tars import write_tar

NORMALIZE = Normalize(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def test_a_batch_is_images_and_labels(images, backend):
    with loader(images) as batches:
        batch = next(iter(batches))
    shown, labels = batch
    assert shown is batch.images
    assert labels is batch.labels
    assert (shown.shape, shown.dtype, shown.device.type) == ((8, 3, 16, 16), torch.uint8, "cpu")
    assert (labels.dtype, batch.positions.dtype, batch.valid.dtype) == (torch.int64, torch.int64, torch.bool)
    assert labels.tolist() == [position % 3 for position in batch.positions.tolist()]
    assert batch.valid.all()
    assert len(batch) == 8


def test_an_epoch_has_the_promised_batches(images, backend):
    with loader(images) as batches:
        for _ in range(2):
            taken = positions(take(batches))
            assert len(taken) == 8 * len(batches) == 56
            assert len(set(taken)) == 56


def test_evaluation_shows_each_sample_once_and_marks_the_padding(images, backend):
    with loader(images, shuffle="none") as batches:
        taken = take(batches)
    assert len(taken) == len(batches) == 8
    assert positions(taken) == [*range(SAMPLES), *range(4)]
    assert [valid for batch in taken for valid in batch.valid] == [True] * SAMPLES + [False] * 4


@pytest.mark.parametrize(
    ("options", "dtype", "last"),
    [
        ({}, torch.uint8, True),
        ({"channels_last": False}, torch.uint8, False),
        ({"more": [NORMALIZE]}, torch.float32, False),
        ({"more": [NORMALIZE], "channels_last": True}, torch.float32, True),
        ({"more": [NORMALIZE], "dtype": "float16"}, torch.float16, False),
        ({"more": [NORMALIZE], "dtype": "uint8"}, torch.uint8, True),
        ({"dtype": "float32"}, torch.float32, False),
    ],
)
def test_types_and_memory_orders(images, backend, options, dtype, last):
    with loader(images, **options) as batches, loader(images) as bytes_:
        found, plain = next(iter(batches)).images, next(iter(bytes_)).images
    assert (found.dtype, found.shape) == (dtype, (8, 3, 16, 16))
    assert found.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    expected = plain.double()
    if dtype != torch.uint8:
        (op,) = options.get("more", [Normalize(mean=(0.0,) * 3, std=(1.0,) * 3)])
        mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (op.mean, op.std))
        expected = (expected / 255 - mean) / std
    tolerance = {torch.uint8: 0.0, torch.float32: 2e-6, torch.float16: 3e-3}[dtype]
    assert (found.double() - expected).abs().max().item() <= tolerance


@pytest.mark.parametrize("more", [[], [MixUp(alpha=1.0)]], ids=["plain", "mixed"])
def test_bfloat16_is_float32_rounded(images, backend, more):
    with loader(images, more=more, dtype="bfloat16") as rounded, loader(images, more=more, dtype="float32") as exact:
        for batch, other in zip(rounded, exact, strict=True):
            assert batch.images.dtype == torch.bfloat16
            assert torch.equal(batch.images, other.images.bfloat16())


def test_an_apple_gpu_that_is_not_there_is_refused_at_once(images):
    if torch.backends.mps.is_available():
        pytest.skip("there is one")
    with pytest.raises(imgdata.OptionError, match=r"device must be cpu where PyTorch finds no Apple GPU, got 'mps'"):
        loader(images, device="mps")


def test_the_native_and_the_pillow_pixels_are_alike(images, monkeypatch):
    with loader(images, shuffle="none") as batches:
        first = take(batches)
    monkeypatch.setattr(imgdata.native, "AVAILABLE", False)
    with loader(images, shuffle="none") as batches:
        second = take(batches)
    for one, other in zip(first, second, strict=True):
        assert one[:3] == other[:3]
        assert np.abs(one.images.astype(int) - other.images.astype(int)).mean() < 0.5


HEAVY = TrivialAugment(), NORMALIZE, RandomErasing(p=0.5), MixUpOrCutMix()


@pytest.mark.parametrize("options", [{}, {"more": HEAVY}, {"more": HEAVY, "dtype": "uint8"}])
def test_threads_and_prefetch_change_no_pixel(images, backend, options):
    with (
        loader(images, threads=1, prefetch=1, **options) as one,
        loader(images, threads=5, prefetch=4, **options) as other,
    ):
        assert_same(epochs(one, 2), epochs(other, 2))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_every_operator_leaves_its_mark(images, backend, dtype):
    shown = []
    for more in [], [TrivialAugment()], [TrivialAugment(), RandomErasing(p=1.0)]:
        with loader(images, more=more, dtype=dtype) as batches:
            shown.append(np.concatenate([batch.images for batch in take(batches)]))
    plain, augmented, erased = shown
    assert (plain != augmented).mean() > 0.2
    assert (erased == 0).mean() > (augmented == 0).mean() + 0.02


def test_mixed_labels_are_soft_and_images_are_mixed(images, backend):
    with loader(images, dtype="float32") as plain, loader(images, more=[MixUp()], dtype="float32") as batches:
        for one, other in zip(plain, batches, strict=True):
            assert (other.labels.dtype, other.labels.shape) == (torch.float32, (8, 3))
            assert torch.allclose(other.labels.sum(1), torch.ones(8))
            assert one.positions.equal(other.positions)
            # Neighbours were blended: the mean of both is that of the plain ones.
            both = [images.reshape(4, 2, -1).mean(1) for images in (one.images, other.images)]
            assert torch.allclose(*both, atol=1e-5)


def test_what_is_mixed_needs_labels(tmp_path):
    write_tar(tmp_path / "x-train-0.tar", [("a.jpg", encoded(1)), ("b.jpg", encoded(2))])
    imgdata.index(tmp_path, workers=1)
    with pytest.raises(imgdata.OptionError, match="must have labels for all"):
        loader(tmp_path, batch_size=2, more=[MixUp()])


@on_streaming
def test_a_size_that_grows_by_epoch(images, backend):
    recipe = Recipe(recipes.RandomResizedCrop(size=recipes.Schedule(((0, 8), (1, 24)))))
    with loader(images, recipe=recipe) as batches:
        assert [batch.images.shape[-1] for batch in take(batches)] == [8] * 7
        assert [batch.images.shape[-1] for batch in take(batches)] == [24] * 7


# --- epochs ------------------------------------------------------------------------------------------------------


def test_each_iterator_is_another_epoch(images):
    with loader(images) as batches, loader(images) as others:
        first, second = epochs(batches, 2)[:7], epochs(others, 2)[7:]
        assert positions(first) != positions(second)
        assert batches.epoch == others.epoch == 2
        others.set_epoch(0)
        assert_same(take(others), first)
        # Left early, as by `islice`, the next one still is another epoch.
        batches.set_epoch(0)
        take(batches, 2)
        assert batches.state_dict()["samples"] == 16
        assert_same(take(batches), second)


def test_an_iterator_that_gave_nothing_is_no_epoch(images):
    with loader(images) as batches:
        iter(batches)
        iter(batches)
        taken = take(batches, 1)
        assert batches.state_dict()["epoch"] == 0
        batches.set_epoch(0)
        assert_same(take(batches, 1), taken)


def test_iterators_do_not_disturb_each_other(images, backend):
    with loader(images) as batches, loader(images) as alone:
        expected = take(alone)
        for number, (one, other) in enumerate(zip(batches, batches, strict=True)):
            assert_same([seen(one), seen(other)], [expected[number]] * 2)
        late, early = iter(batches), iter(batches)
        assert_same(take(early), take(late))


def test_an_iterator_can_be_closed(images):
    with loader(images) as batches:
        left = iter(batches)
        next(left)
        left.close()
        assert list(left) == []
        assert len(take(batches)) == 7


def test_views_choose_and_label(images, backend):
    with loader(images, view="per_class=5", batch_size=5) as batches:
        assert len(batches) == 3
        assert sorted(label for batch in take(batches) for label in batch.labels) == [0] * 5 + [1] * 5 + [2] * 5
    view = open_view(imgdata.open(images), "train", "where format==png")
    with loader(view, split=None, batch_size=2) as batches:
        assert all(position % 10 == 9 for position in positions(take(batches)))
        assert "reads JPEG" not in repr(batches)


def test_a_sample_that_a_balanced_view_draws_twice_is_augmented_in_two_ways(images, backend):
    with loader(images, view="where label==0 | balance,length=40", batch_size=40) as batches:
        (batch,) = take(batches)
    assert len(batch.positions) == 40
    twice = [np.flatnonzero(np.array(batch.positions) == position) for position in set(batch.positions)]
    assert {len(rows) for rows in twice} == {2}
    assert all((batch.images[one] != batch.images[other]).any() for one, other in twice)


def test_window_and_none_read_the_same_samples(images):
    for shuffle in ("window", "none"):
        with loader(images, shuffle=shuffle, window_shards=2, drop_last=False, batch_size=20) as batches:
            assert sorted(positions(take(batches))) == list(range(SAMPLES))


def test_badly_mixed_training_is_warned_of(tmp_path):
    for shard in range(4):
        files = [(f"{shard}{i}.{e}", d) for i in range(8) for e, d in (("jpg", encoded(i)), ("cls", b"%d" % shard))]
        write_tar(tmp_path / f"x-train-{shard}.tar", files)
    imgdata.index(tmp_path, workers=1)
    with pytest.warns(ShuffleWarning, match="sorted by class"):
        loader(tmp_path, shuffle="window", window_shards=1)
    loader(tmp_path, shuffle="none")


# --- what people see ---------------------------------------------------------------------------------------------


def test_repr_says_what_and_why(images, backend):
    with loader(images, rank=1, world_size=2, seed=7) as batches:
        text = repr(batches)
    assert "60 samples, 3 classes" in text
    assert "3 batches of 8, rank 1 of 2, last one left out when incomplete" in text
    assert "order: global, seed 7, epoch 0" in text
    wanted = {
        "native": "cpu: native extension (libjpeg-turbo",
        "pillow": "the native extension was not built: install gcc",
        "dali": "dali: NVIDIA DALI",
        "resident": "resident: 60 pictures of 30 x 24 decoded once",
    }
    assert wanted[backend] in text
    assert "2 threads" in text
    # (2 ahead + 2) batches of 8 x 3 x 16 x 16 bytes.
    assert "uint8, channels last, on cpu; buffers 0.0 MB" in text
    assert "bad images: none yet (on_bad='replace')" in text
    assert max(map(len, text.splitlines())) < 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "tarin"}, r"split must be one of train, got 'tarin'"),
        ({"split": None}, r"split must be one of train, got None"),
        ({"batch_size": 0}, r"batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": 2.5}, r"batch_size must be a whole number"),
        ({"batch_size": 61}, r"batch_size times world_size must be at most 60.* or drop_last false"),
        ({"threads": 0}, r"threads must be a whole number of at least 1, got 0"),
        ({"threads": 4097}, r"threads must be at most 4096, got 4097"),
        ({"drop_last": "no"}, r"drop_last must be True, False or None, got 'no'"),
        ({"prefetch": 0}, r"prefetch must be a whole number of at least 1, got 0"),
        ({"seed": -1}, r"seed must be a whole number of at least 0, got -1"),
        ({"recipe": 5}, "recipe must be a Recipe, such as .*, got 5"),
        ({"backend": "gpu"}, r"backend must be one of auto, cpu, dali, resident, got 'gpu'"),
        ({"dtype": "float64"}, r"dtype must be one of uint8, uint16, float16, bfloat16, float32, got 'float64'"),
        ({"on_bad": "ignore"}, r"on_bad must be one of replace, skip, raise, got 'ignore'"),
        ({"shuffle": "random"}, r"shuffle must be one of global, window, none, got 'random'"),
        ({"device": "tpu"}, r"device must be auto, cpu, cuda, cuda:0, .*, or mps, got 'tpu'"),
        ({"device": "cpu:1"}, r"device must be auto, cpu, cuda"),
        ({"device": "cuda:"}, r"device must be auto, cpu, cuda, cuda:0, .*, or mps, got 'cuda:'"),
        ({"device": "cuda:999"}, r"device must be .*, got 'cuda:999'"),
        ({"rank": 2, "world_size": 2}, r"rank must be 0 to world_size - 1 = 1, got 2"),
        ({"rank": 1}, r"rank and world_size must be given together"),
        ({"view": "nothing"}, r"no view 'nothing'"),
    ],
)
def test_what_has_no_meaning_is_refused(images, options, message):
    with pytest.raises(imgdata.OptionError, match=message):
        loader(images, **options)


def test_a_gpu_that_is_not_there_is_refused_at_once(images, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(imgdata.OptionError, match="device must be cpu where PyTorch finds no GPU, got 'cuda'; inst"):
        loader(images, device="cuda")


def test_cuda_is_the_gpu_that_is_current_when_the_loader_is_made(images, monkeypatch):
    for name, value in (("is_available", True), ("current_device", 2), ("device_count", 4)):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    assert "on cuda:2;" in repr(loader(images, device="cuda"))
    assert "on cuda:3;" in repr(loader(images, device=torch.device("cuda", 3)))
    with pytest.raises(imgdata.OptionError, match=r"device must be cuda:0 to cuda:3 here, got cuda:4"):
        loader(images, device="cuda:4")


def test_a_view_of_a_dataset_that_has_changed_is_refused(tmp_path):
    folder = dataset(tmp_path, count=12)
    view = open_view(imgdata.open(folder), "train", "fraction=0.5")
    with loader(view, split=None, batch_size=4) as batches:
        assert batches.state_dict()["epoch"] == 0
    for shard in folder.glob("*.tar"):
        shard.unlink()
    dataset(folder, {3: encoded(77, (51, 40))}, count=12)
    with pytest.raises(imgdata.OptionError, match="the dataset must be the one that the view was made of"):
        loader(view, split=None, batch_size=4)


def test_a_view_brings_its_split_along(images):
    view = open_view(imgdata.open(images), "train", "fraction=0.5")
    with pytest.raises(imgdata.OptionError, match="must be left out when the source is a View"):
        loader(view, split="val")
    with pytest.raises(imgdata.OptionError, match="must be left out when the source is a View"):
        loader(view, view="fraction=0.5")
    with pytest.raises(imgdata.OptionError, match="source must be a dataset's folder, a Dataset or a View, got 3"):
        loader(3)
    with loader(view, split="train") as one, loader(images, view="fraction=0.5") as other:
        assert_same(take(one), take(other))
        assert one.state_dict() == other.state_dict()


@pytest.mark.parametrize("prefetch", [1, 8])
def test_an_error_of_planning_comes_in_its_turn(images, prefetch):
    # The pictures are 48 to 79 pixels wide: sample 7 is 55, and 32 is 48 again.
    recipe = Recipe(recipes.PadRandomCrop(size=(40, 50)))
    options = {"view": "where shard!=demo-train-000000.tar", "shuffle": "none", "batch_size": 1}
    with loader(images, recipe=recipe, prefetch=prefetch, **options) as batches:
        taken = iter(batches)
        assert positions(take(taken, 25)) == list(range(7, 32))
        for _ in range(2):
            with pytest.raises(imgdata.OptionError, match="put Resize before it"):
                next(taken)
        assert batches.state_dict()["samples"] == 25


def test_a_recipe_that_a_picture_is_too_small_for_is_named(images):
    with (
        loader(images, recipe=Recipe(recipes.PadRandomCrop(size=60))) as batches,
        pytest.raises(imgdata.OptionError, match="put Resize before it"),
    ):
        next(iter(batches))


def test_the_rank_is_that_of_the_environment(images, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with loader(images) as batches:
        assert (batches.rank, batches.world_size, len(batches)) == (1, 3, 2)


def test_neighbours_share_the_cores(images, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    with loader(images, threads=None) as batches:
        assert "2 threads" in repr(batches)


def test_nothing_starts_and_torch_is_not_imported_before_the_first_batch(images):
    script = (
        "import sys, threading, imgdata; from imgdata.recipes import *; "
        "loader = imgdata.Loader(sys.argv[1], split='train', batch_size=4, recipe=Recipe(RandomResizedCrop(size=8)));"
        "iter(loader); repr(loader); print('torch' in sys.modules, threading.active_count());"
        "next(iter(loader)); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, images], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split() == ["False", "1", "True"]


def test_only_as_many_batches_are_taken_as_are_asked_for(images, backend):
    with loader(images) as batches:
        assert len(list(islice(batches, 3))) == 3
        assert batches.state_dict()["samples"] == 24


def test_exact_pixels_are_pillows_whatever_was_built(images, monkeypatch):
    crop = Recipe(Resize(size=20), CenterCrop(size=16))
    with loader(images, recipe=crop, shuffle="none", exact=True) as batches:
        assert "exact pixels were asked for" in repr(batches) or not native.AVAILABLE
        found = take(batches)
    monkeypatch.setattr(native, "AVAILABLE", False)
    with loader(images, recipe=crop, shuffle="none", backend="cpu") as batches:
        assert_same(found, take(batches))


@pytest.mark.parametrize("name", ["dali", "resident"])
def test_exact_pixels_are_the_cpu_backends_alone(images, name):
    with pytest.raises(imgdata.OptionError, match=f"exact needs the backend cpu, got '{name}'"):
        loader(images, exact=True, backend=name)
