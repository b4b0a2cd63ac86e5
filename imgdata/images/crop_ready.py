"""JPEG bytes -> the same picture with restart markers, of which a loader reads only the segments of its crop."""

from typing import NamedTuple

from imgdata import native
from imgdata.errors import OptionError
from imgdata.images.info import ImageInfo


class CropReady(NamedTuple):
    """A JPEG with restart markers."""

    data: bytes
    interval: int
    """MCUs, the smallest units of coded data, from one restart marker to the next."""


def require_native() -> None:
    """Raise `OptionError` where the compiled extension, which writes restart markers, is missing."""
    if not native.AVAILABLE:
        raise OptionError(
            "crop_ready needs the compiled extension: install gcc and libjpeg-turbo's headers (Debian: libjpeg-dev), "
            "and install imgdata again"
        )


def make_crop_ready(data: bytes, info: ImageInfo, *, strip: bool) -> CropReady | None:
    """Return the image with restart markers and the same coefficients; None for an image that stays as it is.

    All data of a JPEG are decoded for it, so what was returned is not damaged. `strip` drops all metadata but those
    that pixels depend on.
    """
    if info.format != "jpeg":
        return None
    made = native.make_crop_ready(data, strip=strip, orientation=info.orientation)
    return None if made is None else CropReady(*made)


def why_not(info: ImageInfo) -> str:
    """Return why such an image, for which `make_crop_ready` returned None, stays as it is: a note."""
    if info.format != "jpeg":
        what = f"{info.format} is not JPEG; --format jpg encodes it"
    elif info.bits != 8:
        what = f"JPEG of {info.bits} bits"
    elif info.mode in ("CMYK", "YCCK"):
        what = f"{info.mode} JPEG"
    else:
        what = "a JPEG that libjpeg can't write again as it is, or one with more pictures in it, which --strip drops"
    return f"stored without restart markers: {what}"
