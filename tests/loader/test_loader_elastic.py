"""Torch elastic: a rank dies, the job continues with fewer, and the sequence of samples is exact."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import imgdata
from support.digit_runs import ENVIRONMENT
from support.patience import PATIENCE_S
from support.rawdata import class_folders
from support.remote_servers import free_ports

GLOBAL_BATCH, EPOCHS, DIES_AFTER = 4, 3, 3

RANK = """
import datetime, json, os, pathlib, sys, time
import torch.distributed as dist
import imgdata

dataset, work, batch = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
rank, ranks = dist.get_rank(), dist.get_world_size()
saved = work / "state.json"
kept = json.loads(saved.read_text()) if saved.exists() else {"steps": [], "loader": None}
with imgdata.Loader(dataset, split="train", recipe="plain", batch_size=batch // ranks, threads=1) as loader:
    if kept["loader"] is not None:
        loader.load_state_dict(kept["loader"])
    while loader.epoch < int(sys.argv[4]):
        for one in loader:
            parts = [None] * ranks
            dist.all_gather_object(parts, one.positions.tolist())
            kept["steps"].append([ranks, sum(parts, [])])
            kept["loader"] = loader.state_dict()
            if rank == 0:
                (work / "state.tmp").write_text(json.dumps(kept))
                (work / "state.tmp").replace(saved)
            dist.barrier()
            if ranks == 2 and len(kept["steps"]) == int(sys.argv[5]):
                (work / f"pid{os.environ['GROUP_RANK']}").write_text(str(os.getpid()))
                if rank == 1:
                    time.sleep(600)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_a_rank_dies_and_the_others_continue_with_the_very_next_samples(tmp_path):
    imgdata.shard(class_folders(tmp_path / "pets", {"train": 5}), tmp_path / "out", workers=1)
    with imgdata.Loader(tmp_path / "out", split="train", recipe="plain", batch_size=GLOBAL_BATCH, threads=1) as loader:
        expected = [batch.positions.tolist() for _ in range(EPOCHS) for batch in loader]
    (tmp_path / "rank.py").write_text(RANK)
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3"]
    command += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=job"]
    command += ["--rdzv-conf=last_call_timeout=3,keep_alive_interval=1,keep_alive_max_attempt=3"]
    command += [
        str(tmp_path / "rank.py"),
        str(tmp_path / "out"),
        str(tmp_path),
        *map(str, (GLOBAL_BATCH, EPOCHS, DIES_AFTER)),
    ]
    agents = []
    try:
        for host in ("--rdzv-conf=is_host=1", "--rdzv-conf=is_host=0"):
            extra = host.split("=", 1)[1]
            words = [f"{one},{extra}" if one.startswith("--rdzv-conf=") else one for one in command]
            agents.append(subprocess.Popen(words, env=ENVIRONMENT, start_new_session=True))
        until = time.monotonic() + PATIENCE_S
        while not (tmp_path / "pid1").exists() or not (tmp_path / "pid0").exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        # One machine is gone: its agent and its rank. That of the store lives on.
        pids = [int((tmp_path / f"pid{number}").read_text()) for number in (0, 1)]
        gone = next(pid for pid in pids if parent(pid) == agents[1].pid)
        os.kill(agents[1].pid, signal.SIGKILL)
        os.kill(gone, signal.SIGKILL)
        assert agents[0].wait(PATIENCE_S) == 0
    finally:
        for agent in agents:
            if agent.poll() is None:
                os.killpg(agent.pid, signal.SIGKILL)
            agent.wait()
    steps = json.loads((tmp_path / "state.json").read_text())["steps"]
    assert [positions for _, positions in steps] == expected
    assert {ranks for ranks, _ in steps} == {1, 2}
    assert len(steps) > DIES_AFTER


def parent(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rsplit(")", 1)[1].split()[1])
