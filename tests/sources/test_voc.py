"""Pascal VOC as a source: masks, boxes, lists of splits, what is damaged."""

import numpy as np
import pytest

import imgdata
from imgdata.errors import SourceError
from support.masks import numbers, png
from support.rawdata import encoded

OBJECT = """
	<object>
		<name>{name}</name>
		<pose>Left</pose>
		<difficult>{difficult}</difficult>
		<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>
		<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
	</object>"""
BOX = {"name": "person", "difficult": 0, "box": (9, 5, 40, 30)}


def xml(*objects):
    body = "".join(OBJECT.format(**one) for one in objects)
    return f"<annotation>\n\t<folder>VOC2012</folder>{body}\n</annotation>\n"


def voc(root, *, segmentation=True, lists=True):
    """Four pictures: two with masks and boxes in the lists of segmentation, all in those of `Main`."""
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for number in range(4):
        (root / f"JPEGImages/2007_{number}.jpg").write_bytes(encoded(number))
    for number in (0, 1):
        (root / f"SegmentationClass/2007_{number}.png").write_bytes(png(numbers(number), "P"))
    (root / "Annotations/2007_0.xml").write_text(
        xml(BOX, {**BOX, "name": "cat", "difficult": 1, "box": (1, 1, 64, 48)})
    )
    (root / "Annotations/2007_1.xml").write_text(xml())
    (root / "Annotations/2007_2.xml").write_text(xml({**BOX, "name": "aeroplane", "box": ("1.5", 2, 3, 4)}))
    if segmentation:
        (root / "ImageSets/Segmentation/train.txt").write_text("2007_0\n")
        (root / "ImageSets/Segmentation/val.txt").write_text("2007_1\n")
        (root / "ImageSets/Segmentation/trainval.txt").write_text("2007_0\n2007_1\n")
    if lists:
        (root / "ImageSets/Main/train.txt").write_text("2007_0\n2007_2\n")
        (root / "ImageSets/Main/val.txt").write_text("2007_1\n2007_3\n")
        (root / "ImageSets/Main/cat_train.txt").write_text("2007_0  1\n2007_2 -1\n")
    return root


@pytest.mark.parametrize("around", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_the_lists_of_segmentation_give_masks_and_boxes(tmp_path, around):
    root = voc(tmp_path / "raw" / around)
    summary = imgdata.shard(tmp_path / "raw", tmp_path / "out")
    dataset = imgdata.open(tmp_path / "out")
    assert {name: [sample.key for sample in split] for name, split in dataset.items()} == {
        "train": ["train/2007_0"],
        "val": ["val/2007_1"],
    }
    sample = dataset["train"][0]
    assert sample.members["mask"] == (root / "SegmentationClass/2007_0.png").read_bytes()
    assert np.array_equal(sample.array_of("mask"), numbers(0))
    assert sample.fields["boxes"] == [[8, 4, 40, 30], [0, 0, 64, 48]]
    assert [dataset.classes[label].id for label in sample.fields["box_labels"]] == ["person", "cat"]
    assert sample.fields["difficult"] == [0, 1]
    assert dataset["val"][0].fields["boxes"] == []
    assert [one.id for one in dataset.classes][:3] == ["aeroplane", "bicycle", "bird"]
    assert len(dataset.classes) == 20
    assert summary.skipped["images in none of the lists"] == 2


@pytest.mark.parametrize(("segmentation", "options"), [(True, {"target": "boxes"}), (False, {})])
def test_without_segmentation_the_main_lists_give_boxes(tmp_path, segmentation, options):
    imgdata.shard(voc(tmp_path / "raw", segmentation=segmentation), tmp_path / "out", shuffle=False, **options)
    dataset = imgdata.open(tmp_path / "out")
    assert dataset.members == ()
    assert [sample.key for sample in dataset["train"]] == ["train/2007_0", "train/2007_2"]
    assert dataset["train"][1].fields["boxes"] == [[0.5, 1, 3, 4]]
    # A picture without annotations has none of the fields.
    assert "boxes" not in dataset["val"][1].fields


def test_without_any_lists_all_pictures_are_taken(tmp_path):
    imgdata.shard(voc(tmp_path / "raw", segmentation=False, lists=False), tmp_path / "out", target="boxes")
    assert len(imgdata.open(tmp_path / "out")["train"]) == 4


def test_classes_of_ones_own_are_sorted(tmp_path):
    root = voc(tmp_path / "raw")
    (root / "Annotations/2007_0.xml").write_text(xml({**BOX, "name": "zebra"}, {**BOX, "name": "ant"}))
    imgdata.shard(root, tmp_path / "out")
    dataset = imgdata.open(tmp_path / "out")
    assert [one.id for one in dataset.classes] == ["ant", "zebra"]
    assert dataset["train"][0].fields["box_labels"] == [1, 0]


def test_a_listed_picture_that_is_not_there_is_rejected(tmp_path):
    root = voc(tmp_path / "raw")
    (root / "ImageSets/Segmentation/train.txt").write_text("2007_0\n2007_9\n")
    summary = imgdata.shard(root, tmp_path / "out")
    assert (summary.samples, dict(summary.rejected)) == (2, {"missing": 1})


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("Annotations/2007_0.xml", "<annotation><object>", r"2007_0\.xml: must be an annotation as Pascal VOC has it"),
        ("Annotations/2007_0.xml", "<!DOCTYPE x><annotation/>", "a document type, which may do harm"),
        ("Annotations/2007_0.xml", xml({**BOX, "box": (9, 5, 1, 30)}), r"a box from \[9\.0, 5\.0\] to"),
        ("Annotations/2007_0.xml", xml({**BOX, "box": (9, "nan", 10, 30)}), "a box from"),
        ("Annotations/2007_0.xml", xml({**BOX, "box": (9, "x", 10, 30)}), "could not convert"),
        ("Annotations/2007_0.xml", xml({**BOX, "name": " "}), "an object has no name"),
        ("ImageSets/Segmentation/val.txt", "2007_0\n", "2007_0 is in two lists"),
    ],
)
def test_what_is_damaged_is_one_error(tmp_path, file, text, message):
    root = voc(tmp_path / "raw")
    (root / file).write_text(text)
    with pytest.raises(SourceError, match=message):
        imgdata.shard(root, tmp_path / "out")
