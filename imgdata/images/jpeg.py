"""The bytes of a JPEG -> its segments, what its header says, its pixels by a strict decoder (ITU-T T.81, annex B)."""

import re
import struct
from collections.abc import Iterator

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from imgdata.errors import ImageError
from imgdata.images.exif import exif_orientation
from imgdata.images.info import ImageInfo
from imgdata.images.pillow import open_image, pillow_errors, says_no_memory

SOI = 0xD8
EOI = 0xD9
SOS = 0xDA
FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15; the three left out are DHT, JPG and DAC."""
SEQUENTIAL = frozenset((0xC0, 0xC1))
"""Markers of frames whose picture is in one scan, or in one scan of each component."""
MAX_SCANS = 100
"""Most scans of one JPEG; encoders write ten or so. A scan of few bytes takes as long as a whole picture."""
_APP0 = 0xE0
_APP1 = 0xE1
_APP14 = 0xEE
_STANDALONE = frozenset((0x00, 0x01, *range(0xD0, 0xD9)))
"""Markers that no length follows; 0x00 is a stuffed byte among garbage."""
_FRAME = struct.Struct(">BHHB")


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield `(marker, start, end)` of the header's segments, `start` to `end` being the payload; SOS is the last.

    Fill bytes and bytes that belong to no segment are passed over, as decoders do. Raises `ImageError`
    when the header ends early.
    """
    position, length = 2, len(data)
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 1 >= length:
            raise ImageError("truncated", f"JPEG header incomplete after {length} bytes")
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        position += 2
        if marker in _STANDALONE:
            continue
        if marker == EOI:
            raise ImageError("corrupt", f"JPEG ends at byte {position} without a picture")
        if position + 2 > length:
            raise ImageError("truncated", f"JPEG header incomplete after {length} bytes")
        end = position + (data[position] << 8 | data[position + 1])
        if end < position + 2:
            raise ImageError("corrupt", f"JPEG segment at byte {position} has no valid length")
        if end > length:
            raise ImageError("truncated", f"JPEG header incomplete after {length} bytes")
        yield marker, position + 2, end
        if marker == SOS:
            return
        position = end


_IN_HEADER = frozenset((*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE)) - {0xC8}
"""Tables, frames, restart interval, scan, application data and comments."""


def has_plain_header(data: bytes) -> bool:
    """Return whether the header is nothing but segments, each right behind the one before, with one frame, and a scan.

    Decoders pass over fill bytes, unknown markers and bytes between segments, but some parsers fail on them.
    """
    position, frames = 2, 0
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] in _IN_HEADER:
        marker, length = data[position + 1], data[position + 2] << 8 | data[position + 3]
        position += 2 + length
        if length < 2 or position > len(data):
            return False
        if marker == SOS:
            return frames == 1
        frames += marker in FRAME_MARKERS
    return False


def is_stored_as_rgb(data: bytes) -> bool:
    """Return whether a JPEG of three components holds red, green and blue instead of YCbCr, by libjpeg's rules.

    Raises `ImageError` when the header ends early.
    """
    # Nearly all begin so, and a loader asks of each.
    if data[2:4] == b"\xff\xe0" and data[6:11] == b"JFIF\0":
        return False
    transform, names, has_jfif = -1, b"", False
    for marker, start, end in jpeg_segments(data):
        if marker in FRAME_MARKERS and not names:
            names = data[start + _FRAME.size : end : 3]
        elif marker == _APP0 and data[start : start + 5] == b"JFIF\0":
            has_jfif = True
        elif marker == _APP14 and end - start >= 12 and data[start : start + 5] == b"Adobe":
            transform = data[start + 11]
    return len(names) == 3 and not has_jfif and (transform == 0 if transform >= 0 else names == b"RGB")


def refuse_many_scans(data: bytes) -> None:
    """Raise `ImageError` for a JPEG of more than `MAX_SCANS` scans: a file of 1 MB would take minutes."""
    # Coded data never look like this marker.
    scans = data.count(b"\xff\xda")
    if scans > MAX_SCANS:
        raise ImageError("unsupported", f"JPEG of {scans:,} scans, the limit is {MAX_SCANS}; save it anew")


def probe_jpeg(data: bytes) -> ImageInfo:
    """Return the facts in the header of a JPEG. Raises `ImageError`."""
    orientation, exif_seen, transform = 1, False, -1
    frame: tuple[int, int, int, int] | None = None
    for marker, start, end in jpeg_segments(data):
        if marker in FRAME_MARKERS and frame is None:
            if end - start < _FRAME.size:
                raise ImageError("corrupt", "JPEG frame header is too short")
            frame = _FRAME.unpack_from(data, start)
            if marker not in SEQUENTIAL:
                refuse_many_scans(data)
            # Adobe's segment, if it is still to come, matters to four components only.
            if frame[3] != 4 or transform >= 0:
                break
        elif marker == _APP1 and not exif_seen and data[start : start + 6] == b"Exif\0\0":
            exif_seen = True
            orientation = exif_orientation(data[start + 6 : end])
        elif marker == _APP14 and end - start >= 12 and data[start : start + 5] == b"Adobe":
            transform = data[start + 11]
            if frame:
                break
    if frame is None:
        raise ImageError("corrupt", "JPEG has no frame header before its pixels")
    bits, height, width, components = frame
    if not width or not height:
        raise ImageError("corrupt", f"JPEG header says {width} x {height} pixels")
    if components == 4:
        mode = "YCCK" if transform == 2 else "CMYK"
    elif components in (1, 3):
        mode = "L" if components == 1 else "RGB"
    else:
        raise ImageError("corrupt", f"JPEG header says {components} colour components")
    return ImageInfo("jpeg", width, height, mode, bits, orientation)


def decode_jpeg(
    data: bytes,
    info: ImageInfo,
    colorspace: str,
    *,
    shrink: int = 1,
    strict: bool = False,
    notes: list[str] | None = None,
) -> NDArray[np.uint8]:
    """Return uint8 `(H, W, 1)` for GRAY, `(H, W, 3)` for RGB, both sides divided by `shrink` (1, 2, 4, 8), rounded up.

    Every warning of libjpeg is an error, except where `_without_harmless_faults` shows that all pixels are there.
    Stray bytes before the end are appended to `notes`; `strict` refuses them where they look like damage.
    """
    if info.bits != 8:
        raise ImageError("unsupported", f"JPEG with {info.bits} bits a channel")
    refuse_many_scans(data)
    # The smallest scale that reaches these sides is exactly 1/shrink.
    height, width = -(-info.height // shrink), -(-info.width // shrink)

    def decode(encoded: bytes, strict: bool) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            encoded, colorspace, min_height=height, min_width=width, min_factor=shrink, strict=strict
        )
        return pixels

    try:
        return decode(data, True)
    except ValueError as error:
        message = str(error)
        if says_no_memory(message):
            raise MemoryError(message) from error
    if "subsampling" in message:
        return _decode_unusual_jpeg(data, info, colorspace)
    picture = _without_harmless_faults(data, strict, [] if notes is None else notes)
    if picture is None:
        raise ImageError("truncated" if "Premature end" in message else "corrupt", message)
    return decode(picture, False)


def _decode_unusual_jpeg(data: bytes, info: ImageInfo, colorspace: str) -> NDArray[np.uint8]:
    """Decode like `decode_jpeg`, but by Pillow and at full size: simplejpeg refuses rare chroma subsamplings."""
    with pillow_errors(), open_image(data, info.format) as image:
        pixels = np.asarray(image.convert("L" if colorspace == "GRAY" else "RGB"))
    return np.atleast_3d(pixels)


_STRAY_END = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_READ_AHEAD = 8
STRAY_BYTES = "stray bytes between the last pixel and the end, which some cameras write; damage can look like it"
_JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"


def _without_harmless_faults(data: bytes, strict: bool, notes: list[str]) -> bytes | None:
    """Return a JPEG with the same pixels and no faults, when the faults of `data` touch no pixel; None otherwise.

    The faults touch no pixel when the picture decodes without any warning once these are gone: application and
    comment segments (an unknown JFIF version, a broken ICC profile), bytes between the header's segments,
    and the scan parameters, which sequential JPEG ignores. Bytes between the picture's data and the end
    marker are harmless too, since all pixels were decoded before: some encoders pad with zeros, some cameras
    write others. A decoder that lost its position can finish too early as well: bytes other than zeros are noted,
    and are a fault if `strict` and the picture's data do not end as an encoder ends them.
    """
    try:
        picture, scan, sequential = _picture_only(data)
        simplejpeg.decode_jpeg(picture, "GRAY", min_height=1, min_width=1, strict=True)
    except ImageError:
        return None
    except ValueError as error:
        if says_no_memory(str(error)):
            raise MemoryError(str(error)) from error
        stray = _STRAY_END.search(str(error))
        if stray is None:
            return None
        end = picture.find(b"\xff\xd9", scan)
        first = end - int(stray[1])
        if any(picture[first:end]):
            # The last bits of a progressive picture are too fine to change a pixel: they can't be checked.
            if strict and sequential and not _ends_as_encoded(picture[:first]):
                return None
            notes.append(STRAY_BYTES)
    return picture


def _ends_as_encoded(picture: bytes) -> bool:
    """Return whether the bits behind the last code of `picture` are ones, as encoders fill the last byte.

    `picture` ends up to eight bytes behind that code. A bit that changes no pixel is behind the code. A decoder that
    lost its position stops at any bit of any byte, so that the bits expose three in four of those pictures.
    """

    def pixels(data: bytes) -> NDArray[np.uint8] | None:
        try:
            decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(data + b"\xff\xd9", "RGB", strict=True)
        except ValueError:
            return None
        return decoded

    # A decoder reads some bytes ahead; what it needs ends where the picture is whole for the first time.
    cuts = (picture[: len(picture) - ahead] for ahead in range(_READ_AHEAD, -1, -1))
    whole, expected = next(((cut, found) for cut in cuts if (found := pixels(cut)) is not None), (picture, None))
    stuffed = whole.endswith(b"\xff\0")
    before, last = (whole[:-2], 0xFF) if stuffed else (whole[:-1], whole[-1])
    for bit in range(8):
        changed = last ^ 1 << bit
        found = pixels(before + bytes((changed,)) + (b"\0" if changed == 0xFF else b""))
        if expected is None or found is None or not np.array_equal(found, expected):
            return True
        if not last >> bit & 1:
            return False
    return False


def _picture_only(data: bytes) -> tuple[bytes, int, bool]:
    """Return the segments that decide the pixels and all behind them, where the first scan begins, if sequential."""
    parts = [b"\xff\xd8"]
    sequential = False
    for marker, start, end in jpeg_segments(data):
        segment = bytes((0xFF, marker)) + data[start - 2 : end]
        if marker in FRAME_MARKERS:
            sequential = marker in SEQUENTIAL
        if marker == SOS and sequential:
            segment = segment[:-3] + b"\0\x3f\0"
        # Of the application segments, JFIF's presence and Adobe's transform tell YCbCr from RGB.
        if marker == 0xE0 and segment[4:9] == b"JFIF\0":
            parts.append(_JFIF)
        elif marker < 0xE0 or (marker == 0xEE and segment[4:9] == b"Adobe" and segment[15:16] in (b"\0", b"\1", b"\2")):
            parts.append(segment)
    return b"".join(parts) + data[end:], sum(map(len, parts)), sequential
