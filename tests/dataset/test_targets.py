"""Targets other than one class: from the source through shards, index and views, and what `dataset.json` says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import imgdata
from support.loaders import sample
from support.rawdata import encoded
from support.targets import TAGS, expected, made, raw_lines, raw_table
from support.tars import webdataset_samples, write_tar

KINDS = {"multi-label": "tags", "soft": "p,q", "regression": "age"}


@pytest.fixture(scope="module", params=KINDS)
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A kind of target, and a dataset of it; not to be changed."""
    return request.param, made(tmp_path_factory.mktemp("targets"), request.param, KINDS[request.param])


def values(folder: Path, split: str = "train") -> list[Any]:
    """The targets of all samples."""
    opened = imgdata.open(folder)
    targets = opened.targets(split)
    assert targets is not None
    return targets.values(np.arange(len(opened[split]))).tolist()


def test_targets_are_those_of_the_table(dataset):
    kind, folder = dataset
    opened = imgdata.open(folder)
    assert (opened.target.kind, opened.target.columns) == (kind, tuple(KINDS[kind].split(",")))
    assert values(folder) == [expected(kind, position) for position in range(40)]
    assert {sample.label for sample in opened["train"]} == {-1}
    manifest = json.loads((folder / "dataset.json").read_text())
    assert manifest["target"] == {"kind": kind, "columns": KINDS[kind].split(",")}


def test_an_index_that_is_made_anew_is_the_same(dataset, tmp_path):
    _, folder = dataset
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for path in tmp_path.glob("*.parquet"):
        path.unlink()
    imgdata.index(tmp_path)
    assert imgdata.verify(tmp_path) == []
    for path in folder.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_other_readers_find_the_classes_in_the_json_members(tmp_path):
    folder = made(tmp_path, "multi-label", "tags", 8)
    members = [json.loads(one["json"]) for one in webdataset_samples(imgdata.open(folder)["train"].shards)]
    assert [one["tags"] for one in members] == [sorted(TAGS[number % 4]) for number in range(8)]


def test_inspect_says_what_the_target_is(dataset):
    kind, folder = dataset
    summary = imgdata.inspect(folder)
    assert (summary.target, summary.target_columns) == (kind, tuple(KINDS[kind].split(",")))
    assert f"target: {kind}, " in str(summary)
    assert summary.splits["train"].unlabelled == 0
    counts = {"multi-label": (10, 20, 20), "soft": (12, 28), "regression": ()}[kind]
    assert summary.splits["train"].class_counts == counts


def test_a_class_is_the_target_unless_it_is_said(tmp_path):
    imgdata.shard(raw_table(tmp_path / "raw", 8), tmp_path / "one", label_column="weight")
    imgdata.shard(tmp_path / "raw", tmp_path / "none", target="none")
    opened = imgdata.open(tmp_path / "one")
    assert (opened.target.kind, opened.targets("train")) == ("class", None)
    assert "target" not in json.loads((tmp_path / "one" / "dataset.json").read_text())
    assert imgdata.open(tmp_path / "none").target.kind == "none"


@pytest.mark.parametrize(
    ("cells", "options", "classes", "rows"),
    [
        (["a|b", "b"], {}, "ab", ["ab", "b"]),
        (["a b", "c"], {"label_separator": " "}, "abc", ["ab", "c"]),
        (["a b", "c"], {}, ("a b", "c"), [("a b",), "c"]),
        ([["b", "a"], []], {}, "ab", ["ab", ""]),
        ([[3, 1], [10]], {}, ("1", "3", "10"), ["13", ("10",)]),
        ([[1, 0, 1], [1, 1, 0]], {}, "012", ["02", "01"]),
        ([["a", "a"], None], {}, "a", ["a", ""]),
        ([7, 2], {}, "27", ["7", "2"]),
    ],
)
def test_cells_that_name_several_classes(tmp_path, cells, options, classes, rows):
    folder = raw_lines(tmp_path / "raw", [{"tags": cell} for cell in cells])
    imgdata.shard(folder, tmp_path / "out", target="multi-label", label_column="tags", shuffle=False, **options)
    assert [one.id for one in imgdata.open(tmp_path / "out").classes] == list(classes)
    found = [tuple(one for one, has in zip(classes, row, strict=True) if has) for row in values(tmp_path / "out")]
    assert found == [tuple(row) for row in rows]


def test_a_column_for_each_class(tmp_path):
    rows = [
        {"has_cat": 1, "has_dog": -1, "n": 5},
        {"has_cat": "true", "has_dog": None, "n": 6},
        {"has_cat": False, "has_dog": 2.5, "n": 7},
    ]
    imgdata.shard(
        raw_lines(tmp_path / "raw", rows), tmp_path / "out", target="multi-label", label_column="has_*", shuffle=False
    )
    assert [one.id for one in imgdata.open(tmp_path / "out").classes] == ["has_cat", "has_dog"]
    assert values(tmp_path / "out") == [[1, 0], [1, 0], [0, 1]]


def test_vectors_are_lists_or_several_columns(tmp_path):
    rows = [{"pose": [number, 0.5], "x": number, "y": 0.5} for number in range(3)]
    folder = raw_lines(tmp_path / "raw", rows)
    for column in "pose", "x,y":
        imgdata.shard(folder, tmp_path / column, target="regression", label_column=column, shuffle=False)
        assert values(tmp_path / column) == [[0, 0.5], [1, 0.5], [2, 0.5]]


@pytest.mark.parametrize(
    ("target", "cells", "message"),
    [
        ("regression", [1, "far"], r"001\.jpg \(column 't'\): must be a number, got 'far'"),
        ("regression", [[1, 2], [1]], r"001\.jpg \(column 't'\): must have 2 numbers as those before, got 1"),
        ("regression", [1, None], r"001\.jpg \(column 't'\): is empty, .* all of a split need a target, or none"),
        ("regression", [None, None], r"000\.jpg \(column 't'\): is empty, and so everywhere"),
        ("soft", [[0.5, 0.5], [-1, 2]], r"001\.jpg .*: must be a number of at least 0, the share of a class, got '-1"),
        ("multi-label", ["a", {"b": 1}], r"001\.jpg \(column 't'\): must be classes, got \"\{'b': 1\}\""),
        ("multi-label", ["a", 1.5], r"must be classes, got '1\.5'"),
    ],
)
def test_cells_that_are_no_target_are_one_error(tmp_path, target, cells, message):
    folder = raw_lines(tmp_path / "raw", [{"t": cell} for cell in cells])
    with pytest.raises(imgdata.SourceError, match=message):
        imgdata.shard(folder, tmp_path / "out", target=target, label_column="t")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "several"}, r"target must be class, multi-label, soft, regression, boxes or none, got 'several'"),
        ({"target": "soft", "label_column": "z"}, r"no column 'z' \(--label-column\); there are tags, age"),
        ({"target": "soft"}, r"name its column with --label-column, or several with commas or \*; there are tags"),
    ],
)
def test_a_target_that_is_not_there_is_refused(tmp_path, options, message):
    with pytest.raises(imgdata.OptionError, match=message):
        imgdata.shard(raw_table(tmp_path / "raw", 4), tmp_path / "out", **options)


def test_class_folders_have_no_columns(tmp_path):
    (tmp_path / "raw" / "cat").mkdir(parents=True)
    (tmp_path / "raw" / "cat" / "1.jpg").write_bytes(sample(1))
    with pytest.raises(imgdata.OptionError, match=r"'multi-label' needs samples with further columns"):
        imgdata.shard(tmp_path / "raw", tmp_path / "out", target="multi-label")


def test_sequences_of_class_labels_of_hugging_face(tmp_path):
    images = [{"bytes": encoded(number, (32, 32)), "path": f"{number}.jpg"} for number in range(3)]
    table = pa.table({"image": images, "labels": [[2], [0, 2], []]})
    label = {"feature": {"names": ["b", "a", "c"], "_type": "ClassLabel"}, "_type": "Sequence"}
    features = {"info": {"features": {"image": {"_type": "Image"}, "labels": label}}}
    (tmp_path / "raw").mkdir()
    pq.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(features)}), tmp_path / "raw" / "train.parquet"
    )
    imgdata.shard(tmp_path / "raw", tmp_path / "out", target="multi-label", label_column="labels", shuffle=False)
    assert [one.id for one in imgdata.open(tmp_path / "out").classes] == ["b", "a", "c"]
    assert values(tmp_path / "out") == [[0, 0, 1], [1, 0, 1], [0, 0, 0]]


def test_python_objects_with_several_labels(tmp_path):
    items = [{"image": encoded(number, (32, 32)), "labels": [number % 2, 2], "n": number} for number in range(4)]
    imgdata.shard(items, tmp_path / "out", target="multi-label", class_names=["x", "y", "z"], shuffle=False)
    assert [one.id for one in imgdata.open(tmp_path / "out").classes] == ["x", "y", "z"]
    assert values(tmp_path / "out") == [[1, 0, 1], [0, 1, 1]] * 2


@pytest.mark.parametrize(
    ("fields", "options", "classes", "found"),
    [
        ([{"t": ["b"]}, {"t": ["a", "b"]}], {"target": "multi-label", "label_from": "json:t"}, "ab", [[0, 1], [1, 1]]),
        ([{"t": [1]}, {"t": []}], {"target": "multi-label", "label_from": "json:t"}, "01", [[0, 1], [0, 0]]),
        ([{"t": 1}, {"t": 2.5}], {"target": "regression", "label_from": "json:t"}, "", [1, 2.5]),
        ([{"t": [1, 0]}, {"t": [0.5, 0.5]}], {"target": "soft", "label_from": "json:t"}, "01", [[1, 0], [0.5, 0.5]]),
        (
            [{"a": 1, "b": 0}, {"a": 0, "b": 1}],
            {"target": "multi-label", "label_from": "json:a,b"},
            "ab",
            [[1, 0], [0, 1]],
        ),
    ],
)
def test_tars_made_elsewhere(tmp_path, fields, options, classes, found):
    members = []
    for number, one in enumerate(fields):
        members += [(f"{number}.jpg", encoded(number, (32, 32))), (f"{number}.json", json.dumps(one).encode())]
    write_tar(tmp_path / "made.tar", members)
    imgdata.index(tmp_path, **options)
    assert values(tmp_path) == found
    assert "".join(one.id for one in imgdata.open(tmp_path).classes) == classes
    # Made anew without options it is the same.
    imgdata.index(tmp_path)
    assert values(tmp_path) == found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "soft"}, r"label_from must name the field .* such as json:tags, or several as json:cat,dog"),
        ({"target": "soft", "label_from": "json:z"}, r"no field 'z' in the json members; there are t"),
    ],
)
def test_a_target_that_tars_do_not_have_is_refused(tmp_path, options, message):
    write_tar(tmp_path / "made.tar", [("0.jpg", encoded(0, (32, 32))), ("0.json", b'{"t": 1}')])
    with pytest.raises(imgdata.OptionError, match=message):
        imgdata.index(tmp_path, **options)
    assert not (tmp_path / "dataset.json").exists()


@pytest.mark.parametrize(
    ("target", "cells", "message"),
    [
        ("soft", [0.1, 0.9], r"column 't' must hold lists of numbers, a share for each class, got number"),
        ("soft", ["ab", "cd"], r"must hold lists of numbers, a share for each class, got text"),
        ("soft", [[0.1, 0.9], [1]], r"must hold lists of one length, a share for each class"),
        ("regression", ["x", "y"], r"must hold numbers, or lists of numbers, got text"),
        ("regression", [[1, 2], [1]], r"must hold lists of one length"),
        ("multi-label", [[["a"]], [["b"]]], r"must hold lists of classes, .*, got JSON"),
        ("multi-label", [[-1], [1]], r"must hold lists of classes, as texts or as whole numbers from 0"),
    ],
)
def test_a_field_of_tars_that_can_not_hold_the_target_is_refused(tmp_path, target, cells, message):
    members = [(f"{n}.{ext}", data) for n, cell in enumerate(cells) for ext, data in sample_of(cell)]
    write_tar(tmp_path / "made.tar", members)
    with pytest.raises(imgdata.ShardError, match=message):
        imgdata.index(tmp_path, target=target, label_from="json:t")
    assert not (tmp_path / "dataset.json").exists()


def sample_of(cell: object) -> list[tuple[str, bytes]]:
    return [("jpg", encoded(0, (32, 32))), ("json", json.dumps({"t": cell}).encode())]


def test_shares_in_lists_of_texts_are_numbers(tmp_path):
    items = [{"image": encoded(number, (32, 32)), "t": ["0.25", "0.75"]} for number in range(2)]
    imgdata.shard(items, tmp_path / "out", target="soft", label_column="t")
    assert values(tmp_path / "out") == [[0.25, 0.75]] * 2


def view_values(folder: Path, text: str) -> list[Any]:
    view = imgdata.open_view(imgdata.open(folder), "train", text)
    assert view.targets is not None
    return view.targets.values(view.position_N).tolist()


def test_views_keep_the_targets_of_their_samples(dataset):
    kind, folder = dataset
    for text in "count=10", "where width>60", "fold=1/5":
        view = imgdata.open_view(imgdata.open(folder), "train", text)
        assert view_values(folder, text) == [expected(kind, position) for position in view.position_N.tolist()]


@pytest.mark.parametrize(
    ("kind", "column", "cell", "target"),
    [
        ("multi-label", "tags", "bird;dog", [1, 0, 1]),
        ("multi-label", "tags", "", [0, 0, 0]),
        ("regression", "age", "7.5", 7.5),
        ("regression", "x,y", "1;2", [1, 2]),
        ("soft", "p,q", "0.25;0.75", [0.25, 0.75]),
    ],
)
def test_a_relabel_changes_targets(tmp_path, monkeypatch, kind, column, cell, target):
    folder = made(tmp_path / "data", kind, column, 8)
    monkeypatch.chdir(tmp_path)
    Path("new.csv").write_text(f"key,label\n003,{cell}\n")
    before, after = view_values(folder, ""), view_values(folder, "relabel=new.csv")
    assert after == [*before[:3], target, *before[4:]]
    opened = imgdata.open(folder)
    saved = imgdata.open_view(opened, "train", "relabel=new.csv")
    imgdata.save_view(saved, "better")
    assert view_values(folder, "better") == after
    assert saved.fingerprint != imgdata.open_view(opened, "train", "").fingerprint


def test_a_relabel_by_a_table_of_classes_makes_it_one_class_each(tmp_path, monkeypatch):
    folder = made(tmp_path / "data", "multi-label", "tags", 8)
    monkeypatch.chdir(tmp_path)
    Path("new.csv").write_text("key,label\n" + "".join(f"{number:03d},{'uv'[number % 2]}\n" for number in range(8)))
    view = imgdata.open_view(imgdata.open(folder), "train", "relabel=new.csv,classes=table")
    assert (view.targets, view.label_N.tolist()) == (None, [0, 1] * 4)


@pytest.mark.parametrize(
    ("kind", "column", "cell", "message"),
    [
        ("multi-label", "tags", "cow", r"a label must be one of the 3 ids or names of classes, got 'cow'"),
        ("regression", "age", "old", r"a target must be a number, got 'old'"),
        ("regression", "x,y", "1", r"a target must be 2 numbers separated by ;, got '1'"),
    ],
)
def test_a_relabel_that_means_nothing_is_refused(tmp_path, monkeypatch, kind, column, cell, message):
    folder = made(tmp_path / "data", kind, column, 4)
    monkeypatch.chdir(tmp_path)
    Path("new.csv").write_text(f"key,label\n003,{cell}\n")
    with pytest.raises(imgdata.OptionError, match=message):
        view_values(folder, "relabel=new.csv")


def test_where_asks_for_any_of_the_classes(tmp_path):
    folder = made(tmp_path, "multi-label", "tags", 8)
    for text, kept in ("class==bird", [3, 7]), ("class in bird,dog", [0, 1, 3, 4, 5, 7]), ("class!=cat", [1, 2, 5, 6]):
        view = imgdata.open_view(imgdata.open(folder), "train", f"where {text}")
        assert view.position_N.tolist() == kept


def test_balance_draws_every_class_as_often(tmp_path):
    folder = made(tmp_path, "multi-label", "tags")
    view = imgdata.open_view(imgdata.open(folder), "train", "balance,length=400")
    drawn = np.bincount(view.position_N[view.epoch_rows(0)] % 4, minlength=4)
    # Each class has a third: birds are those with a cat too.
    assert drawn[2] == 0
    assert np.allclose(drawn / 400, [1 / 3, 1 / 6, 0, 1 / 2], atol=0.02)


def test_balance_leaves_out_images_whose_shares_are_not_known(tmp_path):
    shares = [{"p": 1, "q": 0}, {"p": 0, "q": 1}, {"other": 1}, {"p": 1, "q": 0}]
    members = [
        (f"{number}.{ext}", data)
        for number, fields in enumerate(shares)
        for ext, data in (("jpg", encoded(number, (32, 32))), ("json", json.dumps(fields).encode()))
    ]
    write_tar(tmp_path / "made.tar", members)
    imgdata.index(tmp_path, target="soft", label_from="json:p,q")
    view = imgdata.open_view(imgdata.open(tmp_path), "train", "balance,length=40")
    assert np.bincount(view.position_N[view.epoch_rows(0)], minlength=4).tolist() == [10, 20, 0, 10]


def test_balance_of_numbers_needs_weights(tmp_path):
    folder = made(tmp_path, "regression", "age", 4)
    with pytest.raises(imgdata.OptionError, match=r"balance: samples must have classes, got numbers; give weights"):
        imgdata.open_view(imgdata.open(folder), "train", "balance")


@pytest.mark.parametrize("kind", KINDS)
def test_raw_images_in_place_have_the_same_targets(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))
    read = imgdata.SourceOptions(target=kind, label_column=KINDS[kind])
    opened = imgdata.open(raw_table(tmp_path / "raw", 12), read)
    targets = opened.targets("train")
    assert targets is not None
    found = targets.values(np.arange(12)).tolist()
    assert found == [expected(kind, int(sample.key)) for sample in opened["train"]]


def test_a_map_style_dataset_of_pytorch_gives_them_too(dataset):
    kind, folder = dataset
    shown = imgdata.open(folder).torch("train")
    _, target = shown[3]
    assert target.dtype == torch.float32
    assert target.tolist() == pytest.approx(expected(kind, 3))
    loader = torch.utils.data.DataLoader(imgdata.open(folder).torch("train", transform=lambda image: 0), batch_size=4)
    _, targets = next(iter(loader))
    assert targets.tolist() == [expected(kind, position) for position in range(4)]
