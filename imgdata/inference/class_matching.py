"""Classes of a dataset, classes of a network -> the network's output for each class."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import OptionError
from imgdata.sample import ClassName

MatchedBy = Literal["ids", "names", "numbers"]


class Match(NamedTuple):
    """The network's output for each class of a dataset."""

    output_C: NDArray[np.int32]
    """Number of the output, int32 `(C,)`; -1 for a class without an output."""
    by: MatchedBy
    """Property that the classes share; `numbers`: ids of the dataset are numbers of outputs."""


def match_own(
    dataset: Sequence[ClassName], network: Sequence[ClassName], place: str, used: Collection[int] | None = None
) -> Match:
    """Match the classes of a network that was trained on a dataset, by their ids. Raises `OptionError`.

    The dataset may lack classes, and have its own order. `used` are its classes that have samples, None for all; each
    of these must be one of the network's. `place` names the dataset in messages.
    """
    outputs = {one.id: number for number, one in enumerate(network)}
    for number, one in enumerate(dataset):
        if one.id not in outputs and (used is None or number in used):
            raise OptionError(
                f"{place}: every class must be one of the {len(network)} that the network was trained on "
                f"({network[0].id}, ...), got {one.id!r}; leave its samples out with a view, "
                f'--view "where class!={one.id}"'
            )
    return Match(np.array([outputs.get(one.id, -1) for one in dataset], np.int32), "ids")


def match_foreign(dataset: Sequence[ClassName], network: Sequence[ClassName], place: str) -> Match:
    """Match a dataset of some classes, in any order, of a network with weights from elsewhere. Raises `OptionError`.

    The first that fits all classes: ids (ImageNet's wnids); names, or one of several with commas between, without
    regard to capitals and `_`; ids as numbers of outputs.
    """
    ids = {one.id: number for number, one in enumerate(network)}
    names = _names(network)
    ways: tuple[tuple[MatchedBy, list[int | None]], ...] = (
        ("ids", [ids.get(one.id) for one in dataset]),
        ("names", [names.get(_plain(one.name)) for one in dataset]),
        ("numbers", [_number(one.id, len(network)) for one in dataset]),
    )
    for by, outputs in ways:
        found = [output for output in outputs if output is not None]
        if len(found) == len(dataset) == len(set(found)) > 0:
            return Match(np.array(found, np.int32), by)
    _, best = max(ways, key=lambda way: sum(output is not None for output in way[1]))
    unknown = next((one for one, output in zip(dataset, best, strict=True) if output is None), None)
    got = f"{unknown.id!r} ({unknown.name})" if unknown else "two for one output"
    raise OptionError(
        f"{place}: all classes must be among the network's {len(network):,}, by id ({network[0].id}), name or number, "
        f"got {got}; leave other classes out with a view, or train a network on them"
    )


def _names(network: Sequence[ClassName]) -> dict[str, int]:
    """Return the number of each name that is of one output alone; a whole name comes before its parts."""
    parts = [(_plain(part), number) for number, one in enumerate(network) for part in one.name.split(",")]
    times = Counter(name for name, _ in parts)
    whole = [(_plain(one.name), number) for number, one in enumerate(network)]
    whole_times = Counter(name for name, _ in whole)
    return {name: number for name, number in parts if times[name] == 1} | {
        name: number for name, number in whole if whole_times[name] == 1
    }


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", " ")


def _number(text: str, outputs: int) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and int(text) < outputs else None
