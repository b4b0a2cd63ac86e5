"""Some samples, a recipe -> rows and panels of their pixels, from the file to the last operator."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from imgdata.augment.params import BatchParams, params
from imgdata.backends.options import LoaderOptions
from imgdata.backends.pillow import crop
from imgdata.backends.registry import reference_kind
from imgdata.dataset.dataset import reopen
from imgdata.dataset.manifest import MAX_PIXELS
from imgdata.images.decode import refuse_large
from imgdata.images.probe import probe
from imgdata.loader.loader import Loader
from imgdata.measure.parity.cases import recipe_cases
from imgdata.measure.timing import least_ms
from imgdata.measure.trace.rows import Panel, Stage, TraceRow
from imgdata.recipes.recipe import Recipe
from imgdata.views.view import View

_EPOCH = 0
_GRAY = 128
"""The example's pixel has a red as near to this as there is one: half of 255."""


class Spot(NamedTuple):
    """A place in a picture: pixels from its left and upper edge; the middle of the first pixel is (0.5, 0.5)."""

    x: float
    y: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Followed:
    """The samples of a view that are timed, and those of them that are shown, the first of which is the example."""

    view: View
    row_M: NDArray[np.int64]
    """Rows of the view that are shown."""
    seed: int
    spot: Spot
    """The pixel that is followed, in the example as it was stored."""

    def keys(self) -> tuple[str, ...]:
        """Return the keys of the samples that are shown."""
        return tuple(self.view.index.row(int(self.view.position_N[row])).key for row in self.row_M)

    def place_in(self, recipe: Recipe) -> tuple[int, int] | None:
        """Return (row, column) of the followed pixel in the example after `recipe`; None where it is cut off."""
        return spot_in_window(self.spot, _params(self.view, self.row_M, self.seed, recipe))


def follow(view: View, samples: int, *, seed: int, recipe: Recipe, eval_recipe: Recipe) -> Followed:
    """Choose `samples` rows of the view, evenly spread, and the pixel.

    In what evaluation cuts out of the example it is the one whose red is nearest to `_GRAY` and that stays where
    `recipe` augments the example; of several, the one next to the middle.
    """
    row_M = np.linspace(0, len(view) - 1, samples).round().astype(np.int64)
    window_HW = _images(view, row_M, seed, recipe_cases(eval_recipe)[0].recipe)[0].images[0, 0].numpy()
    height, width = window_HW.shape
    y_HW, x_HW = np.mgrid[:height, :width]
    aside_HW = np.hypot(y_HW - height / 2, x_HW - width / 2) / (height + width)
    cost_HW = np.abs(window_HW.astype(np.int64) - _GRAY) + aside_HW
    cut, augmented = _params(view, row_M, seed, eval_recipe), _params(view, row_M, seed, recipe)
    rows, columns = np.unravel_index(np.argsort(cost_HW, axis=None), cost_HW.shape)
    spots = [
        spot_in_picture(Spot(column + 0.5, row + 0.5), cut)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
    ]
    spot = next((spot for spot in spots if spot_in_window(spot, augmented) is not None), spots[0])
    return Followed(view=view, row_M=row_M, seed=seed, spot=spot)


class Pixels(NamedTuple):
    """The pixels that a recipe made of the shown samples."""

    rows: list[TraceRow]
    images: torch.Tensor
    """Float32 or uint8 `(M, 3, H, W)`."""
    labels: torch.Tensor


def raw_rows(followed: Followed, panels: list[Panel]) -> Iterator[TraceRow]:
    """Return the rows of the files as they are in the shards, and of their pixels."""
    view, spot = followed.view, followed.spot
    split, positions = reopen(view.folder)[view.split], view.position_N.tolist()

    def read() -> list[bytes]:
        return [split.read(position) for position in positions]

    data_N = read()
    shown = [data_N[row] for row in followed.row_M]
    infos = [probe(data) for data in shown]
    for info in infos:
        refuse_large(info, MAX_PIXELS)
    sizes = [len(data) for data in shown]
    yield TraceRow(
        stage="load",
        step="file",
        count=len(shown),
        shape=(sizes[0],),
        dtype=infos[0].format,
        low=min(sizes),
        high=max(sizes),
        example=shown[0][:4].hex(" "),
        ms_per_image=least_ms(read) / len(positions),
    )
    pictures = [crop.decode(data, info) for data, info in zip(shown, infos, strict=True)]

    def decode() -> None:
        for row in followed.row_M:
            data = split.read(positions[row])
            crop.decode(data, probe(data))

    height, width, _ = pictures[0].shape
    place = min(int(spot.y), height - 1), min(int(spot.x), width - 1)
    panels.append(Panel(stage="decode", title=f"decoded\n{height} x {width}", pixels=pictures[0], place=place))
    yield TraceRow(
        stage="decode",
        step="pixels",
        count=len(pictures),
        shape=pictures[0].shape,
        dtype="uint8",
        low=float(min(picture.min() for picture in pictures)),
        high=float(max(picture.max() for picture in pictures)),
        example=str(pictures[0][place][0]),
        ms_per_image=least_ms(decode) / len(shown),
    )


def pixel_rows(stage: Stage, followed: Followed, recipe: Recipe, panels: list[Panel]) -> Pixels:
    """Return a row for each operator of `recipe`: the loader's pixels with all operators up to it."""
    rows: list[TraceRow] = []
    before = ""
    made = None
    for case in recipe_cases(recipe):
        made, ms = _images(followed.view, followed.row_M, followed.seed, case.recipe)
        name, images = case.operator.removeprefix("+ "), made.images
        place = followed.place_in(case.recipe)
        now = "cut off" if place is None else _number(float(images[0, 0, place[0], place[1]]), images.dtype)
        low, high = float(images.min()), float(images.max())
        dtype = str(images.dtype).removeprefix("torch.")
        rows.append(
            TraceRow(
                stage=stage,
                step=name,
                count=len(images),
                shape=(*images.shape[2:], images.shape[1]),
                dtype=dtype,
                low=low,
                high=high,
                example=now if before in ("", now) else f"{before} -> {now}",
                ms_per_image=ms,
            )
        )
        before = now
        title = f"{name.replace(', ', ' + ')}\n{images[0].min():.3g} to {images[0].max():.3g}"
        panels.append(Panel(stage=stage, title=title, pixels=images[0].permute(1, 2, 0).numpy(), place=place))
    assert made is not None, "a recipe has a crop"
    return Pixels(rows, made.images, made.labels)


class _Made(NamedTuple):
    images: torch.Tensor
    labels: torch.Tensor


def _images(view: View, row_M: NDArray[np.int64], seed: int, recipe: Recipe) -> tuple[_Made, float]:
    """Return what the loader makes of rows of the view, and the milliseconds for one of all."""
    options = LoaderOptions(
        batch_size=len(view),
        recipe=recipe,
        backend=reference_kind().name,
        shuffle="none",
        seed=seed,
        threads=1,
        on_bad="raise",
    )
    with Loader.from_options(view, options, rank=0, world_size=1) as loader:

        def batch() -> _Made:
            loader.set_epoch(_EPOCH)
            made = next(iter(loader))
            return _Made(made.images, made.labels)

        made = batch()
        shown = _Made(made.images[row_M].contiguous(), made.labels[row_M])
        return shown, least_ms(batch) / len(view)


def _params(view: View, row_M: NDArray[np.int64], seed: int, recipe: Recipe) -> BatchParams:
    """Return the parameters that `recipe` draws for the example, as the only row."""
    position_N, index = view.position_N[row_M[:1]], view.index
    index.load(("width", "height"))
    width_N, height_N = index.width_N[position_N], index.height_N[position_N]
    return params(recipe, width_N, height_N, seed=seed, epoch=_EPOCH, position_N=position_N)


def spot_in_picture(spot: Spot, one: BatchParams) -> Spot:
    """Map a place in the window of an unmirrored, unrotated crop to the picture; see `BatchParams`."""
    left, top, width, height = one.box_N4[0].tolist()
    resized_width, resized_height = one.resized_N2[0].tolist()
    offset_x, offset_y = one.offset_N2[0].tolist()
    return Spot(left + (spot.x + offset_x) * width / resized_width, top + (spot.y + offset_y) * height / resized_height)


def spot_in_window(spot: Spot, one: BatchParams) -> tuple[int, int] | None:
    """Return (row, column) of the pixel over that place after crop, flips and rotation; None where it is outside.

    Pixels that a policy shears or shifts are not followed.
    """
    left, top, width, height = one.box_N4[0].tolist()
    resized_width, resized_height = one.resized_N2[0].tolist()
    offset_x, offset_y = one.offset_N2[0].tolist()
    x = (spot.x - left) * resized_width / width - offset_x
    y = (spot.y - top) * resized_height / height - offset_y
    x = one.width - x if one.flip_N[0] else x
    y = one.height - y if one.vflip_N[0] else y
    angle = math.radians(float(one.angle_N[0]))
    # Counter-clockwise on a screen, whose y points down.
    right, down = x - one.width / 2, y - one.height / 2
    x = one.width / 2 + right * math.cos(angle) + down * math.sin(angle)
    y = one.height / 2 - right * math.sin(angle) + down * math.cos(angle)
    inside = 0 <= x < one.width and 0 <= y < one.height
    return (int(y), int(x)) if inside else None


def _number(value: float, dtype: torch.dtype) -> str:
    return f"{value:.0f}" if dtype == torch.uint8 else f"{value:.3f}"
