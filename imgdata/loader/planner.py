"""Epoch, offset -> the samples of a rank's batch, with their labels; those samples -> a backend's work."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from imgdata.augment import philox
from imgdata.augment.mix import MixParams, mix_params
from imgdata.augment.params import params
from imgdata.augment.philox import Stream
from imgdata.backends.protocol import BatchRequest
from imgdata.dataset.index import Index
from imgdata.order.epoch_order import EpochCache, Order
from imgdata.recipes.ops import PadRandomCrop
from imgdata.recipes.recipe import Recipe
from imgdata.recipes.several import VIEW_KEYS, views_of
from imgdata.views.view import View

ATTEMPTS = 32
"""How many samples in a row may be bad before the loader gives up."""


@dataclass(kw_only=True, eq=False, slots=True)
class Draft:
    """A rank's part of a global batch, while bad samples may still be replaced."""

    epoch: int
    offset: int
    """Samples of the epoch before the global batch."""
    position_N: NDArray[np.int64]
    """Positions in the split."""
    key_N: NDArray[np.int64]
    """Keys by which parameters are drawn: the positions, where no sample comes twice."""
    label_N: NDArray[np.int64]
    valid_N: NDArray[np.bool_]
    """False for padding, and for bad samples that are skipped."""
    skip_N: NDArray[np.bool_]
    """Bad samples that are not read."""
    planned_N: NDArray[np.int64]
    """`key_N` as the order has it; decides what replaces a bad sample."""
    attempt_N: NDArray[np.int64]
    """How many samples each row has tried in place of the planned one."""
    mix: MixParams
    left_out: list[int] = field(default_factory=list)
    """Positions that are bad by what the index says, and so were not read."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Planner:
    """What a loader's batches are, before a byte is read: a pure function of epoch and offset."""

    index: Index
    view: View
    order: Order
    recipe: Recipe
    rank: int
    world_size: int
    _repeats: EpochCache = field(default_factory=EpochCache, init=False, repr=False)

    def draft(self, epoch: int, offset: int) -> Draft:
        """Return the batch after the first `offset` samples of `epoch`. Raises `IndexError` where none is left."""
        place_N, valid_N = self.order.batch_at(epoch, offset, self.rank, self.world_size)
        position_N, key_N, label_N = self._samples(epoch, place_N)
        return Draft(
            epoch=epoch,
            offset=offset,
            position_N=position_N,
            key_N=key_N,
            label_N=label_N,
            valid_N=valid_N,
            skip_N=np.zeros(len(place_N), bool),
            planned_N=key_N.copy(),
            attempt_N=np.zeros(len(place_N), np.int64),
            mix=mix_params(self.recipe, len(place_N), seed=self.order.seed, epoch=epoch, offset=offset),
        )

    def positions(self, epoch: int, offset: int) -> NDArray[np.int64]:
        """Return the positions in the split that `draft` has."""
        place_N, _ = self.order.batch_at(epoch, offset, self.rank, self.world_size)
        return self.view.position_N[self.view.epoch_rows(epoch)[place_N]]

    def replace(self, draft: Draft, rows: NDArray[np.int64]) -> None:
        """Put the next candidate into each of `rows`: a random sample of the epoch, by seed, epoch, sample and attempt.

        So it is the same one on any rank, and in any batch.
        """
        for row in rows.tolist():
            attempt = int(draft.attempt_N[row])
            raw = philox.raw(
                self.order.seed, draft.epoch, draft.planned_N[row : row + 1], Stream.REPLACE, 1, first=attempt
            )
            draft.attempt_N[row] = attempt + 1
            place = np.array([int(raw[0, 0]) % self.order.num_samples])
            draft.position_N[row], draft.key_N[row], draft.label_N[row] = (
                int(of_place[0]) for of_place in self._samples(draft.epoch, place)
            )

    def works(self, draft: Draft, rows: NDArray[np.int64] | None = None) -> tuple[BatchRequest, ...]:
        """Return the request for each view of all of the batch, or of `rows`. Raises `OptionError`, as `work` does."""
        return tuple(
            self.work(draft, rows, recipe=recipe, first_key=number * VIEW_KEYS)
            for number, recipe in enumerate(views_of(self.recipe))
        )

    def work(
        self,
        draft: Draft,
        rows: NDArray[np.int64] | None = None,
        *,
        recipe: Recipe | None = None,
        first_key: int = 0,
    ) -> BatchRequest:
        """Return the request for all of the batch, or for `rows`. Raises `OptionError` for an impossible recipe.

        With another `recipe`, of a further view, random numbers are drawn by keys from `first_key` on.
        """
        recipe = self.recipe if recipe is None else recipe
        if rows is None:
            position_N, key_N, skip_N = draft.position_N.copy(), draft.key_N, draft.skip_N.copy()
        else:
            position_N, key_N, skip_N = draft.position_N[rows], draft.key_N[rows], draft.skip_N[rows]
        width_N, height_N = self.index.width_N[position_N], self.index.height_N[position_N]
        if skip_N.any():
            # Of a bad sample the size may be unknown; this one fits every recipe.
            height, width = _least_size(recipe, draft.epoch)
            width_N, height_N = np.where(skip_N, width, width_N), np.where(skip_N, height, height_N)
        return BatchRequest(
            epoch=draft.epoch,
            params=params(
                recipe, width_N, height_N, seed=self.order.seed, epoch=draft.epoch, position_N=key_N + first_key
            ),
            position_N=position_N,
            skip_N=skip_N,
            mix=draft.mix,
        )

    def _samples(
        self, epoch: int, place_N: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return positions in the split, keys of the parameters and labels of places in an unshuffled epoch."""
        row_N = self.view.epoch_rows(epoch)[place_N]
        position_N = self.view.position_N[row_N]
        label_N = self.view.labels(row_N, position_N).astype(np.int64)
        if self.view.resampling is None:
            return position_N, position_N.copy(), label_N
        repeat_N = self._repeats.get(epoch, self.view.epoch_repeats)[place_N]
        return position_N, position_N + repeat_N * len(self.index), label_N


def _least_size(recipe: Recipe, epoch: int) -> tuple[int, int]:
    """Return (height, width) of a picture that the recipe takes: mirrored margins need its pixels."""
    pad = recipe.find(PadRandomCrop)
    least = 1 if pad is None else pad.padding + 1
    height, width = recipe.output_size(epoch)
    return max(height, least), max(width, least)
