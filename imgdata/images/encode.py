"""Encoded bytes + `ImageInfo` -> new encoded bytes: upright, 8-bit, resized.

JPEG to JPEG goes through `imgdata.native` where that was compiled. Otherwise JPEG is decoded and encoded by
simplejpeg, which carries its own libjpeg-turbo and reports the faults that Pillow passes over; all else, and
every other resize, is Pillow's. So the bytes made here are reproducible for one `encoder()`: Pillow-SIMD alone
rounds the resize differently by one step.
"""

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
import PIL
import simplejpeg
from PIL import Image

from imgdata import native
from imgdata.errors import ImageError, OptionError
from imgdata.images.decode import check, check_structure
from imgdata.images.info import ImageInfo
from imgdata.images.jpeg import decode_jpeg
from imgdata.images.pillow import opaque, open_image, pillow_errors
from imgdata.images.probe import probe

STORED_FORMATS = ("jpeg", "png", "webp")
"""Formats that shards hold; images in another format are always encoded anew."""
_FORMAT_OF = {"jpg": "jpeg", "png": "png", "webp": "webp"}
_MAX_SIDE = {"jpg": 65_500, "png": 65_535, "webp": 16_383}
"""Most pixels of a side; PNG itself allows more, decoders do not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """Settings of how images are stored. The defaults keep the bytes as they are."""

    format: Literal["keep", "jpg", "png", "webp"] = "keep"
    resize: int | None = None
    """Pixels of the side that `resize_mode` names; None keeps the size."""
    resize_mode: Literal["shorter", "longer", "exact"] = "shorter"
    """The side that gets `resize` pixels: `shorter` and `longer` keep the proportions; `exact` makes a square."""
    upscale: bool = False
    """Whether smaller images are enlarged. If not, small images keep their size (with `exact`, each smaller side)."""
    quality: int = 90
    """Quality of JPEG and WebP, 1 to 100."""

    def __post_init__(self) -> None:
        """Check all fields; raises `OptionError`."""
        if self.format not in ("keep", *_FORMAT_OF):
            raise OptionError(f"format must be keep, jpg, png or webp, got {self.format!r}")
        if self.format != "keep":
            _check_extension(self.format)
        if self.resize_mode not in ("shorter", "longer", "exact"):
            raise OptionError(f"resize mode must be shorter, longer or exact, got {self.resize_mode!r}")
        if self.resize is not None and not 1 <= self.resize <= _MAX_SIDE["webp"]:
            raise OptionError(f"resize must be 1 to {_MAX_SIDE['webp']} pixels, got {self.resize}")
        if not 1 <= self.quality <= 100:
            raise OptionError(f"quality must be 1 to 100, got {self.quality}")


def extension_of(format: str) -> str:
    """Return the extension in shards for `ImageInfo.format`: `jpg` for `jpeg`, the format's own name otherwise."""
    return "jpg" if format == "jpeg" else format


def lost_in_encoding(info: ImageInfo) -> tuple[str, ...]:
    """Return what `reencode` can't keep of such an image, for a note."""
    words = {
        "16-bit": "16 bits became 8",
        "alpha": "transparency was laid on white",
        "cmyk": "CMYK became RGB",
        "animated": "only the first frame or page was kept",
    }
    return tuple(words[name] for name in oddities(info) if name in words)


def oddities(info: ImageInfo) -> tuple[str, ...]:
    """Return what training code may read wrongly: `cmyk`, `16-bit`, `palette`, `alpha`, `animated`, `rotated`."""
    found = {
        "cmyk": info.mode in ("CMYK", "YCCK"),
        "16-bit": info.bits > 8,
        "palette": info.mode in ("P", "PA"),
        "alpha": info.mode.partition(";")[0] in ("LA", "PA", "RGBA", "La", "RGBa"),
        "animated": info.animated,
        "rotated": info.orientation != 1,
    }
    return tuple(name for name, present in found.items() if present)


def needs_repair(info: ImageInfo) -> bool:
    """Return whether decoders disagree about the pixels of such an image, or give others than a viewer shows.

    True for CMYK and YCCK, 16 bits, alpha (dropping it uncovers what was hidden), further frames, and an
    EXIF rotation (most training code ignores it). False for a palette without alpha, and for gray: every
    decoder turns those into the same RGB.
    """
    return any(name != "palette" for name in oddities(info))


def encoder() -> str:
    """Return all that decides the bytes that `reencode` makes here, with versions.

    `native libjpeg-turbo 2.1.5, simplejpeg 1.9.0, Pillow 13.0.0`; `native` is left out where the extension is
    not compiled. What `native` leaves to the other libraries, such as PNG and rotated images, depends on them, so all
    are named. Two machines that give the same answer make the same bytes.
    """
    # The versions of Pillow-SIMD are those of the Pillow that they follow, and a number of their own behind it.
    pillow = f"Pillow{'-SIMD' if '.post' in PIL.__version__ else ''} {PIL.__version__}"
    compiled = [f"native libjpeg-turbo {native.libjpeg_version()}"] if native.AVAILABLE else []
    return ", ".join((*compiled, f"simplejpeg {simplejpeg.__version__}", pillow))


def needs_encoding(info: ImageInfo, encoding: Encoding) -> bool:
    """Return whether the image must be encoded anew, since the bytes have another format or size than wanted.

    `quality` alone never asks for a new encoding.
    """
    if info.format not in STORED_FORMATS:
        return True
    if encoding.format != "keep" and info.format != _FORMAT_OF[encoding.format]:
        return True
    return _target_size(info.upright_size, encoding) != info.upright_size


def _target_size(size: tuple[int, int], encoding: Encoding) -> tuple[int, int]:
    """Return width and height after the resize; the other side is rounded down, as torchvision's `Resize` does."""
    side = encoding.resize
    if side is None:
        return size
    if encoding.resize_mode == "exact":
        return (side, side) if encoding.upscale else (min(side, size[0]), min(side, size[1]))
    named = min(size) if encoding.resize_mode == "shorter" else max(size)
    if side > named and not encoding.upscale:
        return size
    width, height = (side if own == named else max(1, int(side * own / named)) for own in size)
    return width, height


def reencode(
    data: bytes, info: ImageInfo, encoding: Encoding, *, extension: str, crop_ready: bool = False
) -> tuple[bytes, ImageInfo]:
    """Return the image as `extension` (`jpg`, `png`, `webp`), resized as `encoding` says, with its new header facts.

    Upright, first frame, 8 bits, RGB; gray stays gray in JPEG and PNG. 16 bits are scaled to 8, CMYK is
    converted without its profile, alpha is laid on white. Metadata and profiles are dropped. Finds the faults
    that `check` finds and raises the same `ImageError`, so one of the two is enough; never makes up pixels.
    JPEG is stored with 4:2:0 chroma up to quality 90 and with 4:4:4 above, and with `crop_ready` with restart markers
    where `imgdata.native` encodes it.

    Measured on one core, a 500x375 JPEG of quality 96 (77 KB) to shorter side 256 at quality 90: 1,150 images/s
    with `imgdata.native`, 800 with Pillow-SIMD, 410 with Pillow.
    """
    _check_extension(extension)
    upright = _target_size(info.upright_size, encoding)
    size = upright if info.orientation < 5 else upright[::-1]
    if max(size) > _MAX_SIDE[extension]:
        raise ImageError("too-large", f"{size[0]} x {size[1]} pixels, {extension} holds {_MAX_SIDE[extension]} a side")
    planes = _through_planes(data, info, size, encoding.quality, crop_ready) if extension == "jpg" else None
    if planes is not None:
        stored = ImageInfo("jpeg", *size, info.mode, 8)
        _check_encoded(planes, stored, None)
        return planes, stored
    image = _resized(_decoded(data, info, size), size)
    if info.orientation != 1:
        image = image.transpose(UPRIGHT[info.orientation])
    if extension == "webp":
        image = image.convert("RGB")
    encoded = _encoded(image, extension, encoding.quality)
    stored = ImageInfo(_FORMAT_OF[extension], image.width, image.height, image.mode, 8)
    _check_encoded(encoded, stored, image)
    return encoded, stored


def _check_encoded(encoded: bytes, stored: ImageInfo, image: Image.Image | None) -> None:
    """Decode the new bytes, and compare the facts of their header; for PNG also every pixel with `image`."""
    found = probe(encoded)
    check(encoded, found)
    same = (found.format, found.upright_size, found.bits) == (stored.format, stored.upright_size, stored.bits)
    if same and image is not None and stored.format == "png":
        with pillow_errors(), open_image(encoded, "png") as decoded:
            same = decoded.mode == image.mode and decoded.tobytes() == image.tobytes()
    if not same:
        raise ImageError("corrupt", "what was encoded does not decode to the same picture; the memory may be faulty")


def _check_extension(extension: str) -> None:
    if extension not in _FORMAT_OF:
        raise OptionError(f"extension must be one of {', '.join(_FORMAT_OF)}, got {extension!r}")
    if _FORMAT_OF[extension].upper() not in Image.SAVE:
        raise OptionError(f"this build of Pillow can't write {extension}; choose jpg or png, or install one that can")


def repair(data: bytes, info: ImageInfo, *, extension: str, quality: int = 90) -> tuple[bytes, ImageInfo]:
    """Return the image in its own size without any of its `oddities`, encoded by `reencode`."""
    return reencode(data, info, Encoding(quality=quality), extension=extension)


UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the transposition that makes the stored picture upright (Exif 2.32, section 4.6.4 A)."""


def _through_planes(
    data: bytes, info: ImageInfo, size: tuple[int, int], quality: int, crop_ready: bool
) -> bytes | None:
    """Return the new JPEG of an upright JPEG whose colour planes `imgdata.native` can keep; None for all others.

    None for damaged images too: the slower way reports the damage.
    """
    if not native.AVAILABLE or info.format != "jpeg" or info.mode not in ("L", "RGB") or info.orientation != 1:
        return None
    shrink = _shrink_while_decoding(info, size)
    source = (info.width, info.height)
    return native.resize_jpeg(data, size, from_size=source, quality=quality, shrink=shrink, crop_ready=crop_ready)


def _shrink_while_decoding(info: ImageInfo, size: tuple[int, int]) -> int:
    """Return how far the DCT may shrink a JPEG before a resize to `size`: 1, 2, 4 or 8.

    While twice the target is left, this costs less than quality 90 does afterwards: by 0.7 to 15 dB on eight
    photographs at 1/2, 1/4 and 1/8. With less left it can cost more (28 dB at worst).
    """
    reach = min(info.width / size[0], info.height / size[1]) / 2
    return next((factor for factor in (8, 4, 2) if factor <= reach), 1)


def _decoded(data: bytes, info: ImageInfo, size: tuple[int, int]) -> Image.Image:
    """Return the first frame in mode L or RGB, as stored; a JPEG is decoded at no less than twice `size`."""
    if info.format == "jpeg" and info.mode in ("L", "RGB"):
        shrink = _shrink_while_decoding(info, size)
        pixels = decode_jpeg(data, info, "GRAY" if info.mode == "L" else "RGB", shrink=shrink, strict=True)
        height, width = pixels.shape[:2]
        return Image.frombuffer(info.mode, (width, height), pixels, "raw", info.mode, 0, 1)
    check_structure(data, info, strict=True)
    with pillow_errors(), open_image(data, info.format) as image:
        image.load()
        return _plain(image, info)


def _plain(image: Image.Image, info: ImageInfo) -> Image.Image:
    """Return an image of any mode in mode L where the image is gray, in RGB otherwise."""
    gray = info.mode.partition(";")[0] in ("1", "L", "LA", "La", "I", "F")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _eight_bit(image)
    return opaque(image).convert("L" if gray else "RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Return gray of 16 bits in mode L, where 65535 becomes 255; wider numbers have no agreed range."""
    pixels = np.asarray(image)
    if image.mode == "F" or pixels.min() < 0 or pixels.max() > 0xFFFF:
        raise ImageError("unsupported", "gray values beyond 16 bits; convert the image to 8 bits first")
    # v * 255 / 65535, rounded to the nearest.
    return Image.fromarray(((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the image resized by antialiased bicubic interpolation, which Pillow and torchvision users know.

    Hamming would save 0.5 ms of 2.5 with Pillow for 500x375 to 341x256, and next to nothing with Pillow-SIMD,
    but is 1 to 3 dB further from Lanczos on photographs.
    """
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def _encoded(image: Image.Image, extension: str, quality: int) -> bytes:
    if extension == "jpg":
        pixels = np.atleast_3d(np.asarray(image))
        chroma = "Gray" if image.mode == "L" else "420" if quality <= 90 else "444"
        jpeg: bytes = simplejpeg.encode_jpeg(pixels, quality, "GRAY" if image.mode == "L" else "RGB", chroma)
        return jpeg
    file = io.BytesIO()
    # Texts and profiles of the image that this one was made of would be saved with it.
    image.info = {}
    if extension == "png":
        image.save(file, "PNG")
    else:
        image.save(file, "WEBP", quality=quality)
    return file.getvalue()
