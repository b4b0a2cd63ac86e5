"""Raw image bytes + options -> the bytes to store, or why the image is bad."""

from imgdata.errors import ImageError
from imgdata.images.decode import check, refuse_large
from imgdata.images.encode import extension_of, needs_encoding, needs_repair, oddities, reencode
from imgdata.images.info import UNKNOWN, ImageInfo
from imgdata.images.probe import probe
from imgdata.shards.options import ShardOptions


def prepare(data: bytes, options: ShardOptions, extension: str) -> tuple[bytes, ImageInfo, tuple[str, ...]]:
    """The bytes to store as `extension`, what they are, and what was repaired.

    Raises `ImageError` when the image is bad: damaged, no image at all, or larger than allowed.
    """
    try:
        info = probe(data)
    except ImageError:
        if options.check == "none":
            return data, UNKNOWN, ()
        raise
    refuse_large(info, options.max_pixels)
    encoding = options.encoding
    repairs: tuple[str, ...] = ()
    if options.on_bad == "repair":
        misnamed = extension_of(info.format) != extension
        if needs_repair(info) or misnamed:
            repairs = (*oddities(info), *((f"{info.format} as {extension}",) if misnamed else ()))
    # Encoding anew decodes the image and finds the faults that `check` finds.
    if repairs or needs_encoding(info, encoding):
        bytes_kept = encoding.format == "keep" and encoding.resize is None and not repairs
        # Formats that shards don't hold, such as BMP, lose nothing as PNG.
        return *reencode(data, info, encoding, extension="png" if bytes_kept else extension), repairs
    if options.check == "decode":
        check(data, info)
    return data, info, ()
