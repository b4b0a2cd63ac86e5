"""Ranks and resumes: the same samples, labels and pixels, however a run is cut up."""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack

import numpy as np
import pytest

import imgdata
from imgdata.order.epoch_order import Order
from imgdata.recipes import MixUp
from support.loaders import SAMPLES, as_saved, assert_same, dataset, epochs, loader, positions, take
from support.patience import PATIENCE_S

EPOCHS = 3


@pytest.fixture
def uninterrupted(images, backend):
    with loader(images) as batches:
        return epochs(batches, EPOCHS)


def flat(batches):
    """The samples of batches, one by one: position, label, pixels."""
    return [
        (position, label, image.tobytes())
        for batch in batches
        for position, label, image in zip(batch.positions, batch.labels, batch.images, strict=True)
    ]


def ranks(images, world_size, global_batch, **options):
    """One loader for each rank."""
    return [
        loader(images, rank=rank, world_size=world_size, batch_size=global_batch // world_size, threads=1, **options)
        for rank in range(world_size)
    ]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6, 8, 12, 24])
def test_a_global_batch_is_the_same_for_every_divisor(images, backend, world_size):
    with ExitStack() as stack:
        alone = stack.enter_context(loader(images, batch_size=24))
        expected = take(alone)
        parts = [take(stack.enter_context(one)) for one in ranks(images, world_size, 24)]
    assert len(expected) == 2
    for number, batch in enumerate(expected):
        assert flat([batch]) == flat(part[number] for part in parts)


@pytest.mark.parametrize("world_size", [2, 4])
def test_mixing_is_the_same_for_every_even_divisor(images, backend, world_size):
    with ExitStack() as stack:
        expected = take(stack.enter_context(loader(images, batch_size=24, more=[MixUp()])))
        parts = [take(stack.enter_context(one)) for one in ranks(images, world_size, 24, more=[MixUp()])]
    for number, batch in enumerate(expected):
        assert np.array_equal(batch.images, np.concatenate([part[number].images for part in parts]))
        assert batch.labels == [label for part in parts for label in part[number].labels]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 8, 61])
@pytest.mark.parametrize("shuffle", ["global", "none"])
def test_all_ranks_take_equal_steps_and_evaluation_is_exact(images, world_size, shuffle):
    with ExitStack() as stack:
        loaders = [
            stack.enter_context(one)
            for one in ranks(images, world_size, 3 * world_size, shuffle=shuffle, drop_last=False)
        ]
        parts = [take(one) for one in loaders]
    assert {len(part) for part in parts} == {len(one) for one in loaders} == {-(-SAMPLES // (3 * world_size))}
    valid = [p for part in parts for batch in part for p, ok in zip(batch.positions, batch.valid, strict=True) if ok]
    assert sorted(valid) == list(range(SAMPLES))


@pytest.mark.parametrize("kill", np.random.Philox(key=[4, 0]).random_raw(10).astype(int) % 21)
def test_a_run_that_was_killed_goes_on_as_if_nothing_had_been(images, backend, uninterrupted, kill):
    killed = loader(images)
    taken = 0
    while taken < kill:
        taken += len(take(killed, kill - taken))
    state = as_saved(killed.state_dict())
    with loader(images, threads=1, prefetch=4) as resumed:
        resumed.load_state_dict(state)
        assert resumed.epoch == state["epoch"]
        rest = [batch for _ in range(resumed.epoch, EPOCHS) for batch in take(resumed)]
    assert_same(rest, uninterrupted[kill:])
    killed.close()


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 3), (2, 4), (4, 2), (3, 2)])
def test_a_resume_with_other_ranks_and_batches_has_the_same_samples(
    images, backend, uninterrupted, world_size, batch_size
):
    with loader(images) as first:
        take(first, 3)
        state = as_saved(first.state_dict())
    with ExitStack() as stack:
        parts = []
        for one in ranks(images, world_size, world_size * batch_size):
            stack.enter_context(one).load_state_dict(state)
            parts.append(take(one))
    rest = [sample for step in zip(*parts, strict=True) for sample in flat(step)]
    assert rest[:32] == flat(uninterrupted[3:7])


def test_the_backend_may_change_at_a_resume(images, monkeypatch):
    with loader(images) as first:
        expected = take(first)
        first.set_epoch(0)
        take(first, 2)
        state = first.state_dict()
    monkeypatch.setattr(imgdata.native, "AVAILABLE", False)
    with loader(images) as second:
        second.load_state_dict(state)
        assert [batch[:3] for batch in take(second)] == [batch[:3] for batch in expected[2:]]


def test_a_state_is_a_few_numbers_at_any_batch(images):
    with loader(images) as batches:
        for number, _ in enumerate(batches, 1):
            state = batches.state_dict()
            assert (state["epoch"], state["samples"]) == ((0, 8 * number) if number < 7 else (1, 0))
            assert sorted(state) == ["epoch", "fingerprint", "samples", "seed", "version"]


def test_batches_made_ahead_do_not_count(images):
    with loader(images, prefetch=6) as batches:
        take(batches, 1)
        assert batches.state_dict()["samples"] == 8


def test_the_usual_loop_over_epochs_goes_on_inside_one(images, uninterrupted):
    with loader(images) as first:
        take(first)
        take(first, 4)
        state = first.state_dict()
    with loader(images) as resumed:
        resumed.load_state_dict(state)
        rest = []
        for epoch in range(resumed.epoch, EPOCHS):
            resumed.set_epoch(epoch)
            rest += take(resumed)
    assert [batch[:3] for batch in rest] == [batch[:3] for batch in uninterrupted[11:]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "seed must be 1, got 0; pass seed=0"),
        ({"shuffle": "none"}, "saved with another dataset, view or shuffle"),
        ({"view": "fraction=0.5"}, "saved with another dataset, view or shuffle"),
    ],
)
def test_a_state_of_something_else_is_refused(images, options, message):
    with loader(images) as first, loader(images, **options) as other:
        with pytest.raises(imgdata.OptionError, match=message):
            other.load_state_dict(first.state_dict())
        with pytest.raises(imgdata.OptionError, match="version must be 1"):
            other.load_state_dict({})


@pytest.mark.parametrize("epoch", [-1, 1.5, 2**32, True])
def test_an_epoch_that_is_none_is_refused(images, epoch):
    with loader(images) as batches, pytest.raises(imgdata.OptionError, match=r"epoch must be 0 to 2\^32-1, got"):
        batches.set_epoch(epoch)


TRAINING = """
import json, os, sys, imgdata
from imgdata.recipes import HorizontalFlip, RandomResizedCrop, Recipe

folder, state, seen = sys.argv[1:4]
recipe = Recipe(RandomResizedCrop(size=16), HorizontalFlip())
loader = imgdata.Loader(folder, split="train", batch_size=8, recipe=recipe, threads=2)
if os.path.exists(state):
    loader.load_state_dict(json.load(open(state)))
for _ in range(loader.epoch, 3):
    for batch in loader:
        with open(seen, "a") as file:
            file.write(f"{loader.state_dict()['epoch']} {batch.positions.tolist()} {int(batch.images.sum())}\\n")
        with open(state + ".new", "w") as file:
            json.dump(loader.state_dict(), file)
        os.replace(state + ".new", state)
        print(flush=True)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_again_and_again_sees_every_batch_once(images, tmp_path):
    def start(name):
        command = [sys.executable, "-c", TRAINING, images, tmp_path / f"{name}.json", tmp_path / name]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    for batches in (2, 9):
        process = start("killed")
        for _ in range(batches):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    for name in ("killed", "whole"):
        process = start(name)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
    # A batch that was noted, but not saved, comes again.
    noted = list(dict.fromkeys((tmp_path / "killed").read_text().splitlines()))
    assert noted == (tmp_path / "whole").read_text().splitlines()
    assert len(noted) == 21


def test_a_dataset_that_changed_is_not_gone_on_with(images, tmp_path):
    other = dataset(tmp_path, count=SAMPLES - 1)
    with loader(images) as first, loader(other) as second, pytest.raises(imgdata.OptionError, match="another dataset"):
        second.load_state_dict(first.state_dict())


def test_positions_of_an_epoch_are_those_of_the_order(images):
    with loader(images, seed=9) as batches:
        batches.set_epoch(5)
        order = Order(num_samples=SAMPLES, global_batch=8, seed=9, drop_last=True)
        assert positions(take(batches)) == order.epoch_positions(5)[:56].tolist()
