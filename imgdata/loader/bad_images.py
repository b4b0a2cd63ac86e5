"""Images that could not be used -> a record of each, and one warning."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgdata.dataset.members import member_columns
from imgdata.dataset.split import Split
from imgdata.errors import ImageError


class BadImageWarning(UserWarning):
    """An image could not be decoded; the loader goes on without it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BadImage:
    """One image that a loader could not use."""

    key: str
    position: int
    """Position in the split."""
    reason: str
    """See `imgdata.ImageError`."""
    detail: str
    epoch: int
    """Epoch in which it was found."""


class BadImages:
    """The bad images of a split that this process has found."""

    def __init__(self, split: Split, max_pixels: int, members: Sequence[str] = ()) -> None:
        """Name what makes a sample bad by the index: no size, too many pixels, or none of one of `members`."""
        self._split = split
        self._found: dict[int, BadImage] = {}
        split.index.load(("width", "height"))
        self._max_pixels = max_pixels
        self._members = tuple(members)

    @property
    def records(self) -> tuple[BadImage, ...]:
        """Each once, in the order in which they were found."""
        return tuple(self._found.values())

    @property
    def summary(self) -> str:
        """How many there are, by reason."""
        reasons = Counter(image.reason for image in self._found.values())
        return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())

    def among(self, position_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows whose sample is bad by what the index says.

        Not those that were found: what is shown would depend on what was read before, since of some damaged JPEGs not
        every crop is bad.
        """
        index = self._split.index
        width_N, height_N = index.width_N[position_N].astype(np.int64), index.height_N[position_N]
        unusable_N = (width_N < 1) | (height_N < 1) | (width_N * height_N > self._max_pixels)
        for name in self._members:
            unusable_N |= self._size_of(name)[position_N] == 0
        rows: NDArray[np.int64] = np.flatnonzero(unusable_N)
        return rows

    def note_known(self, position: int, epoch: int) -> BadImage:
        """Return the record of a sample that was noted; one of `among` is noted now."""
        if position not in self._found:
            index = self._split.index
            width, height = int(index.width_N[position]), int(index.height_N[position])
            if width < 1 or height < 1:
                error = ImageError("not-an-image", "the index has no size of it: its header could not be read")
            elif lacking := [name for name in self._members if not self._size_of(name)[position]]:
                error = ImageError("missing", f"it has no {lacking[0]}, which moves with the pictures (joint)")
            else:
                large = f"{width} x {height} pixels, the limit is {self._max_pixels} (max_pixels)"
                error = ImageError("too-large", large)
            self.note(position, epoch, error)
        return self._found[position]

    def note(self, position: int, epoch: int, error: ImageError) -> None:
        """Record a sample, if it isn't; the first one is warned of."""
        if position in self._found:
            return
        first = not self._found
        image = BadImage(
            key=self.key(position), position=position, reason=error.reason, detail=error.detail, epoch=epoch
        )
        self._found[position] = image
        if first:
            warnings.warn(
                f"{image.key} in split {self._split.name} is bad ({error}); it is left out; further bad images "
                "are left out without a warning: Loader.bad lists them",
                BadImageWarning,
                stacklevel=6,
            )

    def _size_of(self, member: str) -> NDArray[np.int64]:
        """Return the bytes of a further image of each sample."""
        size_N: NDArray[np.int64] = self._split.index.array(member_columns(member)[1])
        return size_N

    def key(self, position: int) -> str:
        """Return the key of a sample."""
        return self._split.index.key(position)
