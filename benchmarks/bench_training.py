"""Batches -> a network that learns: steps with the loader, and with batches that are on the device already.

The steps are those of `imgdata train --synthetic`: before each round, more steps are taken than there are batches that
the loader made ahead, so that none was made before the clock started.
"""

from contextlib import ExitStack

import pytest

import imgdata
from benchmarks import data as raw
from imgdata.training.options import TrainOptions
from imgdata.training.throughput import opened_steps

STEPS = {"cpu": 8, "cuda": 50}
"""Of a round: those of the processor are slow."""


@pytest.fixture(scope="module")
def small(work_folder):
    source = raw.write_cifar10_python(work_folder / "train-batches-py", raw.cifar10(train=2048, test=64))
    imgdata.shard(source, work_folder / "small", imgdata.ShardOptions())
    return work_folder / "small"


@pytest.fixture
def training():
    """Open a dataset for training; return its steps."""
    with ExitStack() as stack:
        yield lambda out, **settings: stack.enter_context(opened_steps(out, TrainOptions(hold_out=64, **settings)))


def _measure(stage, trained, name, real, device):
    def warm_up():
        trained.warm_up(real=real)
        return ()

    words = "with the loader" if real else "batches held on the device"
    stage(
        f"imgdata, {name}, {device}, {words}",
        lambda: trained.take(STEPS[device], real=real),
        images=STEPS[device] * trained.prepared.options.batch_size,
        setup=warm_up,
        device=device,
    )


SOURCES = pytest.mark.parametrize("real", [True, False], ids=["real", "synthetic"])


@SOURCES
@pytest.mark.benchmark(group="training steps, resnet9, 32x32")
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_steps_of_a_small_network(stage, training, small, real, device):
    trained = training(small, model="resnet9", batch_size=64, device=device)
    _measure(stage, trained, "resnet9", real, device)


@SOURCES
@pytest.mark.gpu
@pytest.mark.benchmark(group="training steps, 224x224, bf16")
@pytest.mark.parametrize("model", ["resnet50", "resnet18"])
def test_steps_of_a_large_network(stage, training, data, real, model):
    trained = training(data / "shards", model=model, size=224, batch_size=128, device="cuda", amp="bf16")
    _measure(stage, trained, model, real, "cuda")
