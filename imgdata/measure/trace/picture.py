"""A trace -> one picture: the example after every stage, what the layers make of it, and the answer."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imgdata.measure.trace.rows import Panel
from imgdata.training.plots import figure, name_of, save_figure

if TYPE_CHECKING:
    from imgdata.measure.trace.run import Trace

_COLUMNS = 6
_SIDE = 1.75
"""Size of a panel, in inches."""
_ROWS = {
    "decode": "what the network gets",
    "preprocess": "what the network gets",
    "augment": "augmented for training",
    "layer": "what the layers make of it",
    "evaluate": "what the layers make of it",
}
"""Stages -> the title over their panels."""


def save_picture(trace: "Trace", path: Path) -> None:
    """Write the panels of a trace as PNG. Raises `OutputError`, `MissingExtraError`.

    Floats are shown from their least value to their greatest, which the title has; a layer by its channel that varies
    most. The ring is round the pixel that is followed.
    """
    blocks: dict[str, list[Panel]] = {}
    for panel in trace.panels:
        blocks.setdefault(_ROWS[panel.stage], []).append(panel)
    columns = min(_COLUMNS, max(map(len, blocks.values())))
    lines = [math.ceil(len(panels) / columns) for panels in blocks.values()]
    drawing = figure(columns * _SIDE, sum(lines) * (_SIDE + 0.45) + 0.35 * len(blocks) + 0.3)
    state = "" if trace.trained else ", not trained"
    drawing.suptitle(name_of(f"{trace.keys[0]} ({trace.label.name}), {trace.model}{state}"), fontsize=11)
    parts = np.atleast_1d(np.asarray(drawing.subfigures(len(blocks), 1, height_ratios=[line + 0.15 for line in lines])))
    for part, (title, panels), line in zip(parts, blocks.items(), lines, strict=True):
        part.suptitle(title, fontsize=10, fontweight="bold", x=0.01, ha="left")
        places = np.atleast_1d(part.subplots(line, columns)).ravel().tolist()
        for place, panel in zip(places, panels, strict=False):
            _draw(place, panel)
        for place in places[len(panels) :]:
            place.axis("off")
    save_figure(drawing, path)


def _draw(place: Any, panel: Panel) -> None:
    place.set_title(panel.title, fontsize=8)
    if panel.pixels is None:
        _bars(place, panel)
        return
    place.imshow(_shown(panel.pixels), cmap="viridis", interpolation="nearest")
    if panel.place is not None:
        row, column = panel.place
        for colour, width in (("white", 3.0), ("black", 1.2)):
            place.plot(column, row, "o", ms=6, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=width)
    place.set_xticks([])
    place.set_yticks([])


def _bars(place: Any, panel: Panel) -> None:
    names = [_short(name) for name, _ in panel.answer_K]
    chances = [chance for _, chance in panel.answer_K]
    place.barh(range(len(names)), chances, color="#4c78a8", alpha=0.55)
    for row, (name, chance) in enumerate(zip(names, chances, strict=True)):
        place.text(0.02, row, f"{name_of(name)}  {chance:.1%}", va="center", fontsize=7)
    place.set(xlim=(0, 1), xticks=[], yticks=[])
    place.invert_yaxis()
    place.set_box_aspect(1)


def _shown(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return uint8 as it is; floats `(H, W, 3)` scaled to 0 to 1; one channel as it is, for a colour map."""
    if pixels.dtype == np.uint8 or pixels.ndim == 2:
        return pixels
    value_HWC = pixels.astype(np.float32)
    low, high = float(value_HWC.min()), float(value_HWC.max())
    return np.asarray((value_HWC - low) / max(high - low, 1e-12))


def _short(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:15]}…"
