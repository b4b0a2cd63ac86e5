"""Every function and command that reads a dataset takes raw images where they lie."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from imgdata_cli.display import reading
from imgdata_cli.main import cli

import imgdata
from imgdata.errors import ImgdataError
from support.loose import files_below
from support.rawdata import class_folders, encoded
from support.viewers import served


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = class_folders(tmp_path_factory.mktemp("loose") / "raw", {"train": 12, "val": 4})
    (root / "train" / "cat" / "copy.jpg").write_bytes((root / "train" / "dog" / "001.jpg").read_bytes())
    (root / "train" / "cat" / "pixels.png").write_bytes(encoded(500, format="PNG"))
    return root


@pytest.fixture(scope="module")
def run(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    imgdata.train(raw, out, model="cnn", epochs=1, batch_size=8, threads=1)
    return out


def command(*words: object) -> str:
    result = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code in (0, 1), result.output
    assert "Traceback" not in result.output
    return result.output


def test_inspect_counts_the_images_and_no_shards(raw):
    found = json.loads(command("inspect", raw, "--json"))
    assert (found["samples"], found["splits"]["train"]["shards"], found["source"]["kind"]) == (50, 0, "folder")
    assert found["bytes"] == sum(len(data) for data in files_below(raw).values())


@pytest.fixture(scope="module")
def listed(raw, tmp_path_factory):
    """Images, and a table whose columns have names of its own: two classes of it that folders don't tell."""
    table = tmp_path_factory.mktemp("table") / "list.csv"
    names = sorted(path.relative_to(raw).as_posix() for path in raw.rglob("*.jpg"))
    rows = [f"{name},{'odd' if number % 2 else 'even'},{number}" for number, name in enumerate(names)]
    table.write_text("\n".join(["where,parity,number", *rows]))
    return ["--table", table, "--path-column", "where", "--label-column", "parity"]


def test_commands_read_raw_images_as_their_options_say(raw, listed, tmp_path):
    found = json.loads(command("inspect", raw, *listed, "--json"))
    assert (found["source"]["kind"], found["classes"]) == ("table", [["even", "even"], ["odd", "odd"]])
    assert json.loads(command("inspect", raw, "--json"))["source"]["kind"] == "folder", "the index is another one"
    run = tmp_path / "run"
    command("train", raw, *listed, "--out", run, "--model", "cnn", "--epochs", 1, "--batch-size", 8, "--hold-out", 8)
    assert [one[0] for one in json.loads((run / "config.json").read_text())["classes"]] == ["even", "odd"]
    assert json.loads(command("evaluate", run, raw, *listed, "--quiet", "--json"))["total"] == 8
    command("train", raw, "--out", run, "--resume", "--epochs", 2)
    assert json.loads((run / "summary.json").read_text())["epochs"] == 2


def test_a_dataset_that_was_opened_with_options_is_trained_on_as_it_is(raw, listed, tmp_path):
    read = imgdata.SourceOptions(table=listed[1], path_column="where", label_column="number", target="regression")
    result = imgdata.train(
        imgdata.open(raw, read=read), tmp_path / "run", model="cnn", epochs=1, batch_size=8, hold_out=8
    )
    assert "r2" in result.best.metrics


def test_a_benchmark_reads_raw_images_as_its_options_say(raw, listed):
    words = ["--recipe", "cifar_train", "--seconds", 0.1, "--rounds", 1, "--batch-size", 8, "--threads", 1]
    found = json.loads(command("bench", raw, *listed, *words, "--quiet", "--json"))
    assert found["dataset"]["samples"] == 49, "all rows are one split"
    assert f"--table {listed[1]} --path-column where --label-column parity" in found["command"]


@pytest.mark.parametrize(
    "name", ["inspect", "bench", "doctor", "audit", "train", "view", "evaluate", "features", "trace"]
)
def test_options_of_raw_images_are_refused_for_shards(name, raw, tmp_path):
    imgdata.shard(raw, tmp_path / "out", workers=1)
    words = {"evaluate": ["run"], "features": ["run"]}.get(name, [])
    more = {"train": ["--out", tmp_path / "run"], "features": ["-o", tmp_path / "x.npz"]}.get(name, [])
    with pytest.raises(ImgdataError, match=r"--label-column is for raw images, and .*out is sharded already; leave it"):
        command(name, *words, tmp_path / "out", "--label-column", "x", *more)


def test_inspect_has_a_column_of_shards_for_shards_alone(raw, tmp_path):
    imgdata.shard(raw, tmp_path / "out", workers=1)
    assert "shards" in command("inspect", tmp_path / "out")
    assert "shards" not in command("inspect", raw)


def test_inspect_counts_one_image_in_the_singular(tmp_path):
    shown = command("inspect", class_folders(tmp_path / "raw", {"": 1}, ("cat",)))
    assert "\n1 sample, 1 class, " in shown


def test_a_command_says_how_far_the_first_reading_of_raw_images_is(tmp_path, monkeypatch):
    root = class_folders(tmp_path / "raw", {"": 4})
    shown = []
    monkeypatch.setattr(reading.Reading, "progress", lambda _, *facts: shown.append(facts))
    command("inspect", root)
    assert shown == [("reading headers", 12, 12)]
    shown.clear()
    command("inspect", root)
    assert shown == [], "the index is kept"


def test_a_command_says_how_far_the_unpacking_of_raw_images_is(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(reading.Reading, "progress", lambda _, *facts: shown.append(facts))
    archive = tmp_path / "digits.npz"
    pixels = np.arange(5 * 28 * 28, dtype=np.uint8).reshape(5, 28, 28)
    np.savez(archive, x_train=pixels, y_train=np.arange(5) % 2)
    command("inspect", archive)
    assert shown[0] == ("unpacking images", 5, 5)


def test_inspect_shows_a_sample_with_the_hash_of_its_bytes(raw, tmp_path):
    shown = json.loads(command("inspect", raw, "--sample", "dog/001", "--json"))
    imgdata.shard(raw, tmp_path / "out", workers=1)
    sharded = json.loads(command("inspect", tmp_path / "out", "--sample", "dog/001", "--json"))
    assert {**shown, "shard": "", "offset": 0} == {**sharded, "shard": "", "offset": 0}


def test_a_saved_view_is_made_and_used_by_name(raw):
    command("save-view", raw, "some", "count=10", "--split", "train", "--overwrite")
    assert "some" in command("inspect", raw)
    assert json.loads(command("inspect", raw, "--json"))["views"][0]["samples"] == 10


def test_a_network_is_trained_evaluated_and_asked_on_raw_images(raw, run, tmp_path):
    assert len(imgdata.evaluate(run, raw, split="val").predictions.keys) == 12
    assert len(imgdata.predict_dataset(run, raw, split="val").predictions.keys) == 12
    assert imgdata.features(run, raw, tmp_path / "features.parquet", split="val")
    command("train", raw, "--resume", "--out", run)


def test_trace_doctor_and_bench_measure_raw_images(raw, run):
    assert imgdata.trace(raw)
    found = json.loads(command("doctor", raw, "--json", "--batch-size", "8"))
    assert found["sharded"]["before"]["images"] == found["sharded"]["after"]["images"]
    assert found["data"]["samples"] == 38


@pytest.mark.slow
def test_bench_leaves_out_what_reads_tars(raw):
    options = imgdata.BenchOptions(compare=("torchvision-pil", "webdataset"), seconds=0.2, rounds=1, batch_size=8)
    found = imgdata.bench(raw, options)
    assert [peer.name for peer in found.peers] == ["torchvision-pil"]
    assert "it reads tars" in found.left_out["webdataset"]


def test_an_audit_finds_equal_files_and_equal_pixels_as_in_shards(raw, tmp_path):
    imgdata.shard(raw, tmp_path / "out", workers=1)
    results = [imgdata.audit(path, only=("duplicates",)) for path in (raw, tmp_path / "out")]
    found = [
        [
            (finding.kind, finding.place.key, finding.other and finding.other.key, finding.what)
            for finding in one.findings
        ]
        for one in results
    ]
    assert found[0] == found[1]
    assert {"cat/copy", "dog/001"} <= {key for row in found[0] for key in row[1:3]}


def test_the_viewer_serves_raw_images_and_keeps_decisions_apart(raw, tmp_path):
    copy = shutil.copytree(raw, tmp_path / "raw")
    before = files_below(copy)
    with served(copy) as asked:
        assert asked.get("/thumb/3/96").status == asked.get("/picture/3").status == 200
        found = asked.get("/api/sample/3").json
        split = imgdata.open(copy)[found["split"]]
        assert asked.get("/picture/3").body == split.read(found["position"])
        assert (found["faults"], found["xxh64"]) == ([], f"{split.hash(found['position']):016x}")
        assert [member["name"] for member in found["members"]] == [found["source"]]
        split.file(found["position"]).unlink()
        assert "gone since the folder was opened" in asked.get("/picture/3").body.decode()
    gone = set(before) - set(files_below(copy))
    assert len(gone) == 1
    assert set(files_below(copy)) <= set(before)


def test_a_static_page_shows_a_raw_dataset(raw, tmp_path):
    command("view", raw, "--static", tmp_path / "site")
    assert (tmp_path / "site" / "index.html").exists()


@pytest.mark.parametrize("words", [("verify",), ("export", "{out}"), ("index",)], ids=lambda words: words[0])
def test_commands_that_need_shards_exit_with_one_line(raw, tmp_path, words):
    given = [str(word).format(out=tmp_path / "out") for word in words]
    result = CliRunner().invoke(cli, [given[0], str(raw), *given[1:]])
    assert result.exit_code != 0
    assert isinstance(result.exception, ImgdataError)
    assert len(str(result.exception).splitlines()) == 1
    assert "imgdata shard" in str(result.exception) or words == ("index",)
    assert files_below(tmp_path) == {}
