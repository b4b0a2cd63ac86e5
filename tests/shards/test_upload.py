"""A dataset that is written to an object store: the same bytes as in a folder, whatever goes wrong on the way."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

import imgdata
from imgdata import ShardOptions
from imgdata.shards.summary import Watcher
from imgdata.storage.remote import RemoteStore
from support.patience import PATIENCE_S
from support.rawdata import class_folders, encoded, picture
from support.remote_servers import Fault, faulty, impatient

SOURCE = "synthetic:samples=120,classes=3,width=48,height=40,val=30"
OPTIONS = ShardOptions(name="syn", shard_samples=20)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Short pauses, and a cache folder of the test's own."""
    impatient(monkeypatch, tmp_path / "cache", tries=3, stall_s=2.0)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """Name -> hash of the files of the dataset in a folder."""
    out = tmp_path_factory.mktemp("local")
    imgdata.shard(SOURCE, out, OPTIONS, workers=2)
    return hashes(out)


@pytest.fixture
def url(s3):
    return f"{s3.url}/ds"


def objects(url):
    store = RemoteStore(url)
    return {facts.name: hashlib.sha256(store.read(facts.name)).hexdigest() for facts in store.list()}


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@contextlib.contextmanager
def spoiling(match, kind="503", times=10**6):
    """A proxy before the server that spoils what matches."""
    status = int(kind) if kind.isdigit() else 0
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    with faulty(endpoint, Fault("status" if status else kind, times, match, status)) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
        try:
            yield proxy
        finally:
            os.environ["AWS_ENDPOINT_URL"] = endpoint


def writes(url, name):
    """What a request that writes an object begins with."""
    return f"PUT /tests/{url.split('/', 3)[3]}/{name}"


def left_here(tmp_path):
    return [path for path in (tmp_path / "cache" / "uploads").rglob("*") if path.is_file() and path.suffix != ".state"]


def test_the_objects_are_the_files_of_a_local_run(url, local, tmp_path):
    summary = imgdata.shard(SOURCE, url, OPTIONS, workers=2)
    assert objects(url) == local
    assert (str(summary.out), summary.samples) == (url, 150)
    assert left_here(tmp_path) == []
    assert imgdata.verify(url) == []


def test_the_same_command_again_finds_it_complete(url, local, tmp_path):
    imgdata.shard(SOURCE, url, OPTIONS, workers=2)
    summary = imgdata.shard(SOURCE, url, OPTIONS, workers=2)
    assert summary.already_complete
    assert objects(url) == local
    assert left_here(tmp_path) == []


def test_python_objects_are_uploaded_under_the_name_of_the_place(url):
    pairs = [(picture(number), number % 2) for number in range(6)]
    imgdata.shard(pairs, url, class_names=["a", "b"])
    assert "ds-train-000000.tar" in objects(url)
    assert imgdata.verify(url) == []


def test_shards_of_bad_images_leave_no_gap(url, tmp_path):
    source = class_folders(tmp_path / "raw", {"train": 8})
    for path in sorted((source / "train" / "cat").iterdir()):
        path.write_bytes(path.read_bytes()[:100])
    options = ShardOptions(name="ds", shard_samples=4, shuffle=False)
    imgdata.shard(source, tmp_path / "out", options)
    summary = imgdata.shard(source, url, options)
    assert objects(url) == hashes(tmp_path / "out")
    assert summary.rejected == imgdata.shard(source, url, options).rejected == {"truncated": 8}


FAULTS = {
    "500": Fault("status", 2, "PUT ", 500),
    "503": Fault("status", 2, "PUT ", 503),
    "too many requests": Fault("status", 2, "PUT ", 429),
    "resets": Fault("reset", 2, "PUT "),
    "answers that are lost": Fault("lost", 2, "syn-train-000001.tar"),
    "the answer to the last object is lost": Fault("lost", 1, "dataset.json"),
    "lists that are cut": Fault("cut", 2, "GET "),
    "lists that stall": Fault("stall", 1, "GET "),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_faults_that_pass_change_nothing(url, local, monkeypatch, fault):
    with faulty(os.environ["AWS_ENDPOINT_URL"], replace(fault)) as proxy:
        with monkeypatch.context() as patched:
            patched.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            imgdata.shard(SOURCE, url, OPTIONS, workers=2)
        assert proxy.faults[0].times == 0
    assert objects(url) == local


TAR, MANIFEST, INDEX, DALI = "syn-train-000003.tar", "dataset.json", "syn-val.index.parquet", "syn-train-000002.idx"
STOPS = {
    **{
        f"{kind} at {name}": (kind, name) for kind in ("500", "503", "403", "reset", "lost") for name in (TAR, MANIFEST)
    },
    **{f"503 at {name}": ("503", name) for name in (INDEX, DALI, ".imgdata/plan.json")},
}


@pytest.mark.parametrize(("kind", "name"), STOPS.values(), ids=STOPS)
def test_faults_that_stay_are_one_error_nothing_is_half_there_and_the_next_run_resumes(url, local, kind, name):
    with pytest.raises(imgdata.ImgdataError) as stopped, spoiling(writes(url, name), kind):
        imgdata.shard(SOURCE, url, OPTIONS, workers=2)
    assert "s3://" in str(stopped.value)
    assert "\n" not in str(stopped.value)
    found = {file: digest for file, digest in objects(url).items() if not file.startswith(".imgdata/")}
    assert found.items() <= local.items()
    assert ("dataset.json" in found) is (kind == "lost" and name == MANIFEST)
    imgdata.shard(SOURCE, url, OPTIONS, workers=2)
    assert objects(url) == local


def test_a_killed_run_resumes_and_uploads_nothing_twice(url, local, tmp_path):
    words = ["shard", SOURCE, url, "--name", "syn", "--shard-samples", "20", "--workers", "1", "--json", "--quiet"]
    with faulty(os.environ["AWS_ENDPOINT_URL"], latency_s=0.03) as proxy:
        environment = {**os.environ, "AWS_ENDPOINT_URL": proxy.endpoint}
        command = [sys.executable, "-m", "imgdata_cli.main", *words]
        with subprocess.Popen(command, env=environment) as process:
            until = time.monotonic() + PATIENCE_S
            while not (done := ledger(tmp_path)) and time.monotonic() < until and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert "dataset.json" not in objects(url)
        proxy.requests.clear()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        again = [request for request in proxy.requests if request.startswith("PUT ") and request.endswith(".tar")]
    assert done
    assert not any(request.endswith(f"/{name}") for request in again for name in done)
    assert objects(url) == local


def ledger(tmp_path):
    return [path.stem for path in (tmp_path / "cache").rglob("uploaded/*.json")]


def test_a_full_work_folder_is_one_error_and_the_run_goes_on_once_there_is_room(url, tmp_path):
    disk, source = tmp_path / "disk", "synthetic:samples=160,classes=5,width=256,height=192"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], stderr=subprocess.PIPE).returncode:
        pytest.skip("a small tmpfs can't be mounted here: needs root")
    try:
        full = pytest.raises(imgdata.OutputError, match="no space left on the disk; free some")
        with full, spoiling(".tar", "silent"):
            imgdata.shard(source, url, OPTIONS, workers=2, work=disk)
        subprocess.run(["mount", "-o", "remount,size=9m", disk], check=True)
        imgdata.shard(source, url, OPTIONS, workers=2, work=disk)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
    imgdata.shard(source, tmp_path / "out", OPTIONS)
    assert objects(url) == hashes(tmp_path / "out")


def test_a_shard_that_was_lost_in_the_store_is_written_again(url, local):
    with pytest.raises(imgdata.ImgdataError), spoiling(writes(url, "dataset.json")):
        imgdata.shard(SOURCE, url, OPTIONS, workers=2)
    RemoteStore(url).delete("syn-train-000001.tar")
    imgdata.shard(SOURCE, url, OPTIONS, workers=2)
    assert objects(url) == local


OTHER = replace(OPTIONS, shard_samples=25)


def test_pixels_that_changed_under_the_same_names_are_noticed_once_it_is_complete(url, tmp_path):
    source, options = class_folders(tmp_path / "raw", {"train": 8}), ShardOptions(name="ds", shard_samples=4)
    imgdata.shard(source, url, options)
    before = objects(url)
    image = source / "train" / "dog" / "003.jpg"
    data = encoded(977, (40, 30))
    image.write_bytes(data + bytes(image.stat().st_size - len(data)))
    with pytest.raises(imgdata.OutputError, match=r"was made when 1 image .*train/dog/003\.jpg; use --overwrite"):
        imgdata.shard(source, url, options)
    assert objects(url) == before
    imgdata.shard(source, url, options, overwrite=True)
    imgdata.shard(source, tmp_path / "out", options)
    assert objects(url) == hashes(tmp_path / "out")


def test_a_source_that_was_only_touched_or_another_machine_compares_once(url, tmp_path, monkeypatch):
    source, stages = class_folders(tmp_path / "raw", {"train": 4}), []

    class Noted(Watcher):
        def stage(self, what):
            stages.append(what)

    def compared():
        stages.clear()
        assert imgdata.shard(source, url, OPTIONS, watch=Noted()).already_complete
        return "comparing images with the source" in stages

    imgdata.shard(source, url, OPTIONS)
    assert not compared()
    os.utime(source / "train" / "cat" / "000.jpg", (1, 1))
    assert [compared(), compared()] == [True, False]
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "another"))
    assert [compared(), compared()] == [True, False]


def test_another_dataset_is_not_replaced_without_overwrite(url, local):
    imgdata.shard(SOURCE, url, OPTIONS, workers=2)
    with pytest.raises(imgdata.OutputError, match=r"was made with other options.*--overwrite"):
        imgdata.shard(SOURCE, url, OTHER, workers=2)
    assert objects(url) == local


@pytest.mark.parametrize("match", [".imgdata/next/syn-train-000002.tar", "_info.json", "syn-val-000001.tar"])
def test_the_old_dataset_stays_until_the_new_one_is_complete(url, tmp_path, match):
    imgdata.shard(SOURCE, tmp_path / "out", OTHER, workers=2)
    imgdata.shard(SOURCE, url, OPTIONS, workers=2)
    before = objects(url)
    with pytest.raises(imgdata.ImgdataError), spoiling(writes(url, match)):
        imgdata.shard(SOURCE, url, OTHER, workers=2, overwrite=True)
    if "next" in match:
        assert before.items() <= objects(url).items()
        assert imgdata.verify(url) == []
    else:
        assert "dataset.json" not in objects(url)
    imgdata.shard(SOURCE, url, OTHER, workers=2, overwrite=True)
    assert objects(url) == hashes(tmp_path / "out")


def test_an_unfinished_dataset_of_other_options_is_refused_or_replaced(url, local):
    with pytest.raises(imgdata.ImgdataError), spoiling(writes(url, "syn-train-000001.tar")):
        imgdata.shard(SOURCE, url, OTHER, workers=2)
    with pytest.raises(imgdata.OutputError, match=r"was begun on .* with other options"):
        imgdata.shard(SOURCE, url, OPTIONS, workers=2)
    imgdata.shard(SOURCE, url, OPTIONS, workers=2, overwrite=True)
    assert objects(url) == local


def test_another_machine_goes_on_where_the_first_one_is_lost(url, local, tmp_path):
    with pytest.raises(imgdata.ImgdataError), spoiling(writes(url, "dataset.json")):
        imgdata.shard(SOURCE, url, OPTIONS, workers=2)
    imgdata.shard(SOURCE, url, OPTIONS, workers=2, work=tmp_path / "another")
    assert objects(url) == local


def test_a_dry_run_says_what_is_at_the_place(url):
    assert "out" not in imgdata.plan_shards(SOURCE, OPTIONS, out=url)
    imgdata.shard(SOURCE, url, OPTIONS, workers=2)
    assert imgdata.plan_shards(SOURCE, OPTIONS, out=url)["out"] == "exists: complete already"
    assert "refused without --overwrite" in imgdata.plan_shards(SOURCE, OTHER, out=url)["out"]


REFUSED = {
    "a web server": ({}, "http://127.0.0.1:9/ds", "takes no uploads"),
    "a file of this machine": ({}, "file:///ds", "is a URL, where a path on this machine is needed"),
}


@pytest.mark.parametrize(("keywords", "place", "said"), REFUSED.values(), ids=REFUSED)
def test_what_an_upload_does_not_do_is_one_line(url, keywords, place, said):
    with pytest.raises(imgdata.ImgdataError, match=said):
        imgdata.shard(SOURCE, place or url, OPTIONS, **keywords)


def test_files_of_others_are_not_touched(url):
    RemoteStore(url).put("mine.txt", b"mine")
    with pytest.raises(imgdata.OutputError, match=r"not empty .*mine.txt.*choose another place"):
        imgdata.shard(SOURCE, url, OPTIONS)
    assert list(objects(url)) == ["mine.txt"]


@pytest.mark.parametrize("status", [403, 404])
def test_what_is_denied_or_no_bucket_is_said_before_any_work(url, tmp_path, status):
    with pytest.raises(imgdata.ImgdataError, match=r"may not be read|no such object"), spoiling("", str(status)):
        imgdata.shard(tmp_path / "no such source", url, OPTIONS)
    assert left_here(tmp_path) == []


def test_a_server_without_conditional_writes_is_named(url, local):
    notes = []

    class Noted(Watcher):
        def retried(self, what):
            notes.append(what)

    with spoiling("probe", "501", times=1):
        imgdata.shard(SOURCE, url, OPTIONS, workers=2, watch=Noted())
    assert [note for note in notes if "no conditional writes" in note]
    assert objects(url) == local
