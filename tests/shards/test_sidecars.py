"""Sidecars, read by the tools they are made for: each sees the same samples, keys, bytes and labels."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from imgdata.dataset.manifest import Manifest, ShardRecord, SplitEntry, is_as_written, parse_manifest
from imgdata.errors import OutputError, ShardError
from imgdata.sample import ClassName
from imgdata.shards.card import card
from imgdata.shards.croissant import croissant
from imgdata.shards.sidecars import SplitRecord, write_dali_index, write_sidecars
from imgdata.storage.atomic import write_atomic
from support.tars import dataset

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


def manifest(tars=("a-0.tar",), **changes):
    shards = tuple(ShardRecord(tar, 3, 2048, "0" * 64) for tar in tars)
    values = {
        "name": "a",
        "classes": (ClassName("n01|x", "cat, tabby"),),
        "splits": (SplitEntry("train", "a-train.index.parquet", "1" * 64, shards),),
        "image_extension": "jpg",
        "label_from": "cls",
        "has_json": False,
        "rejected": 2,
        "files": {"rejects.jsonl": "2" * 64},
        "imgdata": "0.1.0",
        "options": {"seed": 1},
        "source": {"kind": "folder", "warnings": ["two images are odd"]},
    }
    return Manifest(**{**values, **changes})


def test_the_dataset_file_is_read_back_as_it_was():
    assert parse_manifest(manifest().to_bytes(), Path("dataset.json")) == manifest()


def test_the_second_line_of_the_dataset_file_is_the_hash_of_the_others():
    data = manifest().to_bytes()
    lines = data.splitlines(keepends=True)
    sha256 = json.loads(data)["sha256"]
    assert lines[1] == b'  "sha256": "%b",\n' % sha256.encode()
    assert hashlib.sha256(b"".join([lines[0], *lines[2:]])).hexdigest() == sha256
    assert is_as_written(data)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"seed": 1', '"seed": 2'),
        lambda text: text.replace("{\n", "{\r\n"),
        lambda text: text + "\n",
        lambda text: json.dumps(json.loads(text)),
        lambda text: "",
    ],
)
def test_a_dataset_file_that_was_changed_is_not_as_written(change):
    assert not is_as_written(change(manifest().to_bytes().decode()).encode())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": ()}, "there must be a split"),
        ({"splits": (SplitEntry("train", "x.parquet", "", ()),)}, "there must be a split, and a shard in each"),
        ({"splits": (SplitEntry("../up", "x.parquet", "", (ShardRecord("a.tar", 1, 1, ""),)),)}, "'../up' must be the"),
        ({"splits": (SplitEntry("a", "x.parquet", "", (ShardRecord("/a.tar", 1, 1, ""),)),)}, "'/a.tar' must be the"),
        ({"splits": (SplitEntry("a", "x.parquet", "", (ShardRecord("a.tar", 1.5, 1, ""),)),)}, "1.5 must be a whole"),
        ({"files": {"..": ""}}, "must be the name of a file in the folder"),
        ({"classes": (ClassName(3, "x"),)}, "3 must be a text"),
        ({"rejected": True}, "True must be a whole number"),
        ({"source": {"warnings": [1]}}, "warnings must be texts"),
    ],
)
def test_a_dataset_file_with_other_values_than_it_may_have_is_refused(change, message):
    with pytest.raises(ShardError, match=f"damaged.*{message}"):
        parse_manifest(manifest(**change).to_bytes(), Path("dataset.json"))


def test_the_dataset_file_has_the_hash_of_every_other_sidecar(folder):
    files = json.loads((folder / "dataset.json").read_text())["files"]
    assert list(files) == ["README.md", "_info.json", "croissant.json", "demo-train.wids.json", "demo-val.wids.json"]
    for name, sha256 in files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256


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
    assert "2 images were left out; `rejects.jsonl` says why." in text
    assert "2 images were left out." in card(manifest(files={})).decode()
    assert "- Note: two images are odd" in text


@pytest.mark.parametrize(
    ("tars", "pattern"),
    [
        (["a-008.tar", "a-009.tar", "a-010.tar"], "a-{008..010}.tar"),
        (["a-0.tar", "a-2.tar"], "a-0.tar::a-2.tar"),
        (["x.tar", "y.tar"], "x.tar::y.tar"),
        (["only-7.tar"], "only-7.tar"),
    ],
)
def test_the_card_names_shards_by_a_pattern_that_gives_exactly_them(tars, pattern):
    assert f'wds.WebDataset("{pattern}"' in card(manifest(tars)).decode()


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
    split = SplitRecord("val", "x-val.index.parquet", (ShardRecord("x.tar", 4, 1, ""),), [table])
    with pytest.raises(ShardError, match="split val: index must have 4 rows, got 5"):
        write_sidecars(tmp_path, manifest(), [split])
    assert list(tmp_path.iterdir()) == []


def test_atomic_writes_replace_the_file_and_leave_nothing_else(tmp_path):
    write_atomic(tmp_path / "a", b"1")
    write_atomic(tmp_path / "a", b"2")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"2")]
    with pytest.raises(OutputError, match="missing/a: can't be written"):
        write_atomic(tmp_path / "missing" / "a", b"3")


def test_foreign_text_is_only_text_in_the_card(tmp_path):
    hostile = 'a<script>[x](https://evil.example)"\n```\x1b[2J'
    facts = Manifest(
        name="demo",
        classes=(ClassName(hostile, "![y](http://evil.example) www.evil.example | b"),),
        splits=(SplitEntry(hostile, "i`x.parquet", "0", (ShardRecord('s`"\n.tar', 1, 1024, "0"),)),),
        image_extension='jpg"<b>',
        label_from="cls",
        has_json=False,
        rejected=0,
        source={"warnings": ["<img src=x> [z](https://evil.example)"]},
    )
    text = card(facts).decode()
    # Behind the front matter, and without the blocks of code.
    prose = re.sub(r"(?ms)^```.*?^```$", "", text.split("\n---\n", 1)[1])
    assert "\x1b" not in text
    assert "<script" not in prose
    assert "<img" not in text
    assert "](http" not in prose.replace(r"\]", "")
    assert "://evil" not in prose
    assert "www.evil" not in prose
    assert r"a&lt;script&gt;\[x\](https&#58;//evil.example)" in text


def test_usual_names_stand_in_the_card_as_they_are():
    facts = Manifest(
        name="demo",
        classes=(ClassName("n01440764", "maple_tree (Acer), 50% & more - it's *here*"),),
        splits=(SplitEntry("train", "demo.index.parquet", "0", (ShardRecord("demo-train-000000.tar", 1, 1, "0"),)),),
        image_extension="jpg;png",
        label_from="cls",
        has_json=False,
        rejected=0,
    )
    text = card(facts).decode()
    assert "| 0 | n01440764 | maple_tree (Acer), 50% & more - it's *here* |" in text
    assert "  - split: train\n" in text
    assert "`.jpg`, `.png`" in text


@pytest.mark.parametrize(
    ("extensions", "pattern"), [("jpg", r"^(.*?)(?:\.(?:jpg))?$"), ("jpg;png", r"^(.*?)(?:\.(?:jpg|png))?$")]
)
def test_croissants_pattern_takes_names_of_members_and_keys(extensions, pattern):
    facts = Manifest(
        name="demo",
        classes=(),
        splits=(SplitEntry("train", "i", "0", (ShardRecord("s.tar", 1, 1, "0"),)),),
        image_extension=extensions,
        label_from="none",
        has_json=False,
        rejected=0,
    )
    content = json.loads(croissant(facts))
    found = content["recordSet"][0]["field"][0]["source"]["transform"]["regex"]
    assert found == pattern
    for name in ("a/b.jpg", "a/b"):
        assert re.match(found, name)[1] == "a/b"
