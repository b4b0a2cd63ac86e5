"""Existing WebDataset tars -> listing, read in place."""

import os
import re
import tarfile
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import braceexpand
import numpy as np
from numpy.typing import NDArray

from imgdata.dataset.manifest import MANIFEST, Manifest, read_manifest
from imgdata.errors import ShardError, SourceError
from imgdata.sample import ClassName
from imgdata.sources.classes import some, with_usual_splits
from imgdata.sources.listing import Listing, ListingBuilder
from imgdata.sources.member_columns import Place
from imgdata.sources.options import SourceOptions
from imgdata.sources.parts import missing_parts
from imgdata.sources.plausible import check_classes
from imgdata.sources.readers import RangeReader
from imgdata.sources.splits import in_usual_order, split_in_path, split_of_word
from imgdata.sources.tar_members import TarMembers, other_images
from imgdata.sources.walk import scan
from imgdata.storage.atomic import JOB_FOLDER
from imgdata.tar.archive import Member, members, open_tar
from imgdata.tar.labels import LabelReader, choose_label_source, read_fields
from imgdata.tar.packed import UnpackError, open_packed
from imgdata.tar.samples import (
    TarContents,
    contents_notes,
    group_members,
    image_member,
    is_image,
    several_images_warning,
    tar_contents,
)

NAME = "tars"
_NO_LABELS = "no labels found"
_SIDE_EXTENSIONS = {"cls", "json", "txt"}
_PEEK_MEMBERS = 64
_PEEK_BYTES = 256 * 2**20
_TAR_NAME = re.compile(r"\.(tar|tgz)\b", re.IGNORECASE)


def expand(path: str | os.PathLike[str]) -> list[Path]:
    """Return the tars that `path` means: a tar, a folder, a glob, a `{0..9}` pattern, or several joined by `::`.

    The tars are in natural order; of a folder with a `dataset.json`, only the tars directly in it count. Raises
    `SourceError` when there is no tar.
    """
    found: list[Path] = []
    for part in os.fspath(path).split("::"):
        whole = Path(part)
        if whole.is_dir():
            found += _below(whole)[0]
        elif whole.exists():
            found.append(whole)
        else:
            found += _pattern(part)
    tars = list(dict.fromkeys(tar for tar in found if JOB_FOLDER not in tar.parts))
    if not tars:
        raise SourceError(
            f"{path}: no tar files there; give a tar, a folder of tars, or a pattern such as 'x-{{000..009}}.tar'"
        )
    return tars


def _below(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the tars in `folder` and below, and those that are left out: the tars below a finished dataset."""
    own: dict[bool, list[Path]] = {True: [], False: []}
    above: dict[Path, bool] = {}
    for tar in sorted(_tars_below(folder), key=_natural):
        parent = tar.parent
        if parent not in above:
            between = (one for one in parent.parents if one == folder or folder in one.parents)
            above[parent] = parent != folder and any((one / MANIFEST).is_file() for one in between)
        own[not above[parent]].append(tar)
    return own[True], own[False]


def _tars_below(folder: Path) -> Iterator[Path]:
    """Yield all `*.tar` in `folder` and below, without links to folders; `Path.rglob` fails where folders are deep."""
    folders = [os.fspath(folder)]
    while folders:
        for entry in scan(folders.pop()):
            if entry.name.endswith(".tar"):
                yield Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)


def _left_out(path: str | os.PathLike[str]) -> list[str]:
    """Return a sentence for each folder of `path` whose dataset has further tars below."""
    sentences = []
    for folder in map(Path, os.fspath(path).split("::")):
        others = [tar for tar in _below(folder)[1] if JOB_FOLDER not in tar.parts] if folder.is_dir() else []
        if others:
            sentences.append(
                f"{len(others)} tars in folders below a {MANIFEST} are no part of it and were left out: "
                f"{some([str(tar.relative_to(folder)) for tar in others])}"
            )
    return sentences


def _pattern(pattern: str) -> list[Path]:
    tars: list[Path] = []
    for one in braceexpand.braceexpand(pattern):
        if any(mark in one for mark in "*?["):
            base = Path(one)
            tars += sorted(Path(base.anchor).glob(str(base.relative_to(base.anchor))), key=_natural)
        elif Path(one).exists():
            tars.append(Path(one))
        else:
            raise SourceError(f"{one}: no such file" + (f" (from the pattern {pattern})" if one != pattern else ""))
    return tars


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", str(path))]


def recognise(path: Path) -> str | None:
    """Return a phrase when `path` is a WebDataset; None for others, such as a tar of plain image folders.

    Raises `SourceError` or `ShardError` for a tar whose first members are damaged.
    """
    try:
        tars = expand(path)
    except (SourceError, ValueError):
        # No tar there, or no pattern.
        return None
    try:
        # Splits without labels are images only, in what imgdata writes.
        fits = (tars[0].parent / MANIFEST).is_file() or _has_pairs(tars[0])
    except (SourceError, ShardError):
        if path.is_file() and not _TAR_NAME.search(path.name):
            return None
        raise
    return f"WebDataset ({len(tars)} {'tar' if len(tars) == 1 else 'tars'})" if fits else None


def _has_pairs(tar: Path) -> bool:
    """Return whether the first members of `tar` hold an image and a label or text of the same key."""
    try:
        with open_tar(tar) as file:
            gzipped = file.read(2) == b"\x1f\x8b"
        names = _peek_gzip(tar) if gzipped else list(islice(members(tar), _PEEK_MEMBERS))
    except OSError as error:
        raise SourceError(f"{tar}: can't be read: {error.strerror or error}") from error
    if not gzipped and len(names) == _PEEK_MEMBERS and all(is_image(member.name) for member in names):
        # All images may come first, and then all labels.
        names = list(members(tar))
    return any(
        image_member(sample) and _SIDE_EXTENSIONS & {ext.rsplit(".", 1)[-1] for ext in sample.members}
        for sample in group_members(names, tar)
    )


def only_datasets_below(path: Path) -> bool:
    """Return whether all tars that the folder `path` means lie in finished datasets below it."""
    return path.is_dir() and all(tar.parent != path and (tar.parent / MANIFEST).is_file() for tar in expand(path))


def _peek_gzip(path: Path) -> list[Member]:
    found: list[Member] = []
    try:
        with open_packed(path, _PEEK_BYTES) as tar:
            for info in islice(tar, _PEEK_MEMBERS):
                if info.isreg():
                    found.append(Member(info.name, info.offset_data, info.size))
        return found
    except UnpackError:
        return found
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise SourceError(f"{path}: not a tar: {error}") from error


@dataclass(frozen=True, kw_only=True)
class TarSet:
    """Tars of one dataset, with the facts in their names and in their `dataset.json`."""

    tars: tuple[Path, ...]
    root: Path
    """The folder that holds all tars."""
    splits: tuple[str, ...]
    """Split of each tar."""
    given_splits: bool
    title: str
    manifest: Manifest | None
    """The `dataset.json` beside the tars, if the tars are shards of imgdata."""


def tar_set(tars: Sequence[Path]) -> TarSet:
    """Return `tars` in the order of their splits, with splits and name. Raises `SourceError`, `ShardError`."""
    root = Path(os.path.commonpath([os.path.abspath(tar.parent) for tar in tars]))
    manifest = _manifest(root)
    if manifest is not None:
        # Not by name: a copy in another folder is not the shard.
        known = {root / shard.file: split.name for split in manifest.splits for shard in split.shards}
        path_of = {tar: Path(os.path.abspath(tar)) for tar in tars}
        foreign = next((tar for tar in tars if path_of[tar] not in known), None)
        if foreign is not None and manifest.source.get("kind") != "index":
            raise SourceError(f"{foreign}: no part of the dataset in {root / MANIFEST}; move it to another folder")
        if foreign is None:
            order = {path: number for number, path in enumerate(known)}
            tars = sorted(tars, key=lambda tar: order[path_of[tar]])
            return TarSet(
                tars=tuple(tars),
                root=root,
                splits=tuple(known[path_of[tar]] for tar in tars),
                given_splits=True,
                title=manifest.name,
                manifest=manifest,
            )
    words = {tar: split_in_path(os.path.relpath(os.path.abspath(tar), root).removesuffix(".tar")) for tar in tars}
    rank = {split: number for number, split in enumerate(in_usual_order(word or "train" for word in words.values()))}
    ordered = sorted(tars, key=lambda tar: rank[words[tar] or "train"])
    return TarSet(
        tars=tuple(ordered),
        root=root,
        splits=tuple(words[tar] or "train" for tar in ordered),
        given_splits=any(words.values()),
        title=_title(ordered, root),
        manifest=None,
    )


def refuse_gzip(tar: Path) -> None:
    """Raise `SourceError` for a tar that is compressed."""
    with open_tar(tar) as file:
        if file.read(2) == b"\x1f\x8b":
            raise SourceError(f"{tar}: compressed with gzip, which has no random access; run `gunzip` on it first")


def _manifest(root: Path) -> Manifest | None:
    if (root / MANIFEST).is_file():
        return read_manifest(root)
    if (root / JOB_FOLDER).is_dir():
        raise SourceError(f"{root}: an unfinished dataset; run its `imgdata shard` command again first")
    return None


def _shared_classes(tars: Sequence[Path]) -> tuple[ClassName, ...]:
    """Return the classes that the datasets of these tars share; empty when not all are datasets of imgdata.

    Raises `SourceError` when the datasets have different classes: the same number would mean another class.
    """
    folders = sorted({tar.parent for tar in tars})
    manifests = [_manifest(folder) for folder in folders]
    classes = {manifest.classes for manifest in manifests if manifest is not None}
    if None in manifests or not classes:
        return ()
    if len(classes) > 1:
        raise SourceError(
            f"{folders[0]} and {folders[-1]}: their classes differ, so the same label means another class; "
            "export them to class folders and shard those"
        )
    return classes.pop()


def _title(tars: Sequence[Path], root: Path) -> str:
    """Return the common start of the names before numbers and split words, else the folder's name."""
    starts = set[str]()
    for tar in tars:
        words = re.split(r"[-._ ]+", tar.name.removesuffix(".tar"))
        count = next((i for i, word in enumerate(words) if word.isdigit() or split_of_word(word)), len(words))
        starts.add("-".join(words[:count]))
    return (starts.pop() if len(starts) == 1 else "") or root.name or "dataset"


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """Return all samples of the tars that `path` means, in the order of the tars.

    Raises `SourceError` or `ShardError` naming the tar, and where it matters the key and the byte.
    """
    listing, captions = _listed(path, options, None)
    if captions:
        listing, _ = _listed(path, options, "none")
        note = (
            f"{captions} different texts in the txt members are captions, and no classes: images get no label, and the "
            "texts go into the json members (field txt); --label-from txt makes each a class"
        )
        kept = [text for text in listing.warnings if not text.startswith(_NO_LABELS)]
        listing = replace(listing, warnings=(*kept, note))
    return check_classes(listing, path, named=True)


def _listed(path: Path, options: SourceOptions, label_from: str | None) -> tuple[Listing, int]:
    """Return the listing with the labels of `label_from`, and the number of labels that are probably captions."""
    tars = tar_set(expand(path))
    known_classes = tars.manifest.classes if tars.manifest else _shared_classes(tars.tars)
    builder = ListingBuilder(options.exclude)
    reader = RangeReader(tars.tars)
    all_contents: list[tuple[str, TarContents]] = []
    labels = None
    wanted = tars.manifest.label_from if tars.manifest and options.label_from == "auto" else options.label_from
    wanted = label_from or wanted
    several: Counter[tuple[str, ...]] = Counter()
    provisional = array("i")
    further_images = TarMembers(tars.manifest)
    for container, (tar, split) in enumerate(zip(tars.tars, tars.splits, strict=True)):
        refuse_gzip(tar)
        with open_tar(tar) as file:
            contents = tar_contents(tar, options.image_ext)
            all_contents.append((tar.name, replace(contents, samples=[])))
            for what, count in contents.passed_over.items():
                builder.see(count)
                builder.skip(what, count)
            for sample, extension in contents.samples:
                name = f"{os.path.relpath(os.path.abspath(tar), tars.root)}/{sample.members[extension].name}"
                builder.see()
                if builder.excluded(name):
                    continue
                images = tuple(ext for ext in sample.members if is_image(ext))
                if len(images) > 1 and not options.image_ext:
                    several[images] += 1
                if labels is None:
                    labels = LabelReader(choose_label_source(sample, file.fileno(), tar, wanted), options.class_order)
                image = sample.members[extension]
                further = further_images.of(sample, extension, file.fileno(), tar)
                label = labels.read(sample, file.fileno(), tar)
                provisional.append(label)
                fields, unkept = read_fields(sample, file.fileno(), tar, labels.source)
                for other in unkept:
                    if not is_image(other):
                        builder.skip(f".{other} members", entries=False)
                builder.add(
                    split=split,
                    name=name,
                    key=sample.key.removeprefix("./"),
                    label=label,
                    size=image.size,
                    container=container,
                    offset=image.offset,
                    fields=fields,
                    members={
                        own: Place(f"{name.removesuffix(image.name)}{one.name}", one.size, container, one.offset)
                        for own, one in further.items()
                    },
                )
    labels = labels or LabelReader("none")
    builder.members.kinds |= further_images.kinds
    if wanted == "auto" and labels.hold_captions(len(builder)):
        return builder.build(title=tars.title, kind=NAME, reader=reader, classes=()), len(labels.texts)
    if options.label_from != "auto":
        labels.check_found()
    provisional_N = np.array(provisional, np.int32)
    splits_of_texts = _splits_of_texts(labels, provisional_N) if not tars.given_splits else None
    label_N, classes = labels.finish(provisional_N, known_classes)
    notes = labels.warnings()
    if tars.manifest is not None:
        # A dataset of imgdata may have no labels, and its labels are where it says.
        notes = [text for text in notes if not text.startswith(_NO_LABELS)]
    listing = builder.build(
        title=tars.title,
        kind=NAME,
        reader=reader,
        classes=classes,
        given_splits=tars.given_splits or splits_of_texts is not None,
        warnings=(
            *_left_out(path),
            *missing_parts(os.path.relpath(os.path.abspath(tar), tars.root) for tar in tars.tars),
            *contents_notes(all_contents),
            *several_images_warning(other_images(several, further_images.extensions)),
            *notes,
        ),
    )
    if splits_of_texts is None:
        return replace(listing, label_N=label_N), 0
    splits, split_N = splits_of_texts
    note = f"splits were read from the folders in the keys: {', '.join(splits)}"
    return with_usual_splits(
        replace(listing, label_N=label_N, splits=splits, split_N=split_N, warnings=(*listing.warnings, note))
    ), 0


def _splits_of_texts(
    labels: LabelReader, provisional_N: NDArray[np.int32]
) -> tuple[tuple[str, ...], NDArray[np.uint8]] | None:
    """Return the splits in labels that are folders (`train/cat`), and rename the classes to the rest (`cat`).

    None unless all labels begin with a split word that a class follows.
    """
    parts = [text.partition("/")[::2] for text in labels.texts]
    if labels.source != "folder" or not parts or int(provisional_N.min(initial=0)) < 0:
        return None
    if not all(behind and split_of_word(first) for first, behind in parts):
        return None
    splits = tuple(dict.fromkeys(str(split_of_word(first)) for first, _ in parts))
    split_C = np.array([splits.index(str(split_of_word(first))) for first, _ in parts], np.uint8)
    split_N = split_C[provisional_N]
    provisional_N[:] = labels.rename([behind for _, behind in parts])[provisional_N]
    return splits, split_N
