"""A dataset that many machines write to an object store is that of one run into a folder, whatever dies or is late."""

import contextlib
import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec

import pytest

import imgdata
from imgdata import OutputError, ShardOptions, SourceError, cluster
from imgdata.shards.part_files import ClosedError
from imgdata.shards.store_parts import StoreParts, planned_at
from imgdata.shards.unfinished import unfinished
from imgdata.shards.writer import write_shard
from imgdata.storage.remote import RemoteStore
from support.clouds import cloud
from support.inline_ray import InlineRay, RayError
from support.patience import PATIENCE_S
from support.rawdata import class_folders, encoded
from support.remote_servers import Fault, faulty, impatient

OPTIONS = ShardOptions(shard_samples=3, json_members=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Short pauses, and a cache folder of the test's own."""
    impatient(monkeypatch, tmp_path / "cache", tries=3, stall_s=2.0)


@pytest.fixture
def url(s3):
    return f"{s3.url}/ds"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("raw") / "pets", {"train": 5, "val": 2})


@pytest.fixture(scope="module")
def whole(raw, tmp_path_factory):
    return of_one_run(raw, tmp_path_factory.mktemp("whole"), OPTIONS)


def of_one_run(raw, folder, options):
    """Name -> hash of the files of the dataset that one run makes in a folder."""
    imgdata.shard(raw, folder, options, workers=1)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def objects(url):
    store = RemoteStore(url)
    return {facts.name: hashlib.sha256(store.read(facts.name)).hexdigest() for facts in store.list()}


def plan(raw, url, options=OPTIONS, **keywords):
    return imgdata.begin_parts(raw, url, options, workers=1, **keywords)


def write(url, *parts, of):
    return [imgdata.write_part(url, part, of, workers=1) for part in parts]


@pytest.mark.parametrize("conditions", [True, False])
def test_parts_make_the_objects_of_one_run(raw, whole, url, tmp_path, monkeypatch, conditions):
    monkeypatch.setattr("imgdata.shards.upload.knows_conditions", lambda store: conditions)
    begun = plan(raw, url)
    assert (begun["out"], begun["samples"], begun["shards"], begun["finished_shards"]) == (url, 21, 7, 0)
    done = write(url, 2, 0, 1, of=3)
    assert (sum(part.shards for part in done), sum(part.samples for part in done)) == (7, 21)
    summary = imgdata.finish_parts(url)
    assert (str(summary.out), summary.samples, summary.resumed_shards) == (url, 21, 7)
    assert objects(url) == whole
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
    assert imgdata.finish_parts(url).already_complete
    assert write(url, 0, of=3)[0].already_complete
    assert plan(raw, url)["complete"]
    assert imgdata.shard(raw, url, OPTIONS).already_complete


def test_the_source_may_be_in_a_store_and_the_output_in_a_folder(raw, s3, tmp_path):
    source = s3.upload(raw, "raw")
    alone = of_one_run(source, tmp_path / "alone", OPTIONS)
    for out in (f"{s3.url}/out", tmp_path / "out"):
        plan(source, out)
        write(out, 1, 0, of=2)
        assert imgdata.finish_parts(out).samples == 21
    assert objects(f"{s3.url}/out") == alone
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(alone)
    # Another image of the same size.
    store, name = RemoteStore(source), "train/cat/000.jpg"
    plan(source, f"{s3.url}/later")
    store.put(name, bytes(reversed(store.read(name))))
    with pytest.raises(SourceError, match=r"000.jpg: changed between listing .*; where it changed after --plan"):
        write(f"{s3.url}/later", 0, of=1)
    with pytest.raises(OutputError, match=r"raw/out: is the source, or inside it"):
        plan(source, f"{source}/out")


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_parts_and_an_append_meet_in_other_clouds(raw, tmp_path, monkeypatch, scheme):
    alone = tmp_path / "alone"
    of_one_run(raw, alone, OPTIONS)
    more = replace(OPTIONS, key_prefix="more/")
    imgdata.shard(raw, alone, more, workers=1, append=True)
    with cloud(scheme, tmp_path.name, monkeypatch) as place:
        url = f"{place.url}/ds"
        plan(raw, url)
        RemoteStore(url).put("pets-train-000000.tar", b"of an older plan")
        write(url, 0, 0, of=2)
        with pytest.raises(OutputError, match="3 of 7 shards are missing"):
            imgdata.finish_parts(url)
        write(url, 1, of=2)
        imgdata.finish_parts(url)
        imgdata.shard(raw, url, more, workers=1, append=True)
        assert objects(url) == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in alone.iterdir()}


def test_a_part_again_and_twice_at_once_uploads_what_is_missing_alone(raw, whole, url):
    plan(raw, url)
    with faulty(os.environ["AWS_ENDPOINT_URL"]) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with ThreadPoolExecutor() as threads:
            both = list(threads.map(lambda _: write(url, 0, of=2)[0], range(2)))
        assert [part.samples for part in both] == [12, 12]
        proxy.requests.clear()
        (again,) = write(url, 0, of=2)
        assert not [request for request in proxy.requests if request.startswith("PUT")]
    assert (again.resumed_shards, again.samples_written, again.samples) == (4, 0, 12)
    write(url, 1, of=2)
    imgdata.finish_parts(url)
    assert objects(url) == whole


def test_finishing_too_early_names_the_parts_to_run_again(raw, whole, url):
    plan(raw, url)
    with pytest.raises(OutputError, match=r"s3://.*/ds: 7 of 7 shards are missing, as no part has run yet"):
        imgdata.finish_parts(url)
    write(url, 2, of=5)
    found = unfinished(url)
    assert (found.shards, found.written, found.parts, found.missing) == (7, 1, 5, "0-1,3-4")
    message = r"6 of 7 shards are missing, of 4 parts of 5; run them again \(--array=0-1,3-4; the first is --part 0/5\)"
    with pytest.raises(OutputError, match=message):
        imgdata.finish_parts(url)
    assert plan(raw, url)["finished_shards"] == 1
    write(url, 0, 1, 3, 4, of=5)
    imgdata.finish_parts(url)
    assert objects(url) == whole
    assert unfinished(url) is None


def test_a_shard_that_others_replaced_or_removed_is_missing_and_its_part_writes_it_again(raw, whole, url):
    plan(raw, url)
    write(url, 0, of=1)
    store = RemoteStore(url)
    store.put("pets-train-000003.tar", b"of others")
    store.delete("pets-train-000001.tar")
    store.delete("pets-val-000000.idx")
    with pytest.raises(OutputError, match=r"3 of 7 shards are missing, of 1 part of 1; run it again \(--array=0;"):
        imgdata.finish_parts(url)
    assert write(url, 0, of=1)[0].resumed_shards == 4
    imgdata.finish_parts(url)
    assert objects(url) == whole


def test_shards_of_which_nothing_is_left_leave_no_gap(url, tmp_path):
    folder = tmp_path / "in" / "a"
    folder.mkdir(parents=True)
    for number in range(6):
        (folder / f"{number}.jpg").write_bytes(b"" if number in (0, 3) else encoded(number))
    options = ShardOptions(shard_samples=1, shuffle=False)
    alone = of_one_run(tmp_path / "in", tmp_path / "alone", options)
    plan(tmp_path / "in", url, options)
    assert [part.rejected for part in write(url, 0, 1, 2, 3, of=4)] == [{"empty": 1}, {}, {}, {"empty": 1}]
    # The end is interrupted while shards move up, and resumed.
    match = f"PUT /tests/{url.split('/', 3)[3]}/in-train-000001.idx"
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    with faulty(endpoint, Fault("status", 10**6, match, 500)) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with pytest.raises(imgdata.ImgdataError, match="500"):
            imgdata.finish_parts(url)
    with pytest.raises(OutputError, match="every shard is written, and finishing has begun"):
        write(url, 0, of=1)
    imgdata.finish_parts(url)
    assert objects(url) == alone


def test_a_plan_that_replaces_a_dataset_leaves_it_until_the_new_one_is_complete(raw, whole, url, tmp_path):
    plan(raw, url)
    write(url, 0, of=1)
    imgdata.finish_parts(url)
    other = ShardOptions(shard_samples=4)
    with pytest.raises(OutputError, match=r"was made with other options.*--overwrite"):
        plan(raw, url, other)
    plan(raw, url, other, overwrite=True)
    write(url, 0, of=1)
    assert whole.items() <= objects(url).items()
    imgdata.finish_parts(url)
    assert objects(url) == of_one_run(raw, tmp_path / "alone", other)


def test_one_run_does_not_write_what_is_planned_for_parts(raw, whole, url):
    plan(raw, url)
    with pytest.raises(OutputError, match="planned for parts; write them with --part and --finish, or give --overwri"):
        imgdata.shard(raw, url, OPTIONS)
    assert imgdata.plan_shards(raw, OPTIONS, out=url)["out"].startswith("exists: planned for parts")
    imgdata.shard(raw, url, OPTIONS, overwrite=True, workers=1)
    assert objects(url) == whole


def test_nothing_planned_or_begun_by_one_run_is_one_clear_message(raw, whole, url):
    for call in (lambda: write(url, 0, of=1), lambda: imgdata.finish_parts(url)):
        with pytest.raises(OutputError, match=r"ds: nothing is planned here; begin with `imgdata shard SOURCE s3://"):
            call()
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    match = f"PUT /tests/{url.split('/', 3)[3]}/dataset.json"
    with faulty(endpoint, Fault("status", 10**6, match, 500)) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with pytest.raises(imgdata.ImgdataError, match="500"):
            imgdata.shard(raw, url, OPTIONS, workers=1)
    for call in (lambda: write(url, 0, of=1), lambda: imgdata.finish_parts(url)):
        with pytest.raises(OutputError, match=r"begun without a plan for parts; run `imgdata shard SOURCE .* --plan`"):
            call()
    plan(raw, url)
    write(url, 0, of=1)
    imgdata.finish_parts(url)
    assert objects(url) == whole


class DyingRay(InlineRay):
    """A Ray whose first task dies when all of it is done."""

    def get(self, task):
        written = super().get(task)
        if self.ended == 1:
            raise RayError
        return written


def test_tasks_of_a_cluster_upload_their_shards(raw, whole, url, tmp_path, monkeypatch):
    ray = DyingRay()
    monkeypatch.setattr(cluster, "_imported", lambda: ray)
    summary = imgdata.shard(raw, url, OPTIONS, engine="ray", work=tmp_path / "work")
    assert ray.ended == 8
    assert (summary.samples, summary.samples_written, str(summary.out)) == (21, 21, url)
    assert objects(url) == whole
    assert imgdata.shard(raw, url, OPTIONS, engine="ray").already_complete


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="needs pip install 'imgdata[ray]'")
def test_a_cluster_goes_on_with_what_parts_have_uploaded(raw, whole, url):
    plan(raw, url)
    write(url, 1, of=3)
    program = (
        "import imgdata, sys; print(imgdata.shard(*sys.argv[1:], shard_samples=3, json_members=True, engine='ray'))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(raw), url],
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": "/tmp"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE_S,
    )
    assert run.returncode == 0
    assert "resumed_shards=2" in run.stdout
    assert objects(url) == whole


def late(url, work):
    """Make a shard of the plan, then do other work, and then upload the shard."""
    parts = planned_at(url)
    with parts.attempt(None) as place:
        report = write_shard(parts.frozen().task(0, place))
        work()
        parts.publish(place, report)


@pytest.mark.parametrize("looks", [0, 1, 2])
def test_who_is_late_changes_nothing_after_the_end(raw, whole, url, monkeypatch, looks):
    """The others write all shards and finish before a look at the mark: at first, with the tar there, at the end."""
    plan(raw, url)
    mine, put = planned_at(url), StoreParts._put

    def others(self, path, made):
        uploaded = put(self, path, made)
        if self.plan_id == mine.plan_id and path.suffix == (".idx", ".tar")[looks - 1] and not ended:
            end()
        return uploaded

    ended = []

    def end():
        ended.append(True)
        write(url, 0, of=1)
        imgdata.finish_parts(url)

    if looks:
        monkeypatch.setattr(StoreParts, "_put", others)
    with pytest.raises(ClosedError):
        late(url, end if not looks else lambda: None)
    assert ended
    assert objects(url) == whole


@pytest.mark.parametrize("checks", [1, 2, 3])
def test_who_is_late_by_a_plan_and_by_a_request_changes_nothing(raw, url, tmp_path, monkeypatch, checks):
    """The other plan comes after so many looks at the mark, in the middle of an upload."""
    other = ShardOptions(shard_samples=5, json_members=True)
    plan(raw, url)
    parts, real, seen = planned_at(url), type(planned_at(url)).is_open, []

    def is_open(self):
        opened = real(self)
        if self.plan_id == parts.plan_id:
            seen.append(opened)
            if len(seen) == checks:
                plan(raw, url, other, overwrite=True)
                write(url, 0, of=1)
        return opened

    monkeypatch.setattr(type(parts), "is_open", is_open)
    # Of an older plan still.
    RemoteStore(url).put("pets-train-000000.tar", b"older")
    # After the last look all is done that this process does.
    with pytest.raises(ClosedError) if checks < 3 else contextlib.nullcontext():
        late(url, lambda: None)
    assert len(seen) >= checks
    imgdata.finish_parts(url)
    assert objects(url) == of_one_run(raw, tmp_path / "alone", other)
