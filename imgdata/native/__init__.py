"""JPEG bytes and a size -> JPEG bytes of that size, by way of the stored colour planes; compiled, and optional.

RGB never appears: planes are decoded, resized and encoded at the resolution that their chroma has, in YCbCr or
gray. Where the compiled module was not built (`AVAILABLE` is false), `imgdata.images` does all with Pillow.
"""

try:
    from imgdata.native import _planes
except ImportError:
    AVAILABLE = False
    SIMD: tuple[str, ...] = ()
else:
    AVAILABLE = True
    SIMD = _planes.SIMD
"""Names of the ways in which this machine can add up samples, the fastest last; all give the same bytes."""


def libjpeg_version() -> str:
    """The libjpeg-turbo that the module was compiled with, such as `2.1.5`; only where `AVAILABLE`."""
    return _planes.LIBJPEG_TURBO


def resize_jpeg(
    data: bytes,
    size: tuple[int, int],
    *,
    from_size: tuple[int, int],
    quality: int,
    shrink: int = 1,
    simd: str | None = None,
) -> bytes | None:
    """A baseline JPEG of `size` (width, height); None for a JPEG that another decoder has to judge.

    Antialiased bicubic of each plane. Gray stays gray; chroma becomes 4:2:0 up to quality 90, 4:4:4 above. The
    DCT divides the sides by `shrink` (1, 2, 4, 8) before the resize. EXIF orientation is not looked at, and
    metadata is dropped. The GIL is free for the whole work.

    None unless the file is an 8-bit Huffman-coded JPEG of `from_size`, in gray, or in YCbCr with 4:2:0,
    4:2:2, 4:4:0 or 4:4:4 chroma, and decodes without any warning. `simd` is one of `SIMD`.
    """
    return _planes.resize_jpeg(data, from_size, size, quality, shrink, simd or SIMD[-1])


def resize_plane(
    samples_HW: bytes, size: tuple[int, int], *, from_size: tuple[int, int], simd: str | None = None
) -> bytes:
    """The resize of `resize_jpeg` alone: uint8 rows of `from_size` (width, height) -> rows of `size`."""
    return _planes.resize_plane(samples_HW, from_size, size, simd or SIMD[-1])
