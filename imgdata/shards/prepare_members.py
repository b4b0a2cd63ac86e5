"""The raw bytes of a sample's further images, its picture as it is stored -> what is stored of each, or why it is bad.

A mask keeps its numbers, and a depth map of 16 bits its values; where the picture is stored upright or resized they are
turned and resized with it, by the nearest pixel.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from imgdata.dataset.members import Member
from imgdata.errors import ImageError
from imgdata.images.decode import check, refuse_large
from imgdata.images.encode import STORED_FORMATS, extension_of, reencode
from imgdata.images.info import UNKNOWN, ImageInfo
from imgdata.images.masks import is_plain_mask, moved_numbers, read_numbers, refuse_lossy, write_numbers
from imgdata.images.probe import probe
from imgdata.sample import SampleRef
from imgdata.shards.options import ShardOptions
from imgdata.sources.listing import Reader
from imgdata.sources.reading import read_sample, retried


class StoredMember(NamedTuple):
    """A further image of a sample as it is stored."""

    extension: str
    """Extension in the tar: `mask.png`."""
    data: bytes
    """Encoded image; empty for a sample without this image."""
    format: str
    """Format of the bytes: `png`, `jpeg`, `webp`; empty for none."""


class PictureFacts(NamedTuple):
    """Headers of a sample's picture: as it was, and as it is stored."""

    before: ImageInfo
    after: ImageInfo

    @property
    def orientation(self) -> int:
        """EXIF orientation that the picture was turned by; 1 where it is stored as it was."""
        return 1 if self.after.orientation != 1 else self.before.orientation

    @property
    def is_moved(self) -> bool:
        """Whether the picture is stored turned, or in another size."""
        before, after = self.before, self.after
        return self.orientation != 1 or (before.width, before.height) != (after.width, after.height)


def prepare_members(
    reader: Reader,
    ref: SampleRef,
    members: Sequence[Member],
    required: frozenset[str],
    picture: PictureFacts,
    options: ShardOptions,
) -> tuple[StoredMember, ...]:
    """Return what is stored of each of the sample's further images.

    Raises `ImageError` for one that is missing though it is `required`, damaged, or of another size than the picture.
    """
    return tuple(
        _prepared(reader, place, member, member.name in required, picture, options)
        for member, place in zip(members, ref.members, strict=True)
    )


def _prepared(
    reader: Reader, place: SampleRef, member: Member, is_required: bool, picture: PictureFacts, options: ShardOptions
) -> StoredMember:
    if not place.name and (not is_required or options.check == "none"):
        return StoredMember("", b"", "")
    try:
        if not place.name:
            raise ImageError("missing", "there is none, though others of the split have one; add it, or leave this out")
        data = read_sample(reader, place)
        return retried(lambda: stored_member(data, member, picture, options), place.name)
    except ImageError as error:
        where = f"its {member.name}{f' {place.name}' if place.name else ''}"
        raise ImageError(f"{member.name}-{error.reason}", f"{where}: {error.detail}") from error


def stored_member(data: bytes, member: Member, picture: PictureFacts, options: ShardOptions) -> StoredMember:
    """Return what is stored of one further image. Raises `ImageError`."""
    try:
        info = probe(data)
    except ImageError:
        if options.check == "none":
            return StoredMember(f"{member.name}.png", data, UNKNOWN.format)
        raise
    refuse_large(info, options.max_pixels)
    if member.kind == "mask":
        refuse_lossy(info)
    orientation = _fitting(info, picture, options)
    if options.check == "decode":
        check(data, info)
    is_kept = is_plain_mask(info) if member.kind == "mask" else info.format in STORED_FORMATS
    if is_kept and not picture.is_moved:
        return StoredMember(f"{member.name}.{extension_of(info.format)}", data, info.format)
    size = (picture.after.width, picture.after.height) if picture.is_moved else (info.width, info.height)
    if member.kind == "mask" or info.mode == "I;16":
        moved = moved_numbers(read_numbers(data, info), orientation, size)
        return StoredMember(f"{member.name}.png", write_numbers(moved), "png")
    extension = extension_of(info.format) if info.format in STORED_FORMATS else "png"
    encoded, stored = reencode(data, replace(info, orientation=orientation), options.encoding, extension=extension)
    if (stored.width, stored.height) != size:
        raise _of_another_size(stored, picture.after)
    return StoredMember(f"{member.name}.{extension}", encoded, stored.format)


def _fitting(info: ImageInfo, picture: PictureFacts, options: ShardOptions) -> int:
    """Return by which EXIF orientation an image is turned, so that it fits the stored picture. Raises `ImageError`."""
    before = picture.before
    if options.check == "none" or (info.width, info.height) == (before.width, before.height):
        return picture.orientation
    if picture.orientation != 1 and (info.width, info.height) == before.upright_size:
        # Drawn on the upright picture, as most tools show it.
        return 1
    raise _of_another_size(info, before)


def _of_another_size(info: ImageInfo, picture: ImageInfo) -> ImageError:
    upright = ""
    if (info.width, info.height) == picture.upright_size:
        upright = f"; it fits the upright picture (EXIF orientation {picture.orientation}): --on-bad repair stores that"
    return ImageError(
        "size",
        f"{info.width} x {info.height} pixels, the picture has {picture.width} x {picture.height}"
        + (upright or "; make both of one size, or leave this sample out"),
    )
