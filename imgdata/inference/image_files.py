"""Files, folders, URLs -> their images as a loader makes them, batch by batch."""

import http.client
import io
import os
import re
import tarfile
import tempfile
import urllib.error
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from imgdata.backends.registry import reference_kind
from imgdata.dataset.manifest import own_max_pixels
from imgdata.errors import ImageError
from imgdata.images.decode import refuse_large
from imgdata.images.encode import repair
from imgdata.images.probe import probe
from imgdata.inference.download import download
from imgdata.loader.loader import Loader
from imgdata.recipes.recipe import Recipe
from imgdata.shards.index_tars import index
from imgdata.sources.listing import ListingBuilder
from imgdata.sources.walk import image_files
from imgdata.storage.atomic import output_error
from imgdata.storage.reading import MAX_MEMBER_BYTES, read_file

MAX_DOWNLOAD_BYTES = 64 * 2**20
MAX_DOWNLOAD_S = 120.0
"""Seconds for a whole answer, however it comes."""
DOWNLOAD_TIMEOUT_S = 20.0
"""Longest time in seconds without a response, or between two pieces of the response."""
_GROUP = 256
"""Number of images that are copied to the temporary folder at a time."""
_URL = re.compile(r"https?://", re.IGNORECASE)

Refused = Callable[[int, ImageError], None]


class FileBatch(NamedTuple):
    """Images that could be decoded."""

    views: tuple[torch.Tensor, ...]
    """float32 `(N, 3, H, W)` for each view, as the recipe leaves them, on the device."""
    numbers: list[int]
    """Numbers of the images' names, `(N,)`."""

    @property
    def images(self) -> torch.Tensor:
        """Images of the first view."""
        return self.views[0]


def find_images(places: Sequence[str | Path]) -> list[str]:
    """Return the names of all images: those of a folder, at any depth, sorted by path; all else as it was given.

    A folder without images stays in the list, and `file_batches` refuses it. Raises `SourceError` for a folder that
    can't be read.
    """
    names: list[str] = []
    for place in map(str, places):
        inside: list[str] = []
        if _URL.match(place) is None and os.path.isdir(place):
            inside = [os.path.join(place, name) for name, _ in image_files(Path(place), ListingBuilder())]
        names += inside or [place]
    return names


def file_batches(
    names: Sequence[str],
    recipe: Recipe,
    *,
    device: torch.device,
    batch_size: int,
    refused: Refused,
    upright: bool = False,
    rotated: Callable[[int], None] = lambda number: None,
) -> Iterator[FileBatch]:
    """Yield the images, with the pixels of a CPU loader of a dataset that was made of the same files.

    The images are copied into shards in a temporary folder, which a loader reads: so nothing about a picture is decided
    here. With `upright` images whose EXIF says that they are rotated are made upright first, as in shards that were
    re-encoded. `refused` gets the number of each image that can't be used, and why; `rotated` gets the number of each
    image that EXIF says to rotate. Raises `OutputError`: no space.
    """
    for first in range(0, len(names), _GROUP):
        with tempfile.TemporaryDirectory(prefix="imgdata-") as folder:
            group = range(first, min(first + _GROUP, len(names)))
            try:
                numbers = _write_shard(Path(folder), names, group, refused, upright, rotated)
            except OSError as error:
                raise output_error(error, Path(folder)) from error
            if numbers:
                yield from _decoded(Path(folder), numbers, recipe, device, batch_size, refused)


def read_image(name: str) -> bytes:
    """Return the encoded image in a file, or behind a URL. Raises `ImageError`."""
    try:
        return _download(name) if _URL.match(name) else read_file(name, MAX_MEMBER_BYTES)
    except IsADirectoryError as error:
        raise ImageError("not-an-image", "a folder without images") from error
    except urllib.error.HTTPError as error:
        error.close()
        raise ImageError("unreadable", str(error)) from error
    except OSError as error:
        # urllib hides why in `reason`.
        cause = getattr(error, "reason", error)
        raise ImageError("unreadable", str(getattr(cause, "strerror", None) or cause)) from error
    except (http.client.HTTPException, ValueError) as error:
        raise ImageError("unreadable", f"{type(error).__name__}: {error}") from error


def _download(url: str) -> bytes:
    data = download(url, max_bytes=MAX_DOWNLOAD_BYTES, timeout_s=DOWNLOAD_TIMEOUT_S, total_s=MAX_DOWNLOAD_S)
    if len(data) > MAX_DOWNLOAD_BYTES:
        raise ImageError(
            "too-large", f"more than {MAX_DOWNLOAD_BYTES:,} bytes; download it yourself, and name the file"
        )
    return data


def _write_shard(
    folder: Path,
    names: Sequence[str],
    group: range,
    refused: Refused,
    upright: bool,
    rotated: Callable[[int], None],
) -> list[int]:
    """Write the images of `group` into one shard, and return the numbers of those that look like images."""
    numbers = []
    with tarfile.open(folder / "images-test-000000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for number in group:
            try:
                data = read_image(names[number])
                info = probe(data)
                refuse_large(info, own_max_pixels())
                if info.orientation != 1:
                    rotated(number)
                    # PNG keeps the pixels.
                    data = repair(data, info, extension="png")[0] if upright else data
            except ImageError as error:
                refused(number, error)
                continue
            # One extension for all: the bytes decide how they are decoded.
            member = tarfile.TarInfo(f"{number:09d}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            numbers.append(number)
    return numbers


def _decoded(
    folder: Path, numbers: list[int], recipe: Recipe, device: torch.device, batch_size: int, refused: Refused
) -> Iterator[FileBatch]:
    with Loader(
        index(folder, workers=1),
        split="test",
        batch_size=min(batch_size, len(numbers)),
        recipe=recipe,
        device=device,
        backend=reference_kind().name,
        shuffle="none",
        dtype="float32",
        rank=0,
        world_size=1,
        on_bad="skip",
        exact=True,
    ) as loader:
        for batch in loader:
            good_N = batch.valid.to(device)
            positions = batch.positions[batch.valid].tolist()
            if positions:
                yield FileBatch(
                    tuple(images[good_N] for images in batch.views), [numbers[position] for position in positions]
                )
        for bad in loader.bad:
            refused(numbers[bad.position], ImageError(bad.reason, bad.detail))
