"""Pillow: which image it opens, and its errors as ours."""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from imgdata.errors import ImageError

# All plugins at once: loading them lazily, format by format, is not safe from several threads.
Image.init()

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
    `imgdata.images.decode.refuse_large` is the rule here. To be called inside `pillow_errors`.
    """
    name = name.upper()
    if name not in Image.OPEN:
        raise ImageError("unsupported", f"this build of Pillow can't read {name}")
    factory, accept = Image.OPEN[name]
    verdict = accept(data[:16]) if accept else True
    if not verdict or isinstance(verdict, str):
        raise ImageError("unsupported" if verdict else "corrupt", verdict or f"no valid {name} header")
    return factory(io.BytesIO(data), "")
