"""How `imgdata bench` measures: the clock of a run, its processes, and how figures are added up."""

import shlex
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imgdata.errors import ImgdataError, ShardError
from imgdata.measure import timing
from imgdata.measure.bench import BenchOptions, one, ours, processes
from imgdata.measure.bench.job import Job, Measured
from imgdata.measure.bench.opened import Opened
from imgdata.measure.bench.processes import run_together
from imgdata.measure.bench.result import figures, peer_figures, together
from support.bench_jobs import QUICK, job_of, measured
from support.loaders import dataset
from support.patience import PATIENCE_S


@pytest.fixture(autouse=True)
def threads_of_pytorch():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# --- arithmetic ----------------------------------------------------------------------------------------------------


RATES = st.floats(0.1, 1e6)


@given(rates=st.lists(st.tuples(RATES, RATES), min_size=1, max_size=9))
def test_the_ratio_is_that_of_neighbours_and_lies_among_them(rates):
    own = [measured(images_per_s=mine) for mine, _ in rates]
    its = [measured(images_per_s=theirs) for _, theirs in rates]
    ratios = sorted(mine / theirs for mine, theirs in rates)
    found = peer_figures(its, own, name="x", configuration="", mean_bytes=1.0)
    assert ratios[(len(ratios) - 1) // 2] <= found.ratio <= ratios[len(ratios) // 2]
    assert found.cpu_ratio == 1.0


def test_a_machine_that_slows_down_changes_rates_but_no_ratio():
    slowing = [1.0, 0.5, 0.25]
    own = [measured(images_per_s=900 * share) for share in slowing]
    its = [measured(images_per_s=300 * share) for share in slowing]
    assert peer_figures(its, own, name="x", configuration="", mean_bytes=1.0).ratio == pytest.approx(3.0)


@given(runs=st.lists(st.tuples(RATES, st.integers(1, 10**6), st.floats(0.01, 1e4)), min_size=1, max_size=8))
def test_processes_at_the_same_time_add_up(runs):
    parts = [measured(images_per_s=rate, images=images, cpu_s=cpu_s) for rate, images, cpu_s in runs]
    whole = together(parts)
    assert whole.images_per_s == pytest.approx(sum(rate for rate, _, _ in runs))
    assert whole.peak_mb == pytest.approx(700.0 * len(runs))
    found = figures([whole], mean_bytes=None)
    expected = 1000 * sum(cpu_s for _, _, cpu_s in runs) / sum(images for _, images, _ in runs)
    assert found.cpu_ms_per_image == pytest.approx(expected)
    assert found.mb_per_s is None


def test_what_can_not_be_seen_is_left_open():
    blind = measured(cpu_s=None)
    assert together([blind, measured()]).cpu_s is None
    found = peer_figures([blind, measured()], [measured()] * 2, name="x", configuration="", mean_bytes=1.0)
    assert (found.cpu_ms_per_image, found.images_per_cpu_s, found.cpu_ratio) == (None, None, None)


def test_a_job_and_its_figures_survive_the_way(images):
    job, found = job_of(images), measured(gpu_mb=1.5)
    assert Job.from_json(job.to_json()) == job
    assert Measured.from_json(found.to_json()) == found


# --- one process ---------------------------------------------------------------------------------------------------


def measured_here(monkeypatch, job, make, delays=0):
    """`one.measure` in this process, of batches that `make` gives; it may begin after so many questions."""
    asked = iter([False] * delays)
    monkeypatch.setattr(ours, "imgdata", make)
    said = []
    found = one.measure(job, lambda: said.append("ready"), lambda: next(asked, True))
    assert said == ["ready"]
    return found


def endless(group, counter):
    def batches():
        while True:
            counter["made"] += 1
            yield torch.zeros(8, 3, 16, 16)

    return Opened(batches(), "7", group=group)


def test_a_process_works_with_the_gpu_of_its_job_before_anything_else_does(monkeypatch, images):
    """Threads that pin memory ask for the current GPU: they would open a context on GPU 0 in every process."""
    calls = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", lambda device: calls.append(f"set {device}"))
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: calls.append(f"memory of {device}") or (1, 1))

    def open_loader(job):
        calls.append("open")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured_here(monkeypatch, job_of(images, device="cuda:1"), open_loader)
    assert calls == ["set cuda:1", "memory of cuda:1", "open"]


@pytest.mark.parametrize(("group", "delays", "warm_up"), [(1, 0, 4), (1, 3, 7), (3, 0, 6), (3, 2, 12), (5, 1, 15)])
def test_warm_up_goes_on_until_all_may_begin_and_ends_with_a_whole_round_of_workers(
    monkeypatch, images, group, delays, warm_up
):
    made = Counter()
    found = measured_here(monkeypatch, job_of(images), lambda job: endless(group, made), delays)
    assert found.warm_up_batches == warm_up
    assert found.batches % group == 0
    assert made["made"] == found.warm_up_batches + found.batches
    assert found.images == 8 * found.batches
    assert found.version == "7"


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        (torch.zeros(8, 16, 16, 3), r"\(8, 16, 16, 3\)"),
        (torch.zeros(8, 3, 16, 16, dtype=torch.uint8), "'uint8'"),
        (torch.zeros(7, 3, 16, 16), r"\(7, 3, 16, 16\)"),
    ],
)
def test_a_figure_for_something_else_is_refused(monkeypatch, images, batch, got):
    with pytest.raises(ImgdataError, match=rf"imgdata: a batch must be \(\(8, 3, 16, 16\), 'float32', 'cpu'\).*{got}"):
        measured_here(monkeypatch, job_of(images), lambda job: Opened(iter([batch]), "1"))


BUSY = """
import sys, time
held = bytearray(b"x") * {bytes}
while time.process_time() < {seconds}:
    pass
print("busy", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not timing.sees_children(), reason="this system does not show child processes")
def test_time_and_memory_of_child_processes_are_seen():
    program = BUSY.format(bytes=60_000_000, seconds=0.3)
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        child.stdout.readline()
        pids = timing.process_tree()
        assert pids[0] != child.pid
        assert child.pid in pids
        # The kernel counts in ticks.
        assert timing.cpu_s([child.pid]) - timing.cpu_s([]) >= 0.25
        assert timing.peak_mb([*pids[:1], child.pid]) - timing.peak_mb(pids[:1]) >= 60
        child.stdin.close()
    ended = timing.cpu_s([])
    assert timing.cpu_s([child.pid]) == ended
    assert ended >= 0.25


# --- several processes ---------------------------------------------------------------------------------------------


def test_ranks_are_measured_at_the_same_time(images):
    jobs = [job_of(images, rank=rank, world_size=2) for rank in (0, 1)]
    found = run_together(jobs)
    assert len(found) == 2
    for one_of_them in found:
        assert one_of_them.images == 8 * one_of_them.batches
        assert one_of_them.warm_up_batches >= one.WARM_UP


def test_what_a_process_raises_is_raised_here(tmp_path):
    folder = dataset(tmp_path, count=20)
    for tar in folder.glob("*.tar"):
        tar.unlink()
    with pytest.raises(ShardError, match=r"demo-train-00000\d\.tar"):
        run_together([job_of(folder)])


def test_a_process_that_breaks_or_hangs_says_so_and_is_gone(images, monkeypatch):
    with pytest.raises(ImgdataError, match=r"took more than 0\.1 s, and was ended"):
        run_together([job_of(images)], limit_s=0.1)
    monkeypatch.setattr(processes, "_ONE", "imgdata.nowhere")
    with pytest.raises(ImgdataError, match=r"its process ended with 1: .*No module named imgdata\.nowhere"):
        run_together([job_of(images)])


@pytest.mark.slow
@pytest.mark.skipif(not timing.sees_children(), reason="this system does not show child processes")
def test_ctrl_c_leaves_no_process_behind(images):
    program = "from imgdata_cli.main import main; main()"
    words = shlex.split(BenchOptions(**{**QUICK, "seconds": 600.0}).command(images))[1:]
    started = subprocess.Popen([sys.executable, "-c", program, *words], stderr=subprocess.PIPE, text=True)
    try:
        while not (children := [pid for pid in timing.process_tree() if _is_one(pid)]):
            assert started.poll() is None
        started.send_signal(signal.SIGINT)
        _, said = started.communicate(timeout=PATIENCE_S)
    finally:
        started.kill()
    assert started.returncode == 130
    assert said.splitlines()[-1] == "imgdata: interrupted"
    # One that was not told its job yet hears that nobody is there, and ends: it would measure for 600 s else.
    until = time.monotonic() + PATIENCE_S
    while any(map(_is_one, children)):
        assert time.monotonic() < until
        time.sleep(0.05)


def _is_one(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"imgdata.measure.bench.one" in file.read()
    except FileNotFoundError:
        return False
