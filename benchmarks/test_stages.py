"""Single stages of sharding and reading, with pytest-benchmark: `make bench`.

`extra_info` holds what a stage costs for each sample, and what the peers of the same group are.
"""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg
from PIL import Image

import imgdata
from benchmarks import data
from imgdata.dataset.index import INDEX_SCHEMA, write_index
from imgdata.headers import probe
from imgdata.images import Encoding, check, reencode
from imgdata.sample import ClassName
from imgdata.shards.options import ShardOptions
from imgdata.shards.plan import make_plan
from imgdata.sources.listing import Listing
from imgdata.sources.readers import FileReader
from imgdata.tar import END_OF_ARCHIVE, members, padded, ustar_header

IMAGENET_TRAIN = 1_281_167
PHOTOS = 64


@pytest.fixture(scope="session")
def photos():
    """JPEGs of 500x375, cut from photographs."""
    encoded = []
    for image in data.photo_crops(PHOTOS, size=(500, 375), seed=0):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
        encoded.append(buffer.getvalue())
    return encoded


def per_image(benchmark, work, photos):
    """Benchmark `work` over all photos and note the images per second."""
    benchmark.pedantic(lambda: [work(photo) for photo in photos], rounds=7, warmup_rounds=1)
    benchmark.extra_info["images_per_s"] = round(len(photos) / benchmark.stats.stats.median, 1)


@pytest.mark.benchmark(group="read the header")
def test_probe(benchmark, photos):
    per_image(benchmark, probe, photos)


@pytest.mark.benchmark(group="read the header")
def test_pillow_open(benchmark, photos):
    per_image(benchmark, lambda photo: Image.open(io.BytesIO(photo)).size, photos)


@pytest.mark.benchmark(group="find damage")
def test_check(benchmark, photos):
    per_image(benchmark, lambda photo: check(photo, probe(photo)), photos)


@pytest.mark.benchmark(group="find damage")
def test_libjpeg_turbo_full_decode(benchmark, photos):
    per_image(benchmark, simplejpeg.decode_jpeg, photos)


@pytest.mark.benchmark(group="find damage")
def test_pillow_load(benchmark, photos):
    per_image(benchmark, lambda photo: Image.open(io.BytesIO(photo)).load(), photos)


@pytest.mark.benchmark(group="resize to 256")
def test_reencode(benchmark, photos):
    encoding = Encoding(resize=256, quality=90)
    per_image(benchmark, lambda photo: reencode(photo, probe(photo), encoding, extension="jpg"), photos)


@pytest.mark.benchmark(group="resize to 256")
def test_pillow_resize(benchmark, photos):
    def resize(photo):
        image = Image.open(io.BytesIO(photo)).convert("RGB")
        scale = 256 / min(image.size)
        resized = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        resized.save(io.BytesIO(), "JPEG", quality=90)

    per_image(benchmark, resize, photos)


@pytest.mark.benchmark(group="tar members")
def test_ustar_header(benchmark):
    benchmark.pedantic(lambda: [ustar_header(b"n01440764/n01440764_%d.jpg" % i, i) for i in range(10_000)], rounds=7)


@pytest.mark.benchmark(group="tar members")
def test_tarfile_header(benchmark):
    def headers():
        for i in range(10_000):
            info = tarfile.TarInfo(f"n01440764/n01440764_{i}.jpg")
            info.size = i
            info.tobuf(tarfile.USTAR_FORMAT)

    benchmark.pedantic(headers, rounds=3)


@pytest.fixture(scope="session")
def tar(tmp_path_factory):
    """A tar of 10,000 small members."""
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    content = bytes(3000)
    with open(path, "wb") as file:
        for i in range(10_000):
            file.write(
                ustar_header(b"%08d.jpg" % i, len(content)) + content + bytes(padded(len(content)) - len(content))
            )
        file.write(END_OF_ARCHIVE)
    return path


@pytest.mark.benchmark(group="walk a tar")
def test_members(benchmark, tar):
    benchmark.pedantic(lambda: sum(1 for _ in members(tar)), rounds=5)


@pytest.mark.benchmark(group="walk a tar")
def test_tarfile(benchmark, tar):
    def walk():
        with tarfile.open(tar) as archive:
            return sum(1 for _ in archive)

    benchmark.pedantic(walk, rounds=5)


def imagenet_listing(photo: Path) -> Listing:
    """A listing as large as ImageNet's train split, over one real file."""
    row_N = np.arange(IMAGENET_TRAIN)
    name_N = pa.chunked_array([pa.array([photo.name]).take(pa.array(np.zeros(IMAGENET_TRAIN, np.int64)))])
    return Listing(
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


@pytest.mark.benchmark(group="plan 1.3 million samples")
def test_plan(benchmark, photos, tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(photos[0])
    listing = imagenet_listing(photo)
    plan = benchmark.pedantic(lambda: make_plan(listing, ShardOptions()), rounds=3)
    assert plan.num_samples == IMAGENET_TRAIN


@pytest.fixture(scope="session")
def imagenet_index(tmp_path_factory, photos):
    """A finished folder whose index has as many rows as ImageNet's train split; all point at one image."""
    folder = tmp_path_factory.mktemp("imagenet")
    raw = folder / "raw" / "a"
    raw.mkdir(parents=True)
    (raw / "0.jpg").write_bytes(photos[0])
    out = folder / "out"
    imgdata.shard(folder / "raw", out, ShardOptions(name="imagenet"), workers=1)
    row = imgdata.open(out)["train"].index.row(0)
    number_N = np.arange(IMAGENET_TRAIN)
    columns = []
    for field in INDEX_SCHEMA:
        if field.name in ("key", "source"):
            text = pa.array([f"n{i % 1000:08d}/n{i % 1000:08d}_{i}" for i in number_N.tolist()])
            columns.append(text)
        elif field.name == "label":
            columns.append(pa.array(number_N % 1000, pa.int32()))
        else:
            value = pa.array([getattr(row, field.name)], field.type)
            columns.append(value.take(pa.array(np.zeros(IMAGENET_TRAIN, np.int64))))
    index = out / "imagenet-train.index.parquet"
    write_index(index, pa.table(columns, schema=INDEX_SCHEMA))
    manifest = json.loads((out / "dataset.json").read_text())
    manifest["splits"]["train"]["samples"] = manifest["splits"]["train"]["shards"][0]["samples"] = IMAGENET_TRAIN
    (out / "dataset.json").write_text(json.dumps(manifest))
    return out


@pytest.mark.benchmark(group="open 1.3 million samples")
def test_open_and_first_sample(benchmark, imagenet_index):
    sample = benchmark.pedantic(lambda: imgdata.open(imagenet_index)["train"][1_000_000], rounds=5)
    assert sample.label == 0


@pytest.mark.benchmark(group="open 1.3 million samples")
def test_open(benchmark, imagenet_index):
    dataset = benchmark.pedantic(lambda: imgdata.open(imagenet_index), rounds=5)
    assert len(dataset["train"]) == IMAGENET_TRAIN


@pytest.mark.benchmark(group="one random sample")
def test_random_sample(benchmark, imagenet_index):
    split = imgdata.open(imagenet_index)["train"]
    position = iter(np.random.default_rng(0).integers(0, len(split), 1_000_000).tolist())
    benchmark.pedantic(lambda: split[next(position)], rounds=2000, warmup_rounds=10)
