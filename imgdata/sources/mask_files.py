"""A folder of masks -> the mask that belongs to each image, by its name; a listing of files -> the same with masks.

A mask has its image's name, with another extension, in a tree of the same shape. Words that tools put before or behind
names are looked through where no name is the same: `7_mask.png` belongs to `7.jpg`, and Cityscapes'
`ulm_000_gtFine_labelIds.png` to `ulm_000_leftImg8bit.png`.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from imgdata.errors import OptionError, SourceError
from imgdata.sources.classes import some
from imgdata.sources.listing import Listing, ListingBuilder
from imgdata.sources.member_columns import MASK, MemberBuilder, Place
from imgdata.sources.readers import FileReader
from imgdata.sources.walk import image_files
from imgdata.storage.file_names import escape_name, unescape_name

_SUFFIX = re.compile(
    r"(?:[-_.]leftimg8bit|[-_.]gt(?:fine|coarse)[-_.]labelids|[-_.]labelids|[-_.](?:mask|masks|seg|segmentation|label|"
    r"labels|gt|groundtruth|annotation|trimap|matte|sat|image|img))$",
    re.IGNORECASE,
)
_PREFIX = re.compile(r"^(?:mask|masks|seg|label|labels|gt|image|img|sat)[-_.]", re.IGNORECASE)
_PROBED = 200


def plain_name(stem: str) -> str:
    """Return a path without its extension, without the words that say `image` or `mask` around the file's name."""
    folder, slash, name = stem.rpartition("/")
    shorter = _SUFFIX.sub("", name)
    shorter = _PREFIX.sub("", shorter) if shorter == name else shorter
    return f"{folder}{slash}{shorter or name}"


class MaskFiles:
    """The masks below a folder, by the names of the images that they belong to."""

    def __init__(self, root: Path, folder: Path) -> None:
        """Look at all files below `folder`; names of masks count from `root`. Raises `SourceError`."""
        self.folder = folder
        inner = os.path.relpath(folder, root)
        self._prefix = "" if inner == "." else f"{inner}/"
        self._exact: dict[str, tuple[str, int]] = {}
        self._plain: dict[str, list[str]] = {}
        self._owners: dict[str, str] = {}
        for file, size in image_files(folder, ListingBuilder()):
            stem = os.path.splitext(file)[0]
            if stem in self._exact:
                raise SourceError(
                    f"{folder}: {file} and {self._exact[stem][0]} are masks of one image; leave one of them"
                )
            self._exact[stem] = file, size
            self._plain.setdefault(plain_name(stem), []).append(stem)

    def __len__(self) -> int:
        return len(self._exact)

    @property
    def unused(self) -> int:
        """Masks that belong to none of the images that were asked for."""
        return len(self._exact) - len(self._owners)

    def has(self, image: str) -> bool:
        """Return whether there is a mask for an image, a path below the images' folder."""
        stem = os.path.splitext(image)[0]
        return stem in self._exact or plain_name(stem) in self._plain

    def find(self, image: str, owner: str) -> Place | None:
        """Return the place of the mask of an image, a path below the images' folder; None where there is none.

        `owner` is the image's name in the whole dataset. Raises `SourceError` where several masks may be meant, or one
        mask is that of two images.
        """
        stem = os.path.splitext(image)[0]
        found = [stem] if stem in self._exact else self._plain.get(plain_name(stem), [])
        if len(found) > 1:
            names = some([self._exact[one][0] for one in found])
            raise SourceError(
                f"{self.folder}: {escape_name(image)} may have several masks ({names}); keep one for each image"
            )
        if not found:
            return None
        file, size = self._exact[found[0]]
        other = self._owners.setdefault(file, owner)
        if other != owner:
            raise SourceError(
                f"{self.folder}: {file} would be the mask of {escape_name(other)} and of {escape_name(owner)}; give "
                "masks in a tree as that of the images"
            )
        return Place(self._prefix + file, size)


def with_masks(listing: Listing, path: Path, folder: Path) -> Listing:
    """Return a listing of files with the masks in `folder`, which has the images' tree, from some folder on.

    Raises `OptionError` for a source that is no folder of files, `SourceError` where nothing fits.
    """
    if not isinstance(listing.reader, FileReader):
        raise OptionError(f"masks: a folder of masks goes with images that are files, got {listing.kind} ({path})")
    if not folder.is_dir():
        raise OptionError(f"masks: {folder} must be a folder of masks")
    masks = MaskFiles(listing.reader.root, folder)
    names = [unescape_name(str(name)) for chunk in listing.name_N.chunks for name in chunk.to_pylist()]
    depth = _shared_depth(masks, names, path)
    members = MemberBuilder()
    for row, name in enumerate(names):
        place = masks.find("/".join(name.split("/")[depth:]), name)
        if place is not None:
            members.add(row, {MASK: place})
    return replace(
        listing,
        members=(*listing.members, *members.build(len(names))),
        warnings=(*listing.warnings, *mask_notes({str(folder): masks})),
    )


def _shared_depth(masks: MaskFiles, names: list[str], path: Path) -> int:
    """Return how many folders lie around the images and not around their masks."""
    few = names[:: max(1, len(names) // _PROBED)]
    deepest = max(name.count("/") for name in few)
    for depth in range(deepest + 1):
        if any(masks.has("/".join(name.split("/")[depth:])) for name in few):
            return depth
    raise SourceError(
        f"{masks.folder}: none of its {len(masks)} images is called like one of {path}, such as "
        f"{escape_name(few[0])}; a mask has its image's name, with another extension"
    )


def mask_notes(masks: Mapping[str, MaskFiles]) -> Iterator[str]:
    """Yield a sentence for each folder with masks that belong to no image."""
    for name, files in masks.items():
        if files.unused:
            yield f"{files.unused} files in {escape_name(name)} are masks of none of the images, and left out"
