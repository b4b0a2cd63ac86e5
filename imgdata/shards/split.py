"""A listing without splits, fractions, a seed -> the same listing, each class cut into splits by the fractions."""

import dataclasses
from collections.abc import Mapping

from imgdata.errors import OptionError
from imgdata.sources.classes import warn_of_classes
from imgdata.sources.listing import Listing
from imgdata.stratify import stratified_split


def apply_split(listing: Listing, fractions: Mapping[str, float], seed: int) -> Listing:
    """Split `listing`, each class by `fractions`; keys are kept, since they were unique over all samples.

    Raises `OptionError` when the source has splits of its own, or too few samples to give each split one.
    """
    if listing.given_splits:
        raise OptionError(
            f"{listing.title}: the source has splits of its own ({', '.join(listing.splits)}); leave out --split"
        )
    if len(listing) < len(fractions):
        raise OptionError(f"{listing.title}: {len(listing)} images can't fill {len(fractions)} splits")
    split_N = stratified_split(listing.label_N, fractions, seed)
    splits = tuple(fractions)
    warnings = warn_of_classes(splits, split_N, listing.label_N, listing.classes)
    return dataclasses.replace(listing, splits=splits, split_N=split_N, warnings=(*listing.warnings, *warnings))
