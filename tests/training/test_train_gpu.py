"""Training on a GPU: runs, resumes, evaluations, 16 bits, compiled networks, NCCL, no waits, a truthful clock.

Where it makes sense a test is of both devices: on the processor it shows that the test itself holds. Figures of a GPU
are compared with tolerances, since sums have another order there in each run.
"""

import copy
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import distributed, nn

import imgdata
from imgdata.backends import postprocess
from imgdata.backends.resident.device_store import DeviceStore
from imgdata.backends.resident.window import kept
from imgdata.errors import TrainingError
from imgdata.inference.predictions import Collector
from imgdata.models import create_model
from imgdata.sample import Batch
from imgdata.training.defaults import Facts, resolve
from imgdata.training.distributed import Processes
from imgdata.training.history import TrainWatcher
from imgdata.training.learner import Learner
from imgdata.training.loop import train
from imgdata.training.network import exact_products
from imgdata.training.options import TrainOptions
from imgdata.training.scores import Tally
from imgdata.training.timing import Clock
from support.digit_runs import ENVIRONMENT, VAL_SAMPLES, flags, imgdata_command, losses, quick
from support.gpu import no_waits, on_devices
from support.networks import trained_run  # noqa: F401  a fixture
from support.patience import PATIENCE_S
from support.resident_batches import PIXELS, planner_of, setup_of

# PyTorch has hints about GPUs and compilers, which depend on the machine.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- runs ---------------------------------------------------------------------------------------------------------


@on_devices
@pytest.mark.parametrize(
    "settings",
    [
        {"amp": "none", "ema": 0.9},
        {"amp": "bf16", "optimizer": "sgd", "lr": 0.05, "clip_grad": 1.0, "accumulate": 2},
        {"amp": "fp16", "optimizer": "sgd", "lr": 0.05, "clip_grad": 1.0},
        {"amp": "fp16", "mixup": 0.2, "dropout": 0.1},
    ],
    ids=lambda settings: " ".join(f"{name}={value}" for name, value in settings.items()),
)
def test_digits_are_learned(digits, tmp_path, device, settings):
    if device == "cpu" and settings["amp"] == "fp16":
        settings = settings | {"amp": "none"}
    result = train(digits, tmp_path / "run", quick(epochs=5, device=device, **settings))
    assert result.config["device"].startswith(device)
    assert np.isfinite(losses(tmp_path / "run")).all()
    assert result.rows[-1].train_loss < 0.95 * result.rows[0].train_loss
    assert result.scores.total == VAL_SAMPLES
    assert result.scores.top1 > 0.3
    assert 0 <= result.data_wait <= 1
    if device == "cuda":
        assert torch.cuda.max_memory_allocated() > 0


class _Ending(TrainWatcher):
    """Ends a run after its first epoch, as Ctrl-C does."""

    def epoch_done(self, row, *, best):
        raise KeyboardInterrupt


@on_devices
@pytest.mark.parametrize("after", ["the same", "cpu"])
def test_a_run_is_resumed_there_and_on_the_processor(digits, tmp_path, monkeypatch, device, after):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    settings = quick(epochs=3, device=device, amp="none", ema=0.9, recipe="classifier")
    train(digits, tmp_path / "whole", settings)
    with pytest.raises(KeyboardInterrupt):
        train(digits, tmp_path / "run", settings, watcher=_Ending())
    assert len(losses(tmp_path / "run")) == 10
    resumed = train(digits, tmp_path / "run", {} if after == "the same" else {"device": "cpu"}, resume=True)
    assert len(resumed.rows) == 3
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole"), abs=0.1 if device == "cuda" else 0)


@on_devices
def test_a_compiled_network_learns_what_a_plain_one_does(digits, tmp_path, monkeypatch, device):
    compile_ = torch.compile
    if device == "cpu" or not _has_inductor():
        # Graphs are made all the same.
        monkeypatch.setattr(torch, "compile", lambda network: compile_(network, backend="aot_eager"))
    torch._dynamo.reset()
    settings = {"epochs": 1, "device": device, "amp": "none"}
    for name, compiled in (("plain", False), ("compiled", True)):
        train(digits, tmp_path / name, quick(compile=compiled, **settings))
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), abs=0.1)
    # The kept network is the one inside.
    assert imgdata.evaluate(tmp_path / "compiled", digits, device=device).scores.total == VAL_SAMPLES


def _has_inductor() -> bool:
    """Return whether PyTorch can compile for a GPU here: it needs Triton, and a C compiler."""
    from torch.utils._triton import has_triton

    return has_triton() and any(map(shutil.which, ("cc", "gcc", "clang")))


@on_devices
def test_figures_do_not_depend_on_the_device(digits, run, device):
    # TF32 is PyTorch's default there: with it logits are 1e-3 apart.
    here, there = (imgdata.evaluate(run, digits, device=one, batch_size=32) for one in ("cpu", device))
    assert there.scores.loss == pytest.approx(here.scores.loss, rel=1e-4)
    assert there.scores.correct == here.scores.correct
    np.testing.assert_allclose(there.predictions.probability_N, here.predictions.probability_N, atol=1e-4)
    assert there.predictions.keys == here.predictions.keys


@on_devices
def test_products_of_float32_are_as_exact_as_float32(device):
    torch.manual_seed(0)
    layer, images = nn.Conv2d(256, 64, 3, padding=1).to(device), torch.randn(8, 256, 14, 14, device=device)
    with torch.no_grad(), exact_products(torch.device(device)):
        found = layer(images).cpu().double()
    with torch.no_grad():
        expected = copy.deepcopy(layer).cpu().double()(images.cpu().double())
    # With 10 bits of each factor it would be about 2e-3.
    assert (found - expected).abs().max() / expected.std() < 5e-4


@pytest.mark.slow
@on_devices
def test_torchrun_starts_one_rank(digits, tmp_path, device):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    train_command = imgdata_command("train", digits, "--out", tmp_path / "run", "--device", device, *flags(epochs=1))
    done = subprocess.run(
        [*launcher, *train_command[1:]],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(losses(tmp_path / "run")) == 10


# --- steps --------------------------------------------------------------------------------------------------------

SAMPLES, CLASSES, SIDE = 16, 10, 32


def learner(device, world_size=1, **settings):
    given = TrainOptions(**{"model": "resnet9", "batch_size": SAMPLES, "label_smoothing": 0.1} | settings)
    facts = Facts(samples=50_000, classes=CLASSES, side=SIDE, gpu=device == "cuda", ranks=world_size)
    options = resolve(given, facts)
    torch.manual_seed(0)
    network = create_model(options.model, num_classes=CLASSES, size=SIDE).to(device, memory_format=torch.channels_last)
    ranks = Processes(rank=0, world_size=world_size, device=torch.device(device))
    made = Learner(network, options, ranks, torch.ones(CLASSES, device=device))
    made.begin_epoch()
    return made


def batch(device, dtype=torch.float32, samples=SAMPLES):
    images = torch.randn(samples, 3, SIDE, SIDE, device=device).to(dtype, memory_format=torch.channels_last)
    return images, torch.randint(CLASSES, (samples,), device=device)


@on_devices
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw", "amp": "none"},
        {"optimizer": "sgd", "amp": "bf16", "clip_grad": 1.0, "accumulate": 4},
        {"optimizer": "sgd", "amp": "fp16", "clip_grad": 1.0},
        {"optimizer": "adamw", "amp": "fp16", "ema": 0.99, "dropout": 0.1},
    ],
    ids=lambda settings: " ".join(f"{name}={value}" for name, value in settings.items()),
)
def test_no_step_waits(device, settings):
    half = settings["amp"] != "none" and device == "cuda"
    if device == "cpu" and settings["amp"] == "fp16":
        settings = settings | {"amp": "bf16"}
    learning, (images, labels) = learner(device, **settings), batch(device, torch.float16 if half else torch.float32)
    soft = torch.nn.functional.one_hot(labels, CLASSES).float()
    outcomes = [learning.step(images, one, number=number, lr=0.01) for number, one in enumerate((labels, soft))]
    with no_waits(device):
        outcomes += [learning.step(images, one, number=number, lr=0.01) for number, one in enumerate((labels, soft))]
    assert all(bool(torch.isfinite(outcome.loss)) for outcome in outcomes)
    assert all(0 <= int(outcome.correct) <= SAMPLES for outcome in outcomes)


@on_devices
def test_nothing_waits_where_predictions_are_counted(device):
    logits_NC, label_N = torch.randn(SAMPLES, CLASSES, device=device), torch.randint(CLASSES, (SAMPLES,), device=device)
    valid_N = torch.arange(SAMPLES) % 3 != 0
    images, alone = torch.empty(SAMPLES, 3, 1, 1, device=device), Processes(rank=0, world_size=1, device=label_N.device)
    shown = Batch(images=images, labels=label_N, positions=torch.arange(SAMPLES), valid=valid_N)
    tally, collector = Tally(CLASSES, label_N.device), Collector()
    tally.add(logits_NC, label_N, valid_N)
    collector.add(logits_NC, shown)
    with no_waits(device):
        for _ in range(3):
            tally.add(logits_NC, label_N, valid_N)
            collector.add(logits_NC, shown)
    expected = Tally(CLASSES, torch.device("cpu"))
    for _ in range(4):
        expected.add(logits_NC.cpu(), label_N.cpu(), valid_N)
    found, here = tally.scores(4 * SAMPLES, alone), expected.scores(4 * SAMPLES, alone)
    assert (found.confusion_CC == here.confusion_CC).all()
    assert (found.correct_5, found.skipped) == (here.correct_5, here.skipped)
    assert found.loss == pytest.approx(here.loss, rel=1e-5)
    assert found.calibration_error == pytest.approx(here.calibration_error, abs=1e-5)


@on_devices
@pytest.mark.parametrize("name", ["cifar", "noise", "RandAugment", "colours", "MixUp", "CutMix"])
def test_no_batch_of_the_resident_backend_waits(one_size, resident_cache, device, name):
    setup = setup_of(one_size, PIXELS[name], device=device, dtype="float16")
    store, planner = DeviceStore(setup, kept(setup)), planner_of(setup)
    shape = len(setup.split), store._window.height, store._window.width, 3
    store.put(0, np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8))
    drafts = [planner.work(planner.draft(epoch, 0)) for epoch in range(3)]
    made = [postprocess.mix_images(store.make(work), work.mix) for work in drafts]
    with no_waits(device):
        again = [postprocess.mix_images(store.make(work), work.mix) for work in drafts]
    for one, other in zip(made, again, strict=True):
        assert torch.equal(one, other)


@pytest.mark.gpu
def test_memory_that_is_out_on_a_gpu_says_what_to_do_and_can_be_used_again():
    learning, (images, labels) = learner("cuda", amp="none"), batch("cuda", samples=512)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        with pytest.raises(TrainingError, match=r"out of memory on cuda with 512 pictures of 32x32 .* accumulate=2"):
            learning.step(images, labels, number=0, lr=0.01)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.isfinite(learning.step(*batch("cuda"), number=0, lr=0.01).loss)


# --- ranks --------------------------------------------------------------------------------------------------------


@pytest.fixture
def group_of_one(device):
    """A process group of one rank: NCCL's on a GPU."""
    store = distributed.HashStore()
    if device == "cuda":
        one = torch.device("cuda", torch.cuda.current_device())
        distributed.init_process_group("nccl", store=store, rank=0, world_size=1, device_id=one)
    else:
        distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@on_devices
@pytest.mark.parametrize("compiled", [False, True])
def test_ranks_exchange_gradients_once_a_step(group_of_one, device, compiled, monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network: compile_(network, backend="aot_eager"))
    torch._dynamo.reset()
    settings = {"model": "cnn", "amp": "none", "accumulate": 4, "compile": compiled}
    # As one of two, so that the network is wrapped; what the other adds is nothing.
    several, alone = learner(device, world_size=2, **settings), learner(device, **settings | {"compile": False})
    exchanges: list[list[int]] = []

    def count(_, bucket):
        exchanges[-1].append(bucket.index())
        return distributed.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda done: done.value()[0])

    several._exchange.register_comm_hook(None, count)
    images, labels = batch(device)
    for number in range(3):
        exchanges.append([])
        outcome = several.step(images, labels, number=number, lr=0.01)
        expected = alone.step(images, labels, number=number, lr=0.01)
    # Not for each of the four parts: a bucket of gradients once a step.
    assert all(buckets and sorted(buckets) == list(range(len(buckets))) for buckets in exchanges)
    assert float(outcome.loss) == pytest.approx(float(expected.loss), abs=0.05)


@on_devices
def test_values_of_all_ranks_are_added_copied_and_waited_for(group_of_one, device):
    ranks = Processes(rank=0, world_size=2, device=torch.device(device))
    value, whole = torch.arange(3.0, device=device), torch.tensor(7, device=device)
    ranks.sum(value, whole)
    ranks.copy_from_first([value])
    ranks.wait()
    assert (value.tolist(), int(whole)) == ([0.0, 1.0, 2.0], 7)


# --- the clock ----------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("loading_s", [0.0, 0.06])
def test_the_clock_sees_how_long_a_gpu_waits(loading_s):
    clock, work = Clock(torch.device("cuda", torch.cuda.current_device())), []
    torch.cuda._sleep(1000)
    clock.restart()
    clock.waits()
    for _ in range(10):
        time.sleep(loading_s)
        clock.has_batch()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        # Some 15 ms; what they are on this GPU is measured.
        torch.cuda._sleep(25_000_000)
        end.record()
        work.append((begin, end))
        clock.waits()
    seconds, waited = clock.take()
    worked = sum(begin.elapsed_time(end) for begin, end in work) / 1000
    assert seconds - waited == pytest.approx(worked, rel=0.2)
    assert waited > 0.8 * (10 * loading_s - worked)
