"""Files are opened only when they are regular, and JSON is read only within bounds."""

import json
import os
import socket

import pytest

from imgdata.storage.reading import bounded_lines, open_regular, parse_json, read_file, read_json, require_regular


def special(kind, path):
    if kind == "a folder":
        path.mkdir()
    elif kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path.symlink_to("/dev/zero")
    return path


KINDS = ("a folder", "a named pipe", "a socket", "a device")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", [open_regular, require_regular, lambda path: read_file(path, 100), read_json])
def test_what_is_no_regular_file_is_named_at_once(tmp_path, kind, reader):
    path = special(kind, tmp_path / "x")
    with pytest.raises(OSError, match=f"{kind}, must be a regular file") as caught:
        reader(path)
    assert caught.value.filename == str(path)
    assert isinstance(caught.value, IsADirectoryError) == (kind == "a folder")


def test_links_to_files_are_followed_and_a_missing_file_stays_missing(tmp_path):
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "link", 4) == b"text"
    assert require_regular(tmp_path / "link") == 4
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "nothing", 4)


def test_a_file_above_its_limit_is_not_read(tmp_path):
    with open(tmp_path / "holes", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="has more than 1,000 bytes"):
        read_file(tmp_path / "holes", 1000)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested deeper than 100 levels"),
        ('{"a":' * 200 + "1" + "}" * 200, "nested deeper than 100 levels"),
        ("[" * 102 + "]" * 102, "nested deeper than 100 levels"),
        ("9" * 5000, "too many digits"),
        (r'{"a": "\ud800"}', "half of a surrogate pair"),
        (r'{"\udfff": 1}', "half of a surrogate pair"),
        (b'"\xed\xa0\x80"', "can't decode"),
        ("{", "Expecting property name"),
        ("", "Expecting value"),
    ],
)
def test_json_that_no_program_can_handle_is_one_error(text, what):
    for data in (text, text.encode() if isinstance(text, str) else text):
        with pytest.raises(ValueError, match=what):
            parse_json(data)


@pytest.mark.parametrize(
    "value",
    [[[0] * 5] * 300, {"name": "😀 ä"}, 10**300, [1.5, None, True], json.loads("[" * 100 + "]" * 100), "\\ud800"],
)
def test_usual_json_is_read_as_the_standard_library_reads_it(value):
    for ensure_ascii in (True, False):
        assert parse_json(json.dumps(value, ensure_ascii=ensure_ascii)) == value
    assert parse_json(json.dumps(value).encode("utf-8-sig")) == value


def test_a_line_without_end_is_cut_off(tmp_path):
    (tmp_path / "a").write_text("one\ntwo\n" + "3" * 50)
    with open(tmp_path / "a") as file:
        lines = bounded_lines(file, 20)
        assert [next(lines), next(lines)] == ["one\n", "two\n"]
        with pytest.raises(OSError, match="line 3 has more than 20 characters"):
            next(lines)
