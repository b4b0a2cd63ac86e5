"""Every layout that `imgdata shard` takes opens where it lies, with the samples of its shards."""

import csv
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import imgdata
from benchmarks import data
from imgdata.errors import OptionError, ShardError, SourceError
from support.loose import batches, facts, files_below, samples
from support.rawdata import class_folders, encoded
from support.tars import shard_writer, write_tar


def folders(root: Path) -> Path:
    return class_folders(root / "raw", {"train": 4, "val": 2, "test": 1})


def no_splits(root: Path) -> Path:
    return class_folders(root / "raw", {"": 3})


def table(root: Path) -> Path:
    raw = root / "raw"
    (raw / "images").mkdir(parents=True)
    rows = []
    for number in range(8):
        (raw / "images" / f"{number}.jpg").write_bytes(encoded(number))
        rows.append([f"images/{number}.jpg", ("cat", "dog")[number % 2], number])
    with open(raw / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "patient"], *rows])
    return raw


def webdataset(root: Path) -> Path:
    return shard_writer(root / "raw", {"train": 7, "val": 3}, json=True)


def cifar_archive(root: Path) -> Path:
    return data.write_cifar10_python(root / "cifar-10-python.tar.gz", data.cifar10(train=12, test=4))


def cifar_100(root: Path) -> Path:
    return data.write_cifar100_python(root / "cifar-100-python", data.cifar100(train=103, test=2))


def parquet(root: Path) -> Path:
    raw = root / "raw"
    (raw / "data").mkdir(parents=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for split, first in (("train", 0), ("test", 6)):
        rows = [{"bytes": encoded(first + row), "path": f"{split}_{row}.jpg"} for row in range(6)]
        columns = {"image": pa.array(rows, kind), "label": [row % 2 for row in range(6)], "age": list(range(6))}
        pq.write_table(pa.table(columns), raw / "data" / f"{split}-00000-of-00001.parquet", row_group_size=4)
    return raw


def arrays(root: Path) -> Path:
    generator = np.random.Generator(np.random.Philox(key=[1, 1]))
    parts = {
        f"{what}_{split}": values
        for split, count in (("train", 9), ("test", 3))
        for what, values in (
            ("x", generator.integers(0, 256, (count, 8, 9), np.uint8)),
            ("y", np.arange(count) % 3),
        )
    }
    np.savez(root / "mnist.npz", **parts)
    return root / "mnist.npz"


def class_tars(root: Path) -> Path:
    raw = root / "raw" / "train"
    for number, wnid in enumerate(("n01440764", "n01443537")):
        members = [(f"{wnid}_{row}.JPEG", encoded(10 * number + row)) for row in range(4)]
        write_tar(raw / f"{wnid}.tar", members)
    return root / "raw"


LAYOUTS: list[Callable[[Path], Path]] = [
    folders,
    no_splits,
    table,
    webdataset,
    cifar_archive,
    cifar_100,
    parquet,
    arrays,
    class_tars,
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_raw_dataset_opens_with_the_samples_of_its_shards_in_their_order(tmp_path, layout):
    raw = layout(tmp_path)
    imgdata.shard(raw, tmp_path / "out", workers=1)
    loose, sharded = imgdata.open(raw), imgdata.open(tmp_path / "out")
    assert loose.is_loose
    assert not sharded.is_loose
    assert (loose.name, loose.classes, list(loose)) == (sharded.name, sharded.classes, list(sharded))
    for split in sharded:
        assert samples(loose[split]) == samples(sharded[split])
        assert facts(loose[split]) == facts(sharded[split])
        every = range(len(sharded[split]))
        assert [loose[split].metadata(row) for row in every] == [sharded[split].metadata(row) for row in every]


IMAGENET = [
    data.write_imagenet_folders,
    data.write_imagenet_official,
    data.write_imagenet_kaggle,
    partial(data.write_imagenet_flat_val, labels="devkit"),
]


@pytest.mark.parametrize("write", IMAGENET)
def test_the_layouts_of_imagenet_open_with_their_class_names(tmp_path, write):
    raw = write(tmp_path / "raw", data.imagenet(classes=3, per_class=2, val=4, size=(24, 18)))
    imgdata.shard(raw, tmp_path / "out", workers=1)
    loose, sharded = imgdata.open(raw), imgdata.open(tmp_path / "out")
    assert (loose.classes, list(loose)) == (sharded.classes, list(sharded))
    assert all(samples(loose[split]) == samples(sharded[split]) for split in sharded)


def test_a_loader_makes_the_batches_that_it_makes_of_the_shards(tmp_path, backend):
    raw = folders(tmp_path)
    (raw / "train" / "cat" / "other.png").write_bytes(encoded(90, format="PNG"))
    imgdata.shard(raw, tmp_path / "out", workers=1)
    loose, sharded = batches(raw, epochs=2), batches(tmp_path / "out", epochs=2)
    assert len(loose) == len(sharded) == 2
    for ours, theirs in zip(loose, sharded, strict=True):
        for left, right in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("world_size", [1, 2])
def test_ranks_share_raw_images_as_they_share_shards(tmp_path, world_size):
    raw = folders(tmp_path)
    imgdata.shard(raw, tmp_path / "out", workers=1)
    for rank in range(world_size):
        given = {"rank": rank, "world_size": world_size, "batch_size": 3, "seed": 5}
        positions = [[batch[2].tolist() for batch in batches(one, **given)] for one in (raw, tmp_path / "out")]
        assert positions[0] == positions[1]


def test_a_folder_without_splits_is_one_split_whose_parts_are_views(tmp_path):
    dataset = imgdata.open(no_splits(tmp_path))
    assert list(dataset) == ["train"]
    parts = [imgdata.open_view(dataset, "train", f"fold=1/3,part={part}") for part in ("train", "held")]
    assert sorted(np.concatenate([part.position_N for part in parts]).tolist()) == list(range(9))


@pytest.mark.parametrize(
    ("make", "place", "given"),
    [
        (table, "raw", "."),
        (table, "raw", "labels.csv"),
        (table, ".", "raw/labels.csv"),
        (table, ".", "raw"),
        (webdataset, "raw", "."),
        (webdataset, ".", "raw"),
        (webdataset, "raw", "demo-train-000000.tar"),
    ],
)
def test_a_raw_dataset_may_be_one_file_and_named_from_the_working_directory(tmp_path, monkeypatch, make, place, given):
    make(tmp_path)
    monkeypatch.chdir(tmp_path / place)
    whole, opened = (imgdata.open(path)["train"] for path in (Path(given).absolute(), given))
    assert samples(opened) == samples(whole)


def test_a_tar_may_have_a_name_of_any_bytes(tmp_path):
    webdataset(tmp_path)
    name = os.fsdecode(b"demo-train-\xfe.tar")
    (tmp_path / "raw" / "demo-train-000000.tar").rename(tmp_path / "raw" / name)
    assert len(samples(imgdata.open(tmp_path / "raw")["train"])) == 7


def test_nothing_is_written_beside_the_images(tmp_path):
    raw = folders(tmp_path)
    before = files_below(tmp_path)
    dataset = imgdata.open(raw)
    imgdata.save_view(imgdata.open_view(dataset, "train", "fraction=0.5"), "half")
    batches(raw)
    imgdata.audit(raw, only=("quality",))
    assert files_below(tmp_path) == before


def test_a_saved_view_of_a_raw_dataset_lies_in_the_users_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGDATA_DATA", str(tmp_path / "data"))
    dataset = imgdata.open(folders(tmp_path))
    path = imgdata.save_view(imgdata.open_view(dataset, "train", "count=5"), "five")
    assert path.is_relative_to(tmp_path / "data")
    assert imgdata.list_views(imgdata.open(tmp_path / "raw")) == ["five"]
    assert len(imgdata.load_view(imgdata.open(tmp_path / "raw"), "five")) == 5
    with imgdata.Loader(tmp_path / "raw", split="train", batch_size=2, recipe="cifar_eval", view="five") as loader:
        assert sum(len(batch) for batch in loader) == 4


def test_a_moved_copy_of_the_folder_resumes_a_run(tmp_path):
    raw = folders(tmp_path)
    with imgdata.Loader(raw, split="train", batch_size=4, recipe="cifar_train") as loader:
        batch = iter(loader)
        next(batch)
        state, rest = loader.state_dict(), [one.positions.tolist() for one in batch]
    shutil.copytree(raw, tmp_path / "copy" / "raw", copy_function=shutil.copyfile)
    with imgdata.Loader(tmp_path / "copy" / "raw", split="train", batch_size=4, recipe="cifar_train") as loader:
        loader.load_state_dict(state)
        assert [one.positions.tolist() for one in loader] == rest


def test_options_say_what_a_layout_leaves_open(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in range(3):
        (raw / f"{number}.jpg").write_bytes(encoded(number))
    with pytest.raises(ShardError, match=r"no dataset.json.*As raw images: .*no labels"):
        imgdata.open(raw)
    dataset = imgdata.open(raw, imgdata.SourceOptions(label_from="none"))
    assert dataset["train"].index.label_N.tolist() == [-1, -1, -1]
    with pytest.raises(SourceError, match="CIFAR"):
        imgdata.open(raw, imgdata.SourceOptions(kind="cifar"))


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda raw: None, "the folder is empty"),
        (lambda raw: (raw / "notes.txt").write_text("x"), "no known layout"),
        (lambda raw: (raw / "cat").mkdir(), "no known layout"),
        (lambda raw: (raw / "images.zip").write_bytes(b"PK\3\4"), "zip"),
    ],
)
def test_a_folder_that_is_no_dataset_says_what_was_tried(tmp_path, prepare, message):
    raw = tmp_path / "raw"
    raw.mkdir()
    prepare(raw)
    with pytest.raises(
        ShardError, match=f"(?s)no dataset.json and no tars in it.*As raw images: .*{message}"
    ) as raised:
        imgdata.open(raw)
    assert "make a dataset" not in str(raised.value), "which would fail for the same reason"
    assert str(raised.value).count(str(raw)) == 1


def test_images_that_lie_in_no_files_are_refused_where_the_cache_may_not_hold_them(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE_GB", "0.0000001")
    with pytest.raises(OptionError, match=r"cifar.*imgdata shard .* OUT.*IMGDATA_CACHE_GB"):
        imgdata.open(cifar_archive(tmp_path))


def test_columns_of_a_table_come_along_with_the_batches(tmp_path):
    raw = table(tmp_path)
    imgdata.shard(raw, tmp_path / "out", workers=1)
    given = {"split": "train", "batch_size": 4, "recipe": "cifar_eval", "columns": ["patient", "key"]}
    found = []
    for source in (raw, tmp_path / "out"):
        assert imgdata.open(source)["train"].columns.types == {"patient": "whole number"}
        with imgdata.Loader(source, **given) as loader:
            found.append([(batch.columns["patient"].tolist(), batch.keys) for batch in loader])
    assert found[0] == found[1]
