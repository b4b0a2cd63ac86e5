"""`shard(..., append=True)` to an object store: the objects are those of an append in a folder, whatever goes wrong."""

import contextlib
import hashlib
import os

import pytest

import imgdata
from imgdata.shards.store_append import StoreAppend
from imgdata.storage.remote import RemoteStore
from support.rawdata import pictures_of
from support.remote_servers import Fault, faulty, impatient


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Short pauses, and a cache folder of the test's own."""
    impatient(monkeypatch, tmp_path / "cache", tries=2, stall_s=2.0)


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    """A new class, and more of one that is there."""
    return pictures_of(tmp_path_factory.mktemp("more") / "new", {"train/ant": 3, "train/dog": 4}, first=100)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The dataset before anything is appended; not to be changed."""
    raw = pictures_of(tmp_path_factory.mktemp("first") / "pets", {"train/cat": 5, "train/dog": 4, "val/cat": 2})
    out = tmp_path_factory.mktemp("made") / "out"
    imgdata.shard(raw, out, shard_samples=3, workers=1)
    return out


@pytest.fixture(scope="module")
def grown(made, more, tmp_path_factory):
    """Name -> hash of the files of the dataset, after the append in a folder."""
    out = tmp_path_factory.mktemp("grown") / "out"
    out.mkdir()
    for path in made.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    append(more, out)
    return hashes(out)


@pytest.fixture
def url(s3, made):
    return s3.upload(made, "ds")


def append(source, out, **options):
    return imgdata.shard(source, out, append=True, workers=1, **{"shard_samples": 3, **options})


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def objects(url):
    store = RemoteStore(url)
    return {facts.name: hashlib.sha256(store.read(facts.name)).hexdigest() for facts in store.list()}


@contextlib.contextmanager
def spoiling(url, name, kind="status"):
    """A proxy before the server that spoils what writes an object."""
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    with faulty(endpoint, Fault(kind, 10**6, f"PUT /tests/{url.split('/', 3)[3]}/{name}", 500)) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
        try:
            yield proxy
        finally:
            os.environ["AWS_ENDPOINT_URL"] = endpoint


def test_the_objects_are_the_files_of_an_append_in_a_folder(url, more, grown, tmp_path):
    before = imgdata.open(url)
    plan = imgdata.plan_shards(more, shard_samples=3, out=url, append=True)
    assert plan["out"] == "exists: a run adds these samples as version 2"
    summary = append(more, url)
    assert (str(summary.out), summary.version, summary.samples, summary.already_complete) == (url, 2, 7, False)
    assert objects(url) == grown
    assert [path for path in (tmp_path / "cache" / "uploads").rglob("*") if path.is_file()] == []
    assert imgdata.verify(url) == []
    assert (len(before["train"]), before["train"][8].image[:2]) == (9, b"\xff\xd8")
    assert [len(imgdata.open(url, version=number)["train"]) for number in (1, 2)] == [9, 16]
    again = append(more, url)
    assert (again.version, again.already_complete) == (2, True)
    assert objects(url) == grown
    assert imgdata.plan_shards(more, shard_samples=3, out=url, append=True)["out"].startswith("exists: version 2 has")


STOPS = {
    "a shard": (".imgdata/append/pets-train-000001.tar", 1),
    "the name of a shard": ("pets-train-000004.tar", 1),
    "the index": ("pets-train.v2.index.parquet", 1),
    "dataset.json": ("dataset.json", 1),
    "a sidecar": ("README.md", 2),
}


@pytest.mark.parametrize("machine", ["same", "another"])
@pytest.mark.parametrize(("name", "version"), STOPS.values(), ids=STOPS)
def test_an_append_that_is_stopped_leaves_a_version_and_is_resumed(url, more, grown, tmp_path, machine, name, version):
    with pytest.raises(imgdata.ImgdataError, match="500"), spoiling(url, name):
        append(more, url)
    assert imgdata.open(url).version == version
    work = tmp_path / "another" if machine == "another" else None
    with spoiling(url, "nothing") as proxy:
        append(more, url, work=work)
    uploaded = [request for request in proxy.requests if "/.imgdata/append/" in request and request.endswith(".tar")]
    # Two are uploaded at a time: those beside the one that failed may be there, or not.
    expected = {0} if version == 2 else {3} if machine == "another" else {1, 2, 3} if name.startswith(".") else {0}
    assert len(set(uploaded)) == len(uploaded)
    assert len(uploaded) in expected
    assert objects(url) == grown


def test_an_answer_that_is_lost_is_no_other_writer(url, more, grown):
    with pytest.raises(imgdata.ImgdataError), spoiling(url, "dataset.json", kind="lost"):
        append(more, url)
    append(more, url)
    assert objects(url) == grown


def test_another_append_and_another_dataset_wait_for_the_end_of_this_one(url, more, grown, tmp_path):
    with pytest.raises(imgdata.ImgdataError), spoiling(url, "pets-train-000004.tar"):
        append(more, url)
    with pytest.raises(imgdata.OutputError, match=r"another append was begun here on .*run its command"):
        append(more, url, key_prefix="x/")
    with pytest.raises(imgdata.OutputError, match=r"an append was begun here on .* or give --overwrite"):
        imgdata.shard(more, url, shard_samples=3)
    imgdata.shard(more, url, shard_samples=3, name="pets", overwrite=True, workers=1)
    imgdata.shard(more, tmp_path / "alone", shard_samples=3, name="pets", workers=1)
    assert objects(url) == hashes(tmp_path / "alone")


def test_a_writer_that_was_faster_is_not_overwritten(url, more, made, grown, monkeypatch):
    def others(self, manifest):
        RemoteStore(url).put("dataset.json", (made / "dataset.json").read_bytes() + b"\n")

    with monkeypatch.context() as patch:
        patch.setattr(StoreAppend, "_compare", others)
        with pytest.raises(imgdata.OutputError, match=r"another program has replaced dataset.json meanwhile.*again"):
            append(more, url)
    assert imgdata.open(url).version == 1
    append(more, url)
    assert objects(url) == grown


REFUSED = {
    "keys that are taken": ({"name": "pets"}, r"s3://\S*/ds: already has samples with 11 keys"),
    "other options": ({"resize": 8}, r"s3://\S*/ds: what is appended must be made with the options of the dataset"),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_and_nothing_is_begun(url, made, more, options, said):
    before = objects(url)
    source = made if "name" in options else more
    with pytest.raises(imgdata.ImgdataError, match=said):
        append(source, url, **options)
    assert objects(url) == before


def test_there_must_be_a_dataset_and_no_tars_of_others(url, more):
    with pytest.raises(imgdata.OutputError, match=r"/other: no finished dataset to append to"):
        append(more, f"{url}/other")
    RemoteStore(url).put("pets-train-000003.tar", b"mine")
    before = objects(url)
    with pytest.raises(imgdata.OutputError, match=r"/ds: pets-train-000003.tar is not listed in dataset.json"):
        append(more, url)
    assert objects(url) == before


def test_an_index_in_parts_gets_further_parts(url, made, more, tmp_path, monkeypatch):
    monkeypatch.setattr("imgdata.shards.sidecars.MAX_WHOLE", 12)
    out = tmp_path / "out"
    out.mkdir()
    for path in made.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    for prefix in ("", "x/"):
        for place in (out, url):
            append(more, place, key_prefix=prefix)
        assert objects(url) == hashes(out)
    assert imgdata.open(out)["train"].index.is_parted


def test_shards_of_which_nothing_is_left_leave_no_gap(url, made, more, tmp_path):
    raw = pictures_of(tmp_path / "raw" / "new", {"train/ant": 3, "train/dog": 4, "test/dog": 2}, first=100)
    for path in sorted((raw / "train" / "ant").iterdir()):
        path.write_bytes(path.read_bytes()[:100])
    out = tmp_path / "out"
    out.mkdir()
    for path in made.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    for place in (out, url):
        summary = append(raw, place, shuffle=False)
        assert summary.rejected == {"truncated": 3}
    assert objects(url) == hashes(out)
