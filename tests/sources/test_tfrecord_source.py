"""TFRecord files: what TensorFlow wrote, features of any kind, gzip; faults name file and record.

The files in tests/sources/files/tfrecord were written by `tf.io.TFRecordWriter` of TensorFlow 2.21.
"""

import gzip
import json
import shutil
import struct
from pathlib import Path

import pytest

import imgdata
from imgdata.errors import SourceError
from imgdata.shards import begun
from imgdata.sources.detect import list_source
from imgdata.sources.options import SourceOptions
from imgdata.sources.tfrecord import _TABLE
from support.loose import assert_the_same_in_place, samples
from support.rawdata import encoded

WRITTEN = Path(__file__).parent / "files" / "tfrecord"
PARTS = ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001")


def listed(path, **options):
    return list_source(path, SourceOptions(**options))


def contents(listing):
    return [listing.reader.read(ref) for ref in listing.refs(range(len(listing)))]


def copied(folder: Path) -> Path:
    folder.mkdir()
    for name in PARTS:
        shutil.copy(WRITTEN / name, folder)
    return folder


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def message(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def feature(value) -> bytes:
    values = value if isinstance(value, list) else [value]
    if isinstance(values[0], bytes):
        return message(1, b"".join(message(1, one) for one in values))
    if isinstance(values[0], float):
        return message(2, message(1, struct.pack(f"<{len(values)}f", *values)))
    return message(3, message(1, b"".join(map(varint, values))))


def example(**features) -> bytes:
    entries = (message(1, message(1, name.encode()) + message(2, feature(value))) for name, value in features.items())
    return message(1, b"".join(entries))


def masked(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def framed(data: bytes, length: int | None = None) -> bytes:
    head = struct.pack("<Q", len(data) if length is None else length)
    return head + masked(head) + data + masked(data)


def write(path: Path, records) -> Path:
    path.write_bytes(b"".join(map(framed, records)))
    return path


def test_files_of_tensorflow_are_read_with_names_classes_and_fields(tmp_path):
    listing = listed(copied(tmp_path / "photos"))
    assert (listing.kind, listing.title, listing.splits) == ("tfrecord", "photos", ("train", "val"))
    assert [(one.id, one.name) for one in listing.classes] == [("1", "cat"), ("2", "dog")]
    assert listing.label_N.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert listing.key_N.to_pylist() == [f"n{number}" for number in range(7)]
    assert json.loads(listing.fields_N[1].as_py()) == {"weight": [0.25, -1.5], "image/class/text": "dog", "empty": None}
    assert [len(data) for data in contents(listing)] == listing.size_N.tolist()
    assert all(data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9") for data in contents(listing))


def test_a_file_that_tensorflow_packed_has_the_same_images(tmp_path):
    plain = listed(copied(tmp_path / "photos"))
    packed = listed(WRITTEN / "packed.tfrecord.gz")
    assert contents(packed) == contents(plain)[:3]
    assert packed.label_N.tolist() == plain.label_N.tolist()[:3]


def test_records_are_opened_in_place(tmp_path):
    assert_the_same_in_place(copied(tmp_path / "photos"), tmp_path / "out")
    assert_the_same_in_place(WRITTEN / "packed.tfrecord.gz", tmp_path / "packed")


def test_large_packed_files_are_copied_out_first(tmp_path, monkeypatch):
    imgdata.shard(WRITTEN / "packed.tfrecord.gz", tmp_path / "plain")
    monkeypatch.setattr(begun, "SPOOL_BYTES", 0)
    imgdata.shard(WRITTEN / "packed.tfrecord.gz", tmp_path / "copied")
    plain, copy = imgdata.open(tmp_path / "plain"), imgdata.open(tmp_path / "copied")
    assert samples(plain["train"]) == samples(copy["train"])


def test_classes_are_named_by_the_file_of_tfds(tmp_path):
    folder = tmp_path / "pets" / "1.0.0"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        write(folder / f"pets-{split}.tfrecord-00000-of-00001", [example(image=encoded(1), label=1)])
    (folder / "label.labels.txt").write_text("cat\ndog\n")
    listing = listed(tmp_path / "pets")
    assert ([one.name for one in listing.classes], listing.splits) == (["cat", "dog"], ("train", "test"))
    assert listing.label_N.tolist() == [1, 1]
    assert listing.name_N.to_pylist() == [f"1.0.0/pets-{one}.tfrecord-00000-of-00001[0]" for one in ("test", "train")]


def test_numbers_texts_and_bytes_of_any_kind_become_fields(tmp_path):
    record = example(
        image=encoded(1), label=-3, tags=[b"a", "\u00e9".encode()], boxes=[0.5, 1.0], raw=b"\xff\xfe", n=[5, -6]
    )
    listing = listed(write(tmp_path / "x.tfrecord", [record]), label_column="")
    assert json.loads(listing.fields_N[0].as_py()) == {
        "label": -3,
        "tags": ["a", "\u00e9"],
        "boxes": [0.5, 1.0],
        "n": [5, -6],
    }
    assert "features raw hold bytes and are left out" in listing.warnings


def test_several_classes_of_an_image_are_a_target(tmp_path):
    path = write(tmp_path / "x.tfrecord", [example(image=encoded(n), tags=[b"a", b"bc"[n : n + 1]]) for n in range(2)])
    listing = listed(path, target="multi-label", label_column="tags")
    assert [one.name for one in listing.classes] == ["a", "b", "c"]


GOOD = example(image=encoded(1), label=0)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ((framed(GOOD) * 2)[:-50], r"cut short in record 1"),
        (framed(GOOD) + b"\0" * 5, r"cut short in record 1"),
        (framed(GOOD) + b"\0" * 50, r"damaged at record 1 .byte \d+.: the check sum of its length"),
        (framed(GOOD) + framed(b"", 2**60), r"cut short in record 1"),
        (b"\0" * 100, r"no TFRecord: the check sum"),
        (b"x", r"no TFRecord"),
        (framed(GOOD) + framed(b"\x0a\xff\x01"), r"record 1 is no tf\.train\.Example \(a field ends outside"),
        (framed(GOOD) + framed(b"\xff" * 20), r"record 1 is no tf\.train\.Example \(a number without an end"),
        (framed(GOOD) + framed(b"\x0b"), r"record 1 is no tf\.train\.Example \(field of type 3"),
        (framed(b""), r"no feature holds an encoded image"),
        (framed(example(image=b"\0\1\2", label=1)), r"no feature holds an encoded image.*has: image, label"),
        (framed(GOOD) + framed(example(image=[encoded(1), encoded(2)], label=1)), r"record 1 has 2 values in image"),
        (framed(GOOD) + framed(example(image=encoded(1))), r"record 1: the label \(column 'label'\) is empty"),
        (gzip.compress(framed(GOOD) * 3)[:-30], r"cut short or damaged"),
        (gzip.compress(framed(GOOD)[:-9]), r"cut short in record 0"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path, data, fault):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"x\.tfrecord: " + fault):
        listed(path)


def test_a_file_of_another_kind_with_such_a_name_is_none(tmp_path):
    (tmp_path / "part-00000-of-00001").write_bytes(b"x" * 40)
    with pytest.raises(SourceError, match="no known layout"):
        listed(tmp_path)


def test_a_number_in_place_of_bytes_is_no_example(tmp_path):
    value = message(1, varint(1 << 3) + varint(5))  # a list of bytes, whose value is a number
    entry = message(1, b"image") + message(2, value)
    negative = varint(1 << 3) + varint(-5)  # a number where the features are
    for number, made in enumerate((message(1, message(1, entry)), negative)):
        path = tmp_path / f"{number}.tfrecord"
        path.write_bytes(framed(made))
        with pytest.raises(SourceError, match=r"record 0 is no tf\.train\.Example \(a number in place of"):
            listed(path)
