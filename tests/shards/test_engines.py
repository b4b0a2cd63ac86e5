"""An engine decides where tasks run, and nothing about the bytes: any order, any process gives the same files."""

import hashlib
import pickle
import subprocess
import sys
import time

import pytest

import imgdata
from imgdata import ShardOptions
from imgdata.shards.engines import local
from imgdata.shards.engines.local import LocalEngine
from imgdata.shards.job import write_listing
from imgdata.shards.job_folder import own
from imgdata.shards.writer import write_shard
from imgdata.sources.detect import list_source
from imgdata.sources.options import SourceOptions
from support.rawdata import class_folders

OPTIONS = ShardOptions(shard_samples=3, json_members=True)


class InProcess:
    """Runs pickled tasks here, last first, as a cluster might that is handed tasks as bytes."""

    def __init__(self, *, workers, samples, lock):
        self.left = False

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.left = True

    def run(self, tasks, total, told):
        packed = [pickle.dumps(task) for task in tasks]
        assert len(packed) == total
        for task in reversed(packed):
            yield pickle.loads(pickle.dumps(write_shard(pickle.loads(task), told)))


def processes(**settings):
    engine = LocalEngine(**settings)
    engine._in_processes = True
    return engine


def threads(**settings):
    return LocalEngine(**{**settings, "workers": 3})


def written(raw, out, engine):
    listing = list_source(raw, SourceOptions())
    with own(out) as job:
        return write_listing(
            job,
            listing,
            OPTIONS,
            workers=2,
            overwrite=False,
            watch=imgdata.Watcher(),
            started=time.perf_counter(),
            engine=engine,
        )


def digests(out):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir()}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("raw") / "pets", {"train": 5, "val": 2})


@pytest.mark.parametrize("engine", [InProcess, threads, processes])
def test_every_engine_gives_the_same_bytes(raw, tmp_path, engine):
    imgdata.shard(raw, tmp_path / "alone", OPTIONS, workers=1)
    summary = written(raw, tmp_path / "out", engine)
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")
    assert summary.samples == 21
    assert imgdata.verify(tmp_path / "out") == []


def test_an_engine_that_fails_leaves_a_job_that_can_be_resumed(raw, tmp_path):
    class Fails(InProcess):
        def run(self, tasks, total, told):
            for number, report in enumerate(super().run(tasks, total, told)):
                if number == 2:
                    raise imgdata.ShardError("the cluster went away")
                yield report

    with pytest.raises(imgdata.ShardError, match="the cluster went away"):
        written(raw, tmp_path / "out", Fails)
    assert written(raw, tmp_path / "out", InProcess).resumed_shards >= 2
    imgdata.shard(raw, tmp_path / "alone", OPTIONS, workers=1)
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")


def test_a_worker_process_that_answers_nonsense_and_lives_on_is_ended(tmp_path, monkeypatch):
    raw = class_folders(tmp_path / "raw", {"": 3})
    babbling = "import time; print('no answer', flush=True); time.sleep(600)"

    def start(_lock):
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", babbling], stdin=pipe, stdout=pipe)

    monkeypatch.setattr(local, "PROCESSES_FROM", 0)
    monkeypatch.setattr(local, "_END_S", 0.1)
    monkeypatch.setattr(local, "_start_process", start)
    with pytest.raises(imgdata.ShardError, match=r"the worker process ended \(exit code -9\)"):
        imgdata.shard(raw, tmp_path / "out", workers=2)
