"""Tars that were made to hang, to fill the memory or to mislead: one error each, with the byte."""

import io
import os
import tarfile

import pytest

import imgdata
from imgdata.errors import ShardError, SourceError
from imgdata.tar.archive import BLOCK, END_OF_ARCHIVE, TarError, members, ustar_header
from imgdata.tar.packed import UnpackError, open_packed, read_packed
from support.rawdata import encoded
from support.tars import pairs, write_tar


def header(name: str, size: bytes, kind: bytes = b"0") -> bytes:
    """A header whose 12 bytes of size are `size`, with a right checksum."""
    block = ustar_header(name.encode(), 0)
    block[124:136] = size.ljust(12, b"\0")
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(**fields: str) -> bytes:
    """An extended header with these fields."""
    records = b""
    for key, value in fields.items():
        body = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length += 1
        records += str(length).encode() + body
    size = len(records)
    return header("pax", b"%011o" % size, b"x") + records.ljust(-(-size // BLOCK) * BLOCK, b"\0")


ZERO = header("a.jpg", b"00000000000")
HOSTILE = {
    "a negative octal size": header("a.jpg", b"-0000001000"),
    "an octal size with a prefix": header("a.jpg", b"0o17"),
    "an octal size with an underscore": header("a.jpg", b"1_000"),
    "a negative size in base 256": header("a.jpg", b"\xff" * 12),
    "a negative pax size": pax(size="-1024") + ZERO,
    "a pax size that is a word": pax(size="abc") + ZERO,
    "a pax size with an exponent": pax(size="1e3") + ZERO,
    "an empty pax size": pax(size="") + ZERO,
    "a pax size in other digits": pax(size="١٢") + ZERO,
    "a pax size of 5,000 digits": pax(size="9" * 5000) + ZERO,
    "a sparse member of GNU tar": header("a.jpg", b"00000000000", b"S"),
    "a sparse member of pax": pax(GNU__sparse__realsize=str(1 << 50)) + ZERO,
    "more than there is": header("a.jpg", b"\x80" + bytes(3) + b"\x7f" * 8),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_size_is_an_error_with_its_byte(tmp_path, data):
    path = tmp_path / "a.tar"
    path.write_bytes(data + END_OF_ARCHIVE)
    with pytest.raises(TarError, match=str(path)) as caught:
        list(members(path))
    assert 0 <= caught.value.byte <= path.stat().st_size
    with pytest.raises(ShardError, match=str(path)):
        imgdata.index(path)
    with pytest.raises((ShardError, SourceError), match=str(path)):
        imgdata.shard(path, tmp_path / "out")


def test_pax_and_base_256_sizes_of_files_that_are_there_are_taken(tmp_path):
    data = pax(size="5") + header("a.jpg", b"00000000000") + b"image".ljust(BLOCK, b"\0")
    data += header("b.jpg", b"\x80" + bytes(10) + b"\x05") + b"other".ljust(BLOCK, b"\0")
    (tmp_path / "a.tar").write_bytes(data + END_OF_ARCHIVE)
    assert [(found.name, found.size) for found in members(tmp_path / "a.tar")] == [("a.jpg", 5), ("b.jpg", 5)]


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_tar_that_is_no_file_is_an_error_and_nobody_waits(tmp_path, kind):
    path = tmp_path / "x.tar"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(ShardError, match="must be a regular file"):
        list(members(path))
    with pytest.raises((ShardError, SourceError)):
        imgdata.shard(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("cls", b"1" * 2_000_000, "s0.cls at byte .* has 2,000,000 bytes, the limit is 1,024"),
        ("json", b" " * 17_000_000 + b"{}", "has 17,000,002 bytes, the limit is 16,777,216"),
        ("json", b"[" * 100_000, "must be a JSON object .nested deeper than 100 levels"),
        ("json", rb'{"label": "\ud800"}', "must be a JSON object .half of a surrogate pair"),
        ("json", b'{"label": ' + b"9" * 5000 + b"}", "must be a JSON object .a number has too many digits"),
        ("json", b'{"label": ' + b"9" * 4000 + b"}", "label of 's0' must be a class index"),
        ("cls", b"999999", "label 999999 is no class index: the 1 samples would have 1000000 classes"),
    ],
)
def test_a_member_that_would_fill_the_memory_or_the_disk_is_an_error(tmp_path, name, data, what):
    tar = write_tar(tmp_path / "a.tar", [("s0.jpg", encoded(0)), (f"s0.{name}", data)])
    with pytest.raises(ShardError, match=what):
        imgdata.index(tar)
    with pytest.raises((ShardError, SourceError), match=what):
        imgdata.shard(tar, tmp_path / "out")
    assert not (tmp_path / "dataset.json").exists()


def test_a_hole_in_a_tar_is_not_read_into_memory(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(header("s0.jpg", b"\x80" + bytes(5) + b"\x01" + bytes(5)))
    os.truncate(path, BLOCK + (1 << 40))
    with pytest.raises(ShardError, match=r"s0\.jpg at byte 512 has 1,099,511,627,776 bytes, the limit is"):
        imgdata.index(path)


def test_only_the_last_of_many_global_headers_counts(tmp_path):
    # Each with another key: kept, they would fill the memory.
    data = b"".join(pax(**{f"key{number}": "x" * 400}).replace(b"x", b"x") for number in range(50))
    (tmp_path / "a.tar").write_bytes(data + ZERO + END_OF_ARCHIVE)
    assert [found.name for found in members(tmp_path / "a.tar")] == ["a.jpg"]


def packed(path, size, compressed=True, sparse=False):
    with tarfile.open(path, "w:gz" if compressed else "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.bin")
        info.size = size
        if sparse:
            info.size = 0
            info.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 45)}
        tar.addfile(info, io.BytesIO(bytes(size)))
    return path


@pytest.mark.parametrize("compressed", [True, False])
def test_a_packed_tar_is_read_up_to_a_limit(tmp_path, compressed):
    path = packed(tmp_path / "a.tar", 3_000_000, compressed)
    with open_packed(path, 4_000_000) as archive:
        assert read_packed(archive, next(iter(archive))) == bytes(3_000_000)
    too_much = pytest.raises(UnpackError, match="unpacks to more than 1,000,000 bytes")
    with too_much, open_packed(path, 1_000_000) as archive:
        read_packed(archive, next(iter(archive)))


def test_a_sparse_member_of_a_packed_tar_is_refused(tmp_path):
    with open_packed(packed(tmp_path / "a.tar", 0, sparse=True), 1_000_000) as archive:
        member = next(iter(archive))
        with pytest.raises(UnpackError, match=r"a\.bin is a sparse member"):
            read_packed(archive, member)


def test_names_longer_than_a_file_may_have_are_indexed_read_and_exported(tmp_path):
    long = "n" * 300
    files = [(f"{long}.jpg", encoded(0)), (f"{long}.cls", b"0"), *pairs(2)]
    tar = write_tar(tmp_path / "a.tar", files, tarfile.PAX_FORMAT)
    dataset = imgdata.index(tar)
    assert dataset["train"][0].key == long
    assert imgdata.verify(tmp_path) == []
    assert imgdata.export(tmp_path, tmp_path / "folders").files == 3
