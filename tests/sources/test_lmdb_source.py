"""Databases that the lmdb package writes: names and images, words, Caffe's messages; faults name the database."""

import pickle
import shutil
import sys

import lmdb
import numpy as np
import pytest
from torchvision.datasets import lsun

import imgdata
from imgdata.errors import SourceError
from imgdata.sources.detect import list_source
from imgdata.sources.options import SourceOptions
from support.loose import assert_the_same_in_place
from support.rawdata import class_folders, encoded

PIXELS = np.random.Generator(np.random.Philox(key=[3, 1])).integers(0, 256, (5, 6, 7, 3), np.uint8)


def write(path, values, *, folder=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        lmdb.open(str(path), map_size=2**24, subdir=folder) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, value in values.items():
            transaction.put(key, value)
    return path


def lsun_folders(root):
    for number, name in enumerate(("bedroom_train", "church_outdoor_train", "bedroom_val", "church_outdoor_val")):
        count = 3 if name.endswith("train") else 1
        images = {b"%040x" % (7 * seed + number): encoded(10 * number + seed) for seed in range(count)}
        write(root / f"{name}_lmdb", images)
    return root


def by_folders(root):
    images = {f"{label}/{seed}.jpg".encode(): encoded(seed) for seed, label in enumerate(("cat", "dog", "cat"))}
    return write(root / "photos.lmdb", {**images, b"__len__": pickle.dumps(3)}, folder=False)


def by_splits_and_folders(root):
    keys = ("train/cat/0.jpg", "train/dog/1.jpg", "val/cat/2.jpg")
    return write(root / "photos", {key.encode(): encoded(seed) for seed, key in enumerate(keys)})


def words(root):
    values = {b"num-samples": b"3"}
    for number in range(1, 4):
        values |= {b"image-%09d" % number: encoded(number), b"label-%09d" % number: f"wörd {number}".encode()}
    return write(root / "words_train", values)


def varint(value):
    low = [value >> shift & 127 for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes([*(byte | 128 for byte in low[:-1]), low[-1]])


def datum(label, pixels=None, image=b""):
    """Caffe's message, with planes of blue, green and red, or an encoded image."""
    data = image or np.ascontiguousarray(pixels[:, :, ::-1].transpose(2, 0, 1)).tobytes()
    sides = () if image else (3, *pixels.shape[:2])
    numbers = b"".join(bytes([8 * (at + 1)]) + varint(side) for at, side in enumerate(sides))
    return numbers + b"\x22" + varint(len(data)) + data + b"\x28" + varint(label) + (b"\x38\x01" if image else b"")


def caffe(root):
    for split, count in (("train", 5), ("val", 2)):
        values = {b"%08d" % row: datum(300 * (row % 2), PIXELS[row]) for row in range(count)}
        write(root / f"{split}_lmdb", values)
    return root


def listed(path, **options):
    return list_source(path, SourceOptions(**options))


def contents(listing):
    return [listing.reader.read(ref) for ref in listing.refs(range(len(listing)))]


# torchvision leaves its list of keys open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_lsuns_folders_are_classes_and_splits_with_the_images_that_torchvision_reads(tmp_path, monkeypatch):
    root = lsun_folders(tmp_path / "lsun")
    listing = listed(root)
    assert (listing.kind, listing.splits, len(listing)) == ("lmdb", ("train", "val"), 8)
    assert [one.id for one in listing.classes] == ["bedroom", "church_outdoor"]
    assert listing.label_N.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    monkeypatch.chdir(tmp_path)  # torchvision keeps a list of keys where it is.
    theirs = lsun.LSUN(
        str(shutil.copytree(root, tmp_path / "theirs")), classes=["bedroom_train", "church_outdoor_train"]
    )
    dataset = imgdata.open(root)["train"]
    found = sorted((sample.label, np.asarray(sample.pil()).tobytes()) for sample in dataset)
    assert found == sorted((label, np.asarray(image).tobytes()) for image, label in theirs)


@pytest.mark.parametrize(
    ("make", "splits", "labels"),
    [(by_folders, ["train"], ["cat", "cat", "dog"]), (by_splits_and_folders, ["train", "val"], ["cat", "dog", "cat"])],
)
def test_folders_in_the_keys_are_classes(tmp_path, make, splits, labels):
    listing = listed(make(tmp_path))
    assert list(listing.splits) == splits
    assert [listing.classes[label].id for label in listing.label_N] == labels
    assert encoded(1) in contents(listing)


def test_texts_of_words_are_fields_and_labels_where_that_is_asked(tmp_path):
    path = words(tmp_path)
    imgdata.shard(path, tmp_path / "out", shuffle=False)
    samples = list(imgdata.open(tmp_path / "out")["train"])
    assert [sample.fields["text"] for sample in samples] == ["wörd 1", "wörd 2", "wörd 3"]
    assert [sample.label for sample in samples] == [-1, -1, -1]
    assert len(listed(path, label_column="text").classes) == 3


def test_caffes_messages_have_their_pixels_and_labels(tmp_path):
    raw = caffe(tmp_path / "raw")
    assert [one.id for one in listed(raw).classes] == ["0", "300"]
    imgdata.shard(raw, tmp_path / "out", shuffle=False)
    train = imgdata.open(tmp_path / "out")["train"]
    assert [sample.label for sample in train] == [0, 1, 0, 1, 0]
    assert all(np.array_equal(sample.array(), pixels) for sample, pixels in zip(train, PIXELS, strict=True))


def test_caffes_messages_may_hold_encoded_images(tmp_path):
    path = write(tmp_path / "x_train_lmdb", {b"%d" % row: datum(row, image=encoded(row)) for row in range(3)})
    assert contents(listed(path)) == [encoded(row) for row in range(3)]


@pytest.mark.parametrize("make", [lsun_folders, by_folders, by_splits_and_folders])
def test_a_database_opens_in_place_as_its_shards(tmp_path, make):
    assert_the_same_in_place(make(tmp_path / "raw"), tmp_path / "out")


def test_keys_of_any_bytes_are_read(tmp_path):
    path = write(tmp_path / "cat_train", {b"\xff\x01\\": encoded(1), "ü b".encode(): encoded(2)})
    assert sorted(contents(listed(path))) == sorted([encoded(1), encoded(2)])
    imgdata.shard(path, tmp_path / "out")
    assert len(imgdata.open(tmp_path / "out")["train"]) == 2


def test_what_is_no_image_is_rejected_and_counted(tmp_path):
    path = write(tmp_path / "cat_train", {b"a": encoded(1), b"b": b"no image", b"c": b""})
    summary = imgdata.shard(path, tmp_path / "out")
    assert len(imgdata.open(tmp_path / "out")["train"]) == 1
    assert sum(summary.rejected.values()) == 2


def cut(path):
    with open(path / "data.mdb", "r+b") as file:
        file.truncate(2 * 4096)


def test_a_database_that_the_program_has_open_is_named(tmp_path):
    path = write(tmp_path / "cat_train", {b"a": encoded(1)})
    with lmdb.open(str(path)), pytest.raises(SourceError, match=r"data\.mdb: another part of this program has it open"):
        listed(path)


@pytest.mark.parametrize(
    ("values", "change", "message"),
    [
        ({b"a": encoded(1)}, cut, r"data\.mdb: cut short, .* bytes are in use"),
        ({b"a": encoded(1)}, lambda path: (path / "data.mdb").write_bytes(b"x" * 9000), "damaged, or no LMDB"),
        ({b"a": pickle.dumps([1])}, None, "pickles, which are programs and are not run"),
        ({b"a": b"text"}, None, r"its values are no images \(that of b'a' begins with 74657874\)"),
        ({}, None, "the database is empty"),
        (
            {b"num-samples": b"2", b"image-000000001": encoded(1), b"label-000000001": b"x"},
            None,
            "sample 2 has no image",
        ),
    ],
)
def test_what_can_not_be_read_is_one_error(tmp_path, values, change, message):
    path = write(tmp_path / "x_train", values)
    if change:
        change(path)
    with pytest.raises(SourceError, match=message):
        listed(path)


def test_without_lmdb_the_extra_is_named_and_folders_beside_are_read(tmp_path, monkeypatch):
    path = by_folders(tmp_path)
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(SourceError, match=r"pip install 'imgdata\[lmdb\]'"):
        listed(path)
    folder = class_folders(tmp_path / "folders", {"": 1})
    shutil.copy(path, folder)
    assert listed(folder).kind == "folder"
