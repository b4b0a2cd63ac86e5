"""Faults that the tasks of a Ray cluster find are those that threads of one machine find."""

import pytest
from imgdata_cli.main import main

import imgdata
from imgdata import OptionError, RayOptions, ShardError
from support.inline_ray import inline_ray
from support.remote_servers import web_server
from support.tars import dataset, flip

__all__ = ["inline_ray"]


@pytest.fixture
def folder(tmp_path):
    """A dataset of four shards, in three of whose files something has changed."""
    dataset(tmp_path / "out", json=True)
    flip(tmp_path / "out" / "demo-train-000001.tar", 1600)
    flip(tmp_path / "out" / "demo-val-000000.tar", 700)
    (tmp_path / "out" / "demo-train-000002.idx").unlink()
    return tmp_path / "out"


@pytest.mark.parametrize("deep", [False, True])
def test_the_faults_are_those_of_this_machine_in_the_same_order(folder, inline_ray, deep):
    calls = []
    found = imgdata.verify(folder, deep=deep, engine="ray", progress=lambda *counts: calls.append(counts))
    assert found == imgdata.verify(folder, deep=deep)
    assert len(found) == 3
    assert calls == [(done, 4) for done in range(1, 5)]
    assert inline_ray.ended == 4


def test_a_damaged_index_is_a_fault_and_shards_are_compared_with_their_hashes(folder, inline_ray):
    flip(next(folder.glob("*train*.parquet")), 100)
    assert imgdata.verify(folder, engine="ray") == imgdata.verify(folder)


def test_of_a_url_each_task_fetches_its_shard_and_leaves_nothing_behind(folder, inline_ray, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "there"))
    # Of a process that was killed.
    (tmp_path / "there" / "imgdata-shard-old").mkdir()
    with web_server(folder) as url:
        assert imgdata.verify(url, engine="ray") == imgdata.verify(folder)
    assert list((tmp_path / "there").iterdir()) == []


def test_a_task_carries_the_rows_of_its_shard_alone(tmp_path, inline_ray):
    source = "synthetic:samples=3000,classes=2,width=8,height=8"
    imgdata.shard(source, tmp_path / "out", shard_samples=100, hash="none", check="none")
    assert imgdata.verify(tmp_path / "out", engine="ray") == []
    assert inline_ray.bytes < 100 * 100


def test_a_machine_without_the_folder_is_named(folder, inline_ray, monkeypatch):
    monkeypatch.setattr("imgdata.shards.verify_by_ray.MANIFEST", "not-there.json")
    with pytest.raises(ShardError, match=r"out: not on the machine .*; the dataset must have the same path"):
        imgdata.verify(folder, engine="ray")


@pytest.fixture
def run_cli(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return (ended.value.code, *capsys.readouterr())

    return run


def test_the_command_prints_what_it_does_on_this_machine(folder, inline_ray, run_cli):
    here = run_cli("verify", folder, "--json")
    assert run_cli("verify", folder, "--json", "--engine", "ray", "--task-cpus", "2") == here
    assert here[0] == 1


def test_options_of_the_other_engine_are_refused(folder, run_cli):
    with pytest.raises(OptionError, match="workers is for engine 'local'"):
        imgdata.verify(folder, engine=RayOptions(), workers=2)
    code, _, message = run_cli("verify", folder, "--address", "auto")
    assert code == 2
    assert "--address is for --engine ray" in message
