"""A loader of a dataset in an object store keeps its shards: which, where, when, and what it says of them."""

import errno
import os
import pickle
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

import imgdata
from imgdata.storage import shard_fetching
from imgdata.storage.cache_folder import CacheWarning
from support.animals import animals
from support.remote_servers import faulty, impatient, web_server

RECIPE = imgdata.recipes.imagenet_train(32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return animals(tmp_path_factory.mktemp("animals"))


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Short pauses, and a cache folder of the test's own."""
    impatient(monkeypatch, tmp_path / "cache", tries=3)


@pytest.fixture
def site(folder):
    """A proxy, which counts requests, before a web server of the dataset."""
    with web_server(folder) as address, faulty(address) as proxy:
        yield proxy


def loader(source, batch_size=6, recipe=RECIPE, **options):
    return imgdata.Loader(source, split="train", recipe=recipe, batch_size=batch_size, **options)


def epoch(source, **options):
    with loader(source, **options) as batches:
        return [(batch.images.numpy().copy(), batch.positions.tolist()) for batch in batches]


def tars(proxy):
    return [request for request in proxy.requests if ".tar" in request]


def kept():
    return sorted((Path(os.environ["IMGDATA_CACHE"]) / "shards").glob("*.tar"))


@pytest.mark.parametrize("shuffle", ["window", "global", "none"])
@pytest.mark.parametrize("cache", ["auto", "memory", "off", "disk:1", 1])
def test_batches_are_those_of_the_folder_whatever_is_kept(site, folder, shuffle, cache):
    here = epoch(folder, shuffle=shuffle)
    there = epoch(site.endpoint, shuffle=shuffle, cache=cache)
    assert [positions for _, positions in there] == [positions for _, positions in here]
    assert all(np.array_equal(one[0], other[0]) for one, other in zip(here, there, strict=True))


def test_a_second_loader_makes_no_request_of_shards(site):
    with loader(site.endpoint) as first:
        [None for _ in first]
        [None for _ in first]
    assert len(kept()) == 4
    site.requests.clear()
    with loader(site.endpoint) as second:
        [None for _ in second]
        assert "100 % hits" in repr(second)
    assert tars(site) == []


def test_a_file_is_asked_for_its_facts_once_and_fetched_once(site):
    for _ in range(2):
        loader(site.endpoint).close()
        asked = [request.split()[0:2] for request in site.requests]
        assert len({tuple(one) for one in asked}) == len(asked)
        site.requests.clear()


def test_each_shard_is_fetched_once_in_several_epochs(site):
    with loader(site.endpoint) as batches:
        for _ in range(4):
            [None for _ in batches]
    # A shard of 6 small pictures is one block, or two.
    assert len(tars(site)) <= 8


@pytest.mark.parametrize(
    ("options", "variable"),
    [({"cache": "off"}, None), ({"view": "fraction=0.1"}, None), ({}, "0"), ({"cache": "memory"}, None)],
)
def test_nothing_is_kept_on_the_disk(site, monkeypatch, options, variable):
    if variable is not None:
        monkeypatch.setenv("IMGDATA_CACHE_GB", variable)
    # The copies of small files have no room either.
    with pytest.warns(CacheWarning) if variable else nullcontext():
        epoch(site.endpoint, batch_size=2, **options)
    assert kept() == []


@pytest.mark.parametrize("cache", ["disk:0.000001", "memory:0.000001", 0.000001])
def test_a_limit_of_less_than_one_shard_is_an_error_at_the_start(site, cache):
    with pytest.raises(imgdata.OptionError, match=r"cache must hold the largest shard, http.*\.tar of"):
        loader(site.endpoint, cache=cache)


@pytest.mark.parametrize("cache", ["ram", "disk:x", "off:3", -1, "memory:-2", "", "disk:nan"])
def test_a_cache_that_means_nothing_is_an_error(folder, cache):
    with pytest.raises(imgdata.OptionError, match="cache must be auto, disk, memory or off, or gigabytes"):
        loader(folder, cache=cache)


def test_windows_of_shards_are_the_default_for_a_store_alone(site, folder):
    assert "window of" in repr(loader(site.endpoint))
    assert "window of" in repr(loader(imgdata.open(site.endpoint)))
    assert "order: global" in repr(loader(folder))


def test_a_state_is_resumed_in_the_middle(site, folder):
    with loader(site.endpoint) as first:
        batches = iter(first)
        next(batches)
        state = first.state_dict()
        rest = [batch.positions.tolist() for batch in batches]
    with loader(folder, shuffle="window") as second:
        second.load_state_dict(state)
        assert [batch.positions.tolist() for batch in second] == rest


def test_a_state_of_the_folder_is_resumed_by_its_url_which_takes_its_order(site, folder):
    with loader(folder) as first:
        batches = iter(first)
        next(batches)
        state = first.state_dict()
        rest = [batch.positions.tolist() for batch in batches]
    with loader(site.endpoint) as second:
        second.load_state_dict(state)
        assert "order: global" in repr(second)
        assert [batch.positions.tolist() for batch in second] == rest
    with loader(site.endpoint, shuffle="window") as third, pytest.raises(imgdata.OptionError):
        third.load_state_dict(state)


def test_more_ranks_than_shards_all_end(site):
    seen = []
    for rank in range(8):
        seen += [positions for _, positions in epoch(site.endpoint, batch_size=1, rank=rank, world_size=8)]
    assert len(seen) == 16


def test_a_loader_that_is_pickled_or_closed_early_leaves_nothing(site):
    batches = loader(site.endpoint)
    next(iter(batches))
    again = pickle.loads(pickle.dumps(batches))
    assert len([None for _ in again]) == 2
    batches.close()
    again.close()
    assert not list((Path(os.environ["IMGDATA_CACHE"]) / "shards").glob("*.tmp"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_while_a_batch_waits_is_one_warning_and_ranges(site, folder, monkeypatch, code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(shard_fetching, "pwrite", fail)
    with pytest.warns(CacheWarning, match="read by ranges") as found:
        there = epoch(site.endpoint, shuffle="window")
    here = epoch(folder, shuffle="window")
    assert all(np.array_equal(one[0], other[0]) for one, other in zip(here, there, strict=True))
    assert (len(found), kept()) == (1, [])


@pytest.mark.parametrize("weights", [None, [0.7, 0.3]], ids=str)
@pytest.mark.parametrize("cache", ["disk:1", "off"])
@pytest.mark.parametrize("both_remote", [True, False])
def test_several_datasets_are_read_together_wherever_they_are(site, folder, weights, cache, both_remote):
    options = {"weights": weights, "shuffle": "window"}
    here = epoch([folder, folder], **options)
    sources = [site.endpoint, site.endpoint if both_remote else folder]
    there = epoch(sources, cache=cache, **options)
    assert [positions for _, positions in there] == [positions for _, positions in here]
    assert all(np.array_equal(one[0], other[0]) for one, other in zip(here, there, strict=True))
    assert len(kept()) == (4 if cache == "disk:1" else 0)
    if cache == "disk:1":
        site.requests.clear()
        with loader(sources, cache=cache, **options) as again:
            [None for _ in again]
            assert again.cache_facts.hits == again.cache_facts.images > 0
        assert tars(site) == []


def test_lists_with_a_url_are_shuffled_in_windows_and_resumed(site, folder):
    with loader([folder, site.endpoint]) as first:
        assert "order: window" in repr(first)
        batches = iter(first)
        next(batches)
        state = first.state_dict()
        rest = [batch.positions.tolist() for batch in batches]
    with loader([folder, folder], shuffle="window") as second:
        second.load_state_dict(state)
        assert [batch.positions.tolist() for batch in second] == rest


def test_a_shard_of_a_list_that_is_missing_is_named(site, folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    next(copy.glob("*train-000001.tar")).unlink()
    with pytest.raises(imgdata.ShardError, match=r"copy/animals-train-000001.tar: No such file"):
        epoch([site.endpoint, copy])
