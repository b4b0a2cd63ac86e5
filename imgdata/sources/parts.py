"""Names of files that are parts of one set -> which parts are missing."""

import re
from collections.abc import Iterable

_OF = re.compile(r"(.*?)(\d+)-of-(\d+)(.*)")
_NUMBERED = re.compile(r"(.*?)(\d+)(\.[A-Za-z.]+)")
_SHOWN = 3


def missing_parts(names: Iterable[str]) -> list[str]:
    """Return a sentence for each set of names with missing parts, such as `x-00000-of-00002` without the second."""
    counted: dict[tuple[str, int], set[int]] = {}
    numbered: dict[tuple[str, str], dict[int, int]] = {}
    for name in names:
        if found := _OF.fullmatch(name):
            counted.setdefault((found[1], int(found[3])), set()).add(int(found[2]))
        elif found := _NUMBERED.fullmatch(name):
            numbered.setdefault((found[1], found[3]), {})[int(found[2])] = len(found[2])
    sentences = []
    for (start, total), there in counted.items():
        # Some count from one.
        first = 1 if 0 not in there and total in there else 0
        lacking = sorted(set(range(first, first + min(total, 10**6))) - there)
        if lacking:
            shown = ", ".join(f"{start}{number:05d}-of-{total:05d}" for number in lacking[:_SHOWN])
            sentences.append(f"{_count(lacking)} missing of {total}: {shown}{', ...' if len(lacking) > _SHOWN else ''}")
    for (start, end), widths in numbered.items():
        if len(widths) < 2 or max(widths) - min(widths) > 10**6:
            continue
        lacking = sorted(set(range(min(widths), max(widths) + 1)) - widths.keys())
        if lacking and len(lacking) <= 10 * len(widths):
            width = next(iter(widths.values()))
            shown = ", ".join(f"{start}{number:0{width}d}{end}" for number in lacking[:_SHOWN])
            sentences.append(
                f"{_count(lacking)} missing among numbered files: {shown}{', ...' if len(lacking) > _SHOWN else ''}"
            )
    return sentences


def _count(lacking: list[int]) -> str:
    return "1 part is" if len(lacking) == 1 else f"{len(lacking)} parts are"
