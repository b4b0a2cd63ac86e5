"""Encoded bytes -> an image that Pillow opened, with Pillow's errors and warnings as ours."""

import io
import re
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

from imgdata.errors import ImageError
from imgdata.images.png import pixels_only
from imgdata.images.webp import probe_webp

# All plugins at once: loading them lazily, format by format, is not safe from several threads.
Image.init()

_CUT_SHORT = re.compile(r"truncated|premature|unexpected end|end of (?:file|data)|not enough|unpack|out of range", re.I)
_NO_MEMORY = re.compile(r"insufficient memory|out of memory|not create \w*decoder|cannot allocate memory", re.I)
"""Messages of Pillow, libjpeg (`Insufficient memory (case 4)`), simplejpeg (`could not create decoder object`)."""
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
"""Errors of Pillow's plugins for damaged files; warnings only where the caller turned them into errors."""


_heard = threading.local()


class _WarningsOfPillow:
    """Replacement of `warnings` in Pillow's modules: warnings go to `heard_warnings` of the same thread.

    `warnings.catch_warnings` would change the filters of all threads.
    """

    def warn(self, message: Warning | str, *args: Any, **options: Any) -> None:
        """Collect the warning inside `pillow_errors` and `heard_warnings`; pass it to `warnings.warn` elsewhere."""
        texts: list[str] | None = getattr(_heard, "texts", None)
        if texts is None:
            warnings.warn(message, *args, **{"stacklevel": 1, **options, "source": None})
        else:
            texts.append(" ".join(str(message).split()))

    def __getattr__(self, name: str) -> Any:
        return getattr(warnings, name)


for _name, _module in list(sys.modules.items()):
    if _name.startswith("PIL.") and getattr(_module, "warnings", None) is warnings:
        _module.warnings = _WarningsOfPillow()  # type: ignore[attr-defined]


_pillows_check = Image._decompression_bomb_check
_MOST_PIXELS = 2**31


def _check_pixels(size: tuple[int, int], **options: Any) -> None:
    if getattr(_heard, "texts", None) is None:
        _pillows_check(size, **options)
        return
    most = getattr(_heard, "max_pixels", _MOST_PIXELS)
    if size[0] * size[1] > most:
        # Such as a tile of a TIFF, which may be larger than the picture.
        raise Image.DecompressionBombError(f"{size[0]} x {size[1]} pixels, the limit is {most} (max_pixels)")


# Pillow's limit is one number for the whole process, checked in dozens of places: where imgdata calls Pillow, the limit
# of `allow_pixels` counts.
Image._decompression_bomb_check = _check_pixels


def allow_pixels(max_pixels: int) -> None:
    """Let `pillow_errors` of this thread decode up to `max_pixels` at once, whatever Pillow's own limit is."""
    _heard.max_pixels = max_pixels


@contextmanager
def heard_warnings() -> Iterator[list[str]]:
    """Collect what Pillow warns of in this thread inside the block, instead of printing it."""
    outer: list[str] | None = getattr(_heard, "texts", None)
    texts: list[str] = []
    _heard.texts = texts
    try:
        yield texts
    finally:
        _heard.texts = outer


@contextmanager
def pillow_errors() -> Iterator[None]:
    """Turn what Pillow raises on damaged images into `ImageError`, and its words for short memory into `MemoryError`.

    Pillow's warnings are collected by `heard_warnings` alone.
    """
    outer: list[str] | None = getattr(_heard, "texts", None)
    if outer is None:
        _heard.texts = []
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("too-large", str(error)) from error
    except _PILLOW_FAULTS as error:
        text = str(error) or type(error).__name__
        if says_no_memory(text):
            raise MemoryError(text) from error
        # "decoder ... not available": a Pillow built without the format's library.
        reason = "unsupported" if "not available" in text else "truncated" if _CUT_SHORT.search(text) else "corrupt"
        raise ImageError(reason, text) from error
    finally:
        _heard.texts = outer


def says_no_memory(text: str) -> bool:
    """Return whether a decoder's message means that the system had no memory left, whatever the image holds."""
    return _NO_MEMORY.search(text) is not None


def opaque(image: Image.Image) -> Image.Image:
    """Return the image on white where parts of it may be transparent, in RGBA; else as it is."""
    if image.mode not in ("LA", "La", "PA", "RGBA", "RGBa") and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def open_image(data: bytes, name: str) -> Image.Image:
    """Open `data` lazily by Pillow's plugin for the format `name`, as `ImageInfo` or Pillow calls it.

    The plugin is called directly: `Image.open` would apply Pillow's own limit of pixels, a global, where
    `imgdata.images.decode.refuse_large` is the rule here. A PNG is read without its texts and profiles, of which
    Pillow takes a megabyte at most. Call this inside `pillow_errors`.
    """
    name = name.upper()
    if name not in Image.OPEN:
        raise ImageError("unsupported", f"this build of Pillow can't read {name}")
    factory, accept = Image.OPEN[name]
    verdict = accept(data[:16]) if accept else True
    if not verdict or isinstance(verdict, str):
        raise ImageError("unsupported" if verdict else "corrupt", verdict or f"no valid {name} header")
    try:
        return factory(io.BytesIO(pixels_only(data) if name == "PNG" else data), "")
    except OSError as error:
        if name == "WEBP" and says_no_memory(str(error)):
            _blame_webp(data, error)
        raise


def _blame_webp(data: bytes, error: OSError) -> None:
    """Raise `ImageError` for a damaged WebP: its decoder says the same for that and where there is no memory for it."""
    info = probe_webp(data)
    # The decoder needs two canvases in RGBA; where there is room for three, memory is not what is missing.
    bytearray(3 * 4 * info.width * info.height)
    raise ImageError("corrupt", str(error)) from error
