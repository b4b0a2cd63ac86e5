"""What a Ray cluster writes and finds is what one run does, whatever machine dies meanwhile."""

import hashlib
import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

import imgdata
from support.patience import PATIENCE_S
from support.remote_servers import web_server
from support.tars import flip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs pip install 'imgdata[ray]'"),
]

SOURCE = "synthetic:samples=1200,classes=5,width=128,height=96"

CLUSTER = """
import json, pathlib, subprocess, sys, time
from ray.cluster_utils import Cluster
import imgdata
from imgdata.auditing import facts, workers_by_ray

source, out, size, damaged, url = sys.argv[1:6]
small = {"object_store_memory": 80_000_000, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
machines = [cluster.add_node(num_cpus=1, **small) for _ in range(2)]
engine = imgdata.RayOptions(address=cluster.address)
tries = []

class Watch(imgdata.Watcher):
    shards = 0

    def advanced(self, samples, num_bytes, rejects):
        self.shards += 1
        if self.shards == 2:
            cluster.remove_node(machines[0], allow_graceful=False)

    def retried(self, what):
        tries.append(what)

# Of the first run, its driver dies.
command = [sys.executable, "-m", "imgdata_cli.main", "shard", source, out, "--shard-samples", size, "--name", "syn"]
driver = subprocess.Popen([*command, "--engine", "ray", "--address", cluster.address, "--quiet"])
until = time.monotonic() + 120
while len(list(pathlib.Path(out).glob("*.tar"))) < 2 and time.monotonic() < until:
    time.sleep(0.02)
driver.kill()
driver.wait()

# Of the second one, a machine.
watch = Watch()
summary = imgdata.shard(source, out, shard_samples=int(size), name="syn", engine=engine, watch=watch)

# A machine is lost while shards are checked, as well.
machines[0] = cluster.add_node(num_cpus=1, **small)
checked = []

def progress(done, total):
    checked.append((done, total))
    if done == 2:
        cluster.remove_node(machines[0], allow_graceful=False)

faults = imgdata.verify(damaged, deep=True, engine=engine, progress=progress, retried=tries.append)
remote_faults = imgdata.verify(url, engine=engine)

# And while pictures are looked at.
machines[0] = cluster.add_node(num_cpus=1, **small)
workers_by_ray._SAMPLES = facts.PART
decoded = []

def audit_progress(stage, done, total):
    decoded.append((stage, done))
    if len(decoded) == 3:
        cluster.remove_node(machines[0], allow_graceful=False)

found = imgdata.audit(damaged, engine=engine, only=("duplicates", "quality"), progress=audit_progress)
results = {
    "summary": summary.to_dict(),
    "shards": watch.shards,
    "checked": checked,
    "faults": [str(fault) for fault in faults],
    "remote_faults": [str(fault) for fault in remote_faults],
    "findings": [repr(finding) for finding in found.findings],
    "decoded": decoded,
    "tries": tries,
}
print(json.dumps(results))
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one run writes, and a copy in which bytes have changed."""
    root = tmp_path_factory.mktemp("alone")
    imgdata.shard(SOURCE, root / "out", shard_samples=40, name="syn", workers=2)
    imgdata.shard(SOURCE, root / "damaged", shard_samples=40, name="syn", workers=2)
    first_byte = int(imgdata.open(root / "damaged")["train"].index.offset_N[3 * 40 + 7])
    flip(root / "damaged" / "syn-train-000003.tar", first_byte)
    flip(root / "damaged" / "syn-train-000017.tar", 700)
    (root / "damaged" / "syn-train-000020.idx").unlink()
    return root


@pytest.fixture(scope="module")
def results(alone, tmp_path_factory):
    """What a cluster of two machines writes and finds."""
    out = tmp_path_factory.mktemp("cluster") / "out"
    with web_server(alone / "damaged") as url:
        done = subprocess.run(
            [sys.executable, "-c", CLUSTER, SOURCE, out, "40", alone / "damaged", url],
            env={
                **os.environ,
                "IMGDATA_CACHE": str(out.parent / "cache"),
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_TMPDIR": "/tmp",
            },
            stdout=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_S,
        )
    assert done.returncode == 0
    return {**json.loads(done.stdout.splitlines()[-1]), "out": out}


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_cluster_that_loses_its_driver_and_then_a_machine_makes_the_dataset_of_one_run(results, alone):
    summary = results["summary"]
    assert summary["samples"] == 1200
    # On a busy machine the first run may be done before it is killed.
    assert summary["already_complete"] or 2 <= summary["resumed_shards"] == 30 - results["shards"]
    assert digests(results["out"]) == digests(alone / "out")


def test_a_cluster_that_loses_a_machine_finds_the_faults_of_one_run(results, alone):
    assert results["faults"] == [str(fault) for fault in imgdata.verify(alone / "damaged", deep=True)]
    assert len(results["faults"]) == 3
    assert results["checked"] == [[done, 30] for done in range(1, 31)]


def test_a_cluster_checks_a_dataset_at_a_url(results):
    assert results["remote_faults"] == results["faults"]


def test_a_cluster_that_loses_a_machine_audits_as_one_machine_does(results, alone, tmp_path, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path))
    found = imgdata.audit(alone / "damaged", only=("duplicates", "quality"))
    assert results["findings"] == [repr(finding) for finding in found.findings]
    assert len(results["findings"]) > 0
    assert ["decoding", 1200] in results["decoded"]
