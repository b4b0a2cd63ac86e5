"""Tar archives at byte level: USTAR headers out, and any usual tar's members with their offsets in."""

import io
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from imgdata.errors import ShardError
from imgdata.storage.atomic import pread
from imgdata.storage.reading import MAX_MEMBER_BYTES, open_regular

BLOCK = 512
END_OF_ARCHIVE = bytes(2 * BLOCK)

_NAME_BYTES = 100
_SIZE = slice(124, 136)
_CHECKSUM = slice(148, 156)
_REGULAR = (b"0", b"\0", b"7")
_SPARSE = b"S"
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")
_MAX_EXTENDED_HEADER = 1 << 20
_OCTAL = re.compile(rb"[ \0]*([0-7]*)[ \0]*")
_PAX_SIZE = re.compile(r"[0-9]{1,19}")


class TarError(ShardError):
    """A tar is damaged, cut short or none; `byte` is where that was found, counted from the file's start."""

    def __init__(self, message: str, byte: int) -> None:
        super().__init__(message)
        self.byte = byte

    def __reduce__(self) -> tuple[type["TarError"], tuple[str, int]]:
        """Return how to unpickle the error: exceptions pickle by their message, but this one takes two arguments."""
        return type(self), (str(self), self.byte)


class Member(NamedTuple):
    """One regular file of a tar."""

    name: str
    offset: int
    """First data byte, counted from the start of the file that holds the tar."""
    size: int
    """Bytes of data, padding left out."""


def padded(size: int) -> int:
    """Return `size` rounded up to whole tar blocks."""
    return -(-size // BLOCK) * BLOCK


def _template() -> tuple[bytes, int]:
    # Owner, time and mode are constant, so that the same input gives the same bytes everywhere.
    header = bytearray(BLOCK)
    header[100:108] = b"0000644\0"
    header[108:116] = header[116:124] = b"0000000\0"
    header[136:148] = b"00000000000\0"
    header[_CHECKSUM] = b" " * 8
    header[156:157] = b"0"
    header[257:265] = b"ustar\x0000"
    header[329:337] = header[337:345] = b"0000000\0"
    return bytes(header), sum(header)


_TEMPLATE, _TEMPLATE_SUM = _template()


def ustar_header(name: bytes, size: int) -> bytearray:
    """Return the 512-byte USTAR header of a regular file: owner 0, mode 0644, time 0.

    `name` is at most 100 bytes of ASCII; `size` is below 8 GiB.
    """
    assert len(name) <= _NAME_BYTES, name
    header = bytearray(_TEMPLATE)
    header[: len(name)] = name
    digits = b"%011o" % size
    header[124:135] = digits
    header[_CHECKSUM] = b"%06o\0 " % (_TEMPLATE_SUM + sum(name) + sum(digits))
    return header


def open_tar(path: Path) -> io.FileIO:
    """Open the tar at `path` for reading at offsets. Raises `ShardError` when it can't be read, or is no file."""
    try:
        return open(path, "rb", buffering=0, opener=open_regular)
    except OSError as error:
        raise ShardError(f"{path}: can't be read: {error.strerror or error}") from error


def read_member(descriptor: int, member: Member, path: Path, max_bytes: int = MAX_MEMBER_BYTES) -> bytes:
    """Return the bytes of `member`. Raises `ShardError`: cut short, or more than `max_bytes`."""
    if member.size > max_bytes:
        raise ShardError(
            f"{path}: {member.name} at byte {member.offset} has {member.size:,} bytes, the limit is {max_bytes:,}; "
            "take it out of the tar"
        )
    data = pread(descriptor, member.size, member.offset)
    if len(data) != member.size:
        raise ShardError(f"{path}: cut short inside {member.name} at byte {member.offset + len(data)}")
    return data


@dataclass
class TarWalk:
    """Everything in a tar besides its regular files, counted while the tar is read."""

    passed_over: Counter[str] = field(default_factory=Counter)
    """Links, devices and the like, by kind; folders are not counted."""
    without_end: bool = False
    """Whether the file ends behind a member, without the blocks of zeros that end a tar."""
    short_bytes: int = 0
    """Bytes that the last block lacks: of its padding, since a member's own bytes that lack are an error."""


_OTHER_KINDS = {b"1": "hard links", b"2": "symbolic links", b"3": "devices", b"4": "devices", b"6": "FIFOs"}


def members(path: Path, *, start: int = 0, end: int | None = None, walk: TarWalk | None = None) -> Iterator[Member]:
    """Yield the regular files of the tar in bytes `start` to `end` of `path` (default: all of it), in order.

    Only headers are read. USTAR prefixes, GNU long names, pax `path` and `size`, and base-256 sizes are understood;
    `walk` records what is skipped. Raises `TarError` with the byte of the fault for a damaged header or an archive
    that is cut short.
    """
    with open_tar(path) as file:
        descriptor = file.fileno()
        end = os.fstat(descriptor).st_size if end is None else end
        head = pread(descriptor, 6, start)
        if head[:2] == b"\x1f\x8b":
            raise TarError(f"{path}: compressed with gzip, which has no random access; gunzip it first", start)
        position = start
        long_name: str | None = None
        pax: dict[str, str] = {}
        global_pax: dict[str, str] = {}
        while True:
            header = pread(descriptor, BLOCK, position) if position + BLOCK <= end else b""
            if len(header) < BLOCK:
                # Some writers leave out the end marker; a cut is only sure when a member is incomplete.
                if position == start or position < end:
                    raise TarError(f"{path}: not a tar, or cut short: no header at byte {position}", position)
                if walk is not None:
                    walk.without_end = True
                    walk.short_bytes = position - end
                return
            if header.count(0) == BLOCK:
                return
            size = _check_header(header, path, position)
            kind = header[156:157]
            offset = position + BLOCK
            if kind in (b"L", b"K", b"x", b"g"):
                data = _extended_header(descriptor, offset, size, end, path)
                if kind == b"L":
                    long_name = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
                elif kind == b"x":
                    pax = _pax_records(data, path, offset)
                elif kind == b"g":
                    global_pax |= _pax_records(data, path, offset)
                position = offset + padded(size)
                continue
            fields = {**global_pax, **pax}
            size = _pax_size(fields, size, path, position)
            if kind == _SPARSE or "GNU.sparse" in fields:
                raise TarError(
                    f"{path}: a sparse member at byte {position}, which has no bytes to read in place; "
                    "make the tar again without sparse files",
                    position,
                )
            name = long_name or fields.get("path") or _header_name(header)
            long_name, pax = None, {}
            has_data = kind not in _WITHOUT_DATA
            if has_data and offset + size > end:
                raise TarError(
                    f"{path}: cut short: {name} at byte {offset} needs {size} bytes, {end - offset} are left", end
                )
            if kind in _REGULAR and not name.endswith("/"):
                yield Member(name, offset, size)
            elif walk is not None and kind in _OTHER_KINDS:
                walk.passed_over[_OTHER_KINDS[kind]] += 1
            position = offset + (padded(size) if has_data else 0)


def _check_header(header: bytes, path: Path, position: int) -> int:
    """Return the size in `header`, after its checksum was found right."""
    checksum, digits = _OCTAL.fullmatch(header[_CHECKSUM]), header[_SIZE]
    stated = int(checksum[1], 8) if checksum and checksum[1] else -1
    octal = _OCTAL.fullmatch(digits)
    if digits[0] & 0x80:
        size = int.from_bytes(digits, "big") & ~(0x80 << 88)
        # Base 256 has a sign, and nothing has less than no bytes.
        negative = bool(digits[0] & 0x40)
    else:
        size = int(octal[1] or b"0", 8) if octal else 0
        negative = octal is None
    # Adler-32's lower half is the sum of the bytes modulo 65521, twenty times as fast as `sum`.
    found = (zlib.adler32(header) & 0xFFFF) - 1 - sum(header[_CHECKSUM]) + 8 * 32
    if (stated - found) % 65_521:
        raise TarError(f"{path}: not a tar header at byte {position}; the file is damaged or no tar", position)
    if negative:
        raise TarError(f"{path}: the size in the header at byte {position} is no number of bytes: damaged", position)
    return size


def _pax_size(fields: Mapping[str, str], size: int, path: Path, position: int) -> int:
    """Return the size that pax fields state, else `size`."""
    stated = fields.get("size")
    if stated is None:
        return size
    if _PAX_SIZE.fullmatch(stated) is None:
        raise TarError(
            f"{path}: the pax size before the header at byte {position} must be a number of bytes, "
            f"got {stated[:40]!r}: damaged",
            position,
        )
    return int(stated)


def _header_name(header: bytes) -> str:
    name = header[:_NAME_BYTES].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _extended_header(descriptor: int, offset: int, size: int, end: int, path: Path) -> bytes:
    if size > _MAX_EXTENDED_HEADER or offset + size > end:
        raise TarError(f"{path}: extended header of {size} bytes at byte {offset} is damaged or cut short", offset)
    return pread(descriptor, size, offset)


def _pax_records(data: bytes, path: Path, offset: int) -> dict[str, str]:
    r"""Return the records that matter here, of `<length> <key>=<value>\n`, the length counting the whole record."""
    records: dict[str, str] = {}
    position = 0
    while position < len(data) and data[position]:
        digits, _, _ = data[position : position + 20].partition(b" ")
        if not digits.isdigit() or not int(digits):
            raise TarError(f"{path}: damaged pax header at byte {offset + position}", offset + position)
        record = data[position + len(digits) + 1 : position + int(digits)]
        key, _, value = record.rstrip(b"\n").partition(b"=")
        if key in (b"path", b"size"):
            records[key.decode()] = value.decode("utf-8", "surrogateescape")
        elif key.startswith(b"GNU.sparse."):
            records["GNU.sparse"] = ""
        position += int(digits)
    return records
