"""A split as a PyTorch dataset gives what torchvision's `ImageFolder` gives for the raw folders."""

import numpy as np
import pytest
import torch
from rawdata import class_folders
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import imgdata
from imgdata import ShardOptions


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
