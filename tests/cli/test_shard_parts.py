"""`imgdata shard --plan`, `--part` and `--finish`: what they print, and what they refuse."""

import json
from types import SimpleNamespace

import pytest
from imgdata_cli.main import main

import imgdata
from support.rawdata import class_folders


@pytest.fixture
def run_cli(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return SimpleNamespace(exit_code=ended.value.code, output=printed.out + printed.err)

    return run


@pytest.fixture
def raw(tmp_path):
    return class_folders(tmp_path / "pets", {"train": 5, "val": 2})


@pytest.mark.parametrize("where", ["folder", "store"])
def test_the_three_steps_say_what_they_did(run_cli, raw, tmp_path, request, where):
    out = tmp_path / "out" if where == "folder" else f"{request.getfixturevalue('s3').url}/out"
    planned = run_cli("shard", raw, out, "--shard-samples", "3", "--plan")
    assert planned.exit_code == 0
    assert "planned 21 samples in 7 shards" in planned.output
    assert "--part I/N for each part, then --finish" in planned.output
    first = run_cli("shard", raw, out, "--part", "0/2")
    assert "part 0/2: 4 shards, 12 samples" in first.output
    inspected = run_cli("inspect", out)
    assert inspected.exit_code == 0
    assert "not finished: 4 of 7 shards are written" in inspected.output
    assert "parts with missing shards, of 2: --array=1" in inspected.output
    early = run_cli("shard", raw, out, "--finish")
    assert early.exit_code == 1
    assert "3 of 7 shards are missing" in early.output
    run_cli("shard", raw, out, "--part", "1/2")
    assert "every part is written" in run_cli("inspect", out).output
    done = run_cli("shard", raw, out, "--finish")
    assert "21 samples" in done.output
    assert len(imgdata.open(out)["train"]) == 15
    assert "complete already" in run_cli("shard", raw, out, "--part", "1/2").output
    assert "complete already" in run_cli("shard", raw, out, "--finish").output
    assert "complete already" in run_cli("shard", raw, out, "--shard-samples", "3", "--plan").output


def test_a_part_without_numbers_asks_the_scheduler(run_cli, raw, tmp_path, monkeypatch):
    run_cli("shard", raw, tmp_path / "out", "--plan")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    done = run_cli("shard", raw, tmp_path / "out", "--part", "--json", "--quiet")
    assert json.loads(done.output) | {"seconds": 0, "images_per_s": 0} == {
        "out": str(tmp_path / "out"),
        "part": 1,
        "parts": 4,
        "shards": 1,
        "samples": 6,
        "bytes": json.loads(done.output)["bytes"],
        "rejected": {},
        "seconds": 0,
        "images_per_s": 0,
        "samples_written": 6,
        "resumed_shards": 0,
        "already_complete": False,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--part", "0/1", "--resize", "8"], "--resize was decided by --plan, and can't be given with --part"),
        (["--part", "0/1", "--no-shuffle"], "--no-shuffle was decided by --plan"),
        (["--finish", "--workers", "2"], "--workers can't be given with --finish; leave it out"),
        (["--part", "0/1", "--finish"], "--finish and --part are different steps"),
        (["--plan", "--append"], "--append can't be given with --plan: what is appended"),
        (["--plan", "--engine", "ray"], "--engine can't be given with --plan; leave it out"),
        (["--part", "0/1", "--engine", "ray"], "--engine can't be given with --part; leave it out"),
        (["--plan", "--dry-run"], "--plan and --dry-run are different steps"),
        (["--part", "x"], "part must be I/N, such as 3/64, got 'x'"),
        (["--part"], "neither SLURM_ARRAY_TASK_ID nor RANK and WORLD_SIZE are set"),
    ],
)
def test_what_a_step_does_not_take_is_refused(run_cli, raw, tmp_path, monkeypatch, arguments, message):
    for name in ("RANK", "WORLD_SIZE", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    run_cli("shard", raw, tmp_path / "out", "--plan")
    done = run_cli("shard", raw, tmp_path / "out", *arguments)
    assert done.exit_code == 2
    assert message in done.output


def test_a_part_of_another_source_is_refused(run_cli, raw, tmp_path):
    run_cli("shard", raw, tmp_path / "out", "--plan")
    done = run_cli("shard", tmp_path / "others", tmp_path / "out", "--part", "0/1")
    assert done.exit_code == 1
    assert f"planned from {raw}, got {tmp_path / 'others'}" in done.output


def test_what_a_cluster_prints_does_not_get_between_results(capfd, monkeypatch, raw, tmp_path):
    def by_cluster(source, out, options, **others):
        print("(raylet) The node has been marked dead")
        return imgdata.shard(source, out, options)

    monkeypatch.setattr("imgdata.shards.job.shard_on_cluster", by_cluster)
    with pytest.raises(SystemExit):
        main(["shard", str(raw), str(tmp_path / "out"), "--engine", "ray", "--json", "--quiet"])
    printed = capfd.readouterr()
    assert json.loads(printed.out)["samples"] == 21
    assert "raylet" in printed.err


@pytest.mark.parametrize("option", ["--address=auto", "--task-cpus=2", "--task-memory=1GB"])
def test_options_of_a_cluster_are_refused_on_this_machine(run_cli, raw, tmp_path, option):
    done = run_cli("shard", raw, tmp_path / "out", option)
    assert done.exit_code == 2
    assert f"{option.partition('=')[0]} is for --engine ray" in done.output


def test_an_unfinished_dataset_is_inspected_as_json(run_cli, raw, tmp_path):
    run_cli("shard", raw, tmp_path / "out", "--plan")
    found = json.loads(run_cli("inspect", tmp_path / "out", "--json").output)
    assert found == {"unfinished": True, "shards": 2, "written": 0, "running": 0, "parts": None, "missing": ""}
