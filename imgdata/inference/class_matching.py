"""Classes of a dataset, classes of a network -> which of the network's outputs stands for each class."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import OptionError
from imgdata.sample import ClassName

MatchedBy = Literal["ids", "names", "numbers"]


class Match(NamedTuple):
    """Which output stands for each class of a dataset."""

    output_C: NDArray[np.int32]
    """Number of the output, int32 `(C,)`."""
    by: MatchedBy
    """What the classes have in common; `numbers`: the ids of the dataset are taken for numbers of outputs."""


def match_own(dataset: Sequence[ClassName], network: Sequence[ClassName], place: str) -> Match:
    """For a network that was trained on a dataset: classes of the same ids in the same order. Raises `OptionError`.

    `place` names the dataset in messages.
    """
    for number, (has, wants) in enumerate(zip(dataset, network, strict=False)):
        if has.id != wants.id:
            raise OptionError(
                f"{place}: class {number} must be {wants.id!r}, as the network was trained, got {has.id!r}; evaluate "
                "with a dataset of the same classes in the same order"
            )
    if len(dataset) != len(network):
        raise OptionError(
            f"{place}: must have the {len(network)} classes that the network was trained on, got {len(dataset)}; "
            "evaluate with a dataset of the same classes"
        )
    return Match(np.arange(len(network), dtype=np.int32), "ids")


def match_foreign(dataset: Sequence[ClassName], network: Sequence[ClassName], place: str) -> Match:
    """For a network of weights from elsewhere: a dataset of some of its classes, in any order. Raises `OptionError`.

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
    """Every name that is of one output alone -> its number; the whole of a name comes before its parts."""
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
