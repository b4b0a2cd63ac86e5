"""Raw pictures -> shards, stage by stage: headers, damage, resizing, tar headers, the plan, whole runs."""

import io
import shutil
import subprocess
import tarfile

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg
import webdataset
from PIL import Image

import imgdata
from benchmarks.writers import resize_with_pillow
from imgdata.images.decode import check
from imgdata.images.encode import Encoding, reencode
from imgdata.images.probe import probe
from imgdata.sample import ClassName
from imgdata.shards.options import ShardOptions
from imgdata.shards.plan import make_plan
from imgdata.sources.listing import Listing
from imgdata.sources.readers import FileReader
from imgdata.tar.archive import ustar_header

IMAGENET_TRAIN = 1_281_167
HEADERS = 10_000


def _pillow_size(picture):
    return Image.open(io.BytesIO(picture)).size


def _pillow_load(picture):
    return Image.open(io.BytesIO(picture)).load()


def _for_each(stage, name, work, pictures):
    num_bytes = sum(map(len, pictures))
    stage(name, lambda: [work(one) for one in pictures], images=len(pictures), num_bytes=num_bytes)


@pytest.mark.benchmark(group="read the header")
@pytest.mark.parametrize(("name", "work"), [("imgdata", probe), ("Pillow", _pillow_size)], ids=["imgdata", "pillow"])
def test_read_the_header(stage, pictures, name, work):
    _for_each(stage, name, work, pictures)


@pytest.mark.benchmark(group="find damage")
@pytest.mark.parametrize(
    ("name", "work"),
    [
        ("imgdata", lambda picture: check(picture, probe(picture))),
        ("libjpeg-turbo, full decode", simplejpeg.decode_jpeg),
        ("Pillow", _pillow_load),
    ],
    ids=["imgdata", "libjpeg-turbo", "pillow"],
)
def test_find_damage(stage, pictures, name, work):
    _for_each(stage, name, work, pictures)


@pytest.mark.benchmark(group="resize to 256")
def test_resize_by_imgdata(stage, pictures):
    encoding = Encoding(resize=256, quality=90)
    _for_each(stage, "imgdata", lambda one: reencode(one, probe(one), encoding, extension="jpg"), pictures)


@pytest.mark.benchmark(group="resize to 256")
def test_resize_by_pillow(stage, pictures, tmp_path):
    files = [tmp_path / f"{number}.jpg" for number in range(len(pictures))]
    for file, picture in zip(files, pictures, strict=True):
        file.write_bytes(picture)
    stage("Pillow", lambda: list(map(resize_with_pillow, files)), images=len(files), num_bytes=sum(map(len, pictures)))


@pytest.mark.benchmark(group="tar headers")
def test_headers_by_imgdata(stage):
    stage("imgdata", lambda: [ustar_header(b"n0/n0_%d.jpg" % i, i) for i in range(HEADERS)], images=HEADERS)


@pytest.mark.benchmark(group="tar headers")
def test_headers_by_tarfile(stage):
    def headers():
        for i in range(HEADERS):
            info = tarfile.TarInfo(f"n0/n0_{i}.jpg")
            info.size = i
            info.tobuf(tarfile.USTAR_FORMAT)

    stage("tarfile", headers, images=HEADERS)


@pytest.mark.benchmark(group="plan 1,281,167 samples")
def test_plan(stage, pictures, tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(pictures[0])
    row_N = np.arange(IMAGENET_TRAIN)
    name_N = pa.chunked_array([pa.array([photo.name]).take(pa.array(np.zeros(IMAGENET_TRAIN, np.int64)))])
    listing = Listing(
        title="imagenet",
        kind="folder",
        reader=FileReader(photo.parent),
        classes=tuple(ClassName(f"n{i:08d}", f"class {i}") for i in range(1000)),
        splits=("train",),
        split_N=np.zeros(IMAGENET_TRAIN, np.uint8),
        label_N=(row_N % 1000).astype(np.int32),
        size_N=np.full(IMAGENET_TRAIN, photo.stat().st_size, np.int64),
        container_N=np.zeros(IMAGENET_TRAIN, np.int32),
        offset_N=np.zeros(IMAGENET_TRAIN, np.int64),
        name_N=name_N,
        key_N=name_N,
    )
    plan = stage("imgdata", lambda: make_plan(listing, ShardOptions()), images=IMAGENET_TRAIN)
    assert plan.num_samples == IMAGENET_TRAIN


def _shard(**options):
    return lambda source, out: imgdata.shard(source, out, ShardOptions(**options), workers=2)


def _tar(source, out):
    out.mkdir()
    subprocess.run(["tar", "cf", out / "all.tar", "-C", source, "."], check=True)


def _shard_writer(source, out):
    out.mkdir()
    with webdataset.ShardWriter(str(out / "%06d.tar"), maxsize=256_000_000, verbose=0) as sink:
        for number, path in enumerate(sorted(source.rglob("*.jpg"))):
            sink.write({"__key__": f"{number:08d}", "jpg": path.read_bytes(), "cls": 0})


WRITERS = {
    "imgdata, check=header": _shard(check="header"),
    "imgdata, check=decode": _shard(check="decode"),
    "imgdata, resize=256": _shard(encoding=Encoding(resize=256, quality=90)),
    "tar cf": _tar,
    "cp -r": lambda source, out: subprocess.run(["cp", "-r", source, out], check=True),
    "webdataset ShardWriter": _shard_writer,
}


@pytest.mark.benchmark(group="write shards, two workers")
@pytest.mark.parametrize("name", WRITERS)
def test_write_shards(stage, data, work_folder, name):
    source, out = data / "folders", work_folder / "written"
    files = [path.stat().st_size for path in source.rglob("*.jpg")]
    stage(
        name,
        WRITERS[name],
        images=len(files),
        num_bytes=sum(files),
        setup=lambda: (source, out),
        teardown=lambda _, written: shutil.rmtree(written),
    )
