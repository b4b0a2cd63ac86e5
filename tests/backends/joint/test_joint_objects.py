"""Boxes, keypoints and fields beside them as datasets have them: lists of many forms, or what is wrong with them."""

import numpy as np
import pytest

import imgdata
from imgdata.recipes import CenterCrop, HorizontalFlip, Recipe
from support.joint import encoded, numbers

RECIPE = Recipe(CenterCrop((48, 48)), HorizontalFlip(p=1.0))
BOX, MIRRORED = [2, 3, 12, 23], [36, 3, 46, 23]
POINTS = [[[4, 5, 2], [6, 7, 1]]]


def batch(tmp_path, rows, joint):
    """The one batch of samples with these fields, of pictures of 48 x 48 pixels, mirrored."""
    image = encoded(numbers(0)[:48, :48])
    imgdata.shard([{"image": image, **row} for row in rows], tmp_path / "out", shuffle=False)
    with imgdata.Loader(
        tmp_path / "out", split="train", batch_size=len(rows), recipe=RECIPE, joint=joint, shuffle="none"
    ) as batches:
        [made] = batches
        return made, batches.bad


@pytest.mark.parametrize("boxes", [[BOX], BOX, [[2.0, 3, 12, 23]]])
def test_boxes_may_be_lists_of_four_or_one_flat_list(tmp_path, boxes):
    made, _ = batch(tmp_path, [{"boxes": boxes, "box_labels": [7]}, {"boxes": boxes, "box_labels": [1]}], ["boxes"])
    assert [box.tolist() for box in made.columns["boxes"]] == [[MIRRORED]] * 2
    assert [labels.tolist() for labels in made.columns["box_labels"]] == [[7], [1]]


def test_samples_without_boxes_have_empty_ones(tmp_path):
    rows = [{"boxes": [BOX], "box_labels": [3]}, {"boxes": [], "box_labels": []}, {"other": 1}]
    made, bad = batch(tmp_path, rows, ["boxes"])
    assert [tuple(box.shape) for box in made.columns["boxes"]] == [(1, 4), (0, 4), (0, 4)]
    assert [labels.tolist() for labels in made.columns["box_labels"]] == [[3], [], []]
    assert not bad


def test_keypoints_may_be_alone_and_of_several_counts(tmp_path):
    rows = [{"keypoints": POINTS}, {"keypoints": []}, {"keypoints": [[[1, 1, 1]], [[2, 2, 2]]]}]
    made, bad = batch(tmp_path, rows, ["keypoints"])
    assert [tuple(points.shape) for points in made.columns["keypoints"]] == [(1, 2, 3), (0, 0, 3), (2, 1, 3)]
    assert made.columns["keypoints"][0].tolist() == [[[43, 5, 2], [41, 7, 1]]]
    assert not bad


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"boxes": [[1, 2, 3]]}, "boxes of the json member must be a list of [left, top, right, bottom]"),
        ({"boxes": [["a", 2, 3, 4]]}, "boxes of the json member must be a list of"),
        ({"boxes": {"left": 1}}, "boxes of the json member must be a list of"),
        ({"boxes": [BOX], "keypoints": [[1, 2]]}, "keypoints of the json member must be a list of objects, each"),
        ({"boxes": [BOX], "keypoints": POINTS * 2}, "as many of each, got 1 boxes, 2 keypoints"),
        ({"boxes": [BOX], "box_labels": [[1]]}, "box_labels of the json member must be a list with a number for each"),
        ({"boxes": [BOX], "box_labels": ["cat"]}, "box_labels of the json member must be a list with a number for"),
    ],
)
def test_what_are_no_boxes_makes_the_sample_bad(tmp_path, row, message):
    good = {"boxes": [BOX], "keypoints": POINTS, "box_labels": [1]}
    with pytest.warns(imgdata.BadImageWarning):
        made, bad = batch(tmp_path, [good, {**good, **row}], ["boxes", "keypoints"])
    assert message in bad[0].detail
    assert [len(boxes) for boxes in made.columns["boxes"]] == [1, 0]
    assert made.valid.tolist() == [True, False]
    assert np.count_nonzero(made.images[1]) == 0
