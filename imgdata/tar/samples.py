"""Members of a tar -> samples, grouped as webdataset groups them, and what is passed over."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from imgdata.errors import ShardError
from imgdata.images.info import IMAGE_EXTENSIONS
from imgdata.tar.archive import Member, TarWalk, members

_KEY = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
_NUMBER = re.compile(r"[0-9][0-9.]*")
_SIDES = frozenset(("cls", "json", "txt"))
_META = re.compile(r"__[^/]*__($|/)")


class TarSample(NamedTuple):
    """Consecutive members of a tar that share a key."""

    key: str
    """Key as webdataset forms it: all before the first dot of the base name, folders kept."""
    members: dict[str, Member]
    """Extension (all after that dot, lower-case) -> member, in the tar's order."""


@dataclass
class TarContents:
    """The samples of a tar that have an image, and counts of everything else in the tar."""

    samples: list[tuple[TarSample, str]] = field(default_factory=list)
    """Each with the extension of its image."""
    passed_over: Counter[str] = field(default_factory=Counter)
    grouping: "Grouping" = field(default_factory=lambda: Grouping())
    without_end: bool = False
    """Whether the tar has no end marker."""
    short: bool = False
    """Whether its last block is not even filled up."""


@dataclass
class Grouping:
    """Counts of samples that were put together otherwise than by webdataset's readers."""

    dotted: int = 0
    """Samples whose key has dots: `22.05.png` with `22.05.cls`."""
    apart: int = 0
    """Number of samples whose members are not next to each other."""
    without_key: int = 0
    """Members that webdataset passes over: `__x__`, no extension, hidden."""


def tar_contents(path: Path, image_ext: Sequence[str] = ()) -> TarContents:
    """Read the samples of the tar `path`, in order, and count what is none; only headers are read.

    Both `imgdata index` and `imgdata shard` pass over what this function passes over. Raises `ShardError` for a damaged
    tar and for two members with the same extension in a sample.
    """
    contents = TarContents()
    walk = TarWalk()
    found = list(members(path, walk=walk))
    used = 0
    for sample in group_members(found, path, contents.grouping):
        used += len(sample.members)
        extension = image_member(sample, image_ext)
        if extension is None:
            contents.passed_over["samples without an image"] += 1
        else:
            contents.samples.append((sample, extension))
    without_key = contents.grouping.without_key
    assert used + without_key == len(found), f"{path}: {used} and {without_key} of {len(found)} members accounted for"
    contents.passed_over += walk.passed_over
    contents.passed_over["members without a key (hidden, or no extension)"] += without_key
    contents.passed_over = +contents.passed_over
    contents.without_end, contents.short = walk.without_end, walk.short_bytes > 0
    return contents


def contents_notes(found: Sequence[tuple[str, TarContents]]) -> list[str]:
    """Return what a user should know of tars, each with its name, and of how their members were put together."""
    notes = []
    short = [name for name, contents in found if contents.short]
    if short:
        notes.append(
            f"{_tars(short)} a last block that is not filled up, and no end marker: cut short; samples behind it are "
            "lost, get the file again"
        )
    without_end = [name for name, contents in found if contents.without_end and not contents.short]
    if without_end:
        notes.append(
            f"{_tars(without_end)} no end marker: written by a program that leaves it out, or cut short at a member's "
            "end; compare the number of samples with the original"
        )
    dotted = sum(contents.grouping.dotted for _, contents in found)
    if dotted:
        notes.append(
            f"{dotted} samples have dots in their keys (22.05.png with 22.05.cls) and were separated by them; other "
            "readers of WebDataset end the key at the first dot: `imgdata shard` writes keys that all read alike"
        )
    apart = sum(contents.grouping.apart for _, contents in found)
    if apart:
        notes.append(
            f"the members of {apart} samples are not together in the tar and were put together by key (their cls "
            "member too); other readers of WebDataset see each part as a sample: `imgdata shard` writes them together"
        )
    return notes


def _tars(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{shown} {'has' if len(names) == 1 else 'have'}"


def tar_samples(path: Path) -> Iterator[TarSample]:
    """Yield the samples of the tar `path`, in order, with or without an image; only headers are read.

    Members that webdataset passes over (`__x__`, no extension, hidden) are passed over here as well.
    Raises `ShardError` for a damaged tar and for two members with the same extension in a sample.
    """
    return group_members(members(path), path)


def split_name(name: str) -> tuple[str, str]:
    """Return key and lower-case extension of a member's name; two empty texts for a member that webdataset skips."""
    match = None if _META.match(name) else _KEY.fullmatch(name)
    return (match[1], match[2].lower()) if match else ("", "")


def group_members(found: Iterable[Member], path: Path, grouping: Grouping | None = None) -> Iterator[TarSample]:
    """Put members with the same key together to samples; `path` is for messages.

    As webdataset does, but for two forms of which it makes nonsense: keys with dots (`22.05.png` with `22.05.cls`), and
    members that are not together, where one part has the image and the others have what belongs to that image.
    """
    grouping = grouping or Grouping()
    groups: list[TarSample] = []
    key = ""
    for member in found:
        prefix, extension = split_name(member.name)
        if not prefix:
            grouping.without_key += 1
            continue
        if prefix != key or not groups:
            key = prefix
            groups.append(TarSample(key, {}))
        group = groups[-1].members
        if extension in group:
            raise ShardError(
                f"{path}: key {key!r} has a second .{extension} at byte {member.offset}, the first is at byte "
                f"{group[extension].offset}; all after the first dot of a file name is its extension: rename the files"
            )
        group[extension] = member
    told_apart: list[TarSample] = []
    for sample in groups:
        parts = _by_whole_name(sample)
        grouping.dotted += len(parts) if parts[0] is not sample else 0
        told_apart += parts
    return _put_together(told_apart, grouping)


def _by_whole_name(sample: TarSample) -> list[TarSample]:
    """Return `sample`, or the samples whose keys have dots that it is made of.

    A sample is split where all text before the last dot is a number in each name, or where each part has an image of
    its own.
    """
    parts: dict[str, dict[str, Member]] = {}
    for extension, member in sample.members.items():
        stem, _, last = extension.rpartition(".")
        parts.setdefault(stem, {})[last] = member
    if "" in parts:
        return [sample]
    numbers = all(_NUMBER.fullmatch(stem) for stem in parts)
    whole = all(any(map(is_image, part)) and not _SIDES.isdisjoint(part) for part in parts.values())
    if not (whole or (numbers and any(is_image(ext) for part in parts.values() for ext in part))):
        return [sample]
    return [TarSample(f"{sample.key}.{stem}", part) for stem, part in parts.items()]


def _put_together(samples: list[TarSample], grouping: Grouping) -> Iterator[TarSample]:
    """Join samples of one key, in the place of the first, where only one has an image and no extension comes twice."""
    at: dict[str, list[TarSample]] = {}
    for sample in samples:
        at.setdefault(sample.key, []).append(sample)
    if len(at) == len(samples):
        yield from samples
        return
    done: set[str] = set()
    for sample in samples:
        parts = at[sample.key]
        extensions = [extension for part in parts for extension in part.members]
        with_image = sum(image_member(part) is not None for part in parts)
        if len(parts) == 1 or len(set(extensions)) < len(extensions) or with_image != 1:
            yield sample
        elif sample.key not in done:
            done.add(sample.key)
            grouping.apart += 1
            yield TarSample(sample.key, {ext: member for part in parts for ext, member in part.members.items()})


def image_member(sample: TarSample, image_ext: Sequence[str] = ()) -> str | None:
    """Return the extension of the image in `sample`: the first of `image_ext` that it has, else the first usual one."""
    if image_ext:
        return next((ext for ext in image_ext if ext in sample.members), None)
    plain = next((ext for ext in IMAGE_EXTENSIONS if ext in sample.members), None)
    return plain or next((ext for ext in sample.members if is_image(ext)), None)


_NAMED = re.compile(r"([a-z][a-z0-9_]*)\.([a-z0-9]+)")


def named_images(sample: TarSample, extension: str) -> dict[str, str]:
    """Return the extensions of the further images of a sample whose picture is the member `extension`, by name.

    A further image has its name before its extension: `mask` of `KEY.mask.png`. Of two with one name the first counts.
    """
    found: dict[str, str] = {}
    for other in sample.members:
        match = _NAMED.fullmatch(other)
        if other != extension and match is not None and is_image(other):
            found.setdefault(match[1], other)
    return found


def is_image(extension: str) -> bool:
    """Return whether a member with this extension is an image."""
    return extension.rsplit(".", 1)[-1] in IMAGE_EXTENSIONS


def several_images_warning(several: Counter[tuple[str, ...]]) -> list[str]:
    """Return a line that says which of several images was taken, when there were several."""
    if not several:
        return []
    extensions = several.most_common(1)[0][0]
    taken = image_member(TarSample("", dict.fromkeys(extensions, Member("", 0, 0))))
    return [
        f"{several.total()} samples have several images ({', '.join(extensions)}); .{taken} was taken: "
        "choose with --image-ext"
    ]
