"""Trees of images as on users' disks: which folders are splits, classes, masks, leftovers; every file is counted."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from imgdata.errors import OptionError, SourceError
from imgdata.sources import folder
from imgdata.sources.detect import list_source
from imgdata.sources.folder_names import mask_folders, split_of_folder
from imgdata.sources.listing import Listing
from imgdata.sources.options import SourceOptions


def plant(root: Path, files: Iterable[str]) -> Path:
    for number, file in enumerate(files):
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(number + 1))
    return root


def found(root: Path, files: Iterable[str], **options: object) -> tuple[Listing, dict[str, list[str]]]:
    """Return the listing, and for each split `class name` of its images."""
    listing = list_source(plant(root, files), SourceOptions(**options))  # type: ignore[arg-type]
    by_split: dict[str, list[str]] = {split: [] for split in listing.splits}
    for split, ref in zip(listing.split_N.tolist(), listing.refs(range(len(listing))), strict=True):
        class_id = listing.classes[ref.label].id if ref.label >= 0 else "none"
        by_split[listing.splits[split]].append(f"{class_id} {ref.name.rsplit('/', 1)[-1]}")
    return listing, by_split


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *(("train2017", "train"), ("val2014", "val"), ("train_images", "train"), ("test_images", "test")),
        *(("TrainData", "train"), ("trainset", "train"), ("test1", "test"), ("seg_pred", None), ("seg_test", "test")),
        *(("validation-data", "val"), ("images_train", "train"), ("stage1_train", "train"), ("imagesTrain", "train")),
        *(("bullet_train", None), ("test_tube", None), ("training_shoes", None), ("development", None), ("cat", None)),
    ],
)
def test_names_of_splits(name: str, split: str | None) -> None:
    assert split_of_folder(name) == split


@pytest.mark.parametrize(
    ("names", "masks"),
    [
        (["images", "masks"], ["masks"]),
        (["images", "mask"], ["mask"]),
        (["JPEGImages", "SegmentationClass", "SegmentationObject"], ["SegmentationClass", "SegmentationObject"]),
        (["images", "annotations"], ["annotations"]),
        (["images", "labels"], ["labels"]),
        (["train_images", "train_masks"], ["train_masks"]),
        (["images", "ground_truth"], ["ground_truth"]),
        (["with_mask", "without_mask"], []),  # faces
        (["mask", "no_mask"], []),
        (["cat", "dog"], []),
        (["labels", "boxes_of_fruit"], []),
    ],
)
def test_names_of_masks(names: list[str], masks: list[str]) -> None:
    assert mask_folders(names, images_beside=False) == masks


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            ["train2017/cat/1.jpg", "val2017/cat/2.jpg"],
            {"train": ["cat 1.jpg"], "val": ["cat 2.jpg"]},
        ),
        (
            ["seg_train/seg_train/sea/1.jpg", "seg_test/seg_test/sea/2.jpg"],
            {"train": ["sea 1.jpg"], "test": ["sea 2.jpg"]},
        ),
        (
            ["cat/train/1.jpg", "cat/val/2.jpg", "dog/train/3.jpg"],
            {"train": ["cat 1.jpg", "dog 3.jpg"], "val": ["cat 2.jpg"]},
        ),
        (
            ["chest_train/ok/1.jpg", "chest_test/ok/2.jpg"],
            {"train": ["ok 1.jpg"], "test": ["ok 2.jpg"]},
        ),
        # an unlabelled test split, as competitions have it
        (
            ["train/cat/1.jpg", "train/dog/2.jpg", "test/3.jpg", "test/4.jpg"],
            {"train": ["cat 1.jpg", "dog 2.jpg"], "test": ["none 3.jpg", "none 4.jpg"]},
        ),
        (
            ["train/cat/1.jpg", "val/cat/2.jpg", "test/images/3.jpg"],
            {"train": ["cat 1.jpg"], "val": ["cat 2.jpg"], "test": ["none 3.jpg"]},
        ),
        (
            ["train/cat/1.jpg", "test/unknown/3.jpg"],
            {"train": ["cat 1.jpg"], "test": ["none 3.jpg"]},
        ),
        # masks are passed over
        (
            ["images/001.A/1.jpg", "images/002.B/2.jpg", "segmentations/001.A/1.png", "segmentations/002.B/2.png"],
            {"train": ["001.A 1.jpg", "002.B 2.jpg"]},
        ),
        (
            ["COVID/images/1.png", "COVID/masks/1.png", "Normal/images/2.png", "Normal/masks/2.png"],
            {"train": ["COVID 1.png", "Normal 2.png"]},
        ),
        # files that operating systems leave behind
        (
            [
                *("cat/1.jpg", "dog/2.jpg", "@eaDir/cat/1.jpg", "$RECYCLE.BIN/x/1.jpg", "cat/@eaDir/1.jpg"),
                *("lost+found/1.jpg", "System Volume Information/a.jpg", ".ipynb_checkpoints/1.jpg"),
                *(".Trash-1000/files/1.jpg", "#recycle/1.jpg", "__pycache__/1.jpg"),
            ],
            {"train": ["cat 1.jpg", "dog 2.jpg"]},
        ),
        # one folder around all splits
        (["animals/cat/1.jpg", "animals/dog/2.jpg", "readme.txt"], {"train": ["cat 1.jpg", "dog 2.jpg"]}),
    ],
)
def test_trees_as_they_lie_on_disks(tmp_path: Path, files: list[str], expected: dict[str, list[str]]) -> None:
    listing, by_split = found(tmp_path / "set", files)
    assert by_split == expected
    hidden = {what: count for what, count in listing.skipped.items() if what.startswith("hidden")}
    assert len(listing) + sum(listing.skipped.values()) - sum(hidden.values()) + _below_hidden(files) == len(files)


def _below_hidden(files: list[str]) -> int:
    return sum(any(part[0] in "@$.#_" or part[:4] in ("lost", "Syst") for part in file.split("/")) for file in files)


FOOD = [f"images/{name}/{number}.jpg" for name in ("pie", "tart") for number in (1, 2, 3)]


def test_lists_of_names_beside_the_images_are_their_splits(tmp_path: Path) -> None:
    plant(tmp_path, FOOD)
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/train.txt").write_text("pie/1\npie/2\ntart/1\n")
    (tmp_path / "meta/test.txt").write_text("pie/3.jpg 0\ntart/3.jpg 1\n")
    (tmp_path / "meta/classes.txt").write_text("pie\ntart\n")
    listing, by_split = found(tmp_path, [])
    assert by_split == {"train": ["pie 1.jpg", "pie 2.jpg", "tart 1.jpg"], "test": ["pie 3.jpg", "tart 3.jpg"]}
    assert listing.skipped["images in none of the lists"] == 1
    assert any("splits were taken from lists of images: meta/test.txt, meta/train.txt" in w for w in listing.warnings)
    (tmp_path / "meta/test.txt").write_text("pie/1\n")
    with pytest.raises(SourceError, match=r"pie/1 is in the list of (test|train) as well"):
        found(tmp_path, [])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["images/a.jpg", "images/b.jpg"], r"no labels: all images lie in images/.*--label-from none.*--source folder"),
        (["train2017/1.jpg", "val2017/2.jpg", "annotations/x.json"], r"train2017: no labels: 1\.jpg"),
        (["train_images/1.jpg", "test_images/2.jpg"], r"train_images: no labels: 1\.jpg"),
        (
            ["images/a_1.jpg", "images/a_2.jpg", "images/a_3.jpg", "clean/a_1.png", "clean/a_2.png", "clean/a_3.png"],
            "folders clean, images hold files of the same names",
        ),
        (["test/1.jpg", "test/2.jpg"], r"no labels: "),
    ],
)
def test_what_can_not_be_classes_is_refused_with_the_way_out(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        found(tmp_path, files)


def test_a_named_source_takes_folders_as_they_are_with_a_note(tmp_path: Path) -> None:
    listing, by_split = found(tmp_path, ["images/a.jpg", "masks/a.png"], kind="folder")
    assert by_split == {"train": ["images a.jpg", "masks a.png"]}
    listing, _ = found(tmp_path / "one", ["images/a.jpg"], kind="folder")
    assert any("no labels: all images lie in images/" in warning for warning in listing.warnings)


def test_images_without_labels_are_taken_where_that_is_said(tmp_path: Path) -> None:
    listing, by_split = found(tmp_path, ["a.jpg", "x/b.jpg"], label_from="none")
    assert (by_split, listing.classes) == ({"train": ["none a.jpg", "none b.jpg"]}, ())


def test_split_names_say_which_folders_are_splits(tmp_path: Path) -> None:
    files = ["2007/cat/1.jpg", "2012/cat/2.jpg"]
    names = {"2007": "train", "2012": "val"}
    assert found(tmp_path, files, split_names=names)[1] == {"train": ["cat 1.jpg"], "val": ["cat 2.jpg"]}
    files = ["cat/1.jpg", "dog/2.jpg", "test/3.jpg"]
    expected = {"train": ["cat 1.jpg", "dog 2.jpg"], "test": ["none 3.jpg"]}
    assert found(tmp_path / "b", files, split_names={"test": "test"})[1] == expected
    assert found(tmp_path / "b", [], split_names={})[1] == {"train": ["cat 1.jpg", "dog 2.jpg", "test 3.jpg"]}
    with pytest.raises(OptionError, match=r"no folder nope; it has cat, dog, test"):
        found(tmp_path / "b", [], split_names={"nope": "val"})


def test_what_is_excluded_is_not_checked(tmp_path: Path) -> None:
    files = ["train/cat/1.jpg", "train/2.jpg"]
    with pytest.raises(SourceError, match=r"no labels: 2\.jpg"):
        found(tmp_path, files)
    listing, by_split = found(tmp_path, [], exclude=("train/2.jpg",))
    assert (by_split, listing.skipped) == ({"train": ["cat 1.jpg"]}, {"excluded": 1})


@pytest.mark.parametrize(
    ("ids", "order", "expected"),
    [
        (("0", "2", "10"), "auto", "0 2 10"),
        (("0", "2", "10"), "text", "0 10 2"),
        (("0.0", "2.0", "10.5"), "auto", "0.0 2.0 10.5"),
        (("b2", "b10"), "auto", "b10 b2"),
        (("001", "002"), "number", "001 002"),
    ],
)
def test_numbers_are_in_the_order_of_numbers_and_that_is_said(
    tmp_path: Path, ids: tuple[str, ...], order: str, expected: str
) -> None:
    listing, _ = found(tmp_path, [f"{one}/{i}.jpg" for i, one in enumerate(ids)], class_order=order)
    assert " ".join(one.id for one in listing.classes) == expected
    differ = sorted(ids) != sorted(ids, key=lambda one: float(one.strip("b"))) and ids[0] != "b2"
    assert any("--class-order" in warning for warning in listing.warnings) is differ


def test_an_order_by_number_needs_numbers(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"needs class ids that are numbers, got 'cat'"):
        found(tmp_path, ["cat/1.jpg", "1/1.jpg"], class_order="number")


def test_every_image_its_own_class_is_noted(tmp_path: Path) -> None:
    listing, _ = found(tmp_path, [f"x{number}/y{number}.jpg" for number in range(30)])
    assert any("30 classes for 30 images, hardly more than one image each" in w for w in listing.warnings)


def test_the_number_of_entries_is_asserted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "image_files", lambda *_, **__: iter([("a/1.jpg", 1)]))
    with pytest.raises(AssertionError, match="are accounted for"):
        found(tmp_path, ["x/train/a/1.jpg", "x/readme.txt"])
