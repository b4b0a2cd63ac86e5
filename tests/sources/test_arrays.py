"""MNIST's idx files and NumPy's .npz: pixels unchanged, labels as classes, faults with the file's name."""

import gzip
import io
import struct

import numpy as np
import pytest
from PIL import Image

import imgdata
from imgdata import ShardOptions

RANDOM = np.random.Generator(np.random.Philox(key=[7, 0]))
TRAIN, TEST = RANDOM.integers(0, 256, (9, 6, 5), np.uint8), RANDOM.integers(0, 256, (4, 6, 5), np.uint8)
TRAIN_LABELS, TEST_LABELS = np.array([0, 1, 2, 3, 4, 5, 6, 7, 11], np.uint8), np.array([3, 1, 11, 0], np.uint8)
IDS = ["0", "1", "2", "3", "4", "5", "6", "7", "11"]


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist(folder, pack=lambda data: data, ending=""):
    folder.mkdir(parents=True)
    for name, images, labels in (("train", TRAIN, TRAIN_LABELS), ("t10k", TEST, TEST_LABELS)):
        (folder / f"{name}-images-idx3-ubyte{ending}").write_bytes(pack(idx(images)))
        (folder / f"{name}-labels-idx1-ubyte{ending}").write_bytes(pack(idx(labels)))
    return folder


def keras(path):
    np.savez_compressed(path, x_train=TRAIN, y_train=TRAIN_LABELS, x_test=TEST, y_test=TEST_LABELS)
    return path


def medmnist(path):
    labels = {"train_labels": TRAIN_LABELS[:, None], "test_labels": TEST_LABELS[:, None].astype(np.int64)}
    np.savez(path, train_images=TRAIN, test_images=TEST, **labels)
    return path


def plain_files(folder):
    folder.mkdir()
    for name, array in (("x_train", TRAIN), ("y_train", TRAIN_LABELS), ("x_test", TEST), ("y_test", TEST_LABELS)):
        np.save(folder / f"{name}.npy", array)
    return folder


def torchvision(root):
    mnist(root / "MNIST" / "raw")
    mnist(root / "packed", gzip.compress, ".gz")
    for path in (root / "packed").iterdir():
        path.rename(root / "MNIST" / "raw" / path.name)
    return root / "MNIST"


@pytest.mark.parametrize(
    "make",
    [
        lambda root: mnist(root / "mnist"),
        lambda root: mnist(root / "mnist", gzip.compress, ".gz"),
        torchvision,
        lambda root: keras(root / "mnist.npz"),
        lambda root: medmnist(root / "mnist.npz"),
        lambda root: plain_files(root / "mnist"),
    ],
    ids=["idx", "idx.gz", "torchvision", "keras", "medmnist", "npy"],
)
def test_pixels_labels_and_splits_are_those_of_the_arrays(tmp_path, make):
    imgdata.shard(make(tmp_path), tmp_path / "out", ShardOptions(shuffle=False), workers=1)
    dataset = imgdata.open(tmp_path / "out")
    assert [one.id for one in dataset.classes] == IDS
    keys = set()
    for name, images, labels in (("train", TRAIN, TRAIN_LABELS), ("test", TEST, TEST_LABELS)):
        assert len(dataset[name]) == len(images)
        for sample, picture, label in zip(dataset[name], images, labels, strict=True):
            assert (np.asarray(Image.open(io.BytesIO(sample.image))) == picture).all()
            assert dataset.classes[sample.label].id == str(label)
            keys.add(sample.key)
    assert len(keys) == 13
    assert imgdata.verify(tmp_path / "out") == []


def test_colour_arrays_are_colour_images(tmp_path):
    images = RANDOM.integers(0, 256, (3, 6, 5, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=[2, 1, 1])
    imgdata.shard(tmp_path / "a.npz", tmp_path / "out", ShardOptions(shuffle=False), workers=1)
    [first, *_] = imgdata.open(tmp_path / "out")["train"]
    assert (np.asarray(Image.open(io.BytesIO(first.image))) == images[0]).all()


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def huge(path):
    path.write_bytes(struct.pack(">HBBIII", 0, 8, 3, 2**31, 2**31, 8) + b"x")


def other_type(path):
    path.write_bytes(struct.pack(">HBBIII", 0, 13, 3, 1, 1, 1) + b"x")


@pytest.mark.parametrize("spoil", [cut, huge, other_type])
def test_damaged_files_are_named(tmp_path, spoil):
    folder = mnist(tmp_path / "mnist")
    spoil(folder / "t10k-images-idx3-ubyte")
    with pytest.raises(imgdata.SourceError, match="t10k-images-idx3-ubyte: "):
        imgdata.shard(folder, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": TRAIN, "labels": TRAIN_LABELS[:3]}, "has 9 images, and 3 labels"),
        ({"images": TRAIN.astype(np.float32), "labels": TRAIN_LABELS}, "must be uint8 of shape .* got float32"),
        ({"images": TRAIN, "labels": TRAIN_LABELS.astype(str)}, "labels must be whole numbers"),
        ({"images": np.array([object()] * 3), "labels": TRAIN_LABELS}, "no plain array"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(imgdata.SourceError, match=message):
        imgdata.shard(tmp_path / "a.npz", tmp_path / "out", workers=1)


def test_a_plain_array_that_was_cut_is_named(tmp_path):
    folder = plain_files(tmp_path / "mnist")
    (folder / "x_train.npy").write_bytes((folder / "x_train.npy").read_bytes()[:-3])
    with pytest.raises(imgdata.SourceError, match=r"x_train\.npy: damaged, or no plain array"):
        imgdata.shard(folder, tmp_path / "out")
