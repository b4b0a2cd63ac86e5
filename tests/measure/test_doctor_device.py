"""The step of training that `imgdata doctor --model` times: prepared as a run prepares its own."""

import pytest
import torch

from imgdata.measure import timing
from imgdata.measure.doctor.device import step_ms
from imgdata.measure.doctor.inputs import DoctorOptions, make_case
from imgdata.training import throughput
from imgdata.training.learner import Learner
from imgdata.training.network import image_type


@pytest.fixture
def steps(monkeypatch):
    """What each step got, instead of training; a clock by which each takes 0.1 s."""
    seen, now = [], [0.0]

    def step(learner, images, labels, *, number, lr):
        seen.append((images, labels, lr))
        now[0] += 0.1

    monkeypatch.setattr(Learner, "step", step)
    monkeypatch.setattr("imgdata.training.timing.time.perf_counter", lambda: now[0])
    return seen


@pytest.fixture
def case(images):
    return make_case(images, DoctorOptions(size=16, batch_size=8, threads=1, device="cpu", model="resnet9"))


def test_the_pictures_are_random_and_laid_out_as_the_networks(case, steps):
    step_ms(case, "resnet9")
    images, labels, lr = steps[0]
    assert tuple(images.shape) == (8, 3, 16, 16)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.std() == pytest.approx(1.0, abs=0.1)
    assert labels.dtype == torch.int64
    # A network that learned from two batches again and again would end in infinity.
    assert 0 < lr < 1e-8
    # A batch that is not the one before, as in training.
    assert not torch.equal(images, steps[1][0])


def test_the_mean_is_of_a_second_of_steps_and_nothing_waits_between_them(case, steps, monkeypatch):
    waited = []
    monkeypatch.setattr(throughput.Clock, "_settle", lambda self: waited.append(len(steps)))
    assert step_ms(case, "resnet9") == pytest.approx(100 / 8)
    # 2 that warm up, 3 that say how long one takes, 10 that count.
    assert sorted(set(waited)) == [0, 2, 5, 15]


def test_slow_steps_are_few(case, steps, monkeypatch):
    monkeypatch.setattr(throughput, "_STEPS_S", 0.2)
    assert step_ms(case, "resnet9") == pytest.approx(100 / 8)
    assert len(steps) == 5


def test_the_kernels_are_searched_as_in_a_run(case, steps, monkeypatch):
    made = []
    real = throughput.make_network
    monkeypatch.setattr(throughput, "make_network", lambda *arguments: made.append(arguments) or real(*arguments))
    step_ms(case, "resnet9")
    # `make_network` sets cudnn.benchmark, and the layout of the weights.
    [(options, _, size, ranks)] = made
    assert (options.model, options.batch_size, options.channels_last, size) == ("resnet9", 8, True, 16)
    assert ranks.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("amp", "device", "native", "expected"),
    [
        ("auto", "cuda:1", True, "float16"),
        ("auto", "cuda", False, "float16"),
        ("bf16", "cuda", True, "float16"),
        ("none", "cuda", True, "float32"),
        ("auto", "cpu", True, "float32"),
        ("bf16", "cpu", True, "float32"),
    ],
)
def test_a_gpu_that_computes_in_16_bits_gets_images_of_16_bits(monkeypatch, amp, device, native, expected):
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: native)
    assert image_type(amp, torch.device(device)) == expected


@pytest.mark.parametrize(
    ("model", "dtype", "expected"),
    [("resnet9", None, "float16"), ("resnet9", "uint8", "uint8"), (None, None, "float32")],
)
def test_with_a_network_the_loader_makes_what_a_run_gets(images, monkeypatch, model, dtype, expected):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: True)
    options = DoctorOptions(size=16, batch_size=8, threads=1, device="cuda:0", backend="cpu", model=model, dtype=dtype)
    assert make_case(images, options).options.dtype == expected


def test_a_loaders_rate_waits_for_the_device_of_the_loader(monkeypatch):
    class Loader:
        device = "cuda:1"

        def __iter__(self):
            return iter([type("Batch", (), {"positions": range(4)})] * 100)

    waited = []
    monkeypatch.setattr("torch.cuda.synchronize", waited.append)
    assert timing.loader_rate(Loader(), 0.0).images_per_s > 0
    assert waited == ["cuda:1"] * 2


@pytest.mark.gpu
def test_on_a_gpu_the_step_is_that_of_a_run(images, monkeypatch):
    case = make_case(images, DoctorOptions(size=32, batch_size=8, threads=1, device="cuda:0", model="resnet9"))
    seen, real = [], Learner.step

    def step(learner, images, labels, **arguments):
        seen.append((images.dtype, images.is_contiguous(memory_format=torch.channels_last), images.device.type))
        return real(learner, images, labels, **arguments)

    monkeypatch.setattr(Learner, "step", step)
    assert step_ms(case, "resnet9") > 0
    assert set(seen) == {(torch.float16, True, "cuda")}
    assert torch.backends.cudnn.benchmark
