"""Members of a tar -> samples, grouped as webdataset groups them."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from imgdata.errors import ShardError
from imgdata.images.info import IMAGE_EXTENSIONS
from imgdata.tar.archive import Member, members

_KEY = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
_META = re.compile(r"__[^/]*__($|/)")


class TarSample(NamedTuple):
    """Consecutive members of a tar that share a key."""

    key: str
    """As webdataset forms it: all before the first dot of the base name, folders kept."""
    members: dict[str, Member]
    """Extension (all after that dot, lower-case) -> member, in the tar's order."""


def tar_samples(path: Path) -> Iterator[TarSample]:
    """The samples of the tar `path`, in order; only headers are read.

    Members that webdataset passes over (`__x__`, no extension, hidden) are passed over here as well.
    Raises `ShardError` for a damaged tar and for two members with the same extension in a sample.
    """
    return group_members(members(path), path)


def split_name(name: str) -> tuple[str, str]:
    """Key and lower-case extension of a member's name; two empty texts for one that webdataset passes over."""
    match = None if _META.match(name) else _KEY.fullmatch(name)
    return (match[1], match[2].lower()) if match else ("", "")


def group_members(found: Iterable[Member], path: Path) -> Iterator[TarSample]:
    """Consecutive members with the same key as samples; `path` is for messages."""
    key, group = "", dict[str, Member]()
    for member in found:
        prefix, extension = split_name(member.name)
        if not prefix:
            continue
        if prefix != key:
            if group:
                yield TarSample(key, group)
            key, group = prefix, {}
        if extension in group:
            raise ShardError(
                f"{path}: key {key!r} has a second .{extension} at byte {member.offset}, the first is at byte "
                f"{group[extension].offset}; all after the first dot of a file name is its extension: rename the files"
            )
        group[extension] = member
    if group:
        yield TarSample(key, group)


def image_member(sample: TarSample, image_ext: Sequence[str] = ()) -> str | None:
    """Extension of the image in `sample`: the first of `image_ext` that is there, else the first usual one."""
    if image_ext:
        return next((ext for ext in image_ext if ext in sample.members), None)
    plain = next((ext for ext in IMAGE_EXTENSIONS if ext in sample.members), None)
    return plain or next((ext for ext in sample.members if is_image(ext)), None)


def is_image(extension: str) -> bool:
    """Whether a member with this extension is an image."""
    return extension.rsplit(".", 1)[-1] in IMAGE_EXTENSIONS


def several_images_warning(several: Counter[tuple[str, ...]]) -> list[str]:
    """A line that says which of several images was taken, when there were several."""
    if not several:
        return []
    extensions = several.most_common(1)[0][0]
    taken = image_member(TarSample("", dict.fromkeys(extensions, Member("", 0, 0))))
    return [
        f"{several.total()} samples have several images ({', '.join(extensions)}); .{taken} was taken: "
        "choose with --image-ext"
    ]
