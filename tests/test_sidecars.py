"""Sidecars, read by the tools they are made for: each sees the same samples, keys, bytes and labels."""

import json
from pathlib import Path

import pytest
from tarsets import dataset

from imgdata.errors import OutputError, ShardError
from imgdata.files import write_atomic
from imgdata.manifest import Manifest, ShardRecord, SplitEntry, parse_manifest
from imgdata.sample import ClassName
from imgdata.shards.card import card
from imgdata.shards.sidecars import SplitRecord, write_dali_index, write_sidecars

SPLITS = {"train": 12, "val": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("demo"), SPLITS)


def test_the_dali_index_follows_version_1_2(tmp_path):
    write_dali_index(
        tmp_path / "a.idx",
        [[("cls", 512, 1, "d/a.cls"), ("jpg", 1536, 99, "d/a.jpg")], [("jpg", 2560, 7, "ä b.jpg")]],
    )
    assert (tmp_path / "a.idx").read_bytes() == (b"v1.2 2\ncls 512 1 d/a.cls jpg 1536 99 d/a.jpg\njpg 2560 7 __b.jpg\n")


def test_a_dali_index_without_samples_is_refused(tmp_path):
    with pytest.raises(ShardError, match="must have at least one sample"):
        write_dali_index(tmp_path / "a.idx", [])
    assert list(tmp_path.iterdir()) == []


def test_the_wids_index_lists_every_shard(folder):
    index = json.loads((folder / "demo-train.wids.json").read_text())
    assert (index["__kind__"], index["wids_version"]) == ("wids-shard-index-v1", 1)
    assert [(shard["url"], shard["nsamples"], shard["filesize"]) for shard in index["shardlist"]] == [
        (path.name, count, path.stat().st_size)
        for path, count in zip(sorted(folder.glob("demo-train-*.tar")), (5, 5, 2), strict=True)
    ]


def manifest(files=("a-0.tar",), **changes):
    shards = tuple(ShardRecord(file, 3, 2048, "0" * 64) for file in files)
    values = {
        "name": "a",
        "classes": (ClassName("n01|x", "cat, tabby"),),
        "splits": (SplitEntry("train", "a-train.index.parquet", "1" * 64, shards),),
        "image_extension": "jpg",
        "label_from": "cls",
        "has_json": False,
        "rejected": 2,
        "imgdata": "0.1.0",
        "options": {"seed": 1},
        "source": {"kind": "folder", "warnings": ["two images are odd"]},
    }
    return Manifest(**{**values, **changes})


def test_the_dataset_file_is_read_back_as_it_was():
    assert parse_manifest(manifest().to_bytes(), Path("dataset.json")) == manifest()


def test_the_card_has_front_matter_that_hubs_read():
    import yaml

    text = card(manifest()).decode()
    front = yaml.safe_load(text.split("---")[1])
    assert front["task_categories"] == ["image-classification"]
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": ["a-[0-9]*.tar"]}]}
    ]
    assert "| 0 | n01\\|x | cat, tabby |" in text
    assert "2 images were left out" in text
    assert "- Note: two images are odd" in text


@pytest.mark.parametrize(
    ("files", "pattern"),
    [
        (["a-008.tar", "a-009.tar", "a-010.tar"], "a-{008..010}.tar"),
        (["a-0.tar", "a-2.tar"], "a-0.tar::a-2.tar"),
        (["x.tar", "y.tar"], "x.tar::y.tar"),
        (["only-7.tar"], "only-7.tar"),
    ],
)
def test_the_card_names_shards_by_a_pattern_that_gives_exactly_them(files, pattern):
    assert f'wds.WebDataset("{pattern}"' in card(manifest(files)).decode()


@pytest.mark.parametrize(
    ("changes", "present", "absent"),
    [
        ({"image_extension": "jpg;png"}, '"jpg;png", "cls"', "### "),
        ({"label_from": "json:label", "has_json": True}, '"jpg", "json"', "timm"),
        ({"label_from": "none"}, 'to_tuple("jpg")', "timm"),
    ],
)
def test_the_card_shows_code_that_fits_the_members(changes, present, absent):
    loading = card(manifest(**changes)).decode().split("## Loading")[1].split("## Files")[0]
    assert present in loading
    assert absent not in loading


def test_sidecars_are_the_same_bytes_in_another_place(folder, tmp_path):
    other = dataset(tmp_path / "elsewhere", SPLITS)
    names = sorted(path.name for path in folder.iterdir() if path.suffix != ".tar")
    assert names == sorted(path.name for path in other.iterdir() if path.suffix != ".tar")
    # webdataset's writer puts the time into its tars, so hashes of them differ.
    for name in (name for name in names if name not in ("dataset.json", "croissant.json")):
        assert (folder / name).read_bytes() == (other / name).read_bytes()


def test_no_sidecar_names_a_place_of_this_machine(folder):
    for path in folder.iterdir():
        assert str(folder.parent).encode() not in path.read_bytes()


def test_tables_that_do_not_fit_the_shards_are_refused(tmp_path, folder):
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "demo-val.index.parquet")
    split = SplitRecord("val", "x-val.index.parquet", (ShardRecord("x.tar", 4, 1, ""),), table)
    with pytest.raises(ShardError, match="split val: index must have 4 rows, got 5"):
        write_sidecars(
            tmp_path,
            name="x",
            classes=(),
            splits=[split],
            options={},
            source={},
            image_extension="jpg",
            rejected=0,
            has_json=False,
        )
    assert list(tmp_path.iterdir()) == []


def test_atomic_writes_replace_the_file_and_leave_nothing_else(tmp_path):
    write_atomic(tmp_path / "a", b"1")
    write_atomic(tmp_path / "a", b"2")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"2")]
    with pytest.raises(OutputError, match="missing/a: can't be written"):
        write_atomic(tmp_path / "missing" / "a", b"3")
