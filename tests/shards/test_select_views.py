"""Shards of a dataset's views hold the samples of the views, under their labels, in shards of their own."""

import pytest

import imgdata
from imgdata.errors import OptionError, ShardError
from support.animals import animals
from support.rawdata import class_folders


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return animals(tmp_path_factory.mktemp("animals"))


def contents(folder):
    dataset = imgdata.open(folder)
    return {
        (name, sample.key): (dataset.classes[sample.label].id, sample.image)
        for name, split in dataset.items()
        for sample in split
    }


def test_steps_and_saved_views_choose_the_samples(folder, tmp_path):
    view = imgdata.open_view(imgdata.open(folder), "train", "where class in cat,dog")
    imgdata.save_view(view, "two", overwrite=True)
    imgdata.shard(folder, tmp_path / "out", views=["two", "count=3"], workers=1)
    new, old = contents(tmp_path / "out"), contents(folder)
    assert new.items() <= old.items()
    assert {split: sum(name == split for name, _ in new) for split in ("train", "val")} == {"train": 16, "val": 3}
    assert {new[place][0] for place in new if place[0] == "train"} == {"cat", "dog"}
    assert [one.id for one in imgdata.open(tmp_path / "out").classes] == ["cat", "dog", "newt"]
    assert imgdata.verify(tmp_path / "out", deep=True) == []


def test_a_dataset_sharded_again_without_a_view_says_nothing_of_views(folder, tmp_path):
    imgdata.shard(folder, tmp_path / "out", workers=1)
    assert "views" not in (tmp_path / "out" / "dataset.json").read_text()
    assert contents(tmp_path / "out") == contents(folder)


def test_the_same_command_finds_it_complete_and_another_view_is_another_dataset(folder, tmp_path):
    assert not imgdata.shard(folder, tmp_path / "out", views="count=3", workers=1).already_complete
    assert imgdata.shard(folder, tmp_path / "out", views="count=3", workers=1).already_complete
    with pytest.raises(imgdata.OutputError, match="views"):
        imgdata.shard(folder, tmp_path / "out", views="count=4", workers=1)


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ("nonsense", "no view 'nonsense'"),
        ("balance", "view of train: balance draws samples several times"),
        ("where class==horse", "where: .*horse"),
    ],
)
def test_a_view_that_shards_cannot_be_made_of_is_refused(folder, tmp_path, views, message):
    with pytest.raises(OptionError, match=message):
        imgdata.shard(folder, tmp_path / "out", views=views, workers=1)
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_source_without_views_is_refused(tmp_path):
    class_folders(tmp_path / "raw", {"train": 2})
    with pytest.raises((OptionError, ShardError), match="must be a dataset of imgdata, whose views are taken"):
        imgdata.shard(tmp_path / "raw", tmp_path / "out", views="count=3", workers=1)
