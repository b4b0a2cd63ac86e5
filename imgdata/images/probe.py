"""Encoded bytes -> `ImageInfo`: format, size, mode, orientation; from the header alone, nothing is decoded."""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image

from imgdata.errors import ImageError

# All plugins at once: loading them lazily, format by format, is not safe from several threads.
Image.init()


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What the header of an encoded image says."""

    format: str
    """`jpeg`, `png`, `webp`, `gif`, `bmp`, `tiff`, ..."""
    width: int
    height: int
    """Pixels as stored, before `orientation` is applied."""
    mode: str
    """Pillow's word where it has one: `1`, `L`, `LA`, `P`, `RGB`, `RGBA`, `CMYK`, `I;16`. Besides: `YCCK`,
    `PA` (a palette with transparent entries), and `;16` behind the mode for 16 bits: `RGB;16`, `LA;16`."""
    bits: int
    """Bits of one channel; of one palette index for `P` and `PA`."""
    orientation: int = 1
    """EXIF orientation, 1 to 8; 1 when there is none or it is invalid."""
    animated: bool = False
    """Whether there are further frames or pages; everything here uses the first."""

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height once the orientation is applied."""
        return (self.width, self.height) if self.orientation < 5 else (self.height, self.width)


UNKNOWN = ImageInfo(format="unknown", width=0, height=0, mode="unknown", bits=0)
"""What an index says of bytes that have no header known here, and are kept all the same."""


def probe(data: bytes | bytearray | memoryview) -> ImageInfo:
    """What the header of `data` says; takes 2 to 4 us for a usual JPEG, PNG or WebP.

    Raises `ImageError` with the reason `empty`, `truncated` (the header is incomplete), `not-an-image`,
    `corrupt`, or `unsupported` (an image format that can't be read here). Damage behind the header is
    found by `imgdata.images.encode.check`.
    """
    if not isinstance(data, bytes):
        data = bytes(data)
    if data[:2] == b"\xff\xd8":
        return _probe_jpeg(data)
    if data[:8] == _PNG_SIGNATURE:
        return _probe_png(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _probe_webp(data)
    return _probe_other(data, _sniff(data))


# --- JPEG: ITU-T T.81, annex B; Exif in APP1; Adobe's APP14 -------------------------------------------

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15; the three left out are DHT, JPG and DAC."""
_APP1, _APP14 = 0xE1, 0xEE
_STANDALONE = frozenset((0x00, 0x01, *range(0xD0, 0xD9)))
"""No length follows these; 0x00 is a stuffed byte among garbage."""
_FRAME = struct.Struct(">BHHB")


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """`(marker, start, end)` of the header's segments, `start` to `end` being the payload; SOS is the last.

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


def _probe_jpeg(data: bytes) -> ImageInfo:
    orientation, exif_seen, transform = 1, False, -1
    frame: tuple[int, int, int, int] | None = None
    for marker, start, end in jpeg_segments(data):
        if marker in FRAME_MARKERS and frame is None:
            if end - start < _FRAME.size:
                raise ImageError("corrupt", "JPEG frame header is too short")
            frame = _FRAME.unpack_from(data, start)
            # Adobe's segment, if it is still to come, matters to four components only.
            if frame[3] != 4 or transform >= 0:
                break
        elif marker == _APP1 and not exif_seen and data[start : start + 6] == b"Exif\0\0":
            exif_seen = True
            orientation = _orientation(data[start + 6 : end])
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


def _orientation(tiff: bytes) -> int:
    """EXIF orientation in the first directory of a TIFF structure; 1 when absent, invalid or unreadable."""
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


# --- PNG: W3C recommendation, third edition -----------------------------------------------------------

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
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
    """`(type, start, end)` of the chunks, `start` to `end` being the payload; IEND is the last.

    Raises `ImageError` when the file ends before IEND. Checksums are not looked at.
    """
    position, length = 8, len(data)
    while position + 8 <= length:
        size, kind = _CHUNK.unpack_from(data, position)
        yield kind, position + 8, position + 8 + size
        if kind == b"IEND":
            return
        position += 12 + size
    raise ImageError("truncated", f"PNG ends after {length} bytes, before its end chunk")


def _probe_png(data: bytes) -> ImageInfo:
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
            orientation = _orientation(data[start:end])
        elif kind == b"IEND":
            raise ImageError("corrupt", "PNG without pixels")
    if not mode:
        raise ImageError("corrupt", "PNG does not start with its header chunk")
    return ImageInfo("png", width, height, "PA" if transparent and mode == "P" else mode, bits, orientation, animated)


# --- WebP: RFC 9649 -----------------------------------------------------------------------------------


def _probe_webp(data: bytes) -> ImageInfo:
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
            orientation = _orientation(_webp_exif(data))
    else:
        raise ImageError("corrupt", f"WebP starts with an unknown chunk {kind!r}")
    if not width or not height:
        raise ImageError("corrupt", f"WebP header says {width} x {height} pixels")
    return ImageInfo("webp", width, height, "RGBA" if alpha else "RGB", 8, orientation, animated)


def _webp_exif(data: bytes) -> bytes:
    """The EXIF chunk, which stands behind the pixels; empty when the header promised one in vain."""
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


# --- everything else, through Pillow ------------------------------------------------------------------

_MAGIC = (
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    *((magic, "TIFF") for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    *((magic, "JPEG2000") for magic in (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")),
    (b"\0\0\1\0", "ICO"),
    (b"qoif", "QOI"),
    (b"8BPS", "PSD"),
    *((b"P%d%c" % (digit, space), "PPM") for digit in range(1, 7) for space in b" \n\r\t#"),
)
"""Only formats with a signature: Pillow's others are guesswork or run other programs."""
_NO_IMAGES = (
    (rb"%PDF-", "a PDF"),
    (rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf", "an archive (zip, gzip, rar, 7z)"),
    (rb"\x7fELF|MZ", "a program"),
    (rb"\s*<(?:!doctype\s+html|html|head|body|script)", "HTML"),
    (rb"\s*(?:<\?xml.*?)?<svg", "SVG, which has no pixels"),
    (rb"\s*<[?!a-z]", "XML"),
    (rb"\s*[{\[]\s*[\"{\[\]}]", "JSON"),
    (rb"version https://git-lfs", "a Git LFS pointer; fetch the real files with `git lfs pull`"),
    (rb"\0+\Z", "nothing but zero bytes"),
)
"""What is found in place of an image, by the pattern at its start."""
_SIGNATURES = (b"\xff\xd8", _PNG_SIGNATURE, b"RIFF", *(magic for magic, _ in _MAGIC))


def _sniff(data: bytes) -> str:
    """Pillow's name of the format, by signature."""
    if not data:
        raise ImageError("empty", "the file has no bytes")
    head = data[:16]
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[4:8] == b"ftyp":
        if head[8:12] in (b"avif", b"avis"):
            return "AVIF"
        if head[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
            raise ImageError("unsupported", "HEIC can't be read here; convert it to JPEG first")
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        raise ImageError("unsupported", "JPEG XL can't be read here; convert it to JPEG first")
    if len(data) < 12 and (head.startswith(b"RIFF") or any(magic.startswith(data) for magic in _SIGNATURES)):
        raise ImageError("truncated", f"only {len(data)} bytes")
    raise ImageError("not-an-image", f"looks like {_describe(data[:4096])}")


def _describe(head: bytes) -> str:
    text = head.removeprefix(b"\xef\xbb\xbf")
    for pattern, what in _NO_IMAGES:
        if re.match(pattern, text, re.IGNORECASE | re.DOTALL):
            return what
    if not re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]", head):
        shown = " ".join(head[:200].decode("utf-8", "replace").split())
        return f"text: {shown[:40]!r}"
    return f"unknown binary data, starting {head[:8].hex(' ')}"


_CUT_SHORT = re.compile(r"truncated|premature|unexpected end|end of (?:file|data)|not enough|unpack|out of range", re.I)
_PILLOW_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
    Warning,
)
"""What Pillow's plugins raise on damaged files; warnings only where the caller turned them into errors."""


@contextmanager
def pillow_errors() -> Iterator[None]:
    """What Pillow raises on damaged images -> `ImageError`."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise ImageError("too-large", str(error) or "not enough memory") from error
    except _PILLOW_FAULTS as error:
        text = str(error) or type(error).__name__
        # "decoder ... not available": a Pillow built without the format's library.
        reason = "unsupported" if "not available" in text else "truncated" if _CUT_SHORT.search(text) else "corrupt"
        raise ImageError(reason, text) from error


def open_image(data: bytes, name: str) -> Image.Image:
    """`data` opened lazily by Pillow's plugin for the format `name`, in `ImageInfo`'s or Pillow's words.

    The plugin is called directly: `Image.open` would apply Pillow's own limit of pixels, a global, where
    `imgdata.images.encode.refuse_large` is the rule here. To be called inside `pillow_errors`.
    """
    name = name.upper()
    if name not in Image.OPEN:
        raise ImageError("unsupported", f"this build of Pillow can't read {name}")
    factory, accept = Image.OPEN[name]
    verdict = accept(data[:16]) if accept else True
    if not verdict or isinstance(verdict, str):
        raise ImageError("unsupported" if verdict else "corrupt", verdict or f"no valid {name} header")
    return factory(io.BytesIO(data), "")


def _probe_other(data: bytes, name: str) -> ImageInfo:
    with pillow_errors(), open_image(data, name) as image:
        mode, bits, orientation = image.mode, 8, 1
        if mode == "1":
            bits = 1
        elif mode.startswith("I;16"):
            mode, bits = "I;16", 16
        elif mode in ("I", "F"):
            bits = 32
        elif mode == "P" and "transparency" in image.info:
            mode = "PA"
        if name == "TIFF":
            # Pillow turns TIFF upright by itself, its size is that of the upright picture.
            if mode != "1" and max(getattr(image, "tag_v2", {}).get(258, (8,))) == 16:
                mode, bits = mode if mode == "I;16" else f"{mode};16", 16
        else:
            orientation = image.getexif().get(0x0112, 1)
        if orientation not in range(1, 9):
            orientation = 1
        width, height = image.size
        if not width or not height:
            raise ImageError("corrupt", f"{name} header says {width} x {height} pixels")
        animated = bool(getattr(image, "is_animated", False))
    return ImageInfo(name.lower(), width, height, mode, bits, orientation, animated)
