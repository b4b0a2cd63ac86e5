"""The compiled part of `imgdata.native`, which says what the arguments mean."""

LIBJPEG_TURBO: str
SIMD: tuple[str, ...]

def resize_jpeg(
    data: bytes,
    from_size: tuple[int, int],
    size: tuple[int, int],
    quality: int,
    shrink: int,
    simd: str,
    /,
) -> bytes | None: ...
def resize_plane(samples: bytes, from_size: tuple[int, int], size: tuple[int, int], simd: str, /) -> bytes: ...
