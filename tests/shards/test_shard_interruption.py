"""A run that is killed, interrupted, doubled or out of space: nothing half-written, nothing lost, nothing twice."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

import imgdata
from imgdata import ShardOptions
from support.patience import PATIENCE_S

SOURCE = "synthetic:samples=600,classes=5,width=96,height=64,val=100"
OPTIONS = ["--shard-samples", "40", "--name", "syn"]
KINDS = ["threads", "processes"]
"""What the workers are. Processes are meant for jobs larger than those here, so the bound is set to nothing."""


SLOW = """
import os, time
replace = os.replace
def replace_slowly(source, target):
    # A shard that is finished. Otherwise all of them may be before this test's process has its turn.
    if str(target).endswith(".tar"):
        time.sleep(0.3)
    replace(source, target)
os.replace = replace_slowly
"""


def imgdata_shard(*arguments, kind="threads", slow=False):
    bound = "imgdata.shards.engines.local.PROCESSES_FROM = 0;" if kind == "processes" else ""
    script = f"import imgdata.shards.engines.local, imgdata_cli.main as m; {bound} m.main()"
    script = SLOW + script if slow else script
    return [sys.executable, "-c", script, "shard", *map(str, arguments)]


def command(out, *more, source=SOURCE, kind="threads", workers=2, slow=False):
    return imgdata_shard(source, out, *OPTIONS, "--workers", workers, *more, kind=kind, slow=slow)


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    subprocess.run(command(out, "--quiet"), check=True)
    return digests(out)


def wait_for(condition, process, timeout_s=PATIENCE_S):
    """Wait until `condition()` or the end of the process."""
    end = time.monotonic() + timeout_s
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)


def finished_tars(out):
    return sorted(out.glob("*.tar"))


def assert_whole(tars):
    for tar in tars:
        with tarfile.open(tar) as archive:
            assert sum(member.name.endswith(".jpg") for member in archive) in (40, 20)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shards_before_the_kill", [0, 1, 4, 9])
def test_after_kill_9_finished_shards_are_whole_and_the_next_run_ends_with_the_same_bytes(
    tmp_path, uninterrupted, shards_before_the_kill, kind
):
    out = tmp_path / "out"
    process = subprocess.Popen(command(out, "--quiet", kind=kind, slow=True), start_new_session=True)
    wait_for(lambda: len(finished_tars(out)) >= shards_before_the_kill and (out / ".imgdata").exists(), process)
    time.sleep(random.Random(shards_before_the_kill).uniform(0, 0.05))
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in finished_tars(out)}
    assert_whole(before)
    done = subprocess.run(command(out, "--quiet", "--json"), check=True, stdout=subprocess.PIPE)
    assert digests(out) == uninterrupted
    summary = json.loads(done.stdout)
    if not summary["already_complete"]:
        kept = [path for path, mtime in before.items() if path.stat().st_mtime_ns == mtime]
        # An orphaned worker may finish the shard in its hands after the kill, so at least those that we saw.
        assert summary["resumed_shards"] >= len(kept)
        assert len(kept) >= len(before)


@pytest.mark.parametrize(("kind", "workers"), [("threads", 1), ("threads", 2), ("processes", 2)])
def test_ctrl_c_ends_the_run_keeps_finished_shards_and_says_how_to_go_on(tmp_path, uninterrupted, kind, workers):
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(out, kind=kind, workers=workers, slow=True), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: len(finished_tars(out)) >= 2, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "the same command resumes from there" in said
    assert "Traceback" not in said
    assert not list((out / ".imgdata").glob("*.tmp"))
    assert_whole(finished_tars(out))
    subprocess.run(command(out, "--quiet"), check=True)
    assert digests(out) == uninterrupted


def test_a_second_run_on_the_same_folder_is_refused(tmp_path):
    out = tmp_path / "out"
    first = subprocess.Popen(command(out, "--quiet", slow=True))
    wait_for(lambda: (out / ".imgdata" / "plan.json").exists(), first)
    first.send_signal(signal.SIGSTOP)
    second = subprocess.run(command(out), stderr=subprocess.PIPE, text=True)
    first.send_signal(signal.SIGCONT)
    assert first.wait() == 0
    assert second.returncode == 1
    assert "another imgdata run is writing here" in second.stderr


def test_unfinished_runs_refuse_other_options(tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(command(out, "--quiet", slow=True))
    wait_for(lambda: len(finished_tars(out)) >= 1, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    other = subprocess.run(command(out, "--seed", "9"), stderr=subprocess.PIPE, text=True)
    assert other.returncode == 1
    assert "seed: 0 -> 9" in other.stderr


def test_an_unfinished_folder_says_so_when_it_is_opened(tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(command(out, "--quiet", slow=True))
    wait_for(lambda: len(finished_tars(out)) >= 1, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(imgdata.ShardError, match="not finished"):
        imgdata.open(out)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "workers"), [("threads", 1), ("threads", 2), ("processes", 2)])
def test_a_full_disk_is_one_clear_message_and_the_run_goes_on_once_there_is_room(tmp_path, kind, workers):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], stderr=subprocess.PIPE)
    if mounted.returncode:
        pytest.skip("a small tmpfs can't be mounted here: needs root")
    source = "synthetic:samples=600,classes=5,width=256,height=192"
    arguments = [source, disk / "out", "--shard-samples", "20", "--workers", workers]
    try:
        done = subprocess.run(imgdata_shard(*arguments, kind=kind), stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1
        assert "no space left on the disk" in done.stderr
        assert "Traceback" not in done.stderr
        for tar in finished_tars(disk / "out"):
            with tarfile.open(tar) as archive:
                assert len(archive.getmembers()) == 40
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        subprocess.run(imgdata_shard(*arguments, "--quiet", kind=kind), check=True)
        assert len(imgdata.open(disk / "out")["train"]) == 600
        assert imgdata.verify(disk / "out") == []
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_a_worker_that_dies_is_one_clear_message(tmp_path):
    out = tmp_path / "out"
    source = "synthetic:samples=4000,classes=5,width=96,height=64"
    process = subprocess.Popen(
        command(out, source=source, kind="processes", slow=True), stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: len(finished_tars(out)) >= 1, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "worker process ended" in said
    assert "Traceback" not in said


def test_a_read_only_output_is_refused_before_anything_is_read(unprivileged_folder):
    (unprivileged_folder / "locked").mkdir(mode=0o500)
    with pytest.raises(imgdata.OutputError, match="can't be written"):
        imgdata.shard("no/such/source", unprivileged_folder / "locked" / "out", workers=1)


def test_a_read_only_disk_is_refused(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", disk], stderr=subprocess.PIPE).returncode:
        pytest.skip("a tmpfs can't be mounted here: needs root")
    try:
        with pytest.raises(imgdata.OutputError, match="can't be written"):
            imgdata.shard(SOURCE, disk / "out", workers=1)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_shards_of_which_nothing_is_left_leave_no_gap_in_the_numbers(tmp_path):
    folder = tmp_path / "in" / "a"
    folder.mkdir(parents=True)
    from support.rawdata import encoded

    for number in range(6):
        bad = number in (0, 3)
        (folder / f"{number}.jpg").write_bytes(b"" if bad else encoded(number))
    out = tmp_path / "out"
    summary = imgdata.shard(tmp_path / "in", out, ShardOptions(shard_samples=1, shuffle=False), workers=1)
    assert [path.name for path in finished_tars(out)] == [f"in-train-{n:06d}.tar" for n in range(4)]
    assert [sample.key for sample in imgdata.open(out)["train"]] == ["a/1", "a/2", "a/4", "a/5"]
    assert summary.rejected == {"empty": 2}
    assert imgdata.verify(out) == []
