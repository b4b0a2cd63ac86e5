"""The picture of a tar's sample, another image with a name of its own -> whether that is a mask, a picture, or none."""

from collections import Counter
from pathlib import Path

from imgdata.dataset.manifest import Manifest
from imgdata.dataset.members import MemberKind, is_member_name, kind_of
from imgdata.errors import ImageError
from imgdata.images.info import ImageInfo
from imgdata.images.probe import probe
from imgdata.tar.archive import Member, read_member
from imgdata.tar.samples import TarSample, named_images

_MASK_MODES = frozenset(("1", "L", "P", "PA", "I;16", "I"))


def kind_in_tar(name: str, picture: bytes, other: bytes) -> MemberKind | None:
    """Return what the further image `name` of a first sample is; None for one that does not belong to each pixel.

    It must have the picture's size: a thumbnail beside it is none. Masks are those that are called like one and hold
    numbers.
    """
    if not is_member_name(name):
        return None
    own, info = _header(picture), _header(other)
    if own is None or info is None or (own.width, own.height) != (info.width, info.height):
        return None
    holds_numbers = info.mode in _MASK_MODES and info.format not in ("jpeg", "webp")
    return "mask" if kind_of(name) == "mask" and holds_numbers else "image"


def _header(data: bytes) -> ImageInfo | None:
    try:
        return probe(data)
    except ImageError:
        return None


class TarMembers:
    """What the further images of the samples of tars are, decided by the first sample that has one of a name."""

    def __init__(self, manifest: Manifest | None) -> None:
        known = {} if manifest is None else {one.name: one.kind for one in manifest.members}
        self._kinds: dict[str, MemberKind | None] = dict(known)
        self.extensions: set[str] = set()
        """Extensions of the images that were taken."""

    @property
    def kinds(self) -> dict[str, MemberKind]:
        """Kinds of those that were taken, by name."""
        return {name: kind for name, kind in self._kinds.items() if kind is not None}

    def of(self, sample: TarSample, extension: str, descriptor: int, tar: Path) -> dict[str, Member]:
        """Return the further images of a sample, by name."""
        found = {}
        for name, other in named_images(sample, extension).items():
            if name not in self._kinds:
                picture, data = (read_member(descriptor, sample.members[one], tar) for one in (extension, other))
                self._kinds[name] = kind_in_tar(name, picture, data)
            if self._kinds[name] is not None:
                found[name] = sample.members[other]
                self.extensions.add(other)
        return found


def other_images(several: "Counter[tuple[str, ...]]", taken: set[str]) -> "Counter[tuple[str, ...]]":
    """Return the counts of images of samples that have several, without the extensions that are further images."""
    left: Counter[tuple[str, ...]] = Counter()
    for extensions, count in several.items():
        others = tuple(extension for extension in extensions if extension not in taken)
        if len(others) > 1 or any("." in extension for extension in others):
            left[extensions] += count
    return left
