"""Columns and keys of a loader's batches: what they are, on every backend, in views, ranks, resumes and mixes."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import imgdata
from imgdata.recipes import MixUp
from support.loaders import SAMPLES, as_saved, damaged, loader, sample
from support.rawdata import encoded
from support.tars import write_tar

NAMES = ["caption", "weight", "number", "box", "words", "ids", "nested", "sure", "gap", "key", "width"]


def row(number: int) -> dict[str, Any]:
    """The columns of one sample, of every type that there is."""
    return {
        "caption": f"picture {number}",
        "weight": number / 4,
        "number": number,
        "box": [number, 0.5],
        "words": ["a", "b"][: number % 3],
        "ids": list(range(number % 3)),
        "nested": {"of": number},
        "sure": number % 2 == 0,
        "gap": number if number % 2 else None,
    }


def raw(folder: Path, count: int = SAMPLES, bad: tuple[int, ...] = ()) -> Path:
    """Pictures in three classes and a table of them."""
    folder.mkdir()
    lines = []
    for number in range(count):
        (folder / f"{number:03d}.jpg").write_bytes(damaged(number) if number in bad else sample(number))
        lines.append(json.dumps({"file_name": f"{number:03d}.jpg", "label": "abc"[number % 3], **row(number)}))
    (folder / "table.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def columns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose samples have further columns; not to be changed."""
    folder = tmp_path_factory.mktemp("columns")
    imgdata.shard(raw(folder / "raw"), folder / "out", shard_samples=7, shuffle=False, workers=1)
    return folder / "out"


def check(batch: imgdata.Batch) -> None:
    """Every value is that of the sample at its position."""
    shown = [row(position) for position in batch.positions.tolist()]
    found = batch.columns
    assert found["caption"] == [one["caption"] for one in shown]
    assert found["words"] == [one["words"] for one in shown]
    assert found["nested"] == [one["nested"] for one in shown]
    assert torch.equal(found["weight"], torch.tensor([one["weight"] for one in shown]))
    assert torch.equal(found["number"], torch.tensor([one["number"] for one in shown]))
    assert torch.equal(found["box"], torch.tensor([one["box"] for one in shown]))
    assert torch.equal(found["sure"], torch.tensor([one["sure"] for one in shown]))
    gap = torch.tensor([float("nan") if one["gap"] is None else one["gap"] for one in shown])
    assert torch.equal(found["gap"].nan_to_num(-1), gap.nan_to_num(-1))
    assert [ids.tolist() for ids in found["ids"]] == [one["ids"] for one in shown]
    assert found["key"] == batch.keys == [f"{position:03d}" for position in batch.positions.tolist()]
    assert found["width"].tolist() == [48 + position % 32 for position in batch.positions.tolist()]


def test_every_backend_brings_the_columns_of_its_samples_along(columns, backend):
    with loader(columns, columns=NAMES) as batches:
        for batch in batches:
            assert list(batch.columns) == NAMES
            check(batch)


@pytest.mark.parametrize(
    ("name", "dtype", "shape"),
    [
        ("weight", torch.float32, (8,)),
        ("number", torch.int64, (8,)),
        ("sure", torch.bool, (8,)),
        ("gap", torch.float32, (8,)),
        ("box", torch.float32, (8, 2)),
        ("label", torch.int64, (8,)),
    ],
)
def test_numbers_are_tensors(columns, name, dtype, shape):
    with loader(columns, columns=[name]) as batches:
        found = next(iter(batches)).columns[name]
    assert (found.dtype, tuple(found.shape)) == (dtype, shape)


def test_nothing_is_there_that_was_not_asked_for(columns, images):
    for folder in columns, images:
        with loader(folder) as batches:
            assert next(iter(batches)).columns == {}


@pytest.mark.parametrize("view", ["fraction=0.5", "where width>60", "balance", "relabel=new.csv"])
def test_views_keep_the_columns(columns, view, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("new.csv").write_text("key,label\n003,b\n004,c\n")
    with loader(columns, view=view, columns=NAMES) as batches:
        for batch in batches:
            check(batch)


def test_ranks_share_the_columns_of_one_epoch(columns):
    numbers = []
    for rank in range(2):
        with loader(columns, columns=NAMES, batch_size=4, rank=rank, world_size=2) as batches:
            for batch in batches:
                check(batch)
                numbers += batch.columns["number"].tolist()
    with loader(columns, columns=["number"]) as batches:
        assert sorted(numbers) == sorted(one for batch in batches for one in batch.columns["number"].tolist())


def test_a_resumed_loader_has_the_same_columns(columns):
    with loader(columns, columns=["caption"]) as batches:
        taken = iter(batches)
        next(taken)
        state = as_saved(batches.state_dict())
        rest = [batch.columns["caption"] for batch in taken]
    with loader(columns, columns=["caption"]) as batches:
        batches.load_state_dict(state)
        assert [batch.columns["caption"] for batch in batches] == rest


def test_columns_are_those_of_the_own_sample_where_samples_are_mixed(columns, backend):
    with loader(columns, more=[MixUp(alpha=1.0)], columns=NAMES) as batches:
        check(next(iter(batches)))


@pytest.mark.parametrize("on_bad", ["replace", "skip"])
def test_the_columns_of_a_bad_sample_go_with_it(tmp_path, on_bad):
    imgdata.shard(raw(tmp_path / "raw", 24, bad=(5,)), tmp_path / "out", check="header", shuffle=False, workers=1)
    with loader(tmp_path / "out", columns=NAMES, shuffle="none", on_bad=on_bad) as batches:
        with pytest.warns(imgdata.BadImageWarning):
            taken = list(batches)
        for batch in taken:
            check(batch)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["captoin"], r"columns must be among caption, .*, got 'captoin' \(did you mean 'caption'\?\)"),
        ([3], r"columns must be names of columns, such as \['caption', 'weight'\], got \[3\]"),
    ],
)
def test_a_column_that_is_not_there_is_refused_at_once(columns, names, message):
    with pytest.raises(imgdata.OptionError, match=message):
        loader(columns, columns=names)


def test_a_batch_that_moves_takes_its_columns_along(columns):
    with loader(columns, columns=NAMES) as batches:
        batch = next(iter(batches))
    moved = batch.to("meta")
    assert moved.columns["weight"].device.type == "meta"
    assert moved.columns["caption"] == batch.columns["caption"]
    assert moved.keys == batch.keys


def test_a_batch_can_be_pickled_with_its_columns_and_keys(columns):
    with loader(columns, columns=NAMES) as batches:
        check(pickle.loads(pickle.dumps(next(iter(batches)))))


def test_a_dataset_without_a_file_of_columns_reads_its_json_members_once(columns, tmp_path, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))
    old = tmp_path / "old"
    old.mkdir()
    manifest = json.loads((columns / "dataset.json").read_text())
    manifest["files"] = {name: value for name, value in manifest["files"].items() if "columns" not in name}
    for path in columns.iterdir():
        if "columns" not in path.name:
            (old / path.name).write_bytes(path.read_bytes())
    (old / "dataset.json").write_text(json.dumps(manifest))
    for _ in range(2):
        with loader(old, columns=NAMES) as batches:
            for batch in batches:
                check(batch)
        for path in old.glob("*.tar"):
            data = bytearray(path.read_bytes())
            # No json member is read again.
            data = data.replace(b'"caption":', b'"caption"!')
            path.write_bytes(data)


def test_tars_made_elsewhere_have_their_json_and_txt_members_as_columns(tmp_path):
    for shard in range(2):
        members = []
        for number in range(shard * 3, shard * 3 + 3):
            members += [
                (f"{number}.jpg", encoded(number, (32, 32))),
                (f"{number}.json", json.dumps({"score": number / 2, "tags": ["x"] * number}).encode()),
                (f"{number}.txt", f"a long text about picture {number}".encode()),
            ]
        write_tar(tmp_path / f"made-{shard}.tar", members)
    imgdata.index(tmp_path, label_from="none")
    assert imgdata.open(tmp_path)["train"].columns.types == {
        "score": "number",
        "tags": "list of texts",
        "txt": "text",
    }
    with loader(tmp_path, batch_size=6, columns=["txt", "score", "tags"], shuffle="none") as batches:
        found = next(iter(batches)).columns
    assert found["txt"] == [f"a long text about picture {number}" for number in range(6)]
    assert found["score"].tolist() == [number / 2 for number in range(6)]
    assert found["tags"] == [["x"] * number for number in range(6)]


def test_exact_values_are_at_hand_without_a_loader(columns):
    found = imgdata.open(columns)["train"].columns.values("weight", np.array([3, 1]))
    assert (found.dtype, found.tolist()) == (np.float64, [0.75, 0.25])


def test_inspect_shows_columns_and_types(columns):
    summary = imgdata.inspect(columns)
    assert summary.splits["train"].columns == {
        "caption": "text",
        "weight": "number",
        "number": "whole number",
        "box": "list of 2 numbers",
        "words": "list of texts",
        "ids": "list of whole numbers",
        "nested": "JSON",
        "sure": "truth",
        "gap": "whole number",
    }
    assert "columns  caption (text), weight (number)" in str(summary)


def test_a_damaged_file_of_columns_is_one_error(columns, tmp_path):
    for path in columns.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (path,) = tmp_path.glob("*.columns.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(imgdata.ShardError, match=r"columns\.parquet: damaged columns .*rebuild it with `imgdata index"):
        loader(tmp_path, columns=["caption"])
    assert [fault.shard for fault in imgdata.verify(tmp_path)] == [path.name]
    imgdata.index(tmp_path)
    assert imgdata.verify(tmp_path) == []
    assert path.read_bytes() == (columns / path.name).read_bytes()
