"""What the tasks of a Ray cluster see in pictures is what threads of one machine see, in whatever order it comes."""

import numpy as np
import pytest

import imgdata
from imgdata import OptionError, RayOptions, ShardError
from imgdata.auditing import facts as facts_module
from imgdata.auditing import workers_by_ray
from imgdata.auditing.facts import facts, pixel_hashes
from imgdata.auditing.samples import samples_of
from imgdata.auditing.workers_by_ray import RayWorkers
from imgdata.views import open_view
from support import loaders
from support.inline_ray import inline_ray
from support.rawdata import class_folders
from support.remote_servers import web_server

__all__ = ["inline_ray"]

COUNT = 30


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch, tmp_path):
    """Parts of 4 samples, two in a task; a cache of the test's own."""
    monkeypatch.setattr(facts_module, "PART", 4)
    monkeypatch.setattr(facts_module, "_DECODED", 3)
    monkeypatch.setattr(workers_by_ray, "_SAMPLES", 8)
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Images of every kind, of which two are damaged."""
    bad = {3: loaders.damaged(3), 21: loaders.damaged(21)}
    return imgdata.open(loaders.dataset(tmp_path_factory.mktemp("facts"), bad, COUNT))


@pytest.fixture
def samples(dataset):
    """Two views, so that tasks have samples of both."""
    return samples_of([open_view(dataset, "train", "count=13"), open_view(dataset, "train")])


@pytest.fixture
def workers(dataset, inline_ray):
    with RayWorkers(RayOptions(), dataset, told=lambda what: None) as made:
        yield made


def test_facts_are_those_of_threads(samples, workers, inline_ray, tmp_path):
    told = []
    there = facts(samples, tmp_path / "there", workers=workers, progress=lambda *done: told.append(done))
    here = facts(samples, tmp_path / "here", threads=2)
    for name in ("decoded_M", "luma_M64x64", "colour_M16x16x3", "hash_MQ4", "gate_M", "sharpness_M", "jpeg_quality_M"):
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name))
    assert there.bad == here.bad
    assert told[-1] == (len(samples), len(samples))
    assert inline_ray.ended == -(-len(samples) // 8)


def test_a_pass_that_ends_early_is_resumed_where_no_part_is_missing(samples, workers, tmp_path):
    def stop(done, total):
        if done > 20:
            raise KeyboardInterrupt

    # Parts come in no order: what is behind a missing one is looked at again.
    with pytest.raises(KeyboardInterrupt):
        facts(samples, tmp_path / "f", workers=workers, progress=stop)
    resumed = facts(samples, tmp_path / "f", threads=1)
    fresh = facts(samples, tmp_path / "fresh", threads=1)
    np.testing.assert_array_equal(resumed.hash_MQ4, fresh.hash_MQ4)
    assert resumed.bad == fresh.bad


def test_hashes_of_all_pixels_are_those_of_threads(samples, workers):
    numbers = list(range(0, len(samples), 2))
    np.testing.assert_array_equal(pixel_hashes(samples, numbers, workers), pixel_hashes(samples, numbers))


def test_a_dataset_at_a_url_is_read_by_each_task(dataset, inline_ray, tmp_path):
    with web_server(dataset.path) as url:
        remote = imgdata.open(url)
        samples = samples_of([open_view(remote, "train")])
        with RayWorkers(RayOptions(), remote, told=lambda what: None) as workers:
            there = facts(samples, tmp_path / "there", workers=workers)
    here = facts(samples_of([open_view(dataset, "train")]), tmp_path / "here")
    np.testing.assert_array_equal(there.hash_MQ4, here.hash_MQ4)
    assert there.bad == here.bad


def test_another_dataset_under_the_same_path_is_refused(samples, workers, monkeypatch, tmp_path):
    other = class_folders(tmp_path / "pets", {"train": 8})
    imgdata.shard(other, tmp_path / "other", workers=1)
    monkeypatch.setattr(workers_by_ray, "open_shards", lambda place, version: imgdata.open(tmp_path / "other"))
    with pytest.raises(ShardError, match=r"on the machine .* another dataset; it must be the same on all machines"):
        facts(samples, tmp_path / "f", workers=workers)


def test_a_machine_with_other_decoders_is_refused(samples, workers, monkeypatch, tmp_path):
    programs = iter(["Pillow 1", *["Pillow 2"] * 9])
    monkeypatch.setattr(workers_by_ray, "_programs", lambda: next(programs))
    with pytest.raises(ShardError, match=r"has Pillow 2, the audit was begun by Pillow 1; install the same versions"):
        facts(samples, tmp_path / "f", workers=workers)


def test_raw_images_are_refused(tmp_path, inline_ray):
    raw = class_folders(tmp_path / "pets", {"train": 3})
    with pytest.raises(OptionError, match="raw images, and engine 'ray' audits shards; run `imgdata shard` on it"):
        imgdata.audit(raw, engine="ray")


def test_an_audit_that_is_kept_needs_no_cluster(dataset, inline_ray):
    first = imgdata.audit(dataset, engine="ray", only="quality")
    tasks = inline_ray.ended
    assert tasks > 0
    assert imgdata.audit(dataset, engine="ray", only="quality").findings == first.findings
    assert inline_ray.ended == tasks
