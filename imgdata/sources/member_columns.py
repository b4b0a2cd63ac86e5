"""The places of a further image of every sample of a raw dataset, such as its mask, as columns beside the listing's."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from imgdata.arrow import number_array, text_array, texts_at
from imgdata.dataset.members import Member, MemberKind, kind_of
from imgdata.sample import SampleRef
from imgdata.storage.file_names import escape_name

MASK = "mask"
"""Name of a mask that a source has no other name for."""


class Place(NamedTuple):
    """The place of one further image: as `SampleRef` has that of a picture."""

    name: str
    """Name inside the source; empty for a sample without this image."""
    size: int
    """Bytes of the image; 0 for a file that is named and not there."""
    container: int = 0
    offset: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class MemberColumns:
    """One further image of each sample of a listing, row by row."""

    member: Member
    name_N: pa.ChunkedArray
    """Names inside the source; empty for samples without this image."""
    size_N: NDArray[np.int64]
    container_N: NDArray[np.int32]
    offset_N: NDArray[np.int64]
    state_N: NDArray[np.int64] | None = None
    """`SampleRef.state` of each; None when the states of the files were not taken."""

    def refs(self, row_N: NDArray[np.int64]) -> list[SampleRef]:
        """Return the places at `row_N`, in that order."""
        return [
            SampleRef(name, "", -1, size, container, offset, "", state)
            for name, size, container, offset, state in zip(
                texts_at(self.name_N, number_array(row_N)),
                self.size_N[row_N].tolist(),
                self.container_N[row_N].tolist(),
                self.offset_N[row_N].tolist(),
                [0] * len(row_N) if self.state_N is None else self.state_N[row_N].tolist(),
                strict=True,
            )
        ]

    def take(self, row_N: NDArray[np.int64]) -> "MemberColumns":
        """Return the columns of the rows `row_N` alone."""
        return replace(
            self,
            name_N=self.name_N.take(number_array(row_N)),
            size_N=self.size_N[row_N],
            container_N=self.container_N[row_N],
            offset_N=self.offset_N[row_N],
            state_N=None if self.state_N is None else self.state_N[row_N],
        )

    @property
    def there_N(self) -> NDArray[np.bool_]:  # noqa: N802
        """Whether each sample has this image, as far as the listing knows: bool `(N,)`."""
        return np.asarray(pc.binary_length(self.name_N).to_numpy() > 0)

    def update(self, digest: "xxhash.xxh3_128") -> None:
        """Add all that decides the shards to the hash of a listing."""
        digest.update(repr(self.member).encode())
        for column in (self.size_N, self.offset_N):
            digest.update(np.ascontiguousarray(column).tobytes())
        for chunk in self.name_N.chunks:
            digest.update("\0".join(chunk.to_pylist()).encode("utf-8", "surrogateescape") + b"\0")


class MemberBuilder:
    """Builder of the columns of all further images of a listing, sample by sample."""

    def __init__(self) -> None:
        self.kinds: dict[str, MemberKind] = {}
        """Kinds of the images by name; those that are not here have the kind that their name says."""
        self._names: dict[str, list[str]] = {}
        self._numbers: dict[str, array[int]] = {}
        """Size, container and offset of each sample's image, one behind the other."""

    def add(self, row: int, places: Mapping[str, Place]) -> None:
        """Append the places of the sample number `row`, which may lack some of the images."""
        for name, place in places.items():
            names, numbers = self._column(name, row)
            names.append(place.name if place.name.isascii() and "\\" not in place.name else escape_name(place.name))
            numbers.extend(place[1:])

    def build(self, rows: int) -> tuple[MemberColumns, ...]:
        """Return the columns for so many samples, in the order of the names. Raises `OptionError`."""
        found = []
        for name in sorted(self._names):
            names, numbers = self._column(name, rows)
            number_N3 = np.frombuffer(numbers, np.int64).reshape(-1, 3)
            found.append(
                MemberColumns(
                    member=Member(name=name, kind=self.kinds.get(name, kind_of(name))),
                    name_N=pa.chunked_array([text_array(names)], pa.string()),
                    size_N=number_N3[:, 0].copy(),
                    container_N=number_N3[:, 1].astype(np.int32),
                    offset_N=number_N3[:, 2].copy(),
                )
            )
        return tuple(found)

    def _column(self, name: str, row: int) -> "tuple[list[str], array[int]]":
        """Return the column of an image, filled up to `row` for samples that lack it."""
        names = self._names.setdefault(name, [])
        numbers = self._numbers.setdefault(name, array("q"))
        missing = row - len(names)
        names.extend([""] * missing)
        numbers.extend([0] * (3 * missing))
        return names, numbers


def splits_with(columns: MemberColumns, splits: Sequence[str], split_N: NDArray[np.uint8]) -> list[str]:
    """Return the splits in which any sample has this image: all others of such a split must have it too."""
    used = np.unique(split_N[columns.there_N])
    return [splits[number] for number in used.tolist()]
