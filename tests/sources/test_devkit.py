"""ImageNet's devkit and Kaggle's tables: found in every usual place, and refused when they contradict the images."""

import io
from pathlib import Path

import pytest
from scipy.io import savemat

from benchmarks import data
from imgdata.errors import SourceError
from imgdata.sources.imagenet import source as imagenet
from imgdata.sources.options import SourceOptions

OPTIONS = SourceOptions()
SMALL = data.imagenet(classes=4, per_class=5, val=8, size=(48, 36))
WNIDS = list(SMALL.names)


def flat(root: Path, labels: str) -> Path:
    return data.write_imagenet_flat_val(root, SMALL, labels=labels)


def mat(**variables: object) -> bytes:
    file = io.BytesIO()
    savemat(file, variables)
    return file.getvalue()


def test_the_devkit_may_lie_elsewhere(tmp_path: Path) -> None:
    root = flat(tmp_path / "data", "none")
    with pytest.raises(SourceError, match=r"val: a flat val has no labels; put ILSVRC2012_devkit_t12\.tar\.gz"):
        imagenet.list_samples(root, OPTIONS)
    archive = data.write_devkit(tmp_path / "kit.tar.gz", SMALL)
    folder = data.write_devkit(tmp_path / "kit", SMALL)
    kaggle = data.write_imagenet_kaggle(tmp_path / "kaggle", SMALL)
    for devkit in (archive, folder, kaggle, kaggle / "LOC_val_solution.csv"):
        listing = imagenet.list_samples(root, SourceOptions(devkit=devkit))
        assert listing.label_N[-8:].tolist() == [WNIDS.index(wnid) for wnid, _ in SMALL.val.values()]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("missing.tar.gz", "no such devkit"),
        ("", "neither ILSVRC2012_devkit_t12"),
        ("page.tar.gz", "damaged or cut short"),
        ("other.tar.gz", r"has no data/meta\.mat"),
    ],
)
def test_a_wrong_devkit_option_is_named(tmp_path: Path, given: str, message: str) -> None:
    data.write_file(tmp_path / "kits/page.tar.gz", b"<html>")
    data.write_file(tmp_path / "kits/other.tar.gz", data.tar_bytes({"a": b"b"}))
    root = data.write_imagenet_folders(tmp_path / "data", SMALL)
    with pytest.raises(SourceError, match=message):
        imagenet.list_samples(root, SourceOptions(devkit=tmp_path / "kits" / given))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            3,
            r"train: has 4 classes, and .*devkit_t12.* has 3; not in the latter \(1\): n01491361; use",
        ),
        (
            5,
            r"train: has 4 classes, and .*devkit_t12.* has 5; only in the latter \(1\): n01494475; use",
        ),
    ],
)
def test_a_devkit_of_other_classes_is_refused(tmp_path: Path, classes: int, message: str) -> None:
    root = data.write_imagenet_folders(tmp_path, SMALL)
    data.write_devkit(root / "ILSVRC2012_devkit_t12.tar.gz", data.imagenet(classes=classes, per_class=1, size=(8, 8)))
    with pytest.raises(SourceError, match=message):
        imagenet.list_samples(root, OPTIONS)


@pytest.mark.parametrize("labels", ["devkit", "csv"])
def test_val_must_have_just_the_images_of_the_ground_truth(tmp_path: Path, labels: str) -> None:
    root = flat(tmp_path, labels)
    (root / "val/ILSVRC2012_val_00000003.JPEG").unlink()
    with pytest.raises(
        SourceError, match=r"val: has 7 images, .* labels of 8; labels without an image \(1\): .*_00000003;"
    ):
        imagenet.list_samples(root, OPTIONS)
    data.write_file(root / "val/ILSVRC2012_val_00000003.JPEG", b"x")
    data.write_file(root / "val/extra.jpg", b"x")
    with pytest.raises(SourceError, match=r"val: has 9 images, .* labels of 8; images without a label \(1\): extra;"):
        imagenet.list_samples(root, OPTIONS)


def test_a_val_image_in_the_wrong_class_folder_contradicts_the_devkit(tmp_path: Path) -> None:
    root = data.write_imagenet_folders(tmp_path, SMALL)
    data.write_devkit(root / "ILSVRC2012_devkit_t12", SMALL)
    file, (wnid, _) = next(iter(SMALL.val.items()))
    other = next(name for name in WNIDS if name != wnid)
    (root / "val" / wnid / file).rename(root / "val" / other / file)
    with pytest.raises(SourceError, match=f"ILSVRC2012_val_00000001 lies in {other}, and .* says {wnid}"):
        imagenet.list_samples(root, OPTIONS)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("data/meta.mat", b"x", r"meta\.mat: not a readable MATLAB 5 file"),
        ("data/meta.mat", mat(other=1.0), r"meta\.mat: has no struct array 'synsets'"),
        ("data/meta.mat", mat(synsets="text"), r"meta\.mat: has no struct array 'synsets'"),
        ("data/meta.mat", mat(synsets={"WNID": "n01440764"}), r"meta\.mat: a synset lacks its id"),
        (
            "data/ILSVRC2012_validation_ground_truth.txt",
            b"1\n2\n5\n",
            "line 3 must be an ILSVRC id of meta.mat, got '5'",
        ),
        (
            "data/ILSVRC2012_validation_ground_truth.txt",
            b"1\ncat\n",
            "line 2 must be an ILSVRC id of meta.mat, got 'cat'",
        ),
        ("data/ILSVRC2012_validation_ground_truth.txt", None, "No such file"),
    ],
)
def test_a_damaged_devkit_is_named(tmp_path: Path, file: str, content: bytes | None, message: str) -> None:
    root = flat(tmp_path, "folder")
    if content is None:
        (root / "ILSVRC2012_devkit_t12" / file).unlink()
    else:
        data.write_file(root / "ILSVRC2012_devkit_t12" / file, content)
    with pytest.raises(SourceError, match=message):
        imagenet.list_samples(root, OPTIONS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"id,label\n1,2\n", "columns must be ImageId and PredictionString, got id, label"),
        (b"ImageId,PredictionString\nILSVRC2012_val_00000001,cat 1 2\n", "must name classes by wnids .* got 'cat'"),
        (b"ImageId,PredictionString\nILSVRC2012_val_00000001\n", "must name classes by wnids .* got ''"),
        (b"ImageId,PredictionString\n\xff\xfe,n\n", "not a readable CSV"),
    ],
)
def test_a_damaged_solution_table_is_named(tmp_path: Path, text: bytes, message: str) -> None:
    root = flat(tmp_path, "csv")
    data.write_file(root / "LOC_val_solution.csv", text)
    with pytest.raises(SourceError, match=rf"LOC_val_solution\.csv: .*{message}"):
        imagenet.list_samples(root, OPTIONS)
