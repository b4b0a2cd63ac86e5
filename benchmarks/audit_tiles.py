"""Photographs that packages ship -> many small pictures that differ, and edited copies of some of them, as files.

Non-overlapping tiles of each photograph: of 128 x 128 pixels at half its size, of 128 x 128 and of 64 x 64 at its full
size, and CIFAR-shaped ones of 32 x 32. Tiles of one size share nothing; one of another size is at most a quarter of it,
which is no copy. Python packages ship 14 megapixels of photographs; more come from a folder into which Debian's
wallpapers were unpacked:

    apt-get download ukui-wallpapers mate-backgrounds lomiri-wallpapers-16.04
    for package in *.deb; do dpkg -x $package photographs; done
"""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from benchmarks.photos import encoded, package_file

PACKAGES = (
    ("skimage", "data"),
    ("sklearn", "datasets/images"),
    ("foolbox", "data"),
    ("matplotlib", "mpl-data/sample_data"),
)
_LEAST_PIXELS = 60_000
_OF_ANOTHER = ("motorcycle_right", "_R.png")
"""Files that show what another one shows."""
_REPEATING = (
    *("Elephants", "2004default", "firstgeneration", "rhythm", "string", "no-logo", "GreenTraditional"),
    "Bridge_by",
)
"""Wallpapers whose parts repeat each other, so that tiles look the same: drawings, and cables of a bridge."""
RANDOM = np.random.default_rng
SMALL = 32
"""Pixels of the side of CIFAR-shaped tiles."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """Tiles of one size."""

    side: int
    shrink: int = 1
    """By what the sides of the photograph are divided first."""
    wallpapers: bool = True
    """Whether those of Debian are cut as well."""


CUTS = (Cut(side=128, shrink=2), Cut(side=128), Cut(side=64), Cut(side=SMALL, wallpapers=False))


def photographs(folder: Path | None) -> list[Path]:
    """Return the files of photographs that Python packages ship, and those below `folder`."""
    found = [path for package, place in PACKAGES for path in sorted(package_file(package, place).iterdir())]
    found = [path for path in found if path.suffix in (".jpg", ".png") and not path.name.startswith("cifar")]
    if folder is not None:
        found += [path for path in sorted(folder.rglob("*.jpg")) if path.is_file() and not path.is_symlink()]
    return [path for path in found if _is_photograph(path)]


def _is_photograph(path: Path) -> bool:
    if any(name in path.name for name in (*_OF_ANOTHER, *_REPEATING)):
        return False
    with Image.open(path) as image:
        return image.width * image.height >= _LEAST_PIXELS and image.mode in ("RGB", "L")


def tiles(count: int, folder: Path | None) -> Iterator[Image.Image]:
    """Yield `count` tiles that are different files, drawn from all: the same ones on every run."""
    places = [
        (path, cut, left, top)
        for cut in CUTS
        for path in photographs(folder)
        if cut.wallpapers or folder is None or not path.is_relative_to(folder)
        for left, top in _grid(path, cut)
    ]
    # A few more than asked, for those that are the same: black sky is black sky, and would be a copy.
    drawn = sorted(RANDOM(1).permutation(len(places))[: round(1.2 * count)].tolist())
    seen: set[bytes] = set()
    for (path, shrink), numbers in groupby(drawn, lambda number: (places[number][0], places[number][1].shrink)):
        with Image.open(path) as opened:
            image = opened.convert("RGB").reduce(shrink)
        for number in numbers:
            _, cut, left, top = places[number]
            tile = image.crop((left, top, left + cut.side, top + cut.side))
            content = hashlib.sha256(_decoded(_file(tile)).tobytes()).digest()
            if content not in seen:
                seen.add(content)
                yield tile
    if len(seen) < count:
        raise ValueError(f"the photographs make {len(seen):,} tiles, asked for {count:,}; give more of them")


def _grid(path: Path, cut: Cut) -> Iterator[tuple[int, int]]:
    with Image.open(path) as image:
        width, height = -(-image.width // cut.shrink), -(-image.height // cut.shrink)
    for top in range(0, height - cut.side + 1, cut.side):
        for left in range(0, width - cut.side + 1, cut.side):
            yield left, top


def _decoded(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def _file(image: Image.Image, quality: int = 92) -> bytes:
    """Return a JPEG, or a PNG of pictures as small as CIFAR's."""
    return encoded(image, "PNG") if max(image.size) <= 36 else encoded(image, "JPEG", quality=quality)


def _cropped(image: Image.Image, part: float) -> Image.Image:
    across, down = round(part * image.width), round(part * image.height)
    return image.crop((across, down, image.width - across, image.height - down))


def _less_area(image: Image.Image, number: int) -> Image.Image:
    """Cut off 5 % of the area, by edges that differ from picture to picture."""
    generator = RANDOM(number)
    side = 0.95**0.5
    left, top = generator.uniform(0, 1 - side, 2)
    edges = (left * image.width, top * image.height, (left + side) * image.width, (top + side) * image.height)
    return image.crop(tuple(round(edge) for edge in edges))


def _other_file(image: Image.Image) -> bytes:
    """Return the pixels of the file as another file: a JPEG as PNG, a PNG compressed in another way."""
    return encoded(_decoded(_file(image)), "PNG", compress_level=1)


Edit = Callable[[Image.Image, int], bytes]
EDITS: dict[str, Edit] = {
    "same bytes": lambda image, _: _file(image),
    "same pixels, another file": lambda image, _: _other_file(image),
    "encoded again, quality 50": lambda image, _: encoded(image, "JPEG", quality=50),
    "half the size": lambda image, _: _file(image.reduce(2)),
    "mirrored": lambda image, _: _file(ImageOps.mirror(image)),
    "5 % of the area cropped": lambda image, number: _file(_less_area(image, number)),
    "5 % of each side cropped": lambda image, _: _file(_cropped(image, 0.05)),
    "10 % of each side cropped": lambda image, _: _file(_cropped(image, 0.1)),
    "20 % of each side cropped": lambda image, _: _file(_cropped(image, 0.2)),
    "padded by 5 % of each side": lambda image, _: _file(ImageOps.expand(image, round(0.05 * image.width))),
    "turned by 5 degrees": lambda image, _: _file(image.rotate(5, Image.Resampling.BICUBIC)),
    "turned by 90 degrees": lambda image, _: _file(image.transpose(Image.Transpose.ROTATE_90)),
}
EXACT = ("same bytes", "same pixels, another file")
REQUIRED = tuple(EDITS)[2:7]
"""Edits of which 95 % must be found."""


def write_files(folder: Path, count: int, copies: int, photographs_in: Path | None) -> None:
    """Write `folder/NUMBER.jpg` for each tile, and `folder/NUMBER-EDIT.jpg` for `copies` of each edit.

    Only tiles with some structure are edited, each once, but for exact copies, which are of any.
    """
    from imgdata.auditing.hashes import FLAT

    folder.mkdir(parents=True)
    drawn = list(tiles(count, photographs_in))
    originals = [drawn[at] for at in sorted(RANDOM(2).permutation(len(drawn))[:count].tolist())]
    gate_N = gates_of(originals)
    for number, image in enumerate(originals):
        _write(folder / f"{number:06d}", _file(image))
    any_N = RANDOM(0).permutation(count)
    clear = iter([number for number in any_N.tolist() if gate_N[number] >= FLAT])
    others = iter([number for number in any_N.tolist() if gate_N[number] < FLAT])
    for at, (name, edit) in enumerate(EDITS.items()):
        for number in _take(clear, copies, others if name in EXACT else iter(())):
            _write(folder / f"{number:06d}-{at}", edit(originals[number], number))


def _take(clear: Iterator[int], copies: int, others: Iterator[int]) -> list[int]:
    """Return numbers of pictures to edit: half of them flat ones where those count as well."""
    flat = [number for number, _ in zip(others, range(copies // 2), strict=False)]
    return flat + [number for number, _ in zip(clear, range(copies - len(flat)), strict=False)]


def _write(path: Path, data: bytes) -> None:
    path.with_suffix(".png" if data.startswith(b"\x89PNG") else ".jpg").write_bytes(data)


def gates_of(images: Sequence[Image.Image]) -> NDArray[np.uint8]:
    """Return the gate of each picture, uint8 `(N,)`."""
    from imgdata.auditing.hashes import gates

    small = [np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BICUBIC)) for image in images]
    return gates(np.stack(small))


def origin(name: str) -> int:
    """Return the number of the picture that a file shows: `000012-3.jpg` is a copy of 12."""
    return int(name[:6])


def edit_of(name: str) -> str | None:
    """Return what was done to the picture, None for an original."""
    _, dash, at = Path(name).stem.partition("-")
    return list(EDITS)[int(at)] if dash else None
