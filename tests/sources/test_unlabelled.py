"""Images without labels: tables of several labels, test splits, and what becomes of them in a dataset."""

import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import imgdata
from imgdata.errors import SourceError
from imgdata.sources.listing import Listing
from imgdata.sources.options import SourceOptions
from imgdata.sources.table import source as table
from imgdata.tar.samples import tar_samples
from support.rawdata import encoded

IMAGES = ("a.jpg", "b.jpg", "c.png")


def plant(root: Path, files: Iterable[str] = IMAGES, **tables: str) -> Path:
    """Write images and tables: `train_csv="..."` becomes `train.csv`."""
    for number, file in enumerate(files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(encoded(number))
    for name, text in tables.items():
        (root / name.replace("_", ".")).write_text(text)
    return root


def listed(path: Path, **options: str) -> Listing:
    return table.list_samples(path, SourceOptions(**options))


MULTI_LABELS = [
    {"t_jsonl": '{"path":"a.jpg","labels":[0,3]}\n{"path":"b.jpg","labels":[]}\n{"path":"c.png","labels":[3]}'},
    {"t_jsonl": '{"path":"a.jpg","labels":null}\n{"path":"b.jpg","labels":[1]}\n{"path":"c.png"}'},
    {"t_csv": "image_id,smiling,hat\na,1,-1\nb,0,1\nc,0,0\n"},
]


@pytest.mark.parametrize("tables", MULTI_LABELS)
def test_a_table_of_several_labels_gives_unlabelled_images_with_all_columns(
    tmp_path: Path, tables: dict[str, str]
) -> None:
    plant(tmp_path, **tables)
    assert table.recognise(tmp_path) == f"a table of images without labels ({next(iter(tables)).replace('_', '.')})"
    listing = listed(tmp_path)
    assert (listing.label_N.tolist(), listing.classes) == ([-1, -1, -1], ())
    fields = [json.loads(ref.fields) for ref in listing.refs(range(2)) if ref.fields]
    assert fields[0] in ({"labels": [0, 3]}, {"labels": None}, {"smiling": 1, "hat": -1})
    assert any("no labels: no column is called like one" in text for text in listing.warnings)


def test_a_list_of_labels_beside_a_single_one_is_a_further_column(tmp_path: Path) -> None:
    plant(tmp_path, t_jsonl='{"path":"a.jpg","labels":[0,3],"category":"x"}')
    listing = listed(tmp_path)
    assert [one.id for one in listing.classes] == ["x"]
    with pytest.raises(SourceError, match=r"the label \(column 'labels'\) holds a list"):
        listed(tmp_path, label_column="labels")


def test_lists_in_parquet_tables_are_no_labels(tmp_path: Path) -> None:
    plant(tmp_path)
    pq.write_table(pa.table({"path": list(IMAGES), "labels": [[0], [1, 2], []]}), tmp_path / "t.parquet")
    listing = listed(tmp_path)
    assert listing.label_N.tolist() == [-1, -1, -1]
    assert json.loads(next(listing.refs([1])).fields) == {"labels": [1, 2]}


@pytest.mark.parametrize(
    ("files", "is_table"),
    [
        (["images/a.jpg", "images/b.jpg"], True),
        (["train/a.jpg", "test/b.jpg"], True),
        (["cat/a.jpg", "dog/b.jpg"], False),  # folders are classes, the table says more of them
        (["train/cat/a.jpg", "train/dog/b.jpg"], False),
    ],
)
def test_a_table_without_labels_gives_way_to_class_folders(tmp_path: Path, files: list[str], is_table: bool) -> None:
    plant(tmp_path, files, t_csv="path,width\n" + "".join(f"{file},10\n" for file in files))
    assert (table.recognise(tmp_path) is not None) is is_table
    assert listed(tmp_path).label_N.tolist() == [-1, -1]


@pytest.mark.parametrize("cell", ["", "-1"])
def test_a_split_without_any_label_is_listed_and_told(tmp_path: Path, cell: str) -> None:
    text = f"path,label,split\na.jpg,x,train\nb.jpg,{cell},test\nc.png,{cell},test\n"
    listing = listed(plant(tmp_path, t_csv=text))
    assert (listing.splits, listing.label_N.tolist()) == (("train", "test"), [0, -1, -1])
    assert listing.warnings == ("split test has no labels (2 images)",)
    (tmp_path / "t.csv").write_text(text.replace("b.jpg," + cell, "b.jpg,x"))
    with pytest.raises(SourceError, match=r"line 4: the label .* where others of split test have one; all of a split"):
        listed(tmp_path)


def test_a_split_whose_table_has_no_label_column_is_unlabelled(tmp_path: Path) -> None:
    plant(tmp_path / "train", ["a.jpg"], metadata_csv="file_name,label\na.jpg,x\n")
    plant(tmp_path / "test", ["a.jpg"], metadata_csv="file_name\na.jpg\n")
    assert dict(zip(["test", "train"], listed(tmp_path).label_N.tolist(), strict=True)) == {"test": -1, "train": 0}


def test_an_empty_label_column_needs_other_columns(tmp_path: Path) -> None:
    plant(tmp_path, t_csv="path,label\na.jpg,\n")
    with pytest.raises(SourceError, match=r"line 2: the label .* is empty, and so everywhere: no labels; name another"):
        listed(tmp_path)
    plant(tmp_path, [], t_csv="path,label,hat\na.jpg,,1\n")
    assert listed(tmp_path).label_N.tolist() == [-1]


@pytest.mark.parametrize("tables", MULTI_LABELS)
def test_shards_without_labels_are_whole_datasets(tmp_path: Path, tables: dict[str, str]) -> None:
    summary = imgdata.shard(plant(tmp_path / "in", **tables), tmp_path / "out", workers=1)
    assert any("no labels: " in text for text in summary.warnings)
    assert imgdata.verify(tmp_path / "out", deep=True) == []
    dataset = imgdata.open(tmp_path / "out")
    assert (len(dataset.classes), [sample.label for sample in dataset["train"]]) == (0, [-1] * 3)
    assert {tuple(sample.members) for sample in tar_samples(next((tmp_path / "out").glob("*.tar")))} == {
        ("jpg", "json")
    }
    [fields] = [sample.fields for sample in dataset["train"] if sample.key == "b"]
    assert fields.get("labels", [fields.get("smiling"), fields.get("hat")]) in ([], [1], [0, 1])
    assert imgdata.inspect(tmp_path / "out").splits["train"].unlabelled == 3
    exported = imgdata.export(tmp_path / "out", tmp_path / "files")
    assert sorted(path.name for path in exported.folder.glob("train/unlabelled/*")) == ["a.jpg", "b.jpg", "c.jpg"]
    again = imgdata.shard(tmp_path / "out", tmp_path / "again", workers=1)
    assert again.samples == 3
    assert imgdata.open(tmp_path / "again")["train"][0].fields.keys() >= fields.keys()


def test_a_split_without_labels_stands_beside_one_with_them(tmp_path: Path) -> None:
    plant(tmp_path / "in", t_csv="path,label,split\na.jpg,x,train\nb.jpg,y,train\nc.png,,test\n")
    imgdata.shard(tmp_path / "in", tmp_path / "out", workers=1)
    assert imgdata.verify(tmp_path / "out", deep=True) == []
    members = {
        tar.name: {tuple(sample.members) for sample in tar_samples(tar)} for tar in (tmp_path / "out").glob("*.tar")
    }
    assert members == {"in-train-000000.tar": {("cls", "jpg")}, "in-test-000000.tar": {("jpg",)}}
    summary = imgdata.inspect(tmp_path / "out")
    assert {name: (split.unlabelled, split.class_counts) for name, split in summary.splits.items()} == {
        "train": (0, (1, 1)),
        "test": (1, (0, 0)),
    }
    exported = imgdata.export(tmp_path / "out", tmp_path / "files")
    files = sorted(path.relative_to(exported.folder).as_posix() for path in exported.folder.glob("*/*/*"))
    assert files == ["test/unlabelled/c.jpg", "train/x/a.jpg", "train/y/b.jpg"]
