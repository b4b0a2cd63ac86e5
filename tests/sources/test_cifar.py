"""CIFAR in all its forms: the same samples, with clear errors for what is damaged."""

import gzip
import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import data
from imgdata.errors import OptionError, SourceError
from imgdata.images.png import encode_png
from imgdata.sources.cifar import source as cifar
from imgdata.sources.cifar.classes import CIFAR10, CIFAR100_COARSE, CIFAR100_FINE
from imgdata.sources.listing import Listing
from imgdata.sources.options import SourceOptions

OPTIONS = SourceOptions()
TEN = data.cifar10(train=23, test=6)
HUNDRED = data.cifar100(train=105, test=9)


def pixels(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert (image.format, image.mode) == ("PNG", "RGB")
    return np.asarray(image)


def content(listing: Listing) -> list[tuple[object, ...]]:
    refs = list(listing.refs(range(len(listing))))
    return [(ref.name, ref.key, ref.label, ref.size, ref.fields, listing.reader.read(ref)) for ref in refs]


def write_ten(folder: Path) -> Path:
    return data.write_cifar10_python(folder, TEN)


FORMS: list[tuple[str, Callable[[Path, data.Cifar], Path], data.Cifar]] = [
    ("cifar-10-python.tar.gz", data.write_cifar10_python, TEN),
    ("cifar-10-python.tar", data.write_cifar10_python, TEN),
    ("cifar-10-batches-py", data.write_cifar10_python, TEN),
    ("cifar-10-binary.tar.gz", data.write_cifar_binary, TEN),
    ("cifar-10-batches-bin", data.write_cifar_binary, TEN),
    ("renamed.tgz", data.write_cifar10_python, TEN),
    ("renamed", data.write_cifar10_python, TEN),
    ("cifar-100-python.tar.gz", data.write_cifar100_python, HUNDRED),
    ("cifar-100-python", data.write_cifar100_python, HUNDRED),
    ("cifar-100-binary.tar.gz", data.write_cifar_binary, HUNDRED),
    ("cifar-100-binary", data.write_cifar_binary, HUNDRED),
    ("renamed", data.write_cifar100_python, HUNDRED),
    ("renamed", data.write_cifar_binary, HUNDRED),
]
FORM_IDS = [f"{name}-{writer.__name__}" for name, writer, _ in FORMS]


@pytest.mark.parametrize(("name", "writer", "source"), FORMS, ids=FORM_IDS)
def test_every_official_form_gives_the_images_and_labels_in_order(
    tmp_path: Path, name: str, writer: Callable[[Path, data.Cifar], Path], source: data.Cifar
) -> None:
    path = writer(tmp_path / name, source)
    assert cifar.recognise(path)
    listing = cifar.list_samples(path, OPTIONS)
    assert listing.splits == ("train", "test")
    assert listing.title == ("cifar100" if source.coarse else "cifar10")
    assert [one.name for one in listing.classes] == list(CIFAR100_FINE if source.coarse else CIFAR10)
    assert not listing.exact_sizes
    for number, split in enumerate(listing.splits):
        rows = np.flatnonzero(listing.split_N == number)
        refs = list(listing.refs(rows))
        assert [ref.name for ref in refs] == [f"{split}/{row:05d}" for row in range(len(rows))]
        assert [ref.label for ref in refs] == source.labels[split].tolist()
        np.testing.assert_array_equal(
            np.stack([pixels(listing.reader.read(ref)) for ref in refs]), source.images[split]
        )


@pytest.mark.parametrize("labels", ["fine", "coarse"])
def test_python_and_binary_archives_of_the_same_images_list_alike(tmp_path: Path, labels: Any) -> None:
    options = SourceOptions(labels=labels)
    python = cifar.list_samples(data.write_cifar100_python(tmp_path / "cifar-100-python.tar.gz", HUNDRED), options)
    binary = cifar.list_samples(data.write_cifar_binary(tmp_path / "cifar-100-binary.tar.gz", HUNDRED), options)
    assert python.classes == binary.classes
    assert content(python) == content(binary)
    assert python.fingerprint() == binary.fingerprint()


@pytest.mark.parametrize(
    ("labels", "names", "other", "other_names"),
    [("fine", CIFAR100_FINE, "coarse", CIFAR100_COARSE), ("coarse", CIFAR100_COARSE, "fine", CIFAR100_FINE)],
)
def test_the_labels_that_are_not_the_classes_of_cifar_100_stay_in_the_fields(
    tmp_path: Path, labels: Any, names: tuple[str, ...], other: str, other_names: tuple[str, ...]
) -> None:
    listing = cifar.list_samples(
        data.write_cifar100_python(tmp_path / "cifar-100-python", HUNDRED), SourceOptions(labels=labels)
    )
    expected = {"fine": HUNDRED.labels["train"].tolist(), "coarse": HUNDRED.coarse["train"].tolist()}
    refs = list(listing.refs(range(105)))
    assert [one.name for one in listing.classes] == list(names)
    assert [ref.label for ref in refs] == expected[labels]
    assert [json.loads(ref.fields) for ref in refs] == [
        {other: index, f"{other}_name": other_names[index]} for index in expected[other]
    ]


def test_coarse_labels_of_cifar_10_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="exist in CIFAR-100 only"):
        cifar.list_samples(write_ten(tmp_path / "cifar-10-batches-py"), SourceOptions(labels="coarse"))


def test_the_folder_around_an_archive_or_an_extracted_folder_will_do(tmp_path: Path) -> None:
    data.write_cifar10_python(tmp_path / "archive" / "cifar-10-python.tar.gz", TEN)
    write_ten(tmp_path / "extracted" / "cifar-10-batches-py")
    # torchvision leaves both there.
    shutil.copytree(tmp_path / "archive", tmp_path / "both")
    shutil.copytree(tmp_path / "extracted", tmp_path / "both", dirs_exist_ok=True)
    listings = [cifar.list_samples(tmp_path / name, OPTIONS) for name in ("archive", "extracted", "both")]
    assert content(listings[0]) == content(listings[1]) == content(listings[2])
    assert cifar.recognise(tmp_path / "both") == "cifar10 as cifar-10-batches-py/ with data_batch_1 ... test_batch"


def test_two_datasets_in_one_folder_ask_for_a_choice(tmp_path: Path) -> None:
    write_ten(tmp_path / "cifar-10-batches-py")
    data.write_cifar_binary(tmp_path / "cifar-100-binary", HUNDRED)
    with pytest.raises(SourceError, match=r"cifar-10-batches-py and .*cifar-100-binary; name one"):
        cifar.list_samples(tmp_path, OPTIONS)


def test_the_reader_travels_without_its_arrays(tmp_path: Path) -> None:
    listing = cifar.list_samples(write_ten(tmp_path / "cifar-10-batches-py"), OPTIONS)
    travelled = pickle.dumps(listing.reader)
    assert len(travelled) < 2000
    reader = pickle.loads(travelled)
    for ref in listing.refs([0, 22, 28]):
        assert reader.read(ref) == listing.reader.read(ref)


def test_kaggle_folder_keeps_its_files_and_counts_the_unlabelled_ones(tmp_path: Path) -> None:
    root = data.write_cifar_kaggle(tmp_path, TEN)
    assert cifar.recognise(root)
    listing = cifar.list_samples(root, OPTIONS)
    refs = list(listing.refs(range(len(listing))))
    assert [ref.name for ref in refs] == [f"train/{number}.png" for number in range(1, 24)]
    assert [ref.label for ref in refs] == TEN.labels["train"].tolist()
    assert [one.name for one in listing.classes] == list(CIFAR10)
    assert listing.reader.read(refs[4]) == (root / "train/5.png").read_bytes()
    assert listing.skipped == {"test images without labels": 6}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "train/7.png").unlink(), "no image for 7 of train/"),
        (lambda root: shutil.copy(root / "train/7.png", root / "train/99.png"), "no label for 99 of train/"),
        (
            lambda root: (root / "trainLabels.csv").write_text("name,class\n1,cat\n"),
            "columns must be id and label, got name",
        ),
        (lambda root: (root / "trainLabels.csv").write_text("id,label\n1\n"), "a row has no label"),
        (lambda root: (root / "trainLabels.csv").write_bytes(b"id,label\n1,\xff\xfe\n"), "not a readable CSV"),
    ],
)
def test_kaggle_table_and_images_must_agree(tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    root = data.write_cifar_kaggle(tmp_path, TEN)
    spoil(root)
    with pytest.raises(SourceError, match=message):
        cifar.list_samples(root, OPTIONS)


def batch(**changes: object) -> bytes:
    count = 4
    return pickle.dumps({"data": np.zeros((count, 3072), np.uint8), "labels": [0] * count, **changes})


@pytest.mark.parametrize(
    ("file", "damaged", "message"),
    [
        ("data_batch_2", b"", r"data_batch_2: damaged or cut short"),
        ("data_batch_2", batch()[:5000], r"data_batch_2: damaged or cut short"),
        ("data_batch_2", pickle.dumps([1, 2]), r"data_batch_2: must hold a dictionary, got list"),
        (
            "data_batch_2",
            batch(data=np.zeros((4, 1024), np.uint8)),
            r"data_batch_2: 'data' must have the shape \(N, 3072\)",
        ),
        (
            "data_batch_2",
            batch(data=np.zeros((4, 3072), np.float32)),
            r"data_batch_2: 'data' must be a uint8 array, got float32",
        ),
        ("data_batch_2", batch(data=None), r"data_batch_2: 'data' must be a uint8 array, got nothing"),
        ("data_batch_2", batch(labels=[0, 1]), r"data_batch_2: 'labels' must be 4 integers, got int64 array of shape"),
        ("data_batch_2", batch(labels=["a"] * 4), r"data_batch_2: 'labels' must be 4 integers"),
        ("test_batch", batch(labels=[0, 9, 10, 1]), r"test_batch: labels must be 0 to 9 .* got 10 in row 2"),
        ("test_batch", batch(labels=[0, 9, 1, -1]), r"test_batch: labels must be 0 to 9 .* got -1 in row 3"),
        ("batches.meta", b"nonsense", r"batches\.meta: damaged"),
    ],
)
def test_a_damaged_python_file_is_named(tmp_path: Path, file: str, damaged: bytes, message: str) -> None:
    folder = write_ten(tmp_path / "cifar-10-batches-py")
    (folder / file).write_bytes(damaged)
    with pytest.raises(SourceError, match=message):
        cifar.list_samples(folder, OPTIONS)


def test_batches_pickled_by_python_3_are_read_as_well(tmp_path: Path) -> None:
    folder = write_ten(tmp_path / "cifar-10-batches-py")
    (folder / "test_batch").write_bytes(batch(labels=np.arange(4)))
    assert cifar.list_samples(folder, OPTIONS).label_N[-4:].tolist() == [0, 1, 2, 3]


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    folder = write_ten(tmp_path / "cifar-10-batches-py")
    (folder / "data_batch_3").unlink()
    with pytest.raises(SourceError, match="data_batch_3 of cifar-10-python is not there"):
        cifar.list_samples(folder, OPTIONS)


def test_class_names_are_known_when_the_files_lack_them(tmp_path: Path) -> None:
    ten = write_ten(tmp_path / "cifar-10-batches-py")
    (ten / "batches.meta").unlink()
    hundred = data.write_cifar_binary(tmp_path / "cifar-100-binary", HUNDRED)
    (hundred / "fine_label_names.txt").unlink()
    assert [one.name for one in cifar.list_samples(ten, OPTIONS).classes] == list(CIFAR10)
    assert [one.name for one in cifar.list_samples(hundred, OPTIONS).classes] == list(CIFAR100_FINE)


@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-10-python.tar"])
@pytest.mark.parametrize("kept", [0.0, 0.0001, 0.3, 0.8])
def test_a_truncated_archive_is_named(tmp_path: Path, name: str, kept: float) -> None:
    archive = data.write_cifar10_python(tmp_path / name, TEN)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * kept)])
    assert cifar.recognise(archive)
    with pytest.raises(SourceError, match=f"{name}: (damaged or cut short|.* is not there)"):
        cifar.list_samples(archive, OPTIONS)


def test_a_damaged_gzip_stream_is_named(tmp_path: Path) -> None:
    archive = data.write_cifar10_python(tmp_path / "cifar-10-python.tar.gz", TEN)
    content = bytearray(archive.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
    archive.write_bytes(content)
    with pytest.raises(SourceError, match=r"cifar-10-python\.tar\.gz"):
        cifar.list_samples(archive, OPTIONS)


def test_binary_records_must_be_whole(tmp_path: Path) -> None:
    folder = data.write_cifar_binary(tmp_path / "cifar-10-batches-bin", TEN)
    with open(folder / "data_batch_4.bin", "ab") as file:
        file.write(b"x")
    with pytest.raises(SourceError, match=r"data_batch_4\.bin: .* no whole number of 3073-byte records"):
        cifar.list_samples(folder, OPTIONS)


@pytest.mark.parametrize("name", ["other.tar.gz", "photo.jpg", "folder", "nanogpt", "missing"])
def test_other_things_are_not_recognised(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "other.tar.gz":
        path.write_bytes(gzip.compress(data.tar_bytes({"a/train/1.png": b"x", "a/readme": b"y"})))
    elif name == "photo.jpg":
        path.write_bytes(b"\xff\xd8")
    elif name == "folder":
        data.write_class_folders(path, {"train": 1, "test": 1}, classes=1, size=(8, 8))
    elif name == "nanogpt":
        data.write_file(path / "train.bin", b"tokens")
        data.write_file(path / "test.bin", b"tokens")
    assert cifar.recognise(path) is None
    with pytest.raises(SourceError, match="no CIFAR found"):
        cifar.list_samples(path, OPTIONS)


@pytest.mark.parametrize("shape", [(32, 32, 3), (1, 1, 3), (5, 7, 3)])
@pytest.mark.parametrize("values", ["noise", "zeros", "ramp"])
def test_png_is_lossless(shape: tuple[int, int, int], values: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    image = {"noise": image, "zeros": image * 0, "ramp": np.cumsum(image % 3, axis=0).astype(np.uint8)}[values]
    np.testing.assert_array_equal(pixels(encode_png(image)), image)


def test_png_of_real_images_is_as_small_as_pillows() -> None:
    images = [np.asarray(Image.open(file).convert("RGB")) for file, _ in data.labelled_photographs("cifar10")]
    assert len(images) == 20
    ours = sum(len(encode_png(image)) for image in images)
    assert ours < 1.03 * sum(len(data.encoded(Image.fromarray(image), "PNG")) for image in images)
