"""A listing with labels numbered as they came -> the same with classes sorted, splits in order, and warnings."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from imgdata.sample import ClassName
from imgdata.sources.listing import Listing
from imgdata.sources.splits import in_usual_order
from imgdata.storage.file_names import escape_name
from imgdata.tar.class_order import class_ranks

_SHOWN = 5


def with_sorted_classes(listing: Listing, ids: Sequence[str], *, order: str = "auto") -> Listing:
    """Return `listing` with ranks of ids as labels instead of positions in `ids`, and with splits in usual order.

    `order` as in `SourceOptions.class_order`; -1 stays. Class ids become class names. Ids that are equal
    after a common part was left out are one class.
    """
    ranks, notes = class_ranks(ids, order)
    # The label -1 picks the last entry.
    rank_C = np.array([*(ranks[one] for one in ids), -1], np.int32)
    names = [escape_name(one) for one in ranks]
    return with_usual_splits(
        dataclasses.replace(
            listing,
            classes=tuple(ClassName(name, name) for name in names),
            label_N=rank_C[listing.label_N],
            warnings=(*listing.warnings, *notes),
        )
    )


def with_usual_splits(listing: Listing) -> Listing:
    """Return `listing` with its splits in the order train, val, test, others, and warnings of classes train lacks."""
    splits = tuple(in_usual_order(listing.splits))
    place_S = np.array([splits.index(split) for split in listing.splits], np.uint8)
    split_N = place_S[listing.split_N]
    warnings = warn_of_classes(splits, split_N, listing.label_N, listing.classes)
    return dataclasses.replace(listing, splits=splits, split_N=split_N, warnings=(*listing.warnings, *warnings))


def warn_of_classes(
    splits: Sequence[str], split_N: NDArray[np.uint8], label_N: NDArray[np.int32], classes: Sequence[ClassName]
) -> Iterator[str]:
    """Yield one sentence for each split with classes that the split `train` lacks."""
    if "train" not in splits:
        return
    seen = [set(distinct(label_N[split_N == place]).tolist()) for place in range(len(splits))]
    for split, labels in zip(splits, seen, strict=True):
        extra = sorted(labels - seen[splits.index("train")] - {-1})
        if extra:
            yield (
                f"{len(extra)} of the classes in {split} are not in train: "
                f"{some([classes[label].id for label in extra])}"
            )


def distinct(label_N: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the labels that occur, sorted. `np.unique` imports masked arrays first: a fiftieth of a short run."""
    return np.flatnonzero(np.bincount(label_N + 1)) - 1


def some(names: Sequence[str]) -> str:
    """Return the first few of `names`, for a message."""
    shown = ", ".join(escape_name(name) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
