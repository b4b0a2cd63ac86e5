"""Pictures with masks and boxes where they lie: the samples and batches of their shards, and every change is seen."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

import imgdata
from imgdata.errors import SourceError
from support.loaders import TRAIN
from support.loose import OLD_S, aged, samples
from support.masks import image_folder, numbers, png
from support.rawdata import encoded
from support.tars import write_tar

XML = "<annotation><object><name>cat</name><bndbox>{}</bndbox></object></annotation>"


def pairs(root: Path) -> Path:
    return image_folder(root / "raw", {"train": 5, "val": 2})


def voc(root: Path) -> Path:
    raw = root / "raw"
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (raw / folder).mkdir(parents=True)
    for number in range(4):
        (raw / f"JPEGImages/{number}.jpg").write_bytes(encoded(number))
        (raw / f"SegmentationClass/{number}.png").write_bytes(png(numbers(number), "P"))
        corners = zip(("xmin", "ymin", "xmax", "ymax"), (3, 4, 30 + number, 40), strict=True)
        box = "".join(f"<{name}>{value}</{name}>" for name, value in corners)
        (raw / f"Annotations/{number}.xml").write_text(XML.format(box))
    (raw / "ImageSets/Segmentation/train.txt").write_text("0\n1\n2\n")
    (raw / "ImageSets/Segmentation/val.txt").write_text("3\n")
    return raw


def table(root: Path) -> Path:
    raw = root / "raw"
    (raw / "in").mkdir(parents=True)
    rows = []
    for number in range(4):
        (raw / f"in/{number}.jpg").write_bytes(encoded(number))
        (raw / f"in/{number}.png").write_bytes(png(numbers(number)))
        rows.append([f"in/{number}.jpg", f"in/{number}.png", "ab"[number % 2]])
    with open(raw / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "mask", "label"], *rows])
    return raw


def tars(root: Path) -> Path:
    """Masks beside their pictures in two tars."""
    for tar in range(2):
        members = []
        for number in range(3):
            seed = 3 * tar + number
            files = (("jpg", encoded(seed)), ("mask.png", png(numbers(seed))), ("cls", b"0"))
            members += [(f"{seed}.{extension}", data) for extension, data in files]
        write_tar(root / f"raw/train-{tar}.tar", members)
    return root / "raw"


@pytest.mark.parametrize("layout", [pairs, voc, table, tars])
def test_masks_boxes_and_batches_are_those_of_the_shards(tmp_path, layout):
    raw = layout(tmp_path)
    options = {"mask_column": "mask"} if layout is table else {}
    imgdata.shard(raw, tmp_path / "out", workers=1, **options)
    loose, sharded = imgdata.open(raw, imgdata.SourceOptions(**options)), imgdata.open(tmp_path / "out")
    assert (loose.classes, list(loose)) == (sharded.classes, list(sharded))
    for split in sharded:
        assert samples(loose[split]) == samples(sharded[split])
        assert [one.members for one in loose[split]] == [one.members for one in sharded[split]]
        assert all("mask" in one.members for one in loose[split])
        boxes = [[one.fields.get(name) for name in ("boxes", "box_labels")] for one in sharded[split]]
        assert [[one.fields.get(name) for name in ("boxes", "box_labels")] for one in loose[split]] == boxes
    found = []
    for dataset in (loose, sharded):
        joint = ["mask", *(["boxes"] if layout is voc else [])]
        with imgdata.Loader(dataset, **{**TRAIN, "batch_size": 2}, joint=joint) as loader:
            found.append([{"pictures": batch.images, **batch.columns} for batch in loader])
    for ours, theirs in zip(*found, strict=True):
        assert list(ours) == list(theirs)
        assert {*joint} < set(ours)
        for name in ours:
            for left, right in zip(ours[name], theirs[name], strict=True):
                np.testing.assert_array_equal(left.numpy(), right.numpy())


def test_every_backend_reads_masks_in_place(tmp_path, backend):
    raw = pairs(tmp_path)
    imgdata.shard(raw, tmp_path / "out", workers=1)
    found = []
    for dataset in (raw, tmp_path / "out"):
        with imgdata.Loader(dataset, **{**TRAIN, "batch_size": 2}, joint=["mask"]) as loader:
            found.append([batch.columns["mask"].tolist() for batch in loader])
    assert len(found[0]) == 2
    assert found[0] == found[1]


def test_a_split_without_masks_opens_beside_one_with_them(tmp_path):
    raw = pairs(tmp_path)
    (raw / "images/test").mkdir()
    (raw / "images/test/1.jpg").write_bytes(encoded(1))
    dataset = imgdata.open(raw)
    assert dataset["test"][0].members == {}
    assert list(dataset["val"][0].members) == ["mask"]


@pytest.mark.filterwarnings("ignore::imgdata.BadImageWarning")
@pytest.mark.parametrize("data", [None, b"", b"no mask"], ids=["missing", "empty", "no picture"])
def test_a_picture_without_a_good_mask_is_replaced_or_named(tmp_path, data):
    raw = pairs(tmp_path)
    mask = raw / "masks/train/001.png"
    mask.unlink() if data is None else mask.write_bytes(data)
    options = {**TRAIN, "batch_size": 5, "joint": ["mask"]}
    with imgdata.Loader(raw, **options) as loader:
        batch = next(iter(loader))
    assert len(batch.columns["mask"]) == 5
    assert imgdata.open(raw)["train"].find("train/001") not in batch.positions.tolist()
    with (
        pytest.raises(imgdata.ImageError, match=r"train/001 in split train: it"),
        imgdata.Loader(raw, **options, on_bad="raise") as loader,
    ):
        next(iter(loader))


def other_size(file: Path) -> None:
    file.write_bytes(png(numbers(77, (20, 20))))


def other_content(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    os.utime(file, (OLD_S + 5, OLD_S + 5))


@pytest.mark.parametrize("change", [Path.unlink, other_size, other_content])
def test_a_mask_that_changed_since_it_was_listed_is_named(tmp_path, change):
    raw = aged(pairs(tmp_path))
    dataset = imgdata.open(raw)
    change(raw / "masks/train/001.png")
    with pytest.raises(SourceError, match=r"masks/train/001\.png: (gone|changed) since the folder was opened"):
        dataset["train"]["train/001"]
    with (
        pytest.raises(SourceError, match=r"masks/train/001\.png: (gone|changed) since the folder was opened"),
        imgdata.Loader(dataset, **{**TRAIN, "batch_size": 5}, joint=["mask"]) as loader,
    ):
        next(iter(loader))


@pytest.mark.parametrize("file", ["masks/train/001.png", "Annotations/1.xml"])
def test_a_change_between_two_runs_is_seen_by_the_next(tmp_path, file):
    raw = aged((voc if file.startswith("Ann") else pairs)(tmp_path))
    key = f"train/{Path(file).stem}"
    before = imgdata.open(raw)["train"][key]
    path = raw / file
    path.write_text(path.read_text().replace("<xmin>3<", "<xmin>9<")) if path.suffix == ".xml" else other_size(path)
    after = imgdata.open(raw)["train"][key]
    assert (before.members, before.fields) != (after.members, after.fields)
