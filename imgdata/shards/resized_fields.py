"""A listing whose pictures are stored in another size -> the same without boxes and keypoints, which would not fit."""

import json

from imgdata.errors import OptionError
from imgdata.sources.listing import Listing
from imgdata.sources.options import SourceOptions

_OF_PIXELS = ("boxes", "box_labels", "keypoints", "areas", "iscrowd", "difficult")
"""Fields of the objects in a picture, whose places are in its pixels."""
_SOURCES = ("coco", "voc")


def without_places(listing: Listing, read: SourceOptions) -> Listing:
    """Return the listing of pictures that are resized: places in pixels would be those of other pixels.

    What COCO and Pascal VOC give is left out with a note; a user's own fields are kept with one. Raises `OptionError`
    where the boxes are the target.
    """
    if listing.fields_N is None:
        return listing
    texts = [str(text) for chunk in listing.fields_N.chunks for text in chunk.to_pylist()]
    if not any('"boxes":' in text or '"keypoints":' in text for text in texts):
        return listing
    if read.target == "boxes":
        raise OptionError(
            "resize: boxes are in the pixels of the pictures as they are; leave out --resize, the loader resizes "
            "pictures and boxes"
        )
    if listing.kind not in _SOURCES:
        return listing.with_warning(
            "pictures are resized, and fields boxes and keypoints are kept as they are, in the pixels before that"
        )
    kept = [{name: one for name, one in json.loads(text or "{}").items() if name not in _OF_PIXELS} for text in texts]
    without = listing.with_fields([json.dumps(row, separators=(",", ":")) if row else "" for row in kept])
    return without.with_warning("boxes and keypoints are left out, since pictures are resized; the loader resizes both")
