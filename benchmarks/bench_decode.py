"""JPEGs in memory -> pixels, in one thread: our crops, and what libjpeg-turbo needs for less or more than them."""

import io
from contextlib import suppress

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from benchmarks.crops import Crops, bare_library
from benchmarks.loader_peers.task import SIDE
from imgdata import native

pytestmark = [
    pytest.mark.benchmark(group="random crops of 224, one thread"),
    pytest.mark.skipif(not native.AVAILABLE, reason="the extension was not built: gcc, libjpeg-turbo's headers"),
]
PICTURES = 64


@pytest.fixture(scope="module")
def crops():
    with Crops(PICTURES) as opened:
        yield opened


@pytest.fixture(scope="module")
def ready_crops():
    with Crops(PICTURES, crop_ready=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def library():
    with suppress(ImportError), bare_library() as compiled:
        yield compiled
        return
    pytest.skip("needs gcc and the headers of libjpeg-turbo")


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_extension(stage, crops, dtype):
    pool = native.Pool(1)
    try:
        stage(f"imgdata, {dtype}", crops.ours(pool, dtype), images=PICTURES, num_bytes=crops.num_bytes)
    finally:
        pool.close()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_extension_on_crop_ready_files(stage, ready_crops, dtype):
    pool = native.Pool(1)
    try:
        make = ready_crops.ours(pool, dtype)
        stage(f"imgdata, crop-ready files, {dtype}", make, images=PICTURES, num_bytes=ready_crops.num_bytes)
    finally:
        pool.close()


def test_making_files_crop_ready(stage, crops):
    def make() -> None:
        for picture in crops.pictures:
            native.make_crop_ready(picture)

    stage("imgdata, making files crop-ready", make, images=PICTURES, num_bytes=crops.num_bytes)


@pytest.mark.parametrize(
    ("part", "name"), [("crop", "crop only"), ("whole", "full decode"), ("huffman", "Huffman only, all of it")]
)
def test_bare_libjpeg_turbo(stage, crops, library, part, name):
    stage(f"libjpeg-turbo, {name}", crops.bare(library, part), images=PICTURES, num_bytes=crops.num_bytes)


def _boxes(crops):
    box_N4 = crops.params.box_N4.astype(float)
    return np.concatenate([box_N4[:, :2], box_N4[:, :2] + box_N4[:, 2:]], axis=1).tolist()


def _pillow(crops, decode):
    # A resize of the box reads beyond its edges; for the time that is no difference.
    return [
        decode(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)
        for picture, box in zip(crops.pictures, _boxes(crops), strict=True)
    ]


def test_torchcodec_and_torchvisions_resize(stage, crops):
    decoders = pytest.importorskip("torchcodec.decoders", exc_type=ImportError)
    torch = pytest.importorskip("torch")
    from torchvision.transforms.v2 import functional

    def make() -> None:
        for picture, (left, top, width, height) in zip(crops.pictures, crops.params.box_N4.tolist(), strict=True):
            image_CHW = decoders.decode_jpeg(picture, mode="RGB")
            functional.resized_crop(image_CHW, top, left, height, width, [SIDE, SIDE], antialias=True)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        stage("TorchCodec, torchvision's resize", make, images=PICTURES, num_bytes=crops.num_bytes)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "decode"),
    [
        ("simplejpeg, Pillow resize", lambda picture: Image.fromarray(simplejpeg.decode_jpeg(picture))),
        ("Pillow", lambda picture: Image.open(io.BytesIO(picture)).convert("RGB")),
    ],
    ids=["simplejpeg", "pillow"],
)
def test_full_decode_and_resize(stage, crops, name, decode):
    stage(name, lambda: _pillow(crops, decode), images=PICTURES, num_bytes=crops.num_bytes)
