"""Crop-ready JPEGs in a loader: batches are those of the plain files, bit for bit, on every backend."""

import io
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imgdata
from imgdata import native
from support.loaders import TRAIN, loader, take
from support.native_crops import encode, gentle

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason="the extension was not built, which makes the files")

SAMPLINGS = ("4:2:0", "4:4:4", "4:2:2", "4:4:0", "gray")
COUNT = 30


def raw(number: int) -> bytes:
    """A picture of 90 to 119 x 70 pixels; each sampling, each third one progressive, and one that stays as it is."""
    sampling = SAMPLINGS[number % len(SAMPLINGS)]
    image = gentle(90 + number, 70, number, 250)
    if number == 7:
        file = io.BytesIO()
        image.convert("CMYK").save(file, "JPEG")
        return file.getvalue()
    return encode(image if sampling != "gray" else image.convert("L"), sampling, progressive=number % 3 == 0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same samples in the same order, with plain files and with crop-ready ones."""
    folder = tmp_path_factory.mktemp("crop-ready")
    source = folder / "raw.tar"
    with tarfile.open(source, "w") as tar:
        for number in range(COUNT):
            for name, data in ((f"{number:03d}.jpg", raw(number)), (f"{number:03d}.cls", b"%d" % (number % 3))):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    plain, ready = folder / "plain", folder / "ready"
    imgdata.shard(source, plain, shard_samples=8, workers=1)
    imgdata.shard(source, ready, shard_samples=8, workers=1, crop_ready=True)
    return plain, ready


def test_batches_are_those_of_the_plain_files(folders: tuple[Path, Path], backend: str) -> None:
    seen = []
    for folder in folders:
        with loader(folder, seed=3) as batches:
            seen.append(take(batches) + take(batches))
    assert len(seen[0]) == 2 * (COUNT // TRAIN["batch_size"])
    for plain, ready in zip(*seen, strict=True):
        assert plain[:3] == ready[:3]
        assert np.array_equal(plain.images, ready.images)


@pytest.mark.filterwarnings("ignore::imgdata.BadImageWarning")
def test_files_that_were_cut_off_are_bad_for_any_crop(tmp_path: Path, backend: str) -> None:
    files = []
    for number in range(16):
        made = native.make_crop_ready(encode(gentle(120, 90, number, 250), "4:2:0"))
        assert made is not None
        data = made[0]
        files.append(data if number % 5 else data[: data.rindex(b"\xff\xd3")])
    with tarfile.open(tmp_path / "x-train-000000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, data in enumerate(files):
            for name, content in ((f"{number:03d}.jpg", data), (f"{number:03d}.cls", b"0")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    imgdata.index(tmp_path, workers=1)
    with loader(tmp_path, batch_size=4) as batches:
        take(batches)
        assert {image.position: image.reason for image in batches.bad} == dict.fromkeys((0, 5, 10, 15), "truncated")


@pytest.mark.skipif(find_spec("nvidia.dali") is None, reason="DALI is not installed")
def test_dali_gets_small_pictures_of_the_segments(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from imgdata.backends.dali.pipeline import Graph

    given: list[int] = []
    start = Graph.start
    monkeypatch.setattr(
        Graph,
        "start",
        lambda graph, encoded, arrays: (given.extend(map(len, encoded)), start(graph, encoded, arrays))[1],
    )
    num_bytes = []
    for folder in folders:
        given.clear()
        with loader(folder, seed=3, backend="dali", drop_last=False) as batches:
            take(batches)
        num_bytes.append(sum(given))
    assert num_bytes[1] < 0.8 * num_bytes[0]


def test_a_slice_is_a_picture_of_its_own_and_the_rest_is_whole() -> None:
    data = native.make_crop_ready(encode(gentle(400, 300, 1, 250), "4:2:0"))
    assert data is not None
    made = native.slice_jpeg(data[0], (400, 300), (210, 100, 260, 130))
    assert made is not None
    part, left, top = made
    whole, small = (np.asarray(Image.open(io.BytesIO(one))) for one in (data[0], part))
    assert (left, top, small.shape) == (160, 96, (48, 160, 3))
    assert np.array_equal(small[4:34, 50:100], whole[100:130, 210:260])
    assert native.slice_jpeg(data[0], (400, 300), (0, 0, 400, 300)) is None
    assert native.slice_jpeg(data[0], (401, 300), (210, 100, 260, 130)) is None
    with pytest.raises(ValueError, match="inside of the picture"):
        native.slice_jpeg(data[0], (400, 300), (210, 100, 401, 130))


def test_whole_pictures_are_those_of_the_plain_files(folders: tuple[Path, Path]) -> None:
    plain, ready = (imgdata.open(folder)["train"] for folder in folders)
    assert ready.index.array("restart_interval").astype(bool).sum() == COUNT - 1
    for one, other in zip(plain, ready, strict=True):
        assert one.key == other.key
        assert np.array_equal(
            np.asarray(Image.open(io.BytesIO(one.image))), np.asarray(Image.open(io.BytesIO(other.image)))
        )
