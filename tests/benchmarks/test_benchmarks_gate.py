"""The gate counts work: the code as it is passes, and a decoder that does a third more is stopped."""

import json

import pytest

from benchmarks import gate
from benchmarks.counters import Counter
from benchmarks.crops import Crops, bare_library
from benchmarks.gate import BASELINE, TOLERANCE, Case, compare
from benchmarks.loader_peers.bare_crop import PARTS
from imgdata import native

UNITS = ["cpu_time"]
with Counter() as _counter:
    if _counter.unit == "instructions":
        UNITS.append("instructions")
"""What can be counted here."""


def add_up(times):
    return sum(i * i for i in range(times))


@pytest.fixture(params=UNITS)
def counter(request):
    with Counter(request.param) as opened:
        yield opened


@pytest.mark.skipif("instructions" not in UNITS, reason="the kernel counts no instructions for us")
def test_instructions_of_twice_the_work_are_twice_as_many():
    with Counter("instructions") as counter:
        # Python compiles and caches at first.
        add_up(50_000)
        once = counter.cost(lambda: add_up(50_000))
        twice = counter.cost(lambda: (add_up(50_000), add_up(50_000)))
    assert twice / once == pytest.approx(2, rel=0.02)


def test_the_work_of_new_threads_counts(counter):
    from concurrent.futures import ThreadPoolExecutor

    def in_a_thread():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(add_up, 400_000).result()

    alone = min(counter.cost(lambda: add_up(400_000)) for _ in range(3))
    assert min(counter.cost(in_a_thread) for _ in range(3)) > 0.2 * alone


def test_asking_for_instructions_where_none_are_counted_is_refused(monkeypatch):
    monkeypatch.setattr("benchmarks.counters._open_instructions", lambda: None)
    with Counter() as counter:
        assert counter.unit == "cpu_time"
    with pytest.raises(OSError, match="unit must be cpu_time here, got instructions"):
        Counter("instructions")


@pytest.mark.parametrize(("ratio", "grew"), [(1.0, False), (1.199, False), (1.201, True), (0.5, False)])
def test_a_ratio_may_be_above_its_baseline_by_the_tolerance(ratio, grew):
    assert compare({"it": ratio}, {"it": 1.0}, 0.2)[0].grew is grew


def test_a_case_without_a_baseline_is_no_pass():
    with pytest.raises(KeyError, match="new"):
        compare({"new": 1.0}, {"it": 1.0}, 0.2)


def test_the_baseline_has_every_case_of_here():
    ratios = json.loads(BASELINE.read_text())["ratios"]
    with gate.cases() as (found, left_out):
        assert {case.name for case in found} <= set(ratios["instructions"])
        assert {case.name for case in found if case.timed} <= set(ratios["cpu_time"])
    assert not left_out or not native.AVAILABLE or "libjpeg" in str(left_out)


@pytest.mark.skipif(not native.AVAILABLE, reason="without gcc or libjpeg-turbo's headers")
@pytest.mark.skipif("instructions" not in UNITS, reason="the kernel counts no instructions for us")
def test_libjpeg_turbo_does_less_for_crops_and_for_coefficients_alone():
    with Counter("instructions") as counter, bare_library() as library, Crops(4) as crops:
        cost = {part: counter.cost(crops.bare(library, part)) for part in PARTS}
    assert cost["crop"] < cost["whole"]
    assert cost["huffman"] < cost["whole"]


def third_more(case):
    """The case with every third call made twice: what a third more work would be."""
    calls = iter(range(10**9))

    def ours():
        case.ours()
        if next(calls) % 3 == 2:
            case.ours()

    def nine(work):
        return lambda: [work() for _ in range(9)]

    return Case(name=case.name, ours=nine(ours), reference=nine(case.reference), timed=case.timed)


@pytest.mark.skipif(not native.AVAILABLE, reason="the extension was not built")
@pytest.mark.skipif("instructions" not in UNITS, reason="processor time is judged by `make gate`: it needs quiet")
def test_a_decoder_that_does_a_third_more_work_is_stopped():
    # Beside what it does here: other processors have other instructions.
    with Counter("instructions") as counter, gate.cases() as (found, _):
        baseline = gate.ratios_of(found, counter)
        for cases, grew in ((found, False), ([third_more(case) for case in found], True)):
            verdicts = compare(gate.ratios_of(cases, counter), baseline, TOLERANCE["instructions"])
            assert {one.name for one in verdicts} >= {"crops, uint8 / libjpeg-turbo", "order, global / argsort"}
            assert {one.grew for one in verdicts} == {grew}
