"""Class ids -> class indices: by number where all are numbers, else as text."""

import re
from collections.abc import Iterable

from imgdata.errors import OptionError

_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?")
_SHOWN = 5


def class_ranks(ids: Iterable[str], order: str = "auto") -> tuple[dict[str, int], list[str]]:
    """Return the class index of each id, in that order; and a note where the order by number and as text differ.

    Ids are ordered by number where all of them are numbers (or `order` is `number`), else as text. Raises `OptionError`
    for an order by number of ids that are no numbers.
    """
    as_text = sorted(set(ids))
    numeric = all(map(_NUMBER.fullmatch, as_text))
    if order == "number" and not numeric:
        odd = next(one for one in as_text if not _NUMBER.fullmatch(one))
        raise OptionError(f"class_order 'number' needs class ids that are numbers, got {odd!r}; use 'text'")
    by_number = sorted(as_text, key=lambda one: (float(one), one)) if numeric else as_text
    chosen = as_text if order == "text" else by_number
    notes = []
    if by_number != as_text:
        how, other = ("as text", "number") if order == "text" else ("by number", "text")
        notes.append(
            f"the classes are numbers; their order is {how} ({_some(chosen)}), not that of --class-order {other}"
            + ("" if order == "text" else " and of torchvision's ImageFolder")
        )
    return {one: rank for rank, one in enumerate(chosen)}, notes


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
