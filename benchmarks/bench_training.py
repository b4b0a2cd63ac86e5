"""Batches -> a network that learns: steps with the loader, and with batches that are on the device already."""

import itertools
from contextlib import ExitStack

import pytest

import imgdata
from benchmarks import data as raw
from imgdata.training.distributed import processes
from imgdata.training.learner import Learner
from imgdata.training.options import TrainOptions
from imgdata.training.setup import prepare

STEPS, WARM_STEPS = 8, 3


@pytest.fixture(scope="module")
def small(work_folder):
    source = raw.write_cifar10_python(work_folder / "train-batches-py", raw.cifar10(train=2048, test=64))
    imgdata.shard(source, work_folder / "small", imgdata.ShardOptions())
    return work_folder / "small"


@pytest.fixture
def training():
    """Open a dataset for training; return (learner, its batches without end, batch size)."""
    with ExitStack() as stack:

        def begin(out, **settings):
            options = TrainOptions(hold_out=64, **settings)
            ranks = stack.enter_context(processes(options.device))
            prepared = stack.enter_context(prepare(out, options, ranks))
            learner = Learner(prepared.model, prepared.options, ranks, prepared.weight_C)
            learner.begin_epoch()
            batches = itertools.chain.from_iterable(itertools.repeat(prepared.train))
            return learner, batches, prepared.options.batch_size

        yield begin


def _learn(learner, batches, steps):
    for number, batch in enumerate(itertools.islice(batches, steps)):
        # A rate too low to lead anywhere: a few batches again and again must not end in infinity.
        learner.step(batch.images, batch.labels, number=number, lr=1e-9)


def _measure(stage, started, name, real, device):
    learner, batches, batch_size = started
    source = batches if real else itertools.cycle(list(itertools.islice(batches, 2)))
    _learn(learner, source, WARM_STEPS)
    words = "with the loader" if real else "batches held on the device"
    stage(
        f"imgdata, {name}, {device}, {words}",
        lambda: _learn(learner, source, STEPS),
        images=STEPS * batch_size,
        device=device,
    )


SOURCES = pytest.mark.parametrize("real", [True, False], ids=["real", "synthetic"])


@SOURCES
@pytest.mark.benchmark(group="training steps, resnet9, 32x32")
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_steps_of_a_small_network(stage, training, small, real, device):
    started = training(small, model="resnet9", batch_size=64, device=device)
    _measure(stage, started, "resnet9", real, device)


@SOURCES
@pytest.mark.gpu
@pytest.mark.benchmark(group="training steps, 224x224, bf16")
@pytest.mark.parametrize("model", ["resnet50", "resnet18"])
def test_steps_of_a_large_network(stage, training, data, real, model):
    started = training(data / "shards", model=model, size=224, batch_size=128, device="cuda", amp="bf16")
    _measure(stage, started, model, real, "cuda")
