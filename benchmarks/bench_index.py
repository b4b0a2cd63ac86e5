"""Tars -> an index, and an index of ImageNet's size -> samples."""

import shutil
import tarfile

import numpy as np
import pytest

import imgdata
from benchmarks.synthetic_index import plant
from imgdata.tar.archive import END_OF_ARCHIVE, members, padded, ustar_header
from imgdata.views.saved import open_view

IMAGENET_TRAIN = 1_281_167
MEMBERS = 10_000
RANDOM_SAMPLES = 2000


@pytest.fixture(scope="session")
def tar(work_folder):
    """Write a tar of 10,000 small members."""
    path, content = work_folder / "members.tar", bytes(3000)
    with open(path, "wb") as file:
        for i in range(MEMBERS):
            file.write(ustar_header(b"%08d.jpg" % i, len(content)) + content.ljust(padded(len(content)), b"\0"))
        file.write(END_OF_ARCHIVE)
    return path


def _tarfile_members(path):
    with tarfile.open(path) as archive:
        return sum(1 for _ in archive)


@pytest.mark.benchmark(group="walk a tar")
@pytest.mark.parametrize(
    ("name", "walk"),
    [("imgdata", lambda path: sum(1 for _ in members(path))), ("tarfile", _tarfile_members)],
    ids=["imgdata", "tarfile"],
)
def test_walk_a_tar(stage, tar, name, walk):
    assert stage(name, lambda: walk(tar), images=MEMBERS) == MEMBERS


@pytest.mark.benchmark(group="index tars made elsewhere")
def test_index_tars(stage, data, work_folder):
    tars, foreign = sorted((data / "shards").glob("*.tar")), work_folder / "foreign"

    def copies():
        shutil.rmtree(foreign, ignore_errors=True)
        foreign.mkdir()
        for tar in tars:
            (foreign / tar.name).hardlink_to(tar)
        return (foreign,)

    num_images = len(imgdata.open(data / "shards")["train"])
    num_bytes = sum(tar.stat().st_size for tar in tars)
    stage("imgdata", imgdata.index, images=num_images, num_bytes=num_bytes, setup=copies)


@pytest.fixture(scope="session")
def imagenet(work_folder):
    """Make a finished folder whose index has as many rows as ImageNet's train split, in 600 shards."""
    return plant(work_folder / "imagenet", IMAGENET_TRAIN, shards=600)


@pytest.mark.benchmark(group="open 1,281,167 samples")
def test_open(stage, imagenet):
    assert len(stage("imgdata.open", lambda: imgdata.open(imagenet), images=1)["train"]) == IMAGENET_TRAIN


@pytest.mark.benchmark(group="open 1,281,167 samples")
def test_open_and_first_sample(stage, imagenet):
    sample = stage("imgdata.open, one sample", lambda: imgdata.open(imagenet)["train"][1_000_000], images=1)
    assert sample.label is not None


@pytest.mark.benchmark(group="open 1,281,167 samples")
def test_half_as_a_view(stage, imagenet):
    dataset = imgdata.open(imagenet)
    stage("imgdata, a view of one half", lambda: open_view(dataset, "train", "fraction=0.5"), images=1)


@pytest.mark.benchmark(group="random samples")
def test_random_samples(stage, imagenet):
    split = imgdata.open(imagenet)["train"]
    position_N = np.random.default_rng(0).integers(0, len(split), RANDOM_SAMPLES).tolist()
    stage("imgdata, random samples", lambda: [split[at] for at in position_N], images=RANDOM_SAMPLES)
