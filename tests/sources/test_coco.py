"""COCO's annotations as a source: captions, categories, places of the images, what is damaged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import imgdata
from support.loaders import loader, sample

CATEGORIES = [{"id": 7, "name": "zebra"}, {"id": 2, "name": "cat"}]


def coco(folder: Path, *, images: str = "train2017", **files: Any) -> Path:
    """A folder as COCO's: three pictures, two with annotations."""
    (folder / images).mkdir(parents=True)
    (folder / "annotations").mkdir()
    for number in (1, 2, 3):
        (folder / images / f"{number:012d}.jpg").write_bytes(sample(number))
    named = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in (3, 1, 2)]
    captions = [
        {"id": 12, "image_id": 1, "caption": "second"},
        {"id": 11, "image_id": 1, "caption": "first"},
        {"id": 13, "image_id": 3, "caption": "third"},
    ]
    instances = [
        {"id": 1, "image_id": 1, "category_id": 7},
        {"id": 2, "image_id": 1, "category_id": 2},
        {"id": 3, "image_id": 1, "category_id": 7},
        {"id": 4, "image_id": 2, "category_id": 2},
    ]
    content = {
        "captions": {"images": named, "annotations": captions},
        "instances": {"images": named, "annotations": instances, "categories": CATEGORIES},
    }
    for kind, value in {**content, **files}.items():
        if value is not None:
            (folder / "annotations" / f"{kind}_train2017.json").write_text(json.dumps(value))
    return folder


@pytest.mark.parametrize("images", ["train2017", "images/train2017", "images"])
def test_captions_and_categories_are_columns(tmp_path, images):
    imgdata.shard(coco(tmp_path / "coco", images=images), tmp_path / "out", shuffle=False)
    opened = imgdata.open(tmp_path / "out")["train"]
    assert [one.fields["captions"] for one in opened] == [["first", "second"], [], ["third"]]
    assert [one.fields["labels"] for one in opened] == [["zebra", "cat"], ["cat"], []]
    assert [one.fields["image_id"] for one in opened] == [1, 2, 3]
    with loader(tmp_path / "out", batch_size=3, columns=["captions"], shuffle="none") as batches:
        assert next(iter(batches)).columns["captions"] == [["first", "second"], [], ["third"]]


def test_categories_become_the_target_in_the_order_of_their_ids(tmp_path):
    imgdata.shard(coco(tmp_path / "coco"), tmp_path / "out", target="multi-label", shuffle=False)
    opened = imgdata.open(tmp_path / "out")
    assert [one.id for one in opened.classes] == ["cat", "zebra"]
    targets = opened.targets("train")
    assert targets is not None
    assert targets.values(np.arange(3)).tolist() == [[1, 1], [1, 0], [0, 0]]


def test_captions_alone(tmp_path):
    imgdata.shard(coco(tmp_path / "coco", instances=None), tmp_path / "out", shuffle=False)
    assert "labels" not in imgdata.open(tmp_path / "out")["train"][0].fields


def test_a_file_that_is_not_there_is_rejected_as_missing(tmp_path):
    folder = coco(tmp_path / "coco")
    (folder / "train2017" / "000000000002.jpg").unlink()
    summary = imgdata.shard(folder, tmp_path / "out")
    assert (summary.samples, dict(summary.rejected)) == (2, {"missing": 1})


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ([], r"captions_train2017\.json: must be annotations as COCO has them"),
        ({"images": [], "annotations": [{"id": 1}]}, r"must be annotations as COCO has them, got KeyError: 'image_id'"),
        ({"images": [{"id": 1, "file_name": "../x.jpg"}], "annotations": []}, r"leads out of the folder"),
    ],
)
def test_annotations_that_are_none_are_one_error(tmp_path, captions, message):
    with pytest.raises(imgdata.SourceError, match=message):
        imgdata.shard(coco(tmp_path / "coco", captions=captions), tmp_path / "out")
