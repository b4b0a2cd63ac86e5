"""The one place that measures times: calls take what they take, and importing it needs nothing but NumPy."""

import subprocess
import sys
from itertools import pairwise

import pytest

from imgdata.measure.timing import Ticks, least_ms, mean_s


def test_it_imports_nothing_that_other_loaders_do_not_have():
    """Benchmarks measure loaders of other projects in an environment without what imgdata needs."""
    program = "import sys, imgdata.measure.timing; print(*sorted(name.partition('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    unwanted = {"PIL", "click", "pyarrow", "rich", "simplejpeg", "timm", "torch", "webdataset", "xxhash"}
    assert unwanted.isdisjoint(done.stdout.split())


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a call moves it."""
    now = [0.0]
    monkeypatch.setattr("imgdata.measure.timing.time.perf_counter", lambda: now[0])
    return now


def test_the_least_of_several_calls_counts(clock):
    naps = iter([5.0, 1.0, 9.0])

    def call():
        clock[0] += next(naps)

    assert least_ms(call, rounds=3) == 1000


def test_the_mean_counts_every_call_but_those_that_warm_up(clock):
    calls = []

    def call():
        calls.append(None)
        clock[0] += 100.0 if len(calls) <= 2 else 0.25

    assert mean_s(call, "cpu") == 0.25
    assert len(calls) == 2 + 4, "about a second of them"


def test_marks_are_as_far_apart_as_the_device_gets_to_them():
    ticks = Ticks("cpu")
    marks = [ticks.mark() for _ in range(4)]
    ticks.wait()
    assert ticks.gaps_ms().tolist() == [1000 * (after - before) for before, after in pairwise(marks)]
