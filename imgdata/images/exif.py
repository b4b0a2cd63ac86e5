"""EXIF in TIFF form -> the orientation."""

import struct


def exif_orientation(tiff: bytes) -> int:
    """Return the EXIF orientation in the first directory of a TIFF structure; 1 when absent, invalid or unreadable."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return 1
    directory: int = struct.unpack_from(order + "I", tiff, 4)[0]
    if directory + 2 > len(tiff):
        return 1
    count: int = struct.unpack_from(order + "H", tiff, directory)[0]
    entry = directory + 2
    count = min(count, (len(tiff) - entry) // 12)
    for tag, kind, _, value in struct.iter_unpack(order + "HHI4s", tiff[entry : entry + 12 * count]):
        if tag == 0x0112:
            number: int = struct.unpack_from(order + ("H" if kind == 3 else "I"), value)[0]
            return number if kind in (3, 4) and 1 <= number <= 8 else 1
    return 1
