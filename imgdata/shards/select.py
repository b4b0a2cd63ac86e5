"""A listing -> the part of it that is wanted: some classes, or all but some names."""

import dataclasses
import fnmatch
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from imgdata.arrow import number_array, text_array
from imgdata.errors import OptionError
from imgdata.sources.listing import Listing
from imgdata.tar.keys import clean_key


def select_classes(listing: Listing, ids: Sequence[str]) -> Listing:
    """Return only the samples of the classes `ids` (ids or names), which become 0, 1, ... in the order of the source.

    Raises `OptionError` for a class that the source does not have.
    """
    known = {one.name: index for index, one in enumerate(listing.classes)}
    known |= {one.id: index for index, one in enumerate(listing.classes)}
    unknown = [one for one in ids if one not in known]
    if unknown:
        raise OptionError(
            f"classes: the source has no {', '.join(unknown[:5])}{' ...' if len(unknown) > 5 else ''}; "
            f"it has {len(listing.classes)}, such as {', '.join(one.id for one in listing.classes[:5])}"
        )
    kept = sorted({known[one] for one in ids})
    new_label = np.full(len(listing.classes), -1, np.int32)
    new_label[kept] = np.arange(len(kept), dtype=np.int32)
    chosen = select_rows(listing, np.isin(listing.label_N, kept), "of other classes")
    return dataclasses.replace(
        chosen, label_N=new_label[chosen.label_N], classes=tuple(listing.classes[index] for index in kept)
    )


def exclude(listing: Listing, patterns: Sequence[str]) -> Listing:
    """Return all samples but those whose source name matches a pattern with `*`, `?` and `[...]`; classes stay.

    Sources that check samples one by one have left them out before (`SourceOptions.exclude`).

    Raises `OptionError` for a pattern that matches nothing: a slip would go unnoticed.
    """
    kept_N = np.ones(len(listing), bool)
    names = listing.name_N.to_pylist()
    for pattern in patterns:
        matches = re.compile(fnmatch.translate(pattern)).match
        matching_N = np.fromiter((matches(name) is not None for name in names), bool, len(names))
        if not matching_N.any() and not listing.excluded.get(pattern):
            raise OptionError(f"exclude: {pattern!r} matches none of the {len(listing)} names, such as {names[0]!r}")
        kept_N &= ~matching_N
    return select_rows(listing, kept_N, "excluded")


def with_key_prefix(listing: Listing, prefix: str) -> Listing:
    """Return the listing with `prefix` before each key; a key that is too long then ends with a hash."""
    keys = [clean_key(prefix + str(key)) for key in listing.key_N.to_pylist()]
    return dataclasses.replace(listing, key_N=pa.chunked_array([text_array(keys)]))


def select_rows(listing: Listing, kept_N: NDArray[np.bool_], what: str) -> Listing:
    """Return the rows where `kept_N` is true; the others are counted, and splits without any rows left are dropped."""
    if not kept_N.any():
        raise OptionError(f"nothing is left of the {len(listing)} images of {listing.title}")
    row_N = np.flatnonzero(kept_N)
    row = number_array(row_N)
    used = np.unique(listing.split_N[row_N])
    new_split = np.zeros(len(listing.splits), np.uint8)
    new_split[used] = np.arange(len(used), dtype=np.uint8)
    dropped = len(listing) - len(row_N)
    return dataclasses.replace(
        listing,
        label_N=listing.label_N[row_N],
        size_N=listing.size_N[row_N],
        container_N=listing.container_N[row_N],
        offset_N=listing.offset_N[row_N],
        name_N=listing.name_N.take(row),
        key_N=listing.key_N.take(row),
        fields_N=None if listing.fields_N is None else listing.fields_N.take(row),
        members=tuple(columns.take(row_N) for columns in listing.members),
        split_N=new_split[listing.split_N[row_N]],
        splits=tuple(listing.splits[split] for split in used),
        skipped={**listing.skipped, **({what: listing.skipped.get(what, 0) + dropped} if dropped else {})},
    )
