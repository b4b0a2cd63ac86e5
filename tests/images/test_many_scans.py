"""A JPEG of thousands of scans, which takes minutes to decode, is refused by every part that decodes."""

import io

import numpy as np
import pytest
from PIL import Image

import imgdata
from imgdata import native
from imgdata.images.decode import check
from imgdata.images.jpeg import MAX_SCANS
from imgdata.images.probe import probe
from imgdata.recipes import RandomResizedCrop, Recipe


def progressive(repeats):
    """Return a progressive JPEG whose last scan stands there `repeats` times."""
    pixels = np.random.Generator(np.random.Philox(1)).integers(0, 256, (40, 56, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * repeats + data[-2:]


def test_usual_progressive_pictures_are_decoded():
    data = progressive(1)
    assert data.count(b"\xff\xda") < MAX_SCANS
    check(data, probe(data))


def test_thousands_of_scans_are_refused_at_once():
    data = progressive(3_000)
    with pytest.raises(imgdata.ImageError, match=r"JPEG of 3,0\d\d scans, the limit is 100; save it anew"):
        check(data, probe(data))


def padded(data, size):
    """Return the picture with comments in its header, `size` bytes long."""
    while len(data) < size:
        length = min(60_000, size - len(data))
        # A comment takes four bytes at least.
        length -= 4 if 0 < size - len(data) - length < 4 else 0
        data = data[:2] + b"\xff\xfe" + (length - 2).to_bytes(2, "big") + bytes(length - 4) + data[2:]
    return data


@pytest.mark.parametrize("backend", ["native", "pillow"])
def test_a_loader_whose_index_knows_nothing_of_it_leaves_it_out(tmp_path, monkeypatch, backend):
    monkeypatch.setattr(native, "AVAILABLE", native.AVAILABLE and backend == "native")
    many, folder = progressive(3_000), tmp_path / "raw" / "a"
    folder.mkdir(parents=True)
    for number in range(7):
        (folder / f"{number}.jpg").write_bytes(progressive(1))
    sound = padded(progressive(1), len(many))
    (folder / "7.jpg").write_bytes(sound)
    assert imgdata.shard(tmp_path / "raw", tmp_path / "out").rejected == {}
    (tar,) = (tmp_path / "out").glob("*.tar")
    tar.write_bytes(tar.read_bytes().replace(sound, many))
    with imgdata.Loader(
        tmp_path / "out", split="train", batch_size=8, recipe=Recipe(RandomResizedCrop(size=16))
    ) as loader:
        with pytest.warns(imgdata.BadImageWarning, match="scans"):
            list(loader)
        assert [bad.key for bad in loader.bad] == ["a/7"]
