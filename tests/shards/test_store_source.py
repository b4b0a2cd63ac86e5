"""Raw images in an object store: the shards are those of the same files on a disk."""

import io
import os
import shutil
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import imgdata
from benchmarks import data
from imgdata import ShardOptions
from imgdata.shards import begun, store_source
from imgdata.shards.summary import Watcher
from imgdata.storage import remote_ahead
from imgdata.storage.remote import RemoteStore
from support.masks import image_folder, numbers
from support.rawdata import class_folders, encoded
from support.remote_servers import Fault, faulty, impatient, web_server
from support.tars import shard_writer

OPTIONS = ShardOptions(name="pets", shard_samples=10)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Short pauses, and a cache folder of the test's own."""
    impatient(monkeypatch, tmp_path / "cache", tries=3, stall_s=2.0)


@pytest.fixture
def raw(tmp_path):
    return class_folders(tmp_path / "raw", {"train": 8, "val": 3})


def tars(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.tar")}


def folders(place):
    class_folders(place, {"train": 8, "val": 3})


def table(place):
    (place / "images").mkdir(parents=True)
    for number in range(6):
        (place / "images" / f"{number}.jpg").write_bytes(encoded(number))
    rows = "".join(f"images/{number}.jpg,{'ab'[number % 2]}\n" for number in range(6))
    (place / "labels.csv").write_text(f"file,label\n{rows}images/missing.jpg,a\n")


def masks(place):
    image_folder(place, {"train": 5, "val": 2})


def tars_with_fields(place):
    shard_writer(place, {"train": 12, "val": 3}, json=True)


def zips(place):
    files = class_folders(place / "files", {"train": 8, "val": 3})
    for split in ("train", "val"):
        # One deflates all, the other half of its images.
        with zipfile.ZipFile(place / f"{split}.zip", "w") as archive:
            for number, path in enumerate(sorted((files / split).rglob("*.jpg"))):
                archive.write(path, path.relative_to(files / split), (split == "train" or number % 2) * 8)
    shutil.rmtree(files)


def stored_zip(place):
    class_folders(place / "files", {"train": 8, "val": 3})
    with zipfile.ZipFile(place / "images.zip", "w") as archive:
        for path in (place / "files").rglob("*.jpg"):
            archive.write(path, path.relative_to(place / "files"))
    shutil.rmtree(place / "files")


def parquet(place):
    place.mkdir()
    for part, split in enumerate(("train", "train", "validation")):
        rows = [{"bytes": encoded(part * 9 + row), "path": None} for row in range(9)]
        table = pa.table({"image": rows, "label": [row % 3 for row in range(9)], "text": ["ü"] * 9})
        pq.write_table(table, place / f"{split}-{part:05d}-of-00003.parquet", row_group_size=4)


def imagenet_in_tars_and_folders(place):
    source = data.imagenet(classes=3, per_class=3, val=4, size=(48, 36))
    data.write_imagenet_official(place, source)
    (place / "ILSVRC2012_img_val.tar").unlink()
    data.write_imagenet_folders(place / "folders", source)
    shutil.move(place / "folders" / "val", place / "val")
    shutil.rmtree(place / "folders")


def dataset_with_masks(place):
    with imgdata.Writer(place, shuffle=False) as writer:
        for seed in range(14):
            pixels = numbers(seed, (48 + seed, 40))
            writer.write(encoded(seed, (48 + seed, 40)), seed % 2, mask=pixels, json={"text": f"ü{seed}"})


LAYOUTS = [folders, table, masks, tars_with_fields, stored_zip, zips, parquet]
LAYOUTS += [imagenet_in_tars_and_folders, dataset_with_masks]


@pytest.mark.parametrize("make", LAYOUTS)
def test_a_source_in_a_store_becomes_the_shards_of_its_copy_on_a_disk(s3, tmp_path, make, monkeypatch):
    raw = tmp_path / "raw"
    make(raw)
    # Files that the listing has opened make room for others, and images come in several windows.
    monkeypatch.setattr(store_source, "KEPT_BYTES", 1000)
    monkeypatch.setattr(remote_ahead, "WINDOW_BYTES", 5000)
    monkeypatch.setattr(begun, "_STORE_SPOOL_BYTES", 5000)
    imgdata.shard(raw, tmp_path / "here", OPTIONS)
    imgdata.shard(s3.upload(raw, "raw"), tmp_path / "there", OPTIONS, workers=1)
    assert tars(tmp_path / "there") == tars(tmp_path / "here")
    assert imgdata.verify(tmp_path / "there") == []


@pytest.mark.parametrize(
    "options",
    [{"resize": 32, "crop_ready": True}, {"hash": "xxh128", "views": ("count=2",)}, {"shuffle": False}],
)
def test_a_dataset_in_a_store_is_sharded_again_as_its_copy_on_a_disk(s3, tmp_path, options, monkeypatch):
    image_folder(tmp_path / "raw", {"train": 8, "val": 3})
    imgdata.shard(tmp_path / "raw", tmp_path / "dataset", OPTIONS)
    imgdata.shard(tmp_path / "dataset", tmp_path / "here", **options)
    source = s3.upload(tmp_path / "dataset", "dataset")
    with faulty(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        imgdata.shard(source, tmp_path / "there", **options)
    assert tars(tmp_path / "there") == tars(tmp_path / "here")
    # The index says what is in a shard: shards are read for their images alone.
    assert not any(".tar bytes=0-" in one for one in proxy.requests)


def test_from_a_store_into_a_store(s3, raw):
    source = s3.upload(raw, "raw")
    imgdata.shard(source, f"{s3.url}/out", OPTIONS)
    assert imgdata.verify(f"{s3.url}/out") == []
    assert imgdata.shard(source, f"{s3.url}/out", OPTIONS).already_complete
    with pytest.raises(imgdata.OutputError, match="inside it; choose a place beside"):
        imgdata.shard(source, f"{source}/out", OPTIONS)


def test_an_object_that_changed_is_another_source(s3, raw, tmp_path):
    source = s3.upload(raw, "raw")
    imgdata.shard(source, tmp_path / "out", OPTIONS)
    name = "train/cat/000.jpg"
    data = RemoteStore(source).read(name)
    RemoteStore(source).put(name, data[:-1] + b"x")
    with pytest.raises(imgdata.OutputError, match="list of images has changed"):
        imgdata.shard(source, tmp_path / "out", OPTIONS)


def test_a_store_that_fails_in_the_middle_is_one_error_and_the_next_run_resumes(s3, raw, tmp_path, monkeypatch):
    source = s3.upload(raw, "raw")
    imgdata.shard(raw, tmp_path / "here", OPTIONS)
    with (
        faulty(os.environ["AWS_ENDPOINT_URL"], Fault("status", 10**6, "GET /tests/")) as proxy,
        monkeypatch.context() as patched,
    ):
        proxy.faults[0].match = "train/newt/004.jpg"
        patched.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with pytest.raises(imgdata.ShardError, match=r"train/newt/004\.jpg: can't be read"):
            imgdata.shard(source, tmp_path / "there", OPTIONS, workers=1)
    assert not (tmp_path / "there" / "dataset.json").exists()
    imgdata.shard(source, tmp_path / "there", OPTIONS)
    assert tars(tmp_path / "there") == tars(tmp_path / "here")


def test_tars_are_named_by_a_pattern_or_one_by_one_also_on_a_web_server(s3, tmp_path):
    raw = shard_writer(tmp_path / "raw", {"train": 12})
    source = s3.upload(raw, "raw")
    with web_server(raw) as address:
        for number, (pattern, places) in enumerate(
            [
                ("demo-train-{000000..000001}.tar", (source, address)),
                ("demo-train-*2.tar", (source,)),
                ("demo-train-000001.tar", (source, address)),
            ]
        ):
            imgdata.shard(raw / pattern, tmp_path / f"here-{number}", OPTIONS)
            for place in places:
                out = tmp_path / f"{place[:4]}-{number}"
                imgdata.shard(f"{place}/{pattern}", out, OPTIONS, workers=1)
                assert tars(out) == tars(tmp_path / f"here-{number}")
        with pytest.raises(imgdata.SourceError, match="a web server does not list its files, and there is no dataset"):
            imgdata.shard(address, tmp_path / "out", OPTIONS)
        imgdata.shard(raw, tmp_path / "dataset", OPTIONS)
    with web_server(tmp_path / "dataset") as address:
        imgdata.shard(f"{address}/", tmp_path / "again", OPTIONS, workers=1)
        imgdata.shard(tmp_path / "dataset", tmp_path / "copy", OPTIONS)
        assert tars(tmp_path / "again") == tars(tmp_path / "copy")


@pytest.mark.parametrize("make", [tars_with_fields, parquet])
def test_parts_read_a_source_in_a_store(s3, tmp_path, make):
    make(tmp_path / "raw")
    source = s3.upload(tmp_path / "raw", "raw")
    imgdata.shard(tmp_path / "raw", tmp_path / "here", OPTIONS)
    imgdata.begin_parts(source, tmp_path / "there", OPTIONS)
    for number in range(2):
        imgdata.write_part(tmp_path / "there", number, 2, workers=1)
    imgdata.finish_parts(tmp_path / "there")
    assert tars(tmp_path / "there") == tars(tmp_path / "here")


class WhenWriting(Watcher):
    """Calls a function when the listing is made."""

    def __init__(self, act):
        self.act = act

    def stage(self, name):
        if name == "writing":
            self.act()


def test_a_tar_that_changes_after_it_was_listed_ends_the_run(s3, tmp_path):
    source = s3.upload(shard_writer(tmp_path / "raw", {"train": 12}), "raw")
    other = shard_writer(tmp_path / "other", {"train": 12}, json=True)
    change = WhenWriting(lambda: s3.upload(other, "raw"))
    with pytest.raises(imgdata.ShardError, match=r"raw/demo-train-00000\d\.tar: changed while it was read"):
        imgdata.shard(source, tmp_path / "out", OPTIONS, watch=change)
    with pytest.raises(imgdata.OutputError, match="list of images has changed"):
        imgdata.shard(source, tmp_path / "out", OPTIONS)
    imgdata.shard(source, tmp_path / "out", OPTIONS, overwrite=True)
    assert imgdata.verify(tmp_path / "out") == []


def test_a_tar_that_must_not_be_read_is_one_line_and_a_tar_in_order_is_few_requests(s3, tmp_path, monkeypatch):
    source = s3.upload(shard_writer(tmp_path / "raw", {"train": 12}, maxcount=12), "raw")
    denied = Fault("status", 1, "demo-train-000000.tar", 403)
    with faulty(os.environ["AWS_ENDPOINT_URL"], denied) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with pytest.raises(imgdata.ShardError, match=r"^s3://.*/demo-train-000000\.tar: may not be read.*[^\n]*$"):
            imgdata.shard(source, tmp_path / "out", OPTIONS)
        assert not (tmp_path / "out").exists()
        proxy.requests.clear()
        imgdata.shard(source, tmp_path / "out", shuffle=False)
        gets = [one for one in proxy.requests if one.startswith("GET") and "000000.tar" in one]
        # The survey of formats, the listing, and the shard of 12 images.
        assert len(gets) <= 3, gets


def test_rows_of_parquet_are_read_by_ranges_and_one_that_is_refused_is_one_line(s3, tmp_path, monkeypatch):
    parquet(tmp_path / "raw")
    source = s3.upload(tmp_path / "raw", "raw")
    denied = Fault("status", 10**6, "train-00001-of-00003.parquet", 403)
    with faulty(os.environ["AWS_ENDPOINT_URL"], denied) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with pytest.raises(imgdata.ShardError, match=r"^s3://.*/train-00001-of-00003\.parquet: may not be read[^\n]*$"):
            imgdata.shard(source, tmp_path / "out", OPTIONS)
        denied.times = 0
        imgdata.shard(source, tmp_path / "out", OPTIONS)
    assert imgdata.verify(tmp_path / "out") == []
    assert not any(one.endswith("bytes=0-8388607") for one in proxy.requests)


def arrays():
    file = io.BytesIO()
    np.savez(file, images=np.zeros((4, 8, 8), np.uint8), labels=np.arange(4))
    return file.getvalue()


def test_what_is_not_read_from_a_store_is_named(s3, tmp_path):
    def run():
        imgdata.shard(f"{s3.url}/raw", tmp_path / "out", OPTIONS)

    with pytest.raises(imgdata.SourceError, match="nothing is there"):
        run()
    RemoteStore(f"{s3.url}/raw").put("train.npz", arrays())
    with pytest.raises(imgdata.SourceError, match=r"in arrays .*\(layout arrays\), which are not read from an object"):
        run()
    RemoteStore(f"{s3.url}/raw").delete("train.npz")
    RemoteStore(f"{s3.url}/raw").put("packed.zip", b"damaged")
    with pytest.raises(imgdata.SourceError, match=r"packed\.zip: no ZIP archive"):
        run()
    assert not (tmp_path / "out").exists()
