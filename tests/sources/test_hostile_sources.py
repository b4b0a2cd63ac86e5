"""Raw datasets that were made to fill memory or time: one error each, without a long wait."""

import contextlib
import gzip
import os
import pickle
import resource
import struct
import subprocess
import tarfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import imgdata
from imgdata.errors import SourceError
from imgdata.sources.cifar.files import FORMS, Place, read
from imgdata.sources.cifar.pickles import load_arrays
from imgdata.sources.detect import list_source
from imgdata.sources.imagenet.devkit import gather
from imgdata.sources.imagenet.matfile import load_mat
from imgdata.sources.options import SourceOptions
from support.rawdata import encoded

LENGTH = (1 << 32).to_bytes(8, "little")


@pytest.mark.parametrize(
    "data",
    [
        b"\x96" + LENGTH + b"abcd.",
        b"\x8e" + LENGTH + b"abcd.",
        b"\x95" + LENGTH + b"abcd.",
        b"\x8d" + LENGTH + b"abcd.",
        b"\x8b\xff\xff\xff\x7fabcd.",
    ],
)
def test_a_short_pickle_takes_no_memory(data):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SourceError, match="not a readable pickle"):
        load_arrays(data, "x")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_pickle_can_not_copy_the_same_bytes_over_and_over():
    # A text of a kilobyte, then calls of `_codecs.encode` with it.
    text = b"X" + (1000).to_bytes(4, "little") + b"a" * 1000 + b"q\x01"
    call = b"c_codecs\nencode\nh\x01X\x06\x00\x00\x00latin1\x86R"
    with pytest.raises(SourceError, match="over and over"):
        load_arrays(b"\x80\x02(" + text + call * 100 + b"l.", "x")


def test_pickles_of_arrays_are_read_as_before():
    arrays = {"data": np.arange(3072, dtype=np.uint8).reshape(1, 3072), "labels": [3], "more": bytearray(b"x" * 100)}
    for protocol in range(6):
        found = load_arrays(pickle.dumps(arrays, protocol), "x")
        assert (found["data"] == arrays["data"]).all()
        assert found["labels"] == [3]


def mat(*elements):
    data = b"MATLAB 5.0".ljust(124) + b"\0\1IM"
    for content in elements:
        packed = zlib.compress(content, 9)
        data += struct.pack("<II", 15, len(packed)) + packed
    return data


@pytest.mark.parametrize("elements", [(bytes(100_000_000),), (bytes(12_000_000), bytes(12_000_000))])
def test_a_mat_file_unpacks_to_a_limit(elements):
    with pytest.raises(SourceError, match="not a readable MATLAB 5 file"):
        load_mat(mat(*elements), "x")


def bomb(path, name, size):
    with gzip.open(path, "wb") as file:
        header = tarfile.TarInfo(name)
        header.size = size
        file.write(header.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(size >> 24):
            file.write(bytes(1 << 24))
    return path


@pytest.mark.slow
def test_archives_that_unpack_to_gigabytes_are_given_up(tmp_path):
    cifar = bomb(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py/data_batch_1", 1 << 30)
    with pytest.raises(SourceError, match="unpacks to more than 536,870,912 bytes"):
        read(Place(cifar, FORMS[0]))
    devkit = bomb(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12/data/meta.mat", 1 << 27)
    with pytest.raises(SourceError, match="unpacks to more than 67,108,864 bytes"):
        gather([tmp_path], None)
    assert devkit.stat().st_size < 1_000_000


@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl", "x.tar", "x.parquet", "cifar-10-python.tar.gz"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_special_files_are_errors_and_nobody_waits(tmp_path, name, kind):
    path = tmp_path / name
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    for place in (path, tmp_path):
        with pytest.raises(imgdata.ImgdataError):
            imgdata.shard(place, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("labels.csv", "path,label\n" + "a," * 3_000_000 + "\n", "line 2 has more than 1,048,576 characters"),
        ("labels.csv", "path,label" + "x" * 3_000_000, "line 1 has more than 1,048,576 characters"),
        ("labels.jsonl", '{"path": "' + "x" * 20_000_000, "line 1 has more than 16,777,216 characters"),
        ("labels.jsonl", '{"path": ' + "[" * 100_000 + "\n", "line 1 is not JSON: nested deeper"),
        (
            "labels.jsonl",
            '{"path": "a.jpg", "label": ' + "9" * 5000 + "}\n",
            "line 1 is not JSON: a number has too many",
        ),
        ("labels.jsonl", '{"path": "a.jpg", "label": "\\ud800"}\n', "line 1 is not JSON: half of a surrogate pair"),
    ],
)
def test_a_line_that_no_program_can_handle_is_an_error(tmp_path, name, text, what):
    (tmp_path / "a.jpg").write_bytes(encoded(0))
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=what):
        list_source(tmp_path, SourceOptions(kind="table", table=tmp_path / name))


def test_folders_of_links_to_each_other_are_given_up(tmp_path):
    for number in range(30):
        folder = tmp_path / "raw" / "cat" / f"f{number:02d}"
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(encoded(number))
    for number in range(29):
        for name in "xy":
            (tmp_path / f"raw/cat/f{number:02d}/{name}").symlink_to(f"../f{number + 1:02d}", target_is_directory=True)
    with pytest.raises(SourceError, match="through links more than 64 times"):
        list_source(tmp_path / "raw", SourceOptions(kind="folder"))


def test_a_folder_that_several_links_lead_to_is_listed_through_each(tmp_path):
    (tmp_path / "raw/cat/own").mkdir(parents=True)
    (tmp_path / "raw/cat/own/a.jpg").write_bytes(encoded(0))
    for number in range(5):
        (tmp_path / f"raw/cat/l{number}").symlink_to("own", target_is_directory=True)
    assert len(list_source(tmp_path / "raw", SourceOptions(kind="folder"))) == 6


def test_very_deep_folders_are_an_error_or_are_read(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(1500):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        with open(os.open("a.jpg", os.O_WRONLY | os.O_CREAT, dir_fd=here), "wb") as file:
            file.write(encoded(0))
    finally:
        os.close(here)
    try:
        for kind in ("folder", "tars", None):
            with contextlib.suppress(imgdata.ImgdataError):
                assert len(list_source(tmp_path, SourceOptions(kind=kind))) == 1
    finally:
        # pytest can't remove folders nested so deeply.
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def test_metadata_of_hugging_face_are_read_within_bounds(tmp_path):
    table = pa.table({"image": [encoded(0)], "label": [0]})
    for text in (b"[" * 100_000, b'{"info": [1]}', b'{"info": {"features": []}}', b'{"info": "\\ud800"}'):
        pq.write_table(table.replace_schema_metadata({b"huggingface": text}), tmp_path / "train.parquet")
        with pytest.raises(SourceError, match="huggingface"):
            list_source(tmp_path / "train.parquet", SourceOptions(kind="parquet"))


@pytest.mark.parametrize("nested", [True, False])
def test_a_parquet_file_that_repeats_one_image_over_and_over_is_given_up(tmp_path, nested):
    rows = 2000
    column = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array([bytes(900_000)], pa.binary()))
    image = pa.StructArray.from_arrays([column], ["bytes"]) if nested else column
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"image": image, "label": np.zeros(rows, np.int64)}), path, store_schema=False)
    assert path.stat().st_size < 100_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SourceError, match="the same images come over and over"):
        list_source(path, SourceOptions(kind="parquet"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000


def test_a_parquet_file_that_unpacks_to_gigabytes_is_given_up(tmp_path):
    path = tmp_path / "train.parquet"
    images = pa.array([bytes([number]) + bytes(30_000_000) for number in range(10)], pa.binary())
    table = pa.table({"image": images, "label": [0] * 10})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    with pytest.raises(SourceError, match=r"column image unpacks from [\d,]+ to 300,[\d,]+ bytes"):
        list_source(path, SourceOptions(kind="parquet"))
