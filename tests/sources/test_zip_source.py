"""Class folders in ZIP archives: the listing of the unpacked folders, stored and deflated; faults name the file."""

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from imgdata.errors import ImageError, SourceError
from imgdata.sources.detect import list_source
from imgdata.sources.options import SourceOptions
from imgdata.sources.zip_members import most_packed, unpacked
from support.loose import assert_the_same_in_place
from support.rawdata import class_folders, encoded

METHODS = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}


def packed(folder: Path, archive: Path, method: int = zipfile.ZIP_STORED, around: str = "") -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    # Listed before the archive exists: one that packs itself has no end.
    paths = sorted(folder.rglob("*"), reverse=True)
    with zipfile.ZipFile(archive, "w", method) as file:
        for path in paths:
            file.write(path, around + path.relative_to(folder).as_posix())
    return archive


def listed(path, **options):
    return list_source(path, SourceOptions(**options))


def contents(listing):
    refs = listing.refs(range(len(listing)))
    return [
        (listing.splits[listing.split_N[row]], ref.key, ref.label, ref.size, listing.reader.read(ref))
        for row, ref in enumerate(refs)
    ]


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("splits", [{"train": 3, "val": 2}, {"": 3}], ids=["splits", "no splits"])
@pytest.mark.parametrize("around", ["", "photos/", "a/b/"])
def test_an_archive_has_the_samples_of_its_folders(tmp_path, method, splits, around):
    folder = class_folders(tmp_path / "photos", splits)
    archive = packed(folder, tmp_path / "packed" / "photos.zip", method, around)
    expected, listing = listed(folder), listed(archive)
    assert (listing.kind, listing.title, listing.classes) == ("zip", "photos", expected.classes)
    assert (listing.splits, listing.given_splits) == (expected.splits, expected.given_splits)
    assert contents(listing) == contents(expected)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_an_archive_is_opened_without_sharding(tmp_path, method):
    folder = class_folders(tmp_path / "photos", {"train": 2, "val": 1})
    assert_the_same_in_place(packed(folder, tmp_path / "photos.zip", method), tmp_path / "out")


def test_an_archive_for_each_split(tmp_path):
    folder = class_folders(tmp_path / "photos", {"train": 2, "val": 1})
    for split in ("train", "val"):
        packed(folder / split, tmp_path / "packed" / f"{split}.zip", around=f"{split}/")
    (tmp_path / "packed" / "notes.txt").write_text("x")
    listing = listed(tmp_path / "packed")
    assert contents(listing) == contents(listed(folder))
    assert listing.skipped == {"other entries beside the archives": 1}


def test_what_is_no_image_is_counted(tmp_path):
    folder = class_folders(tmp_path / "photos", {"": 1})
    (folder / "cat" / "notes.txt").write_text("x")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "._1.jpg").write_bytes(b"x")
    listing = listed(packed(folder, tmp_path / "x.zip"))
    assert listing.skipped == {"hidden files": 1, "not images (.txt)": 1}
    assert len(listing) == 3


def test_patterns_leave_images_out(tmp_path):
    folder = class_folders(tmp_path / "photos", {"": 2})
    archive = packed(folder, tmp_path / "photos.zip")
    assert contents(listed(archive, exclude=("cat/*",))) == contents(listed(folder, exclude=("cat/*",)))


def test_a_folder_of_images_beside_an_archive_is_read(tmp_path):
    folder = class_folders(tmp_path / "photos", {"": 2})
    packed(folder, folder / "copy.zip")
    assert listed(folder).kind == "folder"


def test_a_cut_archive_is_an_error(tmp_path):
    archive = packed(class_folders(tmp_path / "photos", {"": 2}), tmp_path / "x.zip")
    archive.write_bytes(archive.read_bytes()[:-300])
    with pytest.raises(SourceError, match=r"x\.zip: no ZIP archive, or cut short"):
        listed(archive)


def test_an_image_outside_of_class_folders_is_an_error_unless_labels_are_not_wanted(tmp_path):
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("1.jpg", encoded(1))
    with pytest.raises(SourceError, match=r"x\.zip: no labels: 1\.jpg lies in no class folder"):
        listed(archive)
    assert listed(archive, label_from="none").label_N.tolist() == [-1]


def test_a_damaged_member_is_a_bad_image_and_a_damaged_header_an_error(tmp_path):
    archive = packed(class_folders(tmp_path / "photos", {"": 2}), tmp_path / "x.zip", zipfile.ZIP_DEFLATED)
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as file:
        first = next(info for info in file.infolist() if not info.is_dir())
    data[first.header_offset + 200] ^= 255
    archive.write_bytes(data)
    listing = listed(archive)
    with pytest.raises(ImageError, match=r"damaged in x\.zip"):
        contents(listing)
    shutil.copy(packed(tmp_path / "photos", tmp_path / "y.zip"), tmp_path / "z.zip")
    data = (tmp_path / "z.zip").read_bytes().replace(b"PK\3\4", b"PK\3\5")
    (tmp_path / "z.zip").write_bytes(data)
    with pytest.raises(SourceError, match=r"z\.zip: damaged at"):
        listed(tmp_path / "z.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_a_bad_image_by_every_method(tmp_path, method):
    archive = packed(class_folders(tmp_path / "raw", {"": 2}), tmp_path / "raw.zip", method)
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        first = opened.infolist()[0]
    start = first.header_offset + 30 + len(first.filename) + 20
    data[start : start + 200] = bytes(200)
    archive.write_bytes(data)
    listing = listed(archive)
    (ref,) = (ref for ref in listing.refs(np.arange(len(listing))) if ref.name == first.filename)
    with pytest.raises(ImageError, match=r"corrupt: damaged in raw\.zip: "):
        listing.reader.read(ref)


def test_a_member_packed_by_a_method_that_is_not_known_is_named(tmp_path):
    archive = packed(class_folders(tmp_path / "raw", {"": 2}), tmp_path / "raw.zip", zipfile.ZIP_DEFLATED)
    data = archive.read_bytes()
    at = data.index(b"PK\1\2") + 10
    archive.write_bytes(data[:at] + b"\x09\0" + data[at + 2 :])
    with pytest.raises(SourceError, match=r"raw\.zip: .*\.jpg is packed by method 9, .*unpack the archive first"):
        listed(archive)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_member_is_unpacked_from_its_own_bytes(method):
    data, file = encoded(1), io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("a.jpg", data)
    bytes_there = file.getvalue()
    assert unpacked(bytes_there[: most_packed(len(data))], len(data), "a.zip") == data
    for damaged in (bytes_there[:300], bytes_there[:400] + b"damaged" + bytes_there[407:]):
        with pytest.raises(ImageError, match="damaged in its archive"):
            unpacked(damaged, len(data), "a.zip")
    with pytest.raises(SourceError, match=r"a\.zip: no member"):
        unpacked(bytes_there[1:], len(data), "a.zip")
