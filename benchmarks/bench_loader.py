"""Shards -> batches, end to end, beside other loaders; `benchmarks.loaders` measures all of them, in processes."""

import itertools

import pytest

import imgdata
from benchmarks.loader_peers.ours import recipe
from benchmarks.loader_peers.registry import PEERS
from benchmarks.loader_peers.task import Task

BATCH, THREADS = 64, 2
pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning")
"""torchvision's, of the decoder that its own documentation recommends."""


def _task(data, dtype="uint8"):
    return Task(data=data, dtype=dtype, threads=THREADS, batch=BATCH)


def _epoch(batches):
    return sum(len(labels) for _, labels in batches)


@pytest.mark.benchmark(group="loaders, an epoch from its start, uint8")
@pytest.mark.parametrize("name", ["imgdata", "torchvision v2", "webdataset"])
def test_epoch(stage, data, num_images, name):
    """Workers start inside the timer, as they do in each epoch of a `DataLoader` by default."""
    batches = PEERS[name].open(_task(data))
    num_bytes = sum(path.stat().st_size for path in (data / "shards").glob("*.tar"))
    stage(name, lambda: _epoch(batches), images=num_images, num_bytes=num_bytes)


@pytest.mark.benchmark(group="the first batch")
@pytest.mark.parametrize("name", ["imgdata", "torchvision v2"])
def test_first_batch(stage, data, name):
    """From the dataset's folder to the first 64 images."""
    stage(name, lambda: next(iter(PEERS[name].open(_task(data)))), images=BATCH)


@pytest.mark.benchmark(group="a loader that goes on")
@pytest.mark.parametrize("resumed", [False, True], ids=["start", "resumed"])
def test_first_batch_after_a_resume(stage, data, num_images, resumed):
    with imgdata.Loader(data / "shards", split="train", batch_size=4, recipe=recipe(_task(data))) as before:
        for _ in itertools.islice(before, num_images // 4 // 2):
            pass
        state = before.state_dict()

    def opened():
        loader = imgdata.Loader(data / "shards", split="train", batch_size=4, recipe=recipe(_task(data)))
        if resumed:
            loader.load_state_dict(state)
        return (loader,)

    name = "imgdata, in mid-epoch" if resumed else "imgdata, at the start"
    stage(name, lambda loader: next(iter(loader)), images=4, setup=opened, teardown=lambda loader: loader.close())
