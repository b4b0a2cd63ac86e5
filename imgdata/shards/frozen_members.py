"""The further images of a listing <-> columns of a frozen plan, `mask:name`, `mask:size`, ... for the image `mask`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from imgdata.arrow import number_array, numbers
from imgdata.dataset.members import Member
from imgdata.sample import SampleRef
from imgdata.sources.listing import Listing
from imgdata.sources.member_columns import MemberColumns

_PARTS = ("name", "size", "container", "offset", "state")


def is_member_column(column: str) -> bool:
    """Return whether a column of a frozen plan is of a further image."""
    return ":" in column


def frozen_columns(listing: Listing, row_N: NDArray[np.int64]) -> dict[str, pa.ChunkedArray]:
    """Return the columns of the further images of a listing, in the order of `row_N`."""
    columns: dict[str, pa.ChunkedArray] = {}
    for one in listing.members:
        taken = one.take(row_N)
        state_N = np.zeros(len(row_N), np.int64) if taken.state_N is None else taken.state_N
        values = (
            taken.name_N.cast(pa.large_string()),
            *(
                pa.chunked_array([number_array(value_N)])
                for value_N in (taken.size_N, taken.container_N, taken.offset_N, state_N)
            ),
        )
        columns |= {f"{one.member.name}:{part}": value for part, value in zip(_PARTS, values, strict=True)}
    return columns


def frozen_refs(columns: Mapping[str, Sequence[Any]], members: Sequence[Member]) -> list[tuple[SampleRef, ...]]:
    """Return the places of each sample's further images, from the values of a shard's columns; none without members."""
    of_members = [
        [
            SampleRef(name, "", -1, size, container, offset, "", state)
            for name, size, container, offset, state in zip(
                *(columns[f"{member.name}:{part}"] for part in _PARTS), strict=True
            )
        ]
        for member in members
    ]
    return list(zip(*of_members, strict=True))


def thawed_columns(table: pa.Table, members: Sequence[Member]) -> tuple[MemberColumns, ...]:
    """Return the further images of the listing in a frozen plan."""
    return tuple(
        MemberColumns(
            member=member,
            name_N=table[f"{member.name}:name"].cast(pa.string()),
            size_N=numbers(table[f"{member.name}:size"]),
            container_N=numbers(table[f"{member.name}:container"]),
            offset_N=numbers(table[f"{member.name}:offset"]),
            state_N=numbers(table[f"{member.name}:state"]),
        )
        for member in members
    )
