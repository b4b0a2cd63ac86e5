"""A listing -> whether its classes are plausible: notes on doubtful ones, an error for impossible ones.

Where the layout was guessed, impossible classes are an error that says what to do; where `--source` named the layout,
they are a note.
"""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from imgdata.errors import SourceError
from imgdata.sources.classes import distinct, some
from imgdata.sources.folder_names import holds_images_of_any_class, split_of_folder
from imgdata.sources.listing import Listing

_MANY_CLASSES = 20
_MAX_BRANCHES = 4
_MAX_COMPARED = 200_000
_MIN_STEMS = 3


def check_classes(listing: Listing, where: Path | str, *, named: bool) -> Listing:
    """Return `listing` with notes on its classes. Raises `SourceError` for impossible classes, unless `named`."""
    faults = list(_faults(listing))
    if faults and not named:
        raise SourceError(f"{where}: {'; '.join(faults)}")
    notes = (*faults, *_notes(listing))
    return dataclasses.replace(listing, warnings=(*listing.warnings, *notes)) if notes else listing


def _faults(listing: Listing) -> Iterator[str]:
    ids = [one.id for one in listing.classes]
    if len(ids) == 1 and (holds_images_of_any_class(ids[0]) or split_of_folder(ids[0])):
        yield (
            f"no labels: all images lie in {ids[0]}/, which is no class; name a table of labels with --table, take the "
            f"images without labels with --label-from none, or take {ids[0]} for a class with --source {listing.kind}"
        )
    branches = _same_stems(listing)
    if branches and any(map(holds_images_of_any_class, (part for one in branches for part in one.split("/")))):
        yield (
            f"folders {some(branches)} hold files of the same names: one seems to hold masks or other versions of the "
            f"images in the other; name the folder of masks with --masks, leave it out with --exclude "
            f"'{branches[-1]}/*', or take both for classes with --source {listing.kind}"
        )


def _notes(listing: Listing) -> Iterator[str]:
    labelled = int((listing.label_N >= 0).sum())
    used = len(distinct(listing.label_N[listing.label_N >= 0]))
    if used >= _MANY_CLASSES and 2 * used > labelled:
        yield (
            f"{used} classes for {labelled} images, hardly more than one image each: are these labels? If not, choose "
            "others, or none (--label-from none, --label-column '')"
        )
    ids = [one.id for one in listing.classes]
    if len(ids) > 1 and all(map(split_of_folder, ids)):
        yield f"the classes {some(ids)} look like splits; if they are, name them with --split-names ({ids[0]}=train)"
    branches = _same_stems(listing)
    if branches and not any(holds_images_of_any_class(part) for one in branches for part in one.split("/")):
        yield (
            f"classes {some(branches)} hold files of the same names; if one holds masks or other versions of the "
            f"images in the other, leave it out with --exclude '*{branches[-1]}/*'"
        )


def _same_stems(listing: Listing) -> list[str]:
    """Return the ids when all files of few classes have the same names but for the extension; else an empty list.

    Names that are only numbers (`0001`) don't count.
    """
    if listing.kind != "folder" or not 2 <= len(listing.classes) <= _MAX_BRANCHES or len(listing) > _MAX_COMPARED:
        return []
    stems: dict[int, set[str]] = {}
    names = listing.name_N.to_pylist()
    for name, label in zip(names, listing.label_N.tolist(), strict=True):
        stems.setdefault(label, set()).add(os.path.splitext(os.path.basename(name))[0])
    sets = [stems.get(label, set()) for label in range(len(listing.classes))]
    telling = [stem for stem in sets[0] if not stem.isdigit()]
    same = all(one == sets[0] for one in sets) and len(telling) >= _MIN_STEMS
    return [one.id for one in listing.classes] if same else []
