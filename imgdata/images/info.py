"""Facts in the header of an encoded image."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Facts in the header of an encoded image."""

    format: str
    """Name of the format: `jpeg`, `png`, `webp`, `gif`, `bmp`, `tiff`, ..."""
    width: int
    height: int
    """Width and height in pixels as stored, before `orientation` is applied."""
    mode: str
    """Pillow's mode where there is one: `1`, `L`, `LA`, `P`, `RGB`, `RGBA`, `CMYK`, `I;16`. Besides: `YCCK`,
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
"""Facts that an index has for bytes with an unknown header, which are kept all the same."""
IMAGE_EXTENSIONS = (
    *("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"),
    *("jp2", "avif", "heic", "heif", "jxl", "jpe", "jfif", "mpo", "apng", "dib"),
)
"""Extensions, lower-case, without the dot, the commonest first. Undecodable ones are refused later."""
IMAGE_SUFFIXES = frozenset(f".{extension}" for extension in IMAGE_EXTENSIONS)
"""The same extensions with the dot."""
