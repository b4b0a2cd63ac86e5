"""Memory of batches: used again, never under somebody's feet, and let go with those who kept it."""

import gc
import tracemalloc

import numpy as np
import pytest
import torch

import imgdata
from imgdata import native
from imgdata.backends.buffers import Buffers
from imgdata.recipes import RandomResizedCrop, Recipe, TrivialAugment
from support.loaders import loader, on_the_cpu, take

BYTES = Recipe(RandomResizedCrop(size=200))
OPERATED = Recipe(*BYTES.ops, TrivialAugment())


def addresses(batches):
    return [batch.images.data_ptr() for batch in batches]


@on_the_cpu
def test_memory_is_used_again_when_nobody_holds_it(images, backend):
    with loader(images) as batches:
        # Those ahead, the one in hand, the one that takes its place.
        assert len(set(addresses(batches))) <= 2 + 2
        assert len({address for _ in range(3) for address in addresses(batches)}) <= 2 + 2


@pytest.mark.parametrize(
    "keep",
    [
        lambda batch: batch.images,
        lambda batch: batch.images[3:4],
        lambda batch: batch.images.numpy()[2, 1],
        lambda batch: np.asarray(batch.images[0])[0],
        lambda batch: torch.from_dlpack(batch.images)[5],
    ],
    ids=["tensor", "part", "array", "part of an array", "dlpack"],
)
def test_what_is_held_is_never_overwritten(images, backend, keep):
    with loader(images) as batches:
        kept = [(part := keep(batch), np.asarray(part).copy()) for _ in range(3) for batch in batches]
        gc.collect()
        take(batches)
        assert all(np.array_equal(np.asarray(part), copy) for part, copy in kept)
    assert all(np.array_equal(np.asarray(part), copy) for part, copy in kept)


def test_a_part_of_a_buffer_keeps_all_of_it():
    buffers = Buffers(keep=2)
    part = buffers.take((4, 8), "uint8")[1:3][0]
    assert not np.shares_memory(part, buffers.take((4, 8), "uint8"))
    address = part.__array_interface__["data"][0]
    del part
    found = buffers.take((4, 8), "uint8")
    assert found[1].__array_interface__["data"][0] == address
    assert buffers.take((4, 9), "uint8").shape == (4, 9)


def test_what_was_kept_beyond_the_usual_goes_with_those_who_kept_it():
    buffers = Buffers(keep=2)
    tracemalloc.start()
    try:
        kept = [buffers.take((1000, 1000), "uint8") for _ in range(7)]
        assert tracemalloc.get_traced_memory()[0] > 7_000_000
        del kept
        assert tracemalloc.get_traced_memory()[0] < 2_100_000
    finally:
        tracemalloc.stop()
    # The two are used again.
    assert len({buffers.take((1000, 1000), "uint8").ctypes.data for _ in range(9)}) <= 2


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({}, 1),
        ({"dtype": "float32"}, 4),
        ({"dtype": "float32", "recipe": OPERATED}, 4 + native.AVAILABLE),
        ({"channels_last": False, "recipe": OPERATED}, 1 + native.AVAILABLE),
        ({"recipe": OPERATED}, 1),
    ],
    ids=["bytes", "floats", "floats and operators", "planes and operators", "bytes and operators"],
)
def test_repr_counts_all_memory(images, options, values):
    with loader(images, **{"batch_size": 50, "recipe": BYTES, **options}) as batches:
        # (2 ahead + 2) batches of 50 x 3 x 200 x 200 values.
        assert f"buffers {4 * 6 * values:.1f} MB" in repr(batches)


@on_the_cpu
def test_an_error_does_not_keep_the_batch(images, backend, monkeypatch):
    def broken(*_, **__):
        raise imgdata.ShardError("broken")

    monkeypatch.setattr("imgdata.backends.shard_files.ShardFiles.lease", broken)
    with loader(images) as batches:
        gc.disable()
        try:
            with pytest.raises(imgdata.ShardError, match="broken"):
                next(iter(batches))
            assert all(batch() is None for batch in batches._engine.backends()[0]._workers._batches)
        finally:
            gc.enable()
