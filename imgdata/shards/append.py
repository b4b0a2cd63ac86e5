"""A listing, a finished dataset -> the listing as it is appended: its classes and options fitted to the dataset's.

What is appended is written as a dataset of its own, in `OUT/.imgdata/append`, by the same code and with the same
journal as any other. Once it is whole, `merge` puts it behind what is in OUT, as the dataset's next version.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imgdata.dataset.lazy_array import MAX_WHOLE
from imgdata.dataset.manifest import Manifest, read_manifest
from imgdata.dataset.split import open_index
from imgdata.dataset.target import Target
from imgdata.dataset.versions import Version
from imgdata.errors import OptionError, OutputError
from imgdata.sample import ClassName
from imgdata.shards.changes import Stored, stored_in_dataset
from imgdata.shards.options import ShardOptions, differences
from imgdata.shards.plan import shard_file
from imgdata.shards.sidecars import needs_parts
from imgdata.shards.standing import finished_in
from imgdata.sources.listing import ONE_CLASS, Listing
from imgdata.storage.folder import DatasetFolder
from imgdata.tables import counted

_FREE = frozenset(
    {
        "name",
        "shard_bytes",
        "shard_samples",
        "classes",
        "exclude",
        "views",
        "split",
        "seed",
        "shuffle",
        "check",
        "key_prefix",
    }
)
"""Options that may differ from one version to the next: they choose and order samples, or cut shards."""
_SHOWN = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Growth:
    """What is to be appended to a dataset."""

    before: Manifest
    """The dataset as it is."""
    listing: Listing
    """The samples, with the dataset's classes first."""
    options: ShardOptions
    done: int = 0
    """The version that has these samples already; 0 where none has."""

    def described(self, plan: Mapping[str, Any]) -> dict[str, Any]:
        """Return the plan that `describe` gives, with the names that the shards get, and what becomes of OUT."""
        known = {split.name: len(split.shards) for split in self.before.splits}
        splits = {
            name: {
                **split,
                "first": shard_file(self.before.name, name, known.get(name, 0)),
                "last": shard_file(self.before.name, name, known.get(name, 0) + split["shards"] - 1),
            }
            for name, split in plan["splits"].items()
        }
        new = f"exists: a run adds these samples as version {self.before.version + 1}"
        standing = f"exists: version {self.done} has these samples already" if self.done else new
        return {**plan, "splits": splits, "out": standing}


def plan_growth(out: Path, listing: Listing, options: ShardOptions) -> Growth:
    """Return what appending `listing` to the dataset in `out` means.

    Raises `OptionError` for options, columns or classes that don't fit the dataset, and `OutputError` where there is
    no dataset to append to, or a key is taken; nothing is written then.
    """
    if finished_in(out) is None:
        raise OutputError(f"{out}: no finished dataset to append to; leave out --append to make one there")
    before = read_manifest(out)
    if before.source.get("kind") == "index":
        raise OutputError(
            f"{out}: holds tars that `imgdata index` found, to which nothing can be appended; shard them into a new "
            "folder, and append to that"
        )
    options = _fitted(out, before, listing, options)
    for number in range(2, before.version + 1):
        # With the classes of the version before it has the fingerprint that it had when it was appended.
        known = _with_classes(listing, before.at(number - 1).classes)
        if _added(before.versions[number - 1], known, options):
            return Growth(before=before, listing=known, options=options, done=number)
    grown = _with_classes(listing, before.classes)
    if any(needs_parts(int(count)) for count in np.bincount(grown.split_N)):
        raise OutputError(
            f"{out}: at most {MAX_WHOLE:,} samples of a split can be appended at once; append some at a time, such as "
            "with --exclude"
        )
    _check_targets(out, before, listing, grown)
    _check_keys(out, before, grown)
    _check_free_names(out, before)
    return Growth(before=before, listing=grown, options=options)


def appended_images(out: Path, growth: Growth) -> list[Stored]:
    """Return what the version `growth.done` added to the dataset, for a comparison with the source."""
    return stored_in_dataset(DatasetFolder(out), growth.before, growth.done)


def _fitted(out: Path, before: Manifest, listing: Listing, options: ShardOptions) -> ShardOptions:
    """Return the options to write with. Raises `OptionError` where they would make other images than the dataset's."""
    if options.name not in (None, before.name):
        raise OptionError(f"{out}: name must be {before.name!r}, that of the dataset, got {options.name!r}")
    changed = differences(_compared(before.options), _compared(options.to_dict()))
    if changed:
        raise OptionError(
            f"{out}: what is appended must be made with the options of the dataset, got others "
            f"({'; '.join(changed)}); give the options that it was made with"
        )
    if listing.has_fields and not before.has_json:
        raise OptionError(
            f"{out}: {listing.title} has further columns and the samples of the dataset have none, so that they can't "
            "be kept; leave them out of the source, or shard all together into a new folder"
        )
    members = tuple(columns.member for columns in listing.members)
    if members != before.members:
        was, now = (
            ", ".join(f"{one.name} ({one.kind})" for one in found) or "none" for found in (before.members, members)
        )
        raise OptionError(f"{out}: further images must be {was}, as in the dataset, got {now} in {listing.title}")
    return dataclasses.replace(options, name=before.name, json_members=before.has_json)


def _compared(options: Mapping[str, object]) -> dict[str, object]:
    """Return the options that must not differ."""
    kept = {name: value for name, value in options.items() if name not in _FREE and name != "encoder"}
    # A run that stops at a bad image and one that leaves it out store the same.
    return {**kept, "on_bad": "repair" if kept.get("on_bad") == "repair" else "reject"}


def _with_classes(listing: Listing, known: tuple[ClassName, ...]) -> Listing:
    """Return the listing with the classes `known` first, and classes that these don't have behind: by their ids."""
    place = {one.id: number for number, one in enumerate(known)}
    new = tuple(one for one in listing.classes if one.id not in place)
    place |= {one.id: len(known) + number for number, one in enumerate(new)}
    label_C = np.array([*(place[one.id] for one in listing.classes), -1], np.int32)
    warnings = tuple(text for text in listing.warnings if not known or not text.startswith(ONE_CLASS))
    return dataclasses.replace(listing, classes=(*known, *new), label_N=label_C[listing.label_N], warnings=warnings)


def _check_targets(out: Path, before: Manifest, listing: Listing, grown: Listing) -> None:
    """Raise `OptionError` where the samples have another target than the dataset's, or one that needs its classes."""
    kinds = [
        target.kind if target is not None else "class" if labelled else "none"
        for target, labelled in (
            (before.target, before.label_from != "none"),
            (grown.target, bool((grown.label_N >= 0).any())),
        )
    ]
    if before.target != grown.target or kinds[0] != kinds[1]:
        columns = [", ".join(target.columns) if target is not None else "" for target in (before.target, grown.target)]
        was, now = (f"{kind}{f' ({names})' if names else ''}" for kind, names in zip(kinds, columns, strict=True))
        raise OptionError(f"{out}: target must be {was}, as in the dataset, got {now} in {grown.title}")
    target = grown.target
    # Flags and shares have a place for each class; lists of classes name them.
    by_place = target is not None and target.kind != "regression" and not _names_classes(target)
    if by_place and [one.id for one in listing.classes] != [one.id for one in before.classes]:
        raise OptionError(
            f"{out}: with the target {kinds[0]!r} what is appended must have the dataset's {len(before.classes)} "
            f"classes, got {len(listing.classes)} or others; shard all together into a new folder"
        )


def _names_classes(target: Target) -> bool:
    """Return whether a column has lists of classes by their ids."""
    return target.kind == "multi-label" and len(target.columns) == 1


def _check_keys(out: Path, before: Manifest, grown: Listing) -> None:
    """Raise `OutputError` where a sample of the dataset has the key of a new one."""
    keys = grown.key_N.to_pylist()
    found = [open_index(DatasetFolder(out), split).find_all(keys) for split in before.splits]
    taken_N = np.any([position_N >= 0 for position_N in found], axis=0)
    if taken_N.any():
        row_K = np.flatnonzero(taken_N)
        some = ", ".join(
            f"{grown.key_N[int(row)].as_py()} ({grown.name_N[int(row)].as_py()})" for row in row_K[:_SHOWN]
        )
        more = f" and {len(row_K) - _SHOWN:,} more" if len(row_K) > _SHOWN else ""
        raise OutputError(
            f"{out}: already has samples with {counted(len(row_K), 'key')} of the {len(grown):,} in {grown.title}: "
            f"{some}{more}; leave these out with --exclude, or give all keys a --key-prefix; nothing was written"
        )


def _check_free_names(out: Path, before: Manifest) -> None:
    """Raise `OutputError` where a tar that is no shard of the dataset has the place of a new one."""
    listed = {shard.file for split in before.splits for shard in split.shards}
    foreign = next((path.name for path in sorted(out.glob(f"{before.name}-*.tar")) if path.name not in listed), None)
    if foreign is not None:
        raise OutputError(f"{out}: {foreign} is not listed in dataset.json; move it away, and append again")


def _added(version: Version, listing: Listing, options: ShardOptions) -> bool:
    """Return whether the version was made by appending this listing with these options."""
    changed = differences({**version.options, "encoder": ""}, {**options.to_dict(), "encoder": ""})
    return not changed and version.source.get("fingerprint") == listing.fingerprint()
