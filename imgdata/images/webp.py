"""The bytes of a WebP file (RFC 9649) -> what its header says, whether it is whole."""

from imgdata.errors import ImageError
from imgdata.images.exif import exif_orientation
from imgdata.images.info import ImageInfo


def probe_webp(data: bytes) -> ImageInfo:
    """Return the facts in the header of a WebP file. Raises `ImageError`."""
    kind = data[12:16]
    if len(data) < 30:
        raise ImageError("truncated", f"WebP header incomplete after {len(data)} bytes")
    orientation, alpha, animated = 1, False, False
    if kind == b"VP8 ":
        if data[20] & 1 or data[23:26] != b"\x9d\x01\x2a":
            raise ImageError("corrupt", "WebP without a key frame at its start")
        width = int.from_bytes(data[26:28], "little") & 0x3FFF
        height = int.from_bytes(data[28:30], "little") & 0x3FFF
    elif kind == b"VP8L":
        if data[20] != 0x2F:
            raise ImageError("corrupt", "WebP without the signature of its lossless form")
        packed = int.from_bytes(data[21:25], "little")
        width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
        alpha = bool(packed >> 28 & 1)
    elif kind == b"VP8X":
        flags = data[20]
        alpha, animated = bool(flags & 0x10), bool(flags & 0x02)
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        if flags & 0x08:
            orientation = exif_orientation(_webp_exif(data))
    else:
        raise ImageError("corrupt", f"WebP starts with an unknown chunk {kind!r}")
    if not width or not height:
        raise ImageError("corrupt", f"WebP header says {width} x {height} pixels")
    return ImageInfo("webp", width, height, "RGBA" if alpha else "RGB", 8, orientation, animated)


def _webp_exif(data: bytes) -> bytes:
    """Return the EXIF chunk, which follows the pixels; empty when the header promises one that is not there."""
    end = 8 + int.from_bytes(data[4:8], "little")
    position = 12
    while position + 8 <= end:
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        following = position + 8 + size + (size & 1)
        if following > len(data):
            raise ImageError("truncated", f"WebP ends after {len(data)} bytes, inside a chunk that needs {following}")
        if data[position : position + 4] == b"EXIF":
            return data[position + 8 : position + 8 + size].removeprefix(b"Exif\0\0")
        position = following
    return b""


def check_webp_size(data: bytes) -> None:
    """Raise `ImageError` for a file that is shorter than its header promises."""
    promised = 8 + int.from_bytes(data[4:8], "little")
    if promised > len(data):
        raise ImageError("truncated", f"WebP has {len(data)} of {promised} bytes")
