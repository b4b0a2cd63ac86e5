"""Raw image bytes + options -> the bytes to store with what is to be noted of them, or why the image is bad."""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import xxhash

from imgdata.dataset.members import Member
from imgdata.errors import ImageError
from imgdata.images.crop_ready import make_crop_ready, why_not
from imgdata.images.decode import check, has_bytes_behind, refuse_large
from imgdata.images.encode import extension_of, lost_in_encoding, needs_encoding, needs_repair, oddities, reencode
from imgdata.images.info import UNKNOWN, ImageInfo
from imgdata.images.pillow import heard_warnings
from imgdata.images.probe import probe
from imgdata.native import crop_interval
from imgdata.sample import SampleRef
from imgdata.shards.options import ShardOptions
from imgdata.shards.prepare_members import PictureFacts, StoredMember, prepare_members
from imgdata.sources.listing import Reader
from imgdata.sources.reading import read_sample, retried


class Prepared(NamedTuple):
    """An image as it is stored."""

    data: bytes
    info: ImageInfo
    repairs: tuple[str, ...] = ()
    """Repairs of the image."""
    notes: tuple[str, ...] = ()
    """Remarks for the user: odd bytes, losses in encoding, Pillow's warnings."""
    interval: int = 0
    """MCUs between restart markers of a crop-ready JPEG; 0 for others."""
    original_xxh64: int | None = None
    """Hash of the raw bytes, where the options ask for crop-ready images."""
    members: tuple[StoredMember, ...] = ()
    """Further images of the sample, in the order of the dataset's."""


def read_and_prepare(
    reader: Reader,
    ref: SampleRef,
    options: ShardOptions,
    extension: str,
    members: Sequence[Member] = (),
    required: frozenset[str] = frozenset(),
) -> Prepared:
    """Return `prepare` of the bytes of `ref`, and what is stored of its further images, the `members`.

    Those that are `required` must be there. Raises `ImageError` for a fault of the bytes, and `SourceError` for one of
    the system that stays: a file that can't be read, or no memory.
    """
    data = read_sample(reader, ref)
    prepared = retried(lambda: prepare(data, options, extension), ref.name)
    if not members:
        return prepared
    before = prepared.info
    # Where headers aren't checked they may be damaged.
    with suppress(ImageError):
        before = probe(data)
    picture = PictureFacts(before, prepared.info)
    return prepared._replace(members=prepare_members(reader, ref, members, required, picture, options))


def prepare(data: bytes, options: ShardOptions, extension: str) -> Prepared:
    """Return the bytes to store as `extension`, with what they are and what is to be noted of them.

    Raises `ImageError` when the image is bad: damaged, no image at all, or larger than allowed; `MemoryError`.
    """
    with heard_warnings() as warnings:
        prepared = _prepared(data, options, extension)
        if options.crop_ready:
            prepared = _crop_ready(prepared, data, options)
    notes = dict.fromkeys((*prepared.notes, *(f"Pillow warns: {text}" for text in warnings)))
    return prepared._replace(notes=tuple(notes)) if notes else prepared


def _prepared(data: bytes, options: ShardOptions, extension: str) -> Prepared:
    try:
        info = probe(data)
    except ImageError:
        if options.check == "none":
            return Prepared(data, UNKNOWN)
        raise
    refuse_large(info, options.max_pixels)
    encoding = options.encoding
    repairs: tuple[str, ...] = ()
    if options.on_bad == "repair":
        misnamed = extension_of(info.format) != extension
        if needs_repair(info) or misnamed:
            repairs = (*oddities(info), *((f"{info.format} as {extension}",) if misnamed else ()))
    # Re-encoding decodes the image and finds the faults that `check` finds.
    if repairs or needs_encoding(info, encoding):
        bytes_kept = encoding.format == "keep" and encoding.resize is None and not repairs
        # Formats that shards don't hold, such as BMP, lose nothing as PNG.
        stored_as = "png" if bytes_kept else extension
        encoded, stored = reencode(data, info, encoding, extension=stored_as, crop_ready=options.crop_ready)
        lost = () if repairs else lost_in_encoding(info)
        return Prepared(encoded, stored, repairs, tuple(f"as {stored.format}, {text}" for text in lost))
    # What is made crop-ready is decoded for it.
    notes = check(data, info) if options.check == "decode" and not options.crop_ready else ()
    return Prepared(data, info, notes=notes)


def _crop_ready(prepared: Prepared, raw: bytes, options: ShardOptions) -> Prepared:
    """Return the prepared image with restart markers, or with a note why it has none. Raises `ImageError`."""
    data, info = prepared.data, prepared.info
    original = xxhash.xxh64_intdigest(raw)
    interval = crop_interval(data) if data is not raw and info.format == "jpeg" else 0
    if interval:
        return prepared._replace(interval=interval, original_xxh64=original)
    ready = make_crop_ready(data, info, strip=options.strip)
    notes = prepared.notes
    # What was made ready is not damaged; what stays behind its end may be worth a note.
    if data is raw and options.check == "decode" and (ready is None or (has_bytes_behind(data) and not options.strip)):
        notes += check(data, info)
    if ready is None:
        return prepared._replace(notes=(*notes, why_not(info)), original_xxh64=original)
    return prepared._replace(data=ready.data, interval=ready.interval, notes=notes, original_xxh64=original)
