"""What `dataset.json` says of the further images of a sample: their names, and whether they are masks or pictures.

A member lies in the tar beside the picture, as webdataset has it: `KEY.mask.png` is the member `mask` of `KEY.jpg`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from imgdata.errors import OptionError
from imgdata.images.info import IMAGE_EXTENSIONS

MemberKind = Literal["mask", "image"]
KINDS: tuple[MemberKind, ...] = get_args(MemberKind)

_NAME = re.compile("[a-z][a-z0-9_]{0,39}")
_TAKEN = frozenset(("image", "json", "txt", "cls", "original", "label", "key", "split", "bytes", *IMAGE_EXTENSIONS))
"""Names that mean something else: a sample's picture, its other members, columns of the index."""
_MASKS = frozenset(
    (
        *("mask", "masks", "seg", "segmentation", "segmentations", "semantic", "semantic_mask", "instance"),
        *("instances", "instance_mask", "panoptic", "annotation", "annotations", "trimap", "labelids", "label_ids"),
        *("seg_map", "segmap", "ground_truth", "gt", "segmentation_mask"),
    )
)
"""Names of members that are masks where nothing else says so; so are those that end in `_mask`."""
FORMAT = "_format"
"""Ending of the column with a member's format, which no other column of an index has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A further image of the samples of a dataset."""

    name: str
    """A lower-case word, such as `mask` or `depth`."""
    kind: MemberKind
    """`mask`: a whole number for each pixel, the index of a palette or a gray value of up to 16 bits. `image`: a
    picture, such as the other one of a pair, or depth; gray of 16 bits stays."""

    def __post_init__(self) -> None:
        """Check both fields. Raises `OptionError`."""
        if not is_member_name(self.name):
            raise OptionError(
                "the name of a further image must be a word of lower-case letters, digits and '_', and none that has "
                f"another meaning, such as image, json, cls or png, got {self.name!r}"
            )
        if self.kind not in KINDS:
            raise OptionError(f"the kind of {self.name!r} must be {' or '.join(KINDS)}, got {self.kind!r}")

    @property
    def columns(self) -> tuple[str, str, str, str]:
        """Columns of the index: first byte in the tar, bytes, format, hash of the bytes."""
        return member_columns(self.name)


def member_columns(name: str) -> tuple[str, str, str, str]:
    """Return the columns that an index has of the member `name`: first byte, bytes, format, hash."""
    return f"{name}_offset", f"{name}_size", f"{name}{FORMAT}", f"{name}_xxh64"


def loose_columns(name: str = "") -> tuple[str, str, str]:
    """Return the columns of an index of loose files for the member `name`, or the picture: file, state, path."""
    before = f"{name}_" if name else ""
    return f"{before}file", f"{before}state", f"{before}path"


def is_member_name(name: str) -> bool:
    """Return whether a member may have this name."""
    return _NAME.fullmatch(name) is not None and name not in _TAKEN


def members_in(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the further images that an index with the columns `names` has."""
    found = (column.removesuffix(FORMAT) for column in names if column.endswith(FORMAT))
    return tuple(name for name in found if is_member_name(name))


def kind_of(name: str) -> MemberKind:
    """Return the kind that a member's name says: masks by their usual names, such as `mask` or `seg`."""
    return "mask" if name in _MASKS or name.endswith("_mask") else "image"


def members_json(members: Sequence[Member]) -> dict[str, Any]:
    """Return the entry of `dataset.json`; none where there are no members."""
    return {"members": [{"name": one.name, "kind": one.kind} for one in members]} if members else {}


def members_from_json(entries: Iterable[Mapping[str, Any]]) -> tuple[Member, ...]:
    """Return the members that `members_json` gave. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    try:
        members = tuple(Member(name=str(entry["name"]), kind=entry["kind"]) for entry in entries)
    except OptionError as error:
        raise ValueError(str(error)) from error
    if len({one.name for one in members}) < len(members):
        raise ValueError("members must have different names")
    return members
