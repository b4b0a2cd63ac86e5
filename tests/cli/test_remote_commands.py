"""Commands on a dataset by its URL: what they print and write is what they do for the same dataset in a folder."""

import csv
import json

import pytest
from imgdata_cli.main import main

import imgdata
from imgdata.storage import remote
from support.animals import animals
from support.remote_servers import impatient


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return animals(tmp_path_factory.mktemp("animals"))


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Short pauses, and a cache folder of the test's own."""
    impatient(monkeypatch, tmp_path / "cache", tries=3)
    monkeypatch.setenv("IMGDATA_DATA", str(tmp_path / "data"))


@pytest.fixture
def url(s3, folder):
    return s3.upload(folder, "animals")


@pytest.fixture
def run(capfd):
    """A function of arguments: exit code, standard output, standard error of the command."""

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(one) for one in arguments])
        return (ended.value.code, *capfd.readouterr())

    return call


def test_inspect(run, url, folder):
    here, there = (json.loads(run("inspect", one, "--json")[1]) for one in (folder, url))
    assert there.pop("path") == url
    assert here.pop("path") == str(folder)
    assert there == here


@pytest.mark.parametrize("options", [[], ["--deep"]], ids=str)
def test_verify_of_what_is_whole(run, url, options):
    code, out, err = run("verify", url, *options)
    assert (code, out) == (0, "")
    assert f"everything is as it was written: {url}" in err


def test_verify_names_what_is_damaged_missing_or_too_much(run, url):
    store = remote.RemoteStore(url)
    data = bytearray(store.read("animals-train-000001.tar"))
    data[700] ^= 1
    store.put("animals-train-000001.tar", bytes(data))
    store.delete("animals-train-000002.tar")
    store.put("other.tar", b"x")
    code, out, _ = run("verify", url)
    assert code == 1
    assert "other.tar: not listed in dataset.json" in out
    assert "animals-train-000002.tar: can't be read: No such file or directory" in out
    assert "animals-train-000001.tar" in out
    assert len(out.splitlines()) == 3


def test_export(run, url, folder, tmp_path):
    assert run("export", url, tmp_path / "there")[0] == 0
    assert run("export", folder, tmp_path / "here")[0] == 0
    files = {path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("*") if path.is_file()}
    assert len(files) == 26
    assert all((tmp_path / "there" / one).read_bytes() == (tmp_path / "here" / one).read_bytes() for one in files)


def test_export_finds_what_differs_from_the_index(run, url, tmp_path):
    store = remote.RemoteStore(url)
    row = imgdata.open(url)["train"].index.row(3)
    data = bytearray(store.read(row.shard))
    data[row.offset + 20] ^= 1
    store.put(row.shard, bytes(data))
    code, _, err = run("export", url, tmp_path / "there")
    assert code == 1
    assert f"{url}/{row.shard}: {row.key} at byte {row.offset} differs from the index; check the copy" in err
    assert not (tmp_path / "there").exists()


def test_save_view_and_what_it_shows(run, url):
    assert run("save-view", url, "half", "fraction=0.5")[0] == 0
    assert "half: 10 of 20 samples of train" in run("inspect", url, "--view", "half")[1]


@pytest.mark.slow
def test_audit(run, url, folder, tmp_path):
    codes = [run("audit", one, "-o", tmp_path / name)[0] for one, name in ((folder, "here"), (url, "there"))]
    assert codes == [0, 0]
    here, there = (
        [
            (finding["kind"], finding["message"])
            for finding in json.loads((tmp_path / name / "findings.json").read_text())["findings"]
        ]
        for name in ("here", "there")
    )
    assert there == here


@pytest.mark.slow
def test_train_evaluate_predict_and_features(run, url, tmp_path):
    quickly = ["--model", "cnn", "--epochs", "1", "--batch-size", "5", "--device", "cpu", "--quiet"]
    code, _, err = run("train", url, "--out", tmp_path / "run", *quickly[:-1])
    assert code == 0
    assert "% of the images were kept here, 0." in err
    (row,) = csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines())
    assert 0 <= float(row["cache_hits"]) <= 1
    assert float(row["fetched_mb"]) > 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["cache"]["fetched_mb"] > 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"] == url
    assert run("evaluate", tmp_path / "run", url, "--quiet")[0] == 0
    assert run("features", tmp_path / "run", url, "-o", tmp_path / "f.npz", "--quiet")[0] == 0
    code, _, err = run("predict", tmp_path / "run", url, "--split", "val", "-o", tmp_path / "p.csv", "--quiet")
    assert (code, err) == (0, "")
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 7
    assert run("trace", url, "--run", tmp_path / "run", "--samples", "2")[0] == 0


@pytest.mark.slow
def test_bench_measures_ours_and_says_why_not_others(run, url):
    code, out, _ = run("bench", url, "--seconds", "0.2", "--rounds", "1", "--compare", "webdataset", "--device", "cpu")
    assert code == 0
    words = " ".join(out.split())
    assert "webdataset left out: it is given files of this machine, and the dataset is at a URL" in words
    assert "hits fetched MB/s store s" in words
    assert "100% 0.0 0.0" in words


@pytest.mark.slow
def test_doctor(run, url):
    code, out, _ = run("doctor", url, "--device", "cpu")
    assert code == 0
    words = " ".join(out.split())
    assert f"store {url}: " in words
    assert "ms for a small request" in words
    assert "read from store" in words
    assert "first epoch alone: the cache of shards holds the split" in words
    assert "fetched, waited" in words
    assert "disk" not in words.partition("MB/s by")[0]
    report = json.loads(run("doctor", url, "--device", "cpu", "--cache", "off", "--json")[1].splitlines()[-1])
    store = report["data"]["disk"]["store"]
    assert (store["url"], store["cache"], store["latency_ms"] > 0, store["mb_per_s"] > 0) == (url, "", True, True)
    (stage,) = [one for one in report["stages"] if one["lane"] == "store"]
    assert stage["counted"]
    assert "cache" not in report


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["index", "{url}"], "is a URL"),
        (["shard", "{url}", "{out}"], "nothing is there"),
        (["parity", "{url}"], "is a URL"),
        (["inspect", "{url}", "--view", "s3://bucket/view.csv"], "is a URL"),
        (["train", "{url}", "--out", "s3://bucket/run"], "is a URL"),
        (["inspect", "{url}/none"], "no such object"),
        (["verify", "{url}/none"], "no such object"),
        (["export", "{url}/none", "{out}"], "no such object"),
        (["train", "{url}/none", "--out", "{out}"], "no such object"),
        (["bench", "{url}/none"], "no such object"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_can_not_be_done_is_one_line(run, s3, tmp_path, arguments, said):
    code, _, err = run(*(one.format(url=f"{s3.url}/nothing", out=tmp_path / "out") for one in arguments))
    assert code in (1, 2)
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
