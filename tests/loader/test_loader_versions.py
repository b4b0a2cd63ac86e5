"""Loaders of a dataset that grows: a run that was saved goes on with the version that it had."""

import shutil

import pytest

import imgdata
from imgdata.recipes import CenterCrop, Recipe
from support.loaders import sums
from support.rawdata import pictures_of

RECIPE = Recipe(CenterCrop(size=16))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A dataset, and the same with more samples and a class appended."""
    work = tmp_path_factory.mktemp("grown")
    raw = pictures_of(work / "pets", {"train/cat": 7, "train/dog": 6, "val/cat": 3})
    more = pictures_of(work / "more", {"train/ant": 4, "train/cat": 5}, first=100)
    imgdata.shard(raw, work / "one", shard_samples=4, workers=1)
    half = imgdata.open_view(imgdata.open(work / "one"), "train", "fraction=0.6 | balance,length=12")
    imgdata.save_view(half, "half")
    shutil.copytree(work / "one", work / "two")
    imgdata.shard(more, work / "two", shard_samples=4, workers=1, append=True)
    return work / "one", work / "two"


def loader(source, **options):
    return imgdata.Loader(source, **{"split": "train", "batch_size": 3, "recipe": RECIPE, "threads": 1, **options})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shuffle": "window", "window_shards": 2},
        {"view": "where class==cat"},
        {"view": "half"},
        {"shuffle": "none"},
        {"world_size": 3, "rank": 1, "batch_size": 2},
        {"buckets": [(16, 16), (16, 24)]},
    ],
    ids=str,
)
def test_a_state_of_an_earlier_version_resumes_with_that_version(folders, options):
    one, two = folders
    with loader(one, **options) as uninterrupted:
        epoch = sums(uninterrupted)
    with loader(one, **options) as before:
        first = sums(before, 1)
        state = before.state_dict()
    with loader(two, **options) as after:
        after.load_state_dict(state)
        assert first + sums(after) == epoch
        assert len(after) == len(epoch)
        assert [named.id for named in after.classes] == ["cat", "dog"]
        # And so on: the next epoch, and a state of it.
        assert sums(after, 1)
        assert after.state_dict()["fingerprint"] == state["fingerprint"]


def test_a_new_run_reads_the_newest_version_unless_another_is_named(folders):
    one, two = folders
    with (
        loader(two, shuffle="none") as newest,
        loader(two, shuffle="none", version=1) as first,
        loader(one, shuffle="none") as old,
    ):
        assert len(newest.dataset) == 22
        assert sums(first) == sums(old)
        with pytest.raises(imgdata.OptionError, match="fingerprint must be"):
            first.load_state_dict(newest.state_dict())
    with loader(imgdata.open(two, version=1)) as opened:
        assert len(opened.dataset) == 13


def test_a_state_of_no_version_is_refused(folders):
    with loader(folders[1]) as batches:
        state = batches.state_dict()
        with pytest.raises(imgdata.OptionError, match="fingerprint must be"):
            batches.load_state_dict({**state, "fingerprint": "0" * 32})
        assert sums(batches, 1)


def test_a_view_of_an_earlier_version_is_read_from_that_version(folders):
    one, two = folders
    dataset = imgdata.open(two)
    view = imgdata.load_view(dataset, "half")
    with loader(one, view="half") as before, loader(view, split=None) as after, loader(two, view="half") as named:
        assert sums(before) == sums(after) == sums(named)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": 3}, "version must be 1 to 2"),
        ({"version": 0}, "version must be 1 to 2"),
        ({"version": True}, "version must be 1 to 2"),
    ],
)
def test_a_version_that_there_is_not_is_one_error(folders, options, message):
    with pytest.raises(imgdata.OptionError, match=message):
        loader(folders[1], **options)
    with pytest.raises(imgdata.OptionError, match="version must be left out when the source is open already"):
        loader(imgdata.open(folders[1]), version=1)


def test_states_and_views_of_every_version_are_found_again_however_often_a_dataset_grew(tmp_path):
    """Three versions; of each a state in the middle of an epoch, what is left of the epoch, and a saved view."""
    out = tmp_path / "out"
    kept = []
    for number, counts in enumerate(
        ({"train/b": 8, "val/b": 2}, {"train/a": 5, "test/a": 2}, {"train/c": 4, "train/b": 3})
    ):
        raw = pictures_of(tmp_path / f"raw{number}", counts, first=100 * number)
        imgdata.shard(raw, out, shard_samples=4, workers=1, append=number > 0)
        view = imgdata.open_view(imgdata.open(out), "train", f"fraction=0.5,seed={number}")
        imgdata.save_view(view, f"half{number}")
        for options in ({}, {"view": f"half{number}", "batch_size": 2}):
            with loader(out, seed=number, **options) as batches:
                sums(batches, 1)
                state = batches.state_dict()
                kept.append((options, number, state, _rest(out, state, seed=number, **options)))
    assert imgdata.open(out).version == 3
    for options, number, state, rest in kept:
        assert _rest(out, state, seed=number, **options) == rest
        with loader(out, seed=number, **options) as batches:
            batches.load_state_dict(state)
            assert len(batches.classes) == number + 1


def _rest(out, state, **options):
    with loader(out, **options) as batches:
        batches.load_state_dict(state)
        return sums(batches)
