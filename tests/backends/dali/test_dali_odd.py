"""Every kind of good JPEG by DALI, on the processor and on a GPU: the pixels of the CPU backend, and no bad image."""

import io
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from imgdata import native
from imgdata.backends.cpu.backend import CpuBackend
from imgdata.backends.dali.backend import DaliBackend
from imgdata.recipes import CenterCrop, HorizontalFlip, RandomResizedCrop, Recipe, Resize
from support.dali_work import made, setup, work
from support.gpu import assert_shows, on_devices
from support.loaders import dataset
from support.rawdata import picture

SIDE = 64
RECIPES = {
    "random crops": Recipe(RandomResizedCrop(size=SIDE), HorizontalFlip()),
    "the middle": Recipe(Resize(size=72), CenterCrop(size=SIDE)),
}


def jpeg(seed, size=(320, 240), mode="RGB", **options):
    file = io.BytesIO()
    picture(seed, size).convert(mode).save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


def turned(seed):
    """Stored on its side, as phones do; nobody here turns it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(seed, exif=exif)


ODD = {
    "4:4:4": lambda: jpeg(0, subsampling=0),
    "4:2:2": lambda: jpeg(1, subsampling=1),
    "4:2:0": lambda: jpeg(2, subsampling=2),
    "odd sides": lambda: jpeg(3, (321, 243), subsampling=2),
    "gray": lambda: jpeg(4, mode="L"),
    "CMYK": lambda: jpeg(5, mode="CMYK"),
    "RGB": lambda: jpeg(6, keep_rgb=True, subsampling=0),
    "EXIF": lambda: turned(7),
    "progressive": lambda: jpeg(8, progressive=True),
    "progressive gray": lambda: jpeg(9, mode="L", progressive=True),
    "restarts": lambda: jpeg(10, restart_marker_rows=1),
    "8 x 8": lambda: jpeg(11, (8, 8), subsampling=2),
    "1 x 1": lambda: jpeg(12, (1, 1)),
    "long": lambda: jpeg(13, (2000, 16)),
    "quality 100": lambda: jpeg(14, quality=100, optimize=True),
    "60 megapixels": lambda: jpeg(15, (9000, 6700), subsampling=2),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return dataset(
        tmp_path_factory.mktemp("odd"), {number: make() for number, make in enumerate(ODD.values())}, len(ODD)
    )


@on_devices
@pytest.mark.parametrize("crop_decode", [None, False])
def test_odd_jpegs_have_the_pixels_of_the_cpu_backend(odd, monkeypatch, crop_decode, device):
    # Each GPU run takes seconds: the one way with this recipe, the other with that.
    name = "random crops" if crop_decode is None else "the middle"
    monkeypatch.setattr(native, "AVAILABLE", False)
    rows, epochs = range(len(ODD)), range(2)
    here = setup(odd, RECIPES[name])
    there = setup(odd, RECIPES[name], device=device, dali_options={"crop_decode": crop_decode})
    with closing(CpuBackend(here)) as one, closing(DaliBackend(there)) as other:
        for epoch in epochs:
            expected, _ = made(one, work(here, rows, epoch))
            found, failed = made(other, work(there, rows, epoch))
            assert failed == {}
            assert_shows(found, expected, device, rows_apart=4.0 if device == "cpu" else 8.0)
            for kind, row_found, row_expected in zip(ODD, found, expected, strict=True):
                apart = np.abs(row_found.astype(int) - row_expected).mean()
                # Without chroma to interpolate decoders differ by their roundings alone.
                assert apart < 1.5 or kind not in ("4:4:4", "gray", "progressive gray"), f"{kind}: {apart:.2f} apart"


@on_devices
def test_one_outlier_among_small_pictures_takes_no_memory_beforehand(odd, device):
    given = setup(odd, RECIPES["the middle"], device=device, dali_options={"crop_decode": False})
    with closing(DaliBackend(given)) as backend:
        assert backend.spec.largest_2 == (321, 243)
