"""A dataset -> a contact sheet: a row of pictures for each class, as they are stored, or as a recipe makes them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from imgdata.dataset.split import Split
from imgdata.errors import ImageError
from imgdata.loader.loader import Loader
from imgdata.measure.doctor.inputs import Case, DoctorOptions, make_case
from imgdata.views.view import View

ROWS, COLUMNS = 12, 8
"""Classes, or samples, that are shown at most; pictures of each."""
_TILE, _GAP, _LABEL = 112, 6, 132
"""Pixels: side of a picture, space between two, width of a row's name."""
_PAPER, _INK, _MISSING = (255, 255, 255), (40, 40, 40), (224, 224, 224)
_NAME = 20
"""Characters of a row's name that fit."""


def contact_sheet(
    dataset: str | Path,
    *,
    split: str | None = None,
    augmented: bool = False,
    recipe: str | None = None,
    size: int | None = None,
    seed: int = 0,
) -> Image.Image:
    """Return pictures of a split, a row for each of up to 12 classes, as one RGB image.

    With `augmented` or a `recipe`, a row is one sample: the stored picture, then what the loader makes of it in one
    epoch after the other. A picture that can't be decoded is a grey square. Raises `OptionError`, `ShardError`.
    """
    case = make_case(
        dataset, DoctorOptions(split=split, recipe=recipe, size=size, batch_size=1, device="cpu", backend="cpu")
    )
    view, stored = case.opened.view, case.opened.split
    rows = _rows(view)
    names = [_name(view, row_K[0]) for row_K in rows]
    if not augmented and recipe is None:
        return _paste(names, [[_stored(stored, int(view.position_N[row])) for row in row_K] for row_K in rows])
    # Ascending, as the rows of a view are.
    first_K = np.sort(np.array([row_K[0] for row_K in rows]))
    names = [_name(view, row) for row in first_K.tolist()]
    made = _made(case, replace(view, position_N=view.position_N[first_K], label_N=view.label_N[first_K]), seed)
    columns = [[_stored(stored, int(view.position_N[row])) for row in first_K], *made]
    return _paste(names, [list(row) for row in zip(*columns, strict=True)])


def _rows(view: View) -> list[list[int]]:
    """Return rows of the view for each row of the sheet: of one class where there are labels, evenly spread."""
    labels = np.unique(view.label_N)
    if len(labels) == 1:
        all_M = _spread(np.arange(len(view.position_N)), ROWS * COLUMNS)
        return [all_M[first : first + COLUMNS].tolist() for first in range(0, len(all_M), COLUMNS)]
    shown = labels[labels >= 0] if (labels >= 0).any() else labels
    return [_spread(np.flatnonzero(view.label_N == label), COLUMNS).tolist() for label in _spread(shown, ROWS)]


def _spread(value_N: NDArray[np.generic], most: int) -> NDArray[np.generic]:
    """Return up to so many of the values, evenly spread."""
    count = min(most, len(value_N))
    return value_N[np.linspace(0, len(value_N) - 1, count).round().astype(np.int64)]


def _name(view: View, row: int) -> str:
    label = int(view.label_N[row])
    name = view.classes[label].name if 0 <= label < len(view.classes) else ""
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}~"


def _stored(split: Split, position: int) -> Image.Image | None:
    try:
        return split[position].pil()
    except ImageError:
        return None


def _made(case: Case, view: View, seed: int) -> list[list[Image.Image | None]]:
    """Return what the recipe makes of all rows of the view, in one epoch after the other."""
    with Loader(
        view,
        batch_size=len(view),
        recipe=case.recipe,
        backend="cpu",
        dtype="uint8",
        shuffle="none",
        seed=seed,
        rank=0,
        world_size=1,
        on_bad="skip",
    ) as loader:
        columns: list[list[Image.Image | None]] = []
        for epoch in range(COLUMNS - 1):
            loader.set_epoch(epoch)
            batch = next(iter(loader))
            pixels_NHWC = batch.images.permute(0, 2, 3, 1).numpy()
            columns.append(
                [
                    Image.fromarray(pixels_HWC.copy()) if valid else None
                    for pixels_HWC, valid in zip(pixels_NHWC, batch.valid.tolist(), strict=True)
                ]
            )
    return columns


def _paste(names: Sequence[str], rows: Sequence[Sequence[Image.Image | None]]) -> Image.Image:
    left = _LABEL if any(names) else _GAP
    width = left + max(map(len, rows)) * (_TILE + _GAP)
    sheet = Image.new("RGB", (width, _GAP + len(rows) * (_TILE + _GAP)), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for at, (name, row) in enumerate(zip(names, rows, strict=True)):
        top = _GAP + at * (_TILE + _GAP)
        # The built-in font has the letters of Latin-1.
        draw.text((_GAP, top + _TILE // 2), name.encode("latin-1", "replace").decode("latin-1"), _INK, font)
        for column, picture in enumerate(row):
            place = left + column * (_TILE + _GAP), top
            if picture is None:
                draw.rectangle((*place, place[0] + _TILE - 1, place[1] + _TILE - 1), fill=_MISSING)
                continue
            fitted = ImageOps.pad(picture, (_TILE, _TILE), color=_PAPER)
            sheet.paste(fitted, place)
    return sheet
