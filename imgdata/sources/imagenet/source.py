"""ImageNet in any usual layout (folders, official tars read in place, Kaggle, one tar a class) -> listing.

The class index is the rank of the wnid in sorted order. All layouts of the same images give the same keys, labels
and order, hence the same shards.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imgdata.errors import SourceError
from imgdata.sample import ClassName, SampleRef
from imgdata.sources.folder_names import is_hidden
from imgdata.sources.imagenet.devkit import DEVKIT, WNID, Knowledge, gather
from imgdata.sources.imagenet.layout import Form, Layout, Part, describe, discover
from imgdata.sources.listing import Listing, ListingBuilder
from imgdata.sources.options import SourceOptions
from imgdata.sources.readers import FileReader, RangeReader
from imgdata.sources.walk import extension, image_files, is_image, visible
from imgdata.tar.archive import Member, members

NAME = "imagenet"

_SHOWN = 5
_OFFICIAL_VAL = "ILSVRC2012_val_"


def recognise(path: Path) -> str | None:
    """Return why `path` is ImageNet in one phrase, or None; looks at names only.

    Raises `SourceError` where one split is not ImageNet and another is, in a form that no other source reads.
    """
    layout = discover(path)
    if layout and layout.unclear:
        if all(part.form in (Form.CLASS_FOLDERS, Form.UNCLEAR) for part in layout.parts.values()):
            return None
        raise SourceError(f"{layout.base}: {layout.unclear}")
    return describe(layout) if layout else None


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """Return all samples of the ImageNet at `path`: train by class and file name, then val and test by key.

    Raises `SourceError` for what is missing or contradictory, `ShardError` for a damaged or truncated tar.
    """
    layout = discover(path)
    if layout is None:
        raise SourceError(
            f"{path}: no ImageNet found; looked for train/ and val/ with wnid folders (n01440764), the official "
            "ILSVRC2012 tars, Kaggle's ILSVRC/Data/CLS-LOC and a tar of each class"
        )
    if layout.unclear:
        raise SourceError(f"{layout.base}: {layout.unclear}")
    knowledge = gather(layout.knowledge_folders, options.devkit)
    builder = ListingBuilder(options.exclude)
    for what, count in layout.passed_over.items():
        builder.see(count)
        builder.skip(what, count)
    groups = {split: _groups(part) for split, part in layout.parts.items()}
    classes = _classes(layout, knowledge, groups)
    walker = _Walker(layout, knowledge, builder, {wnid: index for index, wnid in enumerate(classes)})
    for split, part in layout.parts.items():
        walker.add_split(split, part, groups[split])
    listing = builder.build(
        title=layout.title,
        kind=NAME,
        reader=walker.reader(),
        classes=[ClassName(wnid, knowledge.names.get(wnid, wnid)) for wnid in classes],
        given_splits=layout.given_splits,
        warnings=walker.warnings,
    )
    return _with_warnings(listing)


@dataclass(frozen=True)
class ImagenetReader:
    """Reader of files below a folder (container 0), and of ranges of tars (the other containers)."""

    files: FileReader
    ranges: RangeReader

    def file(self, ref: SampleRef) -> str | Path:
        """Return the path of the file or tar that holds `ref`."""
        return self.ranges.file(ref) if ref.container else self.files.file(ref)

    def start(self, ref: SampleRef) -> int | None:
        """Return the first byte of `ref` in its tar; None where the whole file is the image."""
        return self.ranges.start(ref) if ref.container else None

    def read(self, ref: SampleRef) -> bytes:
        """Return the encoded image of `ref`. Raises `OSError` and `SourceError`."""
        return self.ranges.read(ref) if ref.container else self.files.read(ref)


class _Group(NamedTuple):
    """The images of one class: a folder, a tar, or the bytes `start` to `end` of a tar."""

    wnid: str
    path: Path
    start: int = 0
    end: int | None = None


class _Row(NamedTuple):
    key: str
    wnid: str
    name: str
    size: int
    container: int
    offset: int


def _groups(part: Part) -> list[_Group]:
    """Return the classes of a split, sorted by wnid; none for flat forms."""
    groups: list[_Group] = []
    if part.form is Form.CLASS_FOLDERS:
        folders, files = visible(part.path)
        groups = [_Group(name, part.path / name) for name in folders if WNID.fullmatch(name)]
        # An extraction that was interrupted leaves the other classes in their tars.
        groups += [
            _Group(name[:-4], part.path / name) for name in files if _is_class_tar(name) and name[:-4] not in folders
        ]
    elif part.form is Form.CLASS_TARS:
        tars = [name for name in visible(part.path).files if _is_class_tar(name)]
        groups = [_Group(name[:-4], part.path / name) for name in tars]
    elif part.form is Form.TAR_OF_TARS:
        for member in members(part.path):
            wnid, ending = os.path.splitext(os.path.basename(member.name))
            if ending != ".tar" or not WNID.fullmatch(wnid):
                raise SourceError(f"{part.path}: must hold class tars such as n01440764.tar, got {member.name}")
            groups.append(_Group(wnid, part.path, member.offset, member.offset + member.size))
    groups.sort()
    for group, following in pairwise(groups):
        if group.wnid == following.wnid:
            raise SourceError(f"{part.path}: holds {group.wnid} twice; get it again")
    return groups


def _is_class_tar(name: str) -> bool:
    return name.endswith(".tar") and WNID.fullmatch(name[:-4]) is not None


def _classes(layout: Layout, knowledge: Knowledge, groups: Mapping[str, list[_Group]]) -> tuple[str, ...]:
    """Return all wnids, sorted: the devkit's where there is one, with which each split must agree."""
    present = {split: {group.wnid for group in found} for split, found in groups.items() if found}
    val = layout.parts.get("val")
    if val and val.form in (Form.FLAT_FOLDER, Form.FLAT_TAR):
        if knowledge.val is None:
            raise SourceError(
                f"{val.path}: a flat val has no labels; put {DEVKIT}.tar.gz or LOC_val_solution.csv beside it, "
                "or name it with the devkit option"
            )
        present["val"] = set(knowledge.val.values())
    if knowledge.classes is None:
        return tuple(sorted(set().union(*present.values())))
    official = set(knowledge.classes)
    for split, wnids in present.items():
        extra, lacking = wnids - official, official - wnids if split == "train" else set()
        if extra or lacking:
            raise SourceError(
                f"{layout.parts[split].path}: has {len(wnids)} classes, and {knowledge.classes_from} has "
                f"{len(official)}; "
                f"{_some('not in the latter', extra)}{'; ' if extra and lacking else ''}"
                f"{_some('only in the latter', lacking)}; use the devkit of this dataset, or move it away"
            )
    return knowledge.classes


class _Walker:
    """Walk that adds one split after the other to the builder, and collects the tars that hold samples."""

    def __init__(self, layout: Layout, knowledge: Knowledge, builder: ListingBuilder, index: dict[str, int]) -> None:
        self._base = layout.base
        self._knowledge = knowledge
        self._builder = builder
        self._index = index
        # Container 0 means the files outside of tars.
        self._containers: dict[Path, int] = {layout.base: 0}
        self.warnings: list[str] = []

    def reader(self) -> ImagenetReader:
        return ImagenetReader(FileReader(self._base), RangeReader(tuple(self._containers)))

    def add_split(self, split: str, part: Part, groups: list[_Group]) -> None:
        flat = part.form in (Form.FLAT_FOLDER, Form.FLAT_TAR)
        rows = self._flat(split, part) if flat else self._grouped(split, part, groups)
        if split != "train":
            # The val images of class folders and of a flat tar come in the same order; there are few of them.
            rows = iter(sorted(rows))
        for row in rows:
            if self._builder.excluded(row.name):
                continue
            self._builder.add(
                split=split,
                name=row.name,
                key=row.key,
                label=self._index[row.wnid],
                size=row.size,
                container=row.container,
                offset=row.offset,
            )

    def _grouped(self, split: str, part: Part, groups: list[_Group]) -> Iterator[_Row]:
        if part.form in (Form.CLASS_FOLDERS, Form.CLASS_TARS):
            yield from self._outside(split, part)
        for group in groups:
            wnid = group.wnid
            if part.form is Form.CLASS_FOLDERS and group.path.is_dir():
                prefix = group.path.relative_to(self._base).as_posix()
                for file, size in image_files(group.path, self._builder):
                    key = self._key(split, wnid, _stem(file))
                    yield _Row(key, wnid, f"{prefix}/{file}", size, 0, 0)
                continue
            container = self._containers.setdefault(group.path, len(self._containers))
            for member in self._images(members(group.path, start=group.start, end=group.end)):
                self._builder.see()
                name = f"{split}/{wnid}/{member.name.removeprefix(f'{wnid}/')}"
                yield _Row(self._key(split, wnid, _stem(name)), wnid, name, member.size, container, member.offset)

    def _outside(self, split: str, part: Part) -> Iterator[_Row]:
        """Yield the images beside the class folders of a split whose label is known; all other entries are counted."""
        truth = self._knowledge.val if split == "val" else None
        prefix = part.path.relative_to(self._base).as_posix()
        odd = []
        for name in sorted(os.listdir(part.path)):
            path = part.path / name
            if WNID.fullmatch(name) and path.is_dir():
                continue
            if _is_class_tar(name):
                self._count_class_tar(path)
                continue
            self._builder.see()
            if is_hidden(name):
                self._builder.skip("hidden folders" if path.is_dir() else "hidden files")
            elif not is_image(name):
                self._builder.skip(f"not images ({extension(name) or 'no extension'})")
            elif truth is not None and _stem(name) in truth:
                wnid = truth[_stem(name)]
                yield _Row(self._key(split, wnid, _stem(name)), wnid, f"{prefix}/{name}", path.stat().st_size, 0, 0)
            else:
                odd.append(name)
                self._builder.skip("images outside of class folders")
        if odd:
            self.warnings.append(
                f"{len(odd)} images lie in {prefix}/ beside its class folders and were left out, such as {odd[0]}; "
                "sort them into their folders" + (", or put the devkit there" if split == "val" else "")
            )

    def _count_class_tar(self, path: Path) -> None:
        """Count a class tar that is extracted beside, and note where it holds more than its folder."""
        folder = path.with_suffix("")
        if not folder.is_dir():
            return
        self._builder.see()
        self._builder.skip("class tars that are extracted beside")
        inside = sum(is_image(os.path.basename(member.name)) for member in members(path))
        beside = sum(1 for _ in image_files(folder, ListingBuilder()))
        if inside > beside:
            self.warnings.append(
                f"{path.name} holds {inside} images, and {folder.name}/ beside it {beside}: its extraction was "
                "cut off; remove the folder, and the images are read from the tar"
            )

    def _flat(self, split: str, part: Part) -> Iterator[_Row]:
        if part.form is Form.FLAT_TAR:
            container = self._containers.setdefault(part.path, len(self._containers))
            found = [
                (_stem(member.name), f"{split}/{os.path.basename(member.name)}", member.size, container, member.offset)
                for member in self._images(members(part.path))
            ]
        else:
            prefix = part.path.relative_to(self._base).as_posix()
            files = image_files(part.path, self._builder)
            found = [(_stem(file), f"{prefix}/{file}", size, 0, 0) for file, size in files]
        if part.form is Form.FLAT_TAR:
            self._builder.see(len(found))
        if split == "test":
            self._builder.skip("test images without labels", len(found))
            return
        truth = self._knowledge.val
        assert truth is not None
        self._check_truth(part.path, {stem for stem, *_ in found}, truth)
        for stem, name, size, container, offset in found:
            yield _Row(self._key(split, truth[stem], stem), truth[stem], name, size, container, offset)

    def _key(self, split: str, wnid: str, stem: str) -> str:
        """Return `<wnid>/<stem>`; the stem alone for an official val image, as flat layouts have no wnid in names."""
        if split == "train" or not stem.startswith(_OFFICIAL_VAL):
            return f"{wnid}/{stem}"
        truth = self._knowledge.val
        if truth is not None and truth.get(stem, wnid) != wnid:
            raise SourceError(
                f"{self._base}: {stem} lies in {wnid}, and {self._knowledge.val_from} says {truth[stem]}; "
                "sort the val images again, or move the devkit away"
            )
        return stem

    def _images(self, found: Iterator[Member]) -> list[Member]:
        """Return the images of one tar, sorted by name as in a folder; other members are counted."""
        images = []
        for member in found:
            file = os.path.basename(member.name)
            if is_image(file):
                images.append(member._replace(name=member.name.removeprefix("./")))
                continue
            self._builder.see()
            if is_hidden(file):
                self._builder.skip("hidden files")
            else:
                self._builder.skip(f"not images ({extension(file) or 'no extension'})")
        return sorted(images)

    def _check_truth(self, path: Path, stems: set[str], truth: Mapping[str, str]) -> None:
        unlabelled, missing = stems - truth.keys(), truth.keys() - stems
        if unlabelled or missing:
            raise SourceError(
                f"{path}: has {len(stems)} images, and {self._knowledge.val_from} has the labels of {len(truth)}; "
                f"{_some('images without a label', unlabelled)}{'; ' if unlabelled and missing else ''}"
                f"{_some('labels without an image', missing)}; extract val again, or use the devkit of this dataset"
            )


def _stem(name: str) -> str:
    return os.path.splitext(os.path.basename(name))[0]


def _some(what: str, names: set[str]) -> str:
    """Return `what (count): the first few`, or nothing when there are no names."""
    if not names:
        return ""
    shown = sorted(names)[:_SHOWN]
    return f"{what} ({len(names)}): {', '.join(shown)}{', ...' if len(names) > _SHOWN else ''}"


def _with_warnings(listing: Listing) -> Listing:
    """Return `listing` with a warning of the classes without an image in train, where there is a train."""
    if "train" not in listing.splits:
        return listing
    in_train = listing.label_N[listing.split_N == listing.splits.index("train")]
    count_C = np.bincount(in_train, minlength=len(listing.classes))
    empty = {listing.classes[label].id for label in np.flatnonzero(count_C == 0).tolist()}
    if not empty:
        return listing
    return replace(listing, warnings=(*listing.warnings, _some("classes without an image in train", empty)))
