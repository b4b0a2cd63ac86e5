"""Class folders: what is a split, what is a class, what is passed over."""

import os
import random
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder

from imgdata.errors import SourceError
from imgdata.sources import folder
from imgdata.sources.listing import Listing, ListingBuilder
from imgdata.sources.options import SourceOptions
from imgdata.sources.splits import split_in_path, split_name
from imgdata.sources.walk import extension, image_files, is_image
from imgdata.storage.file_names import unescape_name


def plant(root: Path, files: Iterable[str]) -> Path:
    """Write files, each one byte longer than the last, so that every size belongs to one file."""
    for number, file in enumerate(files):
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(number + 1))
    root.mkdir(exist_ok=True)
    return root


def listed(path: Path) -> Listing:
    return folder.list_samples(path, SourceOptions())


@pytest.mark.parametrize(
    "name",
    ["a.jpg", ".jpg", "..jpg", "a.JPG", "noext", "a.", "a.b.c", ".a.b", "", "..", "a.b/c", "x/.jpg", "x/y.PNG"],
)
def test_extensions_are_those_of_splitext_in_small_letters(name: str) -> None:
    assert extension(name) == os.path.splitext(name)[1].lower()


def rows(listing: Listing) -> list[tuple[str, str, str]]:
    """Return (split, class id, name) of every sample, in order."""
    refs = listing.refs(range(len(listing)))
    return [
        (listing.splits[split], listing.classes[ref.label].id, ref.name)
        for split, ref in zip(listing.split_N.tolist(), refs, strict=True)
    ]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        # no splits: all is train
        (["b/1.jpg", "a/2.png"], [("train", "a", "a/2.png"), ("train", "b", "b/1.jpg")]),
        # split words in any case, in the usual order, under their usual names
        (
            ["Test/a/1.jpg", "VALID/a/2.jpg", "training/a/3.jpg"],
            [("train", "a", "training/a/3.jpg"), ("val", "a", "VALID/a/2.jpg"), ("test", "a", "Test/a/1.jpg")],
        ),
        (
            ["train/a/1.jpg", "dev/a/2.jpg", "eval/a/3.jpg"],
            [("train", "a", "train/a/1.jpg"), ("val", "a", "dev/a/2.jpg"), ("test", "a", "eval/a/3.jpg")],
        ),
        # deeper trees: the class is the whole path
        (
            ["train/x/a/1.jpg", "train/x/b/2.jpg", "train/y/3.jpg"],
            [("train", "x/a", "train/x/a/1.jpg"), ("train", "x/b", "train/x/b/2.jpg"), ("train", "y", "train/y/3.jpg")],
        ),
        # another folder with the classes of a split is a split
        (
            ["train/a/1.jpg", "train/b/2.jpg", "extra 2/a/3.jpg"],
            [("train", "a", "train/a/1.jpg"), ("train", "b", "train/b/2.jpg"), ("extra_2", "a", "extra 2/a/3.jpg")],
        ),
        # `train` can be a class
        (["bus/1.jpg", "train/2.jpg"], [("train", "bus", "bus/1.jpg"), ("train", "train", "train/2.jpg")]),
        # a folder around the splits is skipped
        (
            ["archive/data/train/a/1.jpg", "archive/data/val/a/2.jpg"],
            [("train", "a", "archive/data/train/a/1.jpg"), ("val", "a", "archive/data/val/a/2.jpg")],
        ),
    ],
)
def test_folders_tell_split_and_class(tmp_path: Path, files: list[str], expected: list[tuple[str, str, str]]) -> None:
    listing = listed(plant(tmp_path / "set", files))
    assert rows(listing) == expected
    assert folder.recognise(tmp_path / "set") is not None


def test_a_source_without_splits_says_so(tmp_path: Path) -> None:
    plant(tmp_path, ["a/1.jpg"])
    assert not listed(tmp_path).given_splits
    plant(tmp_path / "two", ["train/a/1.jpg"])
    assert listed(tmp_path / "two").given_splits


def test_keys_are_paths_below_the_split_without_extension(tmp_path: Path) -> None:
    listing = listed(plant(tmp_path, ["train/a/x.1.JPEG", "train/a/x_1.png", "val/a/x.1.JPEG"]))
    assert listing.key_N.to_pylist() == ["a/x_1", "a/x_1-1", "a/x_1-2"]


def test_classes_labels_and_order_are_those_of_torchvision(tmp_path: Path) -> None:
    names = ["zebra", "Zoo", "a-b", "a", "a b", "éclair", "10", "9"]
    root = plant(tmp_path, [f"{name}/{number}.jpg" for name in names for number in (10, 9, 1)])
    listing, reference = listed(root), ImageFolder(str(root))
    assert [one.id for one in listing.classes] == reference.classes
    expected = {os.path.relpath(path, root): label for path, label in reference.samples}
    found = dict(zip(listing.name_N.to_pylist(), listing.label_N.tolist(), strict=True))
    assert found == expected


def test_the_reader_returns_the_files_bytes(tmp_path: Path) -> None:
    listing = listed(plant(tmp_path, ["a/1.jpg", "b/2.jpg"]))
    for ref in listing.refs(range(2)):
        assert listing.reader.read(ref) == (tmp_path / ref.name).read_bytes()
        assert ref.size == (tmp_path / ref.name).stat().st_size


def test_the_listing_does_not_depend_on_the_order_of_creation(tmp_path: Path) -> None:
    files = [f"{split}/{name}/{number}.jpg" for split in ("train", "val") for name in "abc" for number in range(7)]
    first = plant(tmp_path / "one" / "set", files)
    second = tmp_path / "two" / "set"
    for file in random.Random(7).sample(files, len(files)):
        (second / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(first / file, second / file)
    assert listed(first).fingerprint() == listed(second).fingerprint()


def test_what_is_no_image_is_passed_over_and_counted(tmp_path: Path) -> None:
    plant(
        tmp_path,
        [
            "a/1.jpg",
            "a/.DS_Store",
            "a/Thumbs.db",
            "a/._1.jpg",
            ".git/x.jpg",
            "__MACOSX/a/1.jpg",
            "a/n.TXT",
            "a/LICENSE",
        ],
    )
    (tmp_path / "a" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "a" / "itself.jpg").symlink_to(tmp_path / "a" / "itself.jpg")
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    (tmp_path / "empty").mkdir()
    listing = listed(tmp_path)
    assert listing.name_N.to_pylist() == ["a/1.jpg"]
    assert listing.skipped == {
        "broken symlinks": 2,
        "empty class folders": 1,
        "hidden files": 3,
        "hidden folders": 2,
        "not images (.txt)": 1,
        "not images (no extension)": 1,
        "not regular files": 1,
    }
    assert "class folders without images: empty" in listing.warnings


def test_files_and_folders_beside_the_splits_are_counted_and_named(tmp_path: Path) -> None:
    listing = listed(plant(tmp_path, ["train/a/1.jpg", "README.md", "logo.png", "notes/x/1.jpg"]))
    assert listing.name_N.to_pylist() == ["train/a/1.jpg"]
    assert listing.skipped == {
        "images beside the splits": 1,
        "images in folders passed over (notes)": 1,
        "other files beside the splits": 1,
    }
    assert "folder notes is not a split and does not have the classes of one; passed over" in listing.warnings


@pytest.mark.parametrize(
    ("files", "warning"),
    [
        (["train/a/1.jpg", "val/a/2.jpg", "val/b/3.jpg"], "1 of the classes in val are not in train: b"),
        (["cat/1.jpg", "cat/2.jpg"], "only one class (cat); a table of labels is named with --table"),
        (["train/a/1.jpg", "val/a/2.jpg", "dev/a/3.jpg"], "folders dev, val are one split: val"),
        (["a/train/1.jpg", "b/train/1.jpg"], "splits were found inside the classes (a/train)"),
        (["x/a/train/1.jpg", "y/b/1.jpg"], "split words inside class names: x/a/train"),
        (["VOC2007/1.jpg", "VOC2012/2.jpg"], "folders VOC2007, VOC2012 look like years of one dataset"),
    ],
)
def test_odd_layouts_are_warned_of(tmp_path: Path, files: list[str], warning: str) -> None:
    assert any(text.startswith(warning) for text in listed(plant(tmp_path, files)).warnings)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no images found"),
        (["a/1.txt"], r"no images found \(passed over: 1 empty class folders, 1 not images \(\.txt\)\)"),
        (["1.jpg"], r"no labels: 1\.jpg lies in no class folder.*--table"),
        (["a/1.jpg", "2.jpg"], r"no labels: 2\.jpg"),
        (["train/1.jpg", "val/2.jpg"], r"train: no labels: 1\.jpg.*train/cat/1\.jpg"),
        (["cat/1.jpg", "dog/2.jpg", "test/3.jpg"], "test look like splits, but cat, dog like classes"),
    ],
)
def test_folders_without_a_clear_meaning_are_refused(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        listed(plant(tmp_path, files))


def test_a_file_is_no_class_folder(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"x")
    with pytest.raises(SourceError, match="not a folder"):
        listed(tmp_path / "x.jpg")
    assert folder.recognise(tmp_path / "x.jpg") is None


def test_links_are_followed_but_never_in_circles(tmp_path: Path) -> None:
    plant(tmp_path, ["store/real.jpg", "set/a/1.jpg"])
    root = tmp_path / "set"
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "here").symlink_to(root / "a")
    (root / "a" / "link.jpg").symlink_to(tmp_path / "store" / "real.jpg")
    (root / "b").symlink_to(tmp_path / "store")
    listing = listed(root)
    assert listing.name_N.to_pylist() == ["a/1.jpg", "a/link.jpg", "b/real.jpg"]
    assert listing.skipped == {"symlinks to a folder above": 2}
    assert [listing.reader.read(ref) for ref in listing.refs([1])] == [b"\0"]


def test_a_link_in_the_only_folder_back_to_the_root_ends(tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to(tmp_path)
    assert folder.recognise(tmp_path) is None
    with pytest.raises(SourceError, match=r"no images found.*1 symlinks to a folder above"):
        listed(tmp_path)


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    listing = listed(plant(tmp_path, [f"{name}/{name}.jpg", "ok/1.jpg"]))
    assert listing.classes[0].id == r"caf\udce9"
    assert unescape_name(listing.name_N[0].as_py()) == f"{name}/{name}.jpg"
    assert [len(listing.reader.read(ref)) for ref in listing.refs([0, 1])] == [1, 2]


def test_a_folder_that_vanishes_while_listing_is_named(tmp_path: Path) -> None:
    plant(tmp_path, ["a/1.jpg", "b/2.jpg"])
    files = image_files(tmp_path, ListingBuilder())
    assert next(files) == ("a/1.jpg", 1)
    shutil.rmtree(tmp_path / "b")
    with pytest.raises(SourceError, match=r"/b/?: can't read this folder: No such file"):
        list(files)


def test_a_folder_without_permission_is_named(unprivileged_folder: Path) -> None:
    plant(unprivileged_folder, ["a/1.jpg", "b/2.jpg"])
    (unprivileged_folder / "b").chmod(0)
    try:
        with pytest.raises(SourceError, match=r"/b/?: can't read this folder: Permission denied"):
            listed(unprivileged_folder)
    finally:
        (unprivileged_folder / "b").chmod(0o700)


def test_the_walk_is_in_the_order_of_whole_paths(tmp_path: Path) -> None:
    files = ["a/z.jpg", "a-b/y.jpg", "a.jpg", "a/b/x.jpg", "B/w.jpg", "a0/v.jpg", "ä/u.jpg"]
    plant(tmp_path, files)
    assert [name for name, _ in image_files(tmp_path, ListingBuilder())] == sorted(files)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.jpg", True), ("a.JPEG", True), ("a.b.webp", True), (".jpg", False), ("a", False), ("a.jpg.txt", False)],
)
def test_images_are_told_by_their_extension(name: str, expected: bool) -> None:
    assert is_image(name) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("default/validation/0000.parquet", "val"),
        ("my set.DEV.2.parquet", "val"),
        ("evaluation_1", "test"),
        ("retrained/trainer-1", None),
        ("train/test-0", "test"),  # the file's own name goes first
    ],
)
def test_split_words_stand_between_punctuation_or_digits(path: str, expected: str | None) -> None:
    assert split_in_path(path) == expected


@given(st.text())
def test_split_names_are_safe_in_file_names(text: str) -> None:
    name = split_name(text)
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")
    assert split_name(name) == name


def test_sizes_and_labels_have_compact_types(tmp_path: Path) -> None:
    listing = listed(plant(tmp_path, ["a/1.jpg"]))
    assert listing.label_N.dtype == np.dtype(np.int32)
    assert listing.split_N.dtype == np.dtype(np.uint8)
    assert listing.size_N.dtype == np.dtype(np.int64)
