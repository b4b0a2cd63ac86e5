"""Parts of a source: some classes, or all but some names."""

import numpy as np
import pytest

import imgdata
from imgdata import ShardOptions
from support.rawdata import class_folders


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("raw"), {"train": 4, "val": 2})


def sharded(raw, out, **options):
    summary = imgdata.shard(raw, out, ShardOptions(**options), workers=1)
    return summary, imgdata.open(out)


@pytest.mark.parametrize("classes", [("newt", "cat"), ("cat", "newt", "cat")])
def test_chosen_classes_get_labels_from_zero_in_the_order_of_the_source(raw, tmp_path, classes):
    summary, dataset = sharded(raw, tmp_path / "o", classes=classes)
    assert [one.id for one in dataset.classes] == ["cat", "newt"]
    for name, count in (("train", 4), ("val", 2)):
        index = dataset[name].index
        assert np.bincount(index.label_N).tolist() == [count, count]
        for source, label in zip(index.column("source").to_pylist(), index.label_N.tolist(), strict=True):
            assert source.split("/")[1] == ("cat", "newt")[label]
    assert summary.skipped == {"of other classes": 6}


def test_excluded_names_are_left_out_and_counted_and_the_classes_stay(raw, tmp_path):
    summary, dataset = sharded(raw, tmp_path / "o", exclude=("*/dog/*", "train/cat/00[01].jpg"))
    assert [one.id for one in dataset.classes] == ["cat", "dog", "newt"]
    assert np.bincount(dataset["train"].index.label_N).tolist() == [2, 0, 4]
    assert summary.skipped == {"excluded": 8}


def test_a_split_of_which_nothing_is_left_is_gone(raw, tmp_path):
    _, dataset = sharded(raw, tmp_path / "o", exclude=("val/*",))
    assert list(dataset) == ["train"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ("cat", "cow")}, "the source has no cow; it has 3, such as cat, dog, newt"),
        ({"exclude": ("*.gif",)}, r"'\*\.gif' matches none of the 18 names, such as 'train/cat/000.jpg'"),
        ({"exclude": ("*",)}, "nothing is left of the 18 images"),
    ],
)
def test_what_selects_nothing_is_refused(raw, tmp_path, options, message):
    with pytest.raises(imgdata.OptionError, match=message):
        sharded(raw, tmp_path / "o", **options)


def test_existing_tars_are_merged_and_filtered(raw, tmp_path):
    for name in ("train", "val"):
        sharded(raw, tmp_path / name, exclude=(f"{'val' if name == 'train' else 'train'}/*",), shard_samples=3)
    both = f"{tmp_path}/train/*.tar::{tmp_path}/val/*.tar"
    _, dataset = sharded(both, tmp_path / "merged", classes=("dog",))
    assert {name: len(split) for name, split in dataset.items()} == {"train": 4, "val": 2}
    assert {sample.image for sample in dataset["val"]} == {path.read_bytes() for path in (raw / "val/dog").iterdir()}


def test_datasets_with_different_classes_are_not_merged(raw, tmp_path):
    sharded(raw, tmp_path / "a")
    sharded(raw, tmp_path / "b", classes=("dog", "newt"))
    with pytest.raises(imgdata.SourceError, match="their classes differ"):
        sharded(f"{tmp_path}/a/*.tar::{tmp_path}/b/*.tar", tmp_path / "merged")
