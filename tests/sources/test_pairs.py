"""Folders of images beside folders of masks, as datasets for segmentation have them: which mask is of which image."""

import pytest

import imgdata
from imgdata.errors import OptionError, SourceError
from imgdata.sources.detect import list_source
from imgdata.sources.mask_files import plain_name
from imgdata.sources.options import SourceOptions
from support.masks import image_folder, numbers, png
from support.rawdata import class_folders, encoded


def tree(root, files):
    """Files of these names: pictures for `.jpg`, masks for all else; a leftImg8bit is a picture too."""
    for number, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        is_picture = name.endswith((".jpg", "_leftImg8bit.png"))
        path.write_bytes(
            encoded(number, format="PNG" if name.endswith("png") else "JPEG") if is_picture else png(numbers(1))
        )
    return root


def found(root, **options):
    """Split, image and mask of each sample."""
    listing = list_source(root, SourceOptions(**options))
    masks = [None] * len(listing)
    for columns in listing.members:
        masks = [name or None for name in columns.name_N.to_pylist()]
    splits = [listing.splits[number] for number in listing.split_N.tolist()]
    return list(zip(splits, listing.name_N.to_pylist(), masks, strict=True))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["images/1.jpg", "masks/1.png"], [("train", "images/1.jpg", "masks/1.png")]),
        # One folder around all, as archives have it.
        (["data/imgs/1.jpg", "data/masks/1.png"], [("train", "data/imgs/1.jpg", "data/masks/1.png")]),
        # Carvana.
        (["images/1.jpg", "masks/1_mask.gif"], [("train", "images/1.jpg", "masks/1_mask.gif")]),
        (["train/1.jpg", "train_masks/1_mask.png", "test/2.jpg"], [
            ("train", "train/1.jpg", "train_masks/1_mask.png"), ("test", "test/2.jpg", None),
        ]),
        (["images/train/1.jpg", "images/val/1.jpg", "masks/train/1.png", "masks/val/1.png"], [
            ("train", "images/train/1.jpg", "masks/train/1.png"), ("val", "images/val/1.jpg", "masks/val/1.png"),
        ]),
        (["train/images/1.jpg", "train/masks/1.png", "val/images/2.jpg", "val/masks/2.png"], [
            ("train", "train/images/1.jpg", "train/masks/1.png"), ("val", "val/images/2.jpg", "val/masks/2.png"),
        ]),
        # ADE20K.
        (["ADE/images/training/a.jpg", "ADE/images/validation/b.jpg", "ADE/annotations/training/a.png",
          "ADE/annotations/validation/b.png", "ADE/objectInfo150.txt"], [
            ("train", "ADE/images/training/a.jpg", "ADE/annotations/training/a.png"),
            ("val", "ADE/images/validation/b.jpg", "ADE/annotations/validation/b.png"),
        ]),
        # Oxford-IIIT Pet.
        (["images/cat_1.jpg", "annotations/trimaps/cat_1.png", "annotations/list.txt"], [
            ("train", "images/cat_1.jpg", "annotations/trimaps/cat_1.png"),
        ]),
        # Cityscapes.
        (["leftImg8bit/train/ulm/ulm_0_leftImg8bit.png", "gtFine/train/ulm/ulm_0_gtFine_labelIds.png",
          "gtFine/train/ulm/ulm_0_gtFine_color.png", "gtFine/train/ulm/ulm_0_gtFine_instanceIds.png"], [
            ("train", "leftImg8bit/train/ulm/ulm_0_leftImg8bit.png", "gtFine/train/ulm/ulm_0_gtFine_labelIds.png"),
        ]),
        # Masks of all splits in one folder.
        (["images/train/1.jpg", "images/val/2.jpg", "masks/1.png", "masks/2.png"], [
            ("train", "images/train/1.jpg", "masks/1.png"), ("val", "images/val/2.jpg", "masks/2.png"),
        ]),
    ],
)  # fmt: skip
def test_masks_are_found_beside_their_images(tmp_path, files, expected):
    assert found(tree(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("files", "masks", "expected"),
    [
        (["images/1.jpg", "truth/1.png"], "truth", [("train", "images/1.jpg", "truth/1.png")]),
        (["1.jpg", "truth/1.png"], "truth", [("train", "1.jpg", "truth/1.png")]),
        (["rgb/1.jpg", "labels/1.png"], "labels", [("train", "rgb/1.jpg", "labels/1.png")]),
        (["images/train/1.jpg", "images/val/2.jpg", "truth/train/1.png", "truth/val/2.png"], "truth", [
            ("train", "images/train/1.jpg", "truth/train/1.png"), ("val", "images/val/2.jpg", "truth/val/2.png"),
        ]),
        # Class folders keep their classes.
        (["cat/1.jpg", "dog/2.jpg", "masks/cat/1.png", "masks/dog/2.png"], "masks", [
            ("train", "cat/1.jpg", "masks/cat/1.png"), ("train", "dog/2.jpg", "masks/dog/2.png"),
        ]),
    ],
)  # fmt: skip
def test_a_folder_of_masks_can_be_named(tmp_path, files, masks, expected):
    assert found(tree(tmp_path, files), masks=tmp_path / masks) == expected


def test_masks_may_lie_elsewhere_in_a_tree_of_the_same_shape(tmp_path):
    raw = class_folders(tmp_path / "raw", {"train": 2, "val": 1}, ("cat", "dog"))
    tree(tmp_path / "truth", [str(file.relative_to(raw).with_suffix(".png")) for file in raw.rglob("*.jpg")])
    listed = found(raw, masks=tmp_path / "truth")
    assert len(listed) == 6
    assert all(mask == f"../truth/{name[:-4]}.png" for _, name, mask in listed)
    # The widths of the pictures differ, so most masks don't fit; that they are read shows in the reasons.
    summary = imgdata.shard(raw, tmp_path / "out", masks=tmp_path / "truth", check="none")
    assert summary.samples == 6
    assert [one.id for one in imgdata.open(tmp_path / "out").classes] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("files", "options", "error", "message"),
    [
        (["images/1.jpg", "masks/1_mask.png", "masks/1_seg.png"], {}, SourceError, "1.jpg may have several masks"),
        (["images/1.jpg", "masks/1.png", "masks/1.bmp"], {}, SourceError, "are masks of one image"),
        (["images/1.jpg", "masks/1.png", "gt/1.png"], {}, SourceError, "several folders may hold the masks"),
        (["cat/1.jpg", "dog/1.jpg", "masks/2.png"], {"masks": "masks"}, SourceError, "is called like one"),
        (["cat/1.jpg", "dog/1.jpg"], {"masks": "masks"}, OptionError, "must be a folder of masks"),
        (
            ["images/train/1.jpg", "images/val/1.jpg", "masks/1.png"],
            {},
            SourceError,
            "of images/train/1.jpg and of images/",
        ),
        (["cat/1.jpg", "dog/1.jpg", "truth/1.png"], {"masks": "truth"}, SourceError, "can't tell which folder beside"),
        (["images/1.jpg"], {"kind": "pairs"}, SourceError, "no folder of masks beside one of images"),
        (["images/1.jpg", "images/1_leftImg8bit.png", "masks/1_mask.png"], {}, SourceError, "would be the mask of"),
    ],
)
def test_what_can_not_be_told_is_one_error(tmp_path, files, options, error, message):
    tree(tmp_path, files)
    options = {name: tmp_path / value if name == "masks" else value for name, value in options.items()}
    with pytest.raises(error, match=message):
        found(tmp_path, **options)


def test_masks_go_with_files_alone(tmp_path):
    (tmp_path / "masks").mkdir()
    with pytest.raises(OptionError, match="goes with images that are files, got synthetic"):
        list_source("synthetic:samples=3,classes=2", SourceOptions(masks=tmp_path / "masks"))


def test_every_file_is_used_or_counted(tmp_path):
    root = image_folder(tmp_path, {"train": 2, "val": 1})
    tree(root, ["masks/train/9.png", "images/train/notes.txt", "extra/1.jpg", "readme.txt"])
    (root / "images" / "train" / "001.jpg").rename(root / "images" / "train" / "other.jpg")
    listing = list_source(root, SourceOptions())
    assert dict(listing.skipped) == {
        "images in folders passed over (extra)": 1,
        "not images (.txt)": 1,
        "other files beside the images": 1,
    }
    assert listing.warnings == (
        "1 images have no mask (images/train/)",
        "2 files in masks/train are masks of none of the images, and left out",
    )


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("a/7_mask", "a/7"),
        ("7", "7"),
        ("mask_7", "7"),
        ("img-7", "7"),
        ("ulm_0_leftImg8bit", "ulm_0"),
        ("ulm_0_gtFine_labelIds", "ulm_0"),
        ("mask", "mask"),
        ("7_masked", "7_masked"),
    ],
)
def test_words_around_a_name_are_looked_through(name, plain):
    assert plain_name(name) == plain
