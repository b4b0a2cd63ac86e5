"""A member of a ZIP archive, its own header first -> the file that was packed, without the archive's list."""

import struct
import zipfile
import zlib

from imgdata.errors import ImageError, SourceError

LOCAL_HEADER = struct.Struct("<4s22xHH")
"""A member's own header: its mark, and the lengths of the name and of further fields behind it."""
_HEADER_BYTES = 4096
"""Longest header of a member with these."""
_BLOCKS_BYTES = 64


def most_packed(size: int) -> int:
    """Return the most bytes that a file of `size` bytes takes in an archive, with its header."""
    # Data that can't be compressed gets 5 bytes for each 16 kB.
    return _HEADER_BYTES + size + size // 1000 + _BLOCKS_BYTES


def unpacked(data: bytes, size: int, where: str) -> bytes:
    """Return a member of `size` bytes, of which `data` has the header and all that is behind it.

    Raises `ImageError` for a damaged one, `SourceError` for bytes that are no member; `where` is for messages.
    """
    if len(data) < LOCAL_HEADER.size or not data.startswith(b"PK\3\4"):
        raise SourceError(f"{where}: no member of a ZIP archive; the archive is damaged, or has changed")
    _, name, extra = LOCAL_HEADER.unpack_from(data)
    start = LOCAL_HEADER.size + int(name) + int(extra)
    if start > _HEADER_BYTES:
        raise SourceError(f"{where}: a header of {start} bytes; unpack the archive first")
    flags, method, crc = (int.from_bytes(data[at : at + length], "little") for at, length in ((6, 2), (8, 2), (14, 4)))
    try:
        packed = memoryview(data)[start:]
        found = (
            bytes(packed[:size]) if method == zipfile.ZIP_STORED else zlib.decompressobj(-15).decompress(packed, size)
        )
    except zlib.error as error:
        raise ImageError("corrupt", f"damaged in its archive: {error}") from error
    # Where sizes stand behind a member its header has no check sum.
    if len(found) != size or (not flags & 8 and zlib.crc32(found) != crc):
        raise ImageError("corrupt", "damaged in its archive: cut short, or of another check sum")
    return found
