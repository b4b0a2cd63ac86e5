"""Reading and writing tars at byte level, against the standard library and GNU tar."""

import io
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgdata.errors import ShardError
from imgdata.tar.archive import END_OF_ARCHIVE, members, padded, ustar_header

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
LONG = "folder/" + "n" * 150 + ".jpg"


def archive(files, format=tarfile.USTAR_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def contents(path, **bounds):
    data = path.read_bytes()
    return [(member.name, data[member.offset : member.offset + member.size]) for member in members(path, **bounds)]


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("name", ["a.jpg", "dir/ä ö.jpg", "x/" * 40 + "y.jpg"])
def test_members_are_where_the_standard_library_wrote_them(tmp_path, format, name):
    files = [(name, b"x" * 700), ("empty.cls", b""), ("exact.bin", b"y" * 512)]
    path = tmp_path / "a.tar"
    path.write_bytes(archive(files, format))
    assert contents(path) == files


@pytest.mark.parametrize("format", ["gnu", "pax", "ustar", "v7"])
def test_members_of_gnu_tar_are_found_and_folders_and_links_passed_over(tmp_path, format):
    folder = tmp_path / "in" / "sub"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"image")
    (folder / "b.cls").write_bytes(b"7")
    (folder / "link.jpg").symlink_to("a.jpg")
    long = folder / ("n" * (60 if format == "v7" else 140) + ".txt")
    if format != "ustar":
        long.write_bytes(b"long")
    path = tmp_path / "a.tar"
    subprocess.run(["tar", "cf", path, f"--format={format}", "-C", tmp_path / "in", "--sort=name", "sub"], check=True)
    expected = {"sub/a.jpg": b"image", "sub/b.cls": b"7"}
    assert dict(contents(path)) == expected | ({} if format == "ustar" else {f"sub/{long.name}": b"long"})


@pytest.mark.parametrize("format", ["gnu", "pax"])
def test_long_names_are_read_whole(tmp_path, format):
    path = tmp_path / "a.tar"
    path.write_bytes(archive([(LONG, b"1"), ("short.cls", b"2")], FORMATS[format]))
    assert contents(path) == [(LONG, b"1"), ("short.cls", b"2")]


def test_a_tar_inside_a_tar_is_read_in_place(tmp_path):
    inner = archive([("in.jpg", b"inside")])
    path = tmp_path / "outer.tar"
    path.write_bytes(archive([("first.bin", b"1"), ("inner.tar", inner)]))
    place = list(members(path))[1]
    assert contents(path, start=place.offset, end=place.offset + place.size) == [("in.jpg", b"inside")]


def test_a_tar_without_its_end_marker_is_read(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(ustar_header(b"a.cls", 1)) + b"7" + bytes(511))
    assert contents(path) == [("a.cls", b"7")]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "no header at byte 0"),
        (lambda data: b"<html>" + b" " * 1000, "not a tar header at byte 0"),
        (lambda data: b"\x1f\x8b" + data, "gzip.*gunzip"),
        (lambda data: data[:1000], r"cut short: a\.jpg at byte 512 needs 600 bytes, 488 are left"),
        (lambda data: data[:1700], "no header at byte 1536"),
        (lambda data: data[:1540] + b"?" + data[1541:], "not a tar header at byte 1536"),
    ],
    ids=["empty", "html", "gzip", "cut in data", "cut in header", "flipped header"],
)
def test_damage_is_named_with_its_byte(tmp_path, damage, message):
    path = tmp_path / "a.tar"
    path.write_bytes(damage(archive([("a.jpg", b"x" * 600), ("a.cls", b"7")])))
    with pytest.raises(ShardError, match=message):
        list(members(path))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text("abcdefgh/_-0123", min_size=1, max_size=80).filter(lambda n: n.strip("/") == n),
            st.binary(max_size=1200),
        ),
        max_size=5,
    )
)
def test_what_is_written_here_is_read_by_the_standard_library_and_by_us(tmp_path_factory, files):
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    data = b"".join(bytes(ustar_header(n.encode(), len(d))) + d + bytes(padded(len(d)) - len(d)) for n, d in files)
    path.write_bytes(data + END_OF_ARCHIVE)
    with tarfile.open(path) as tar:
        assert [(m.name, tar.extractfile(m).read()) for m in tar] == files
    if files:
        assert contents(path) == files
