"""HDF5 files as h5py writes them: arrays by name and group, pairs of files, encoded images; faults name the file."""

import io
import shutil
import sys

import h5py
import numpy as np
import pytest
from PIL import Image

from imgdata.errors import ImageError, SourceError
from imgdata.sources.detect import list_source
from imgdata.sources.options import SourceOptions
from support.loose import assert_the_same_in_place
from support.rawdata import class_folders, encoded

PIXELS = np.random.Generator(np.random.Philox(key=[3, 0])).integers(0, 256, (5, 6, 7, 3), np.uint8)
LABELS = np.array([0, 1, 1, 0, 4])


def write(path, **arrays):
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name.replace("__", "/"), data=array)
    return path


def by_names(root):
    return write(root / "x.h5", x_train=PIXELS, y_train=LABELS, x_test=PIXELS[:2], y_test=LABELS[:2])


def by_groups(root):
    parts = {"train__images": PIXELS, "train__labels": LABELS, "test__images": PIXELS[:2], "test__labels": LABELS[:2]}
    return write(root / "x.hdf5", **parts)


def by_files(root):
    for split, count in (("train", 5), ("test", 2)):
        # PCam's labels have the shape (N, 1, 1, 1).
        write(root / "pcam" / f"pcam_split_{split}_x.h5", x=PIXELS[:count])
        write(root / "pcam" / f"pcam_split_{split}_y.h5", y=LABELS[:count].reshape(-1, 1, 1, 1))
    return root / "pcam"


def listed(path, **options):
    return list_source(path, SourceOptions(**options))


def contents(listing):
    return [listing.reader.read(ref) for ref in listing.refs(range(len(listing)))]


@pytest.mark.parametrize("make", [by_names, by_groups, by_files])
def test_arrays_are_read_with_their_pixels_labels_and_splits(tmp_path, make):
    listing = listed(make(tmp_path))
    assert (listing.kind, listing.splits) == ("hdf5", ("train", "test"))
    assert [one.id for one in listing.classes] == ["0", "1", "4"]
    assert listing.label_N.tolist() == [0, 1, 1, 0, 2, 0, 1]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in contents(listing)])
    assert np.array_equal(pixels, np.concatenate([PIXELS, PIXELS[:2]]))


@pytest.mark.parametrize("make", [by_names, by_files])
def test_they_are_opened_in_place(tmp_path, make):
    assert_the_same_in_place(make(tmp_path), tmp_path / "out")


def test_encoded_images_are_read_as_they_are(tmp_path):
    images = [encoded(1), encoded(2), b""]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        rows = file.create_dataset("images", (3,), h5py.vlen_dtype(np.uint8))
        for number, data in enumerate(images):
            rows[number] = np.frombuffer(data, np.uint8)
        file["labels"] = ["cat", "dog", "cat"]
    listing = listed(tmp_path / "x.h5")
    assert [one.id for one in listing.classes] == ["cat", "dog"]
    assert listing.size_N.tolist() == [len(data) for data in images]
    refs = list(listing.refs(range(3)))
    assert [listing.reader.read(ref) for ref in refs[:2]] == images[:2]
    with pytest.raises(ImageError, match="holds no image"):
        listing.reader.read(refs[2])


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({"images": PIXELS.astype(float), "labels": LABELS}, r"images must be uint8"),
        ({"images": PIXELS.transpose(0, 3, 1, 2), "labels": LABELS}, r"images must be uint8 of shape"),
        ({"images": PIXELS, "labels": LABELS[:3]}, r"has 5 images, and labels of shape \(3,\)"),
        ({"images": PIXELS, "labels": np.eye(5)}, r"has 5 images, and labels of shape \(5, 5\)"),
        ({"images": PIXELS, "labels": LABELS / 2}, r"labels must be whole numbers or texts"),
    ],
)
def test_what_is_no_image_or_label_is_one_clear_error(tmp_path, arrays, fault):
    with pytest.raises(SourceError, match=r"x\.h5.*" + fault):
        listed(write(tmp_path / "x.h5", **arrays))


def test_a_cut_file_is_an_error(tmp_path):
    path = by_names(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SourceError, match=r"x\.h5: damaged, or no HDF5 file"):
        listed(path)


def test_without_h5py_the_extra_is_named_and_folders_beside_are_read(tmp_path, monkeypatch):
    path = by_names(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(SourceError, match=r"pip install 'imgdata\[hdf5\]'"):
        listed(path)
    folder = class_folders(tmp_path / "photos", {"": 1})
    shutil.copy(path, folder)
    assert listed(folder).kind == "folder"
