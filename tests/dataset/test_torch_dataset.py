"""A split as a PyTorch dataset gives what torchvision's `ImageFolder` gives for the raw folders."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import imgdata
from imgdata import ShardOptions
from imgdata.errors import ImageError
from support.rawdata import class_folders, encoded
from support.tars import write_tar


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The raw class folders, and the dataset made of them in the same order."""
    work = tmp_path_factory.mktemp("work")
    raw = class_folders(work / "raw", {"train": 6, "val": 2})
    imgdata.shard(raw, work / "out", ShardOptions(shuffle=False, shard_samples=5), workers=1)
    return raw, work / "out"


@pytest.mark.parametrize("split", ["train", "val"])
def test_it_equals_image_folder(places, split):
    raw, out = places
    theirs, ours = ImageFolder(raw / split), imgdata.open(out).torch(split)
    assert (ours.classes, ours.class_to_idx, ours.targets) == (theirs.classes, theirs.class_to_idx, theirs.targets)
    assert len(ours) == len(theirs)
    for (image, label), (expected, expected_label) in zip(ours, theirs, strict=True):
        assert label == expected_label
        assert np.array_equal(image, expected)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_data_loader_gives_every_image_once(places, num_workers):
    transform = v2.Compose([v2.ToImage(), v2.Resize((32, 32)), v2.ToDtype(torch.float32, scale=True)])
    images = imgdata.open(places[1]).torch("train", transform)
    loader = torch.utils.data.DataLoader(images, batch_size=5, shuffle=True, num_workers=num_workers)
    batches = list(loader)
    assert [tuple(batch.shape) for batch, _ in batches] == [(5, 3, 32, 32)] * 3 + [(3, 3, 32, 32)]
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == [0] * 6 + [1] * 6 + [2] * 6


def test_an_unknown_split_names_those_there_are(places):
    with pytest.raises(KeyError, match="it has train, val"):
        imgdata.open(places[1]).torch("test")


def test_the_limit_of_pixels_is_that_of_the_dataset_and_not_pillows(places, monkeypatch):
    # Above twice this Pillow raises, above once it warns; images here have 48 x 49 pixels and more.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    dataset = imgdata.open(places[1])
    assert len(list(dataset.torch("val"))) == 6
    dataset.manifest = dataclasses.replace(dataset.manifest, options={"max_pixels": 1000})
    with pytest.raises(ImageError, match=r"cat/000-1 in split val: \d+ x 48 pixels, the limit is 1000 \(max_pixels\)"):
        dataset.torch("val")[0]
    assert Image.MAX_IMAGE_PIXELS == 1000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<html>", "not-an-image: k in split train: looks like HTML"),
        (encoded(1)[:-200], "truncated: k in split train"),
    ],
)
def test_an_image_that_cannot_be_decoded_is_named(tmp_path, data, message):
    write_tar(tmp_path / "x.tar", [("k.jpg", data), ("k.cls", b"0")])
    with pytest.raises(ImageError, match=message):
        imgdata.index(tmp_path).torch("train")[-1]
