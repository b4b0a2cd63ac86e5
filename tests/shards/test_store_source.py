"""Raw images in an object store: the shards are those of the same files on a disk."""

import os
from dataclasses import replace

import pytest

import imgdata
from imgdata import ShardOptions
from imgdata.storage import remote
from imgdata.storage.remote import RemoteStore
from support.rawdata import class_folders, encoded
from support.remote_servers import Fault, faulty

OPTIONS = ShardOptions(name="pets", shard_samples=10)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Short pauses, and a cache folder of the test's own."""
    monkeypatch.setattr(remote, "SETTINGS", replace(remote.SETTINGS, backoff_s=0.001, tries=3, stall_s=2.0))
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def raw(tmp_path):
    return class_folders(tmp_path / "raw", {"train": 8, "val": 3})


def tars(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.tar")}


def test_class_folders_become_the_same_shards(s3, raw, tmp_path):
    imgdata.shard(raw, tmp_path / "here", OPTIONS)
    imgdata.shard(s3.upload(raw, "raw"), tmp_path / "there", OPTIONS)
    assert tars(tmp_path / "there") == tars(tmp_path / "here")
    assert imgdata.verify(tmp_path / "there") == []


def test_images_with_a_table_become_the_same_shards(s3, tmp_path):
    folder = tmp_path / "table"
    (folder / "images").mkdir(parents=True)
    for number in range(6):
        (folder / "images" / f"{number}.jpg").write_bytes(encoded(number))
    rows = "".join(f"images/{number}.jpg,{'ab'[number % 2]}\n" for number in range(6))
    (folder / "labels.csv").write_text(f"file,label\n{rows}")
    imgdata.shard(folder, tmp_path / "here", OPTIONS)
    imgdata.shard(s3.upload(folder, "table"), tmp_path / "there", OPTIONS)
    assert tars(tmp_path / "there") == tars(tmp_path / "here")


def test_from_a_store_into_a_store(s3, raw):
    source = s3.upload(raw, "raw")
    imgdata.shard(source, f"{s3.url}/out", OPTIONS)
    assert imgdata.verify(f"{s3.url}/out") == []
    assert imgdata.shard(source, f"{s3.url}/out", OPTIONS).already_complete
    with pytest.raises(imgdata.OutputError, match="inside it; choose a place beside"):
        imgdata.shard(source, f"{source}/out", OPTIONS)


def test_an_object_that_changed_is_another_source(s3, raw, tmp_path):
    source = s3.upload(raw, "raw")
    imgdata.shard(source, tmp_path / "out", OPTIONS)
    name = "train/cat/000.jpg"
    data = RemoteStore(source).read(name)
    RemoteStore(source).put(name, data[:-1] + b"x")
    with pytest.raises(imgdata.OutputError, match="list of images has changed"):
        imgdata.shard(source, tmp_path / "out", OPTIONS)


def test_a_store_that_fails_in_the_middle_is_one_error_and_the_next_run_resumes(s3, raw, tmp_path, monkeypatch):
    source = s3.upload(raw, "raw")
    imgdata.shard(raw, tmp_path / "here", OPTIONS)
    with (
        faulty(os.environ["AWS_ENDPOINT_URL"], Fault("status", 10**6, "GET /tests/")) as proxy,
        monkeypatch.context() as patched,
    ):
        proxy.faults[0].match = "train/newt/004.jpg"
        patched.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with pytest.raises(imgdata.ShardError, match=r"train/newt/004\.jpg: can't be read"):
            imgdata.shard(source, tmp_path / "there", OPTIONS, workers=1)
    assert not (tmp_path / "there" / "dataset.json").exists()
    imgdata.shard(source, tmp_path / "there", OPTIONS)
    assert tars(tmp_path / "there") == tars(tmp_path / "here")


@pytest.mark.parametrize(
    ("name", "said"),
    [("a.tar", "holds a.tar"), ("data/train-0.parquet", "holds data/train-0.parquet"), ("", "nothing is")],
)
def test_what_is_not_read_from_a_store_is_named(s3, tmp_path, name, said):
    if name:
        RemoteStore(f"{s3.url}/raw").put(name, b"data")
    with pytest.raises(imgdata.SourceError, match=said):
        imgdata.shard(f"{s3.url}/raw", tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()
