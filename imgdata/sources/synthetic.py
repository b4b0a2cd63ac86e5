"""`synthetic:samples=1000,classes=10,...` -> Listing of images that are drawn when read.

For tests and benchmarks: any number of samples and classes, JPEGs of the size that photographs have. Each image is a
function of (seed, row) alone; its colour and shape follow its class, so that a model can learn it. Pixels are the same
on every machine, since they are made of integers; the encoded bytes depend on the codecs that Pillow was built with.
"""

import io
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgdata.errors import OptionError
from imgdata.sample import ClassName, SampleRef
from imgdata.sources.listing import Listing, ListingBuilder
from imgdata.sources.options import SourceOptions

NAME = "synthetic"

PREFIX = "synthetic:"

BYTES_PER_PIXEL = {"jpg": 0.44, "png": 1.42, "webp": 0.3}
"""Mean encoded bytes of a pixel, measured on 40 images of 500x375; `size_N` is estimated from this."""

_MAX_SIDE = 16_383
"""Most pixels of a side that WebP can hold."""
_JPEG_QUALITY = 92
_WEBP_QUALITY = 85
_NOISE = 18
_GOLDEN_ANGLE = 137_508
"""The golden angle in thousandths of a degree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticSpec:
    """Settings in a description `synthetic:...`."""

    samples: int = 1000
    """Images in train."""
    val: int = 0
    """Images in val."""
    test: int = 0
    """Images in test."""
    classes: int = 10
    width: int = 500
    """Width in pixels."""
    height: int = 375
    """Height in pixels."""
    seed: int = 0
    format: str = "jpg"
    """`jpg`, `png` or `webp`."""

    def __post_init__(self) -> None:
        """Raise `OptionError` for values out of range."""
        ranges = {
            "samples": (1, 10**9),
            "val": (0, 10**9),
            "test": (0, 10**9),
            "classes": (1, 10**6),
            "width": (1, _MAX_SIDE),
            "height": (1, _MAX_SIDE),
            "seed": (0, 2**63 - 1),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise OptionError(f"{PREFIX} {name} must be {low} to {high}, got {getattr(self, name)}")
        if self.format not in BYTES_PER_PIXEL:
            raise OptionError(f"{PREFIX} format must be one of {', '.join(BYTES_PER_PIXEL)}, got {self.format!r}")


@dataclass(frozen=True)
class SyntheticReader:
    """Reader that draws and encodes the image of row `ref.offset`."""

    spec: SyntheticSpec

    def file(self, ref: SampleRef) -> None:
        """Return None: synthetic images have no files."""

    def read(self, ref: SampleRef) -> bytes:
        """Return the encoded image, RGB of 8 bits."""
        spec = self.spec
        image = Image.fromarray(draw(spec, ref.offset))
        file = io.BytesIO()
        if spec.format == "jpg":
            image.save(file, "JPEG", quality=_JPEG_QUALITY)
        elif spec.format == "png":
            image.save(file, "PNG", compress_level=1)
        else:
            image.save(file, "WEBP", quality=_WEBP_QUALITY, method=0)
        return file.getvalue()


def recognise(path: Path) -> str | None:
    """Return a phrase when `path` is a description of synthetic images, else None."""
    return "a description of synthetic images" if str(path).startswith(PREFIX) else None


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """Return as many samples as described, with the classes in rotation; sizes are estimates.

    Raises `OptionError` for a description with unknown names or values out of range.
    """
    spec = parse(str(path))
    size = max(1, round(spec.width * spec.height * BYTES_PER_PIXEL[spec.format]))
    digits = len(str(spec.classes - 1))
    classes = [f"class{label:0{digits}d}" for label in range(spec.classes)]
    builder = ListingBuilder()
    counts = {"train": spec.samples, "val": spec.val, "test": spec.test}
    first = 0
    for split, count in counts.items():
        for row in range(first, first + count):
            label = row % spec.classes
            key = f"{classes[label]}/{row:08d}"
            builder.add(split=split, name=f"{split}/{key}.{spec.format}", key=key, label=label, size=size, offset=row)
        first += count
    return builder.build(
        title=NAME,
        kind=NAME,
        reader=SyntheticReader(spec),
        classes=[ClassName(name, name) for name in classes],
        exact_sizes=False,
        given_splits=bool(spec.val or spec.test),
    )


def parse(text: str) -> SyntheticSpec:
    """Return the settings in `synthetic:samples=10,format=png`. Raises `OptionError` that names the faulty part."""
    names = [field.name for field in fields(SyntheticSpec)]
    settings: dict[str, int | str] = {}
    for part in filter(None, text.removeprefix(PREFIX).split(",")):
        name, _, value = part.partition("=")
        name, value = name.strip(), value.strip()
        if name not in names:
            raise OptionError(f"{text}: {name!r} must be one of {', '.join(names)}")
        if name in settings:
            raise OptionError(f"{text}: {name} is given twice")
        if name == "format":
            settings[name] = value.lower()
        elif value.isascii() and value.isdigit() and len(value) <= 19:
            settings[name] = int(value)
        else:
            raise OptionError(f"{text}: {name} must be a whole number, got {value!r}")
    return SyntheticSpec(**settings)  # type: ignore[arg-type]


def draw(spec: SyntheticSpec, row: int) -> NDArray[np.uint8]:
    """Return the image of `row` as uint8 `(H, W, 3)`: a gradient in the class's colour, its shape, others, noise."""
    random = np.random.Philox(key=np.array([spec.seed, row], np.uint64))
    picks = random.random_raw(9).tolist()
    label = row % spec.classes
    height, width = spec.height, spec.width
    colour = _class_colour(label)
    pixels_HWC = _gradient(height, width, colour, picks[:4])
    for pick in picks[4:8]:
        # Small shapes in any colour, as clutter.
        _stamp(
            pixels_HWC, pick, kind=pick >> 40, share=10, colour=(pick >> 20 & 255, pick >> 28 & 255, pick >> 36 & 255)
        )
    _stamp(pixels_HWC, picks[8], kind=label, share=40, colour=(255 - colour[0], 255 - colour[1], 255 - colour[2]))
    return _with_noise(pixels_HWC, random)


def _class_colour(label: int) -> tuple[int, int, int]:
    """Return a colour far from those of neighbouring labels: hues a golden angle apart, in three brightnesses."""
    sixth, rest = divmod(label * _GOLDEN_ANGLE % 360_000, 60_000)
    level = (200, 140, 240)[label // 7 % 3]
    part = level * rest // 60_000
    ramp = ((level, part, 40), (level - part, level, 40), (40, level, part))
    fall = ((40, level - part, level), (part, 40, level), (level, 40, level - part))
    red, green, blue = (*ramp, *fall)[sixth]
    return red, green, blue


def _gradient(height: int, width: int, colour: tuple[int, int, int], picks: list[int]) -> NDArray[np.uint8]:
    """Return uint8 `(H, W, 3)`, bilinear between four corners near `colour`; computed with integers only."""
    spread = 60
    corners = np.array(
        [
            [value + (pick >> 8 * place) % spread - spread // 2 for place, value in enumerate(colour)]
            for pick in picks[:4]
        ]
    )
    down_H = (np.arange(height, dtype=np.int32) * 256 // height)[:, None, None]
    right_W = (np.arange(width, dtype=np.int32) * 256 // width)[None, :, None]
    corners = np.clip(corners, 0, 255).astype(np.int32)
    top = corners[0] * (256 - right_W) + corners[1] * right_W
    bottom = corners[2] * (256 - right_W) + corners[3] * right_W
    pixels: NDArray[np.int32] = (top // 256) * (256 - down_H) + (bottom // 256) * down_H
    return (pixels >> 8).astype(np.uint8)


def _stamp(pixels_HWC: NDArray[np.uint8], pick: int, *, kind: int, share: int, colour: tuple[int, int, int]) -> None:
    """Paint one shape of about `share` percent of the shorter side, in place: disc, square, triangle or cross."""
    height, width, _ = pixels_HWC.shape
    side = max(1, min(height, width) * (share + pick % 20) // 100)
    top = (pick >> 8) % (height - side + 1)
    left = (pick >> 24) % (width - side + 1)
    # Twice the distance from the middle, so that it is whole.
    away = 2 * np.arange(side) - side + 1
    down, right = away[:, None], away[None, :]
    shapes = (
        lambda: down**2 + right**2 <= side**2,
        lambda: np.ones((side, side), np.bool_),
        lambda: 2 * abs(right) <= down + side,
        lambda: (3 * abs(down) <= side) | (3 * abs(right) <= side),
    )
    pixels_HWC[top : top + side, left : left + side][shapes[kind % len(shapes)]()] = colour


def _with_noise(pixels_HWC: NDArray[np.uint8], random: np.random.Philox) -> NDArray[np.uint8]:
    """Return the pixels with grain of plus and minus `_NOISE` levels, equal in all channels, as of film and sensors."""
    height, width, _ = pixels_HWC.shape
    words = random.random_raw(-(-height * width // 8))
    grain = (words.astype("<u8").view(np.uint8)[: height * width].astype(np.int16) * (2 * _NOISE + 1) >> 8) - _NOISE
    noisy: NDArray[np.int16] = pixels_HWC + grain.reshape(height, width, 1)
    return noisy.clip(0, 255).astype(np.uint8)
