"""The share of the time in which a network waits for data: on the processor, and on a GPU, whose queue is acted."""

import pytest
import torch

from imgdata.measure import timing as measured
from imgdata.measure.timing import Ticks
from imgdata.training import timing
from imgdata.training.timing import Clock
from support.gpu_timeline import acted_gpu

STEPS = 50


def train(timeline, clock, *, loading, launching, computing, copying=0.0):
    """Seconds of `STEPS` steps and of waiting in them, by `clock`; arguments are seconds a step.

    The loader makes a batch every `loading` seconds, ahead of the network; the host takes `launching` for a step, the
    GPU `computing`, and `copying` before that for a batch that is copied in the network's stream.
    """
    clock.restart()
    clock.waits()
    ready = 0.0
    for _ in range(STEPS):
        ready += loading
        timeline.host = max(timeline.host, ready)
        timeline.compute(copying)
        clock.has_batch()
        timeline.host += launching
        timeline.compute(computing)
        clock.waits()
    return clock.take()


@pytest.mark.parametrize(
    ("step", "seconds", "waited"),
    [
        # The GPU is always busy: the loader and the host are ahead of it.
        ({"loading": 0.01, "launching": 0.005, "computing": 0.1}, 5.0, 0.0),
        # The loader needs twice as long as the network: half of the time is waiting.
        ({"loading": 0.2, "launching": 0.005, "computing": 0.1}, 10.0, 5.0),
        # The host's launches are what takes long: nobody waits for data.
        ({"loading": 0.001, "launching": 0.1, "computing": 0.02}, 5.0, 0.0),
        # A copy is in the way of the network, as waiting is.
        ({"loading": 0.01, "launching": 0.005, "computing": 0.1, "copying": 0.02}, 6.0, 1.0),
    ],
    ids=["GPU", "loader", "host", "copies"],
)
def test_a_gpus_waiting_is_what_lies_between_its_work_of_two_steps(monkeypatch, step, seconds, waited):
    timeline = acted_gpu(monkeypatch, timing)
    found = train(timeline, Clock(torch.device("cuda:0")), **step)
    # The first step's launch, and what is left of the last step.
    assert found == pytest.approx((seconds, waited), abs=0.3)


def test_the_clock_waits_for_the_gpu_when_it_is_read_and_at_no_step(monkeypatch):
    timeline = acted_gpu(monkeypatch, timing)
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waits.append(device))
    clock = Clock(torch.device("cuda:1"))
    clock.restart()
    for _ in range(STEPS):
        clock.waits()
        clock.has_batch()
        timeline.compute(1.0)
    assert len(waits) == 1
    clock.take()
    assert waits == [torch.device("cuda:1")] * 2


def test_on_the_processor_waiting_is_what_the_host_does(monkeypatch):
    timeline = acted_gpu(monkeypatch, timing)
    clock = Clock(torch.device("cpu"))
    clock.restart()
    for _ in range(4):
        clock.waits()
        timeline.host += 0.25
        clock.has_batch()
        timeline.host += 0.75
    assert clock.take() == (4.0, 1.0)
    assert clock.take() == (0.0, 0.0)


def test_marks_are_as_far_apart_as_the_gpu_gets_to_them(monkeypatch):
    timeline = acted_gpu(monkeypatch, measured)
    ticks = Ticks("cuda:0")
    for seconds in (0.5, 0.25, 2.0):
        ticks.mark()
        timeline.compute(seconds)
        timeline.host += 0.001
    ticks.mark()
    ticks.wait()
    assert ticks.gaps_ms() == pytest.approx([500, 250, 2000])
    assert timeline.host == timeline.free == 2.75
