"""Names of loaders, rounds -> who is measured when; pairs of the same round -> the median of their ratios."""

from collections.abc import Iterable, Iterator, Sequence
from statistics import median


def in_turns(names: Sequence[str], rounds: int) -> Iterator[str]:
    """Yield each name once a round. Another one begins each round, so that none always follows the same one."""
    for number in range(rounds):
        first = number % len(names)
        yield from names[first:]
        yield from names[:first]


def median_ratio(pairs: Iterable[tuple[float | None, float | None]]) -> float | None:
    """Return the median of ours over its, in the pairs of each round; None where a figure is missing.

    Pairs of the same round, because a machine that slows down slows both.
    """
    ratios = [ours / its if ours and its else None for ours, its in pairs]
    known = [ratio for ratio in ratios if ratio is not None]
    return median(known) if known and len(known) == len(ratios) else None
