"""A sample -> its small upright picture as a `data:` address, or why there is none."""

import base64
import io

from PIL import Image

from imgdata.auditing.finding import Place
from imgdata.dataset.dataset import Dataset
from imgdata.errors import ImageError, ShardError
from imgdata.images.encode import UPRIGHT
from imgdata.images.pillow import heard_warnings, opaque, open_image, pillow_errors

SIDE = 160
"""Longer side of a picture in pixels, at most."""
_QUALITY = 75


def thumbnail(dataset: Dataset, place: Place) -> tuple[str, int, int]:
    """Return a JPEG as a `data:` address, its width and height. Raises `ImageError`, `ShardError`."""
    split = dataset[place.split]
    row = split.index.row(place.position)
    if row.width * row.height > dataset.manifest.max_pixels:
        raise ImageError("too-large", f"{row.width} x {row.height} pixels")
    with heard_warnings(), pillow_errors(), open_image(split.read(place.position), row.format) as opened:
        opened.draft("RGB", (2 * SIDE, 2 * SIDE))
        picture = opaque(opened).convert("RGB")
        if row.orientation in UPRIGHT:
            picture = picture.transpose(UPRIGHT[row.orientation])
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=None)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}", picture.width, picture.height


def safe_thumbnail(dataset: Dataset, place: Place) -> tuple[str, int, int] | str:
    """Return what `thumbnail` returns, or in a few words why there is no picture."""
    try:
        return thumbnail(dataset, place)
    except ImageError as error:
        return f"can't be decoded: {error.reason}"
    except (ShardError, KeyError, IndexError):
        return "can't be read"
