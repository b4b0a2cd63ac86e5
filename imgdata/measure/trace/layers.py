"""A network, pictures -> one row for each of its layers, in the order in which they are called."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.hooks import RemovableHandle

from imgdata.measure.timing import synchronize
from imgdata.measure.trace.rows import Panel, TraceRow

MOST_MAPS = 12
"""Layers whose output is shown in the picture: the first of them."""


def layer_rows(
    model: nn.Module, images: torch.Tensor, place: tuple[int, int] | None, panels: list[Panel]
) -> list[TraceRow]:
    """Return the input, then what each child of `model` gives for `images` `(N, 3, H, W)`, on their device.

    A child that is called several times has several rows, and one whose output is no tensor has none. The example is
    the first channel over the followed pixel, at `place` (row, column) of the input.
    """
    side_2 = tuple(images.shape[2:])
    rows = [_row("input", images, side_2, place, parameters=0)]
    maps: list[Panel] = []
    started: dict[str, float] = {}

    def before(name: str) -> None:
        started[name] = _now(images)

    def after(name: str, module: nn.Module, output: object) -> None:
        if not isinstance(output, torch.Tensor):
            return
        ms = 1000 * (_now(images) - started[name]) / len(images)
        parameters = sum(parameter.numel() for parameter in module.parameters())
        # Looked at here: the next layer may overwrite it.
        rows.append(_row(name, output, side_2, place, parameters=parameters, ms=ms))
        if output.ndim == 4 and min(output.shape[2:]) > 1:
            title = f"{name}\n{' x '.join(map(str, rows[-1].shape))}"
            maps.append(Panel(stage="layer", title=title, pixels=_strongest(output[0])))

    with torch.no_grad():
        model(images)
        with _hooked(model, before, after):
            model(images)
    panels += maps[:MOST_MAPS]
    return rows


@contextmanager
def _hooked(
    model: nn.Module, before: Callable[[str], None], after: Callable[[str, nn.Module, object], None]
) -> Iterator[None]:
    """Report every call of a child of `model` inside the block, by the child's name."""
    handles: list[RemovableHandle] = []
    for name, child in model.named_children():
        # Names are bound here: by the time of a call the loop is over.
        handles += [
            child.register_forward_pre_hook(lambda module, inputs, name=name: before(name)),
            child.register_forward_hook(lambda module, inputs, output, name=name: after(name, module, output)),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _now(images: torch.Tensor) -> float:
    synchronize(images.device)
    return time.perf_counter()


def _row(
    name: str,
    output: torch.Tensor,
    side_2: tuple[int, ...],
    place: tuple[int, int] | None,
    *,
    parameters: int,
    ms: float | None = None,
) -> TraceRow:
    shape: tuple[int, ...] = tuple(output.shape[1:])
    example = ""
    if output.ndim == 4:
        shape = (*output.shape[2:], output.shape[1])
        if place is not None:
            row, column = (at * of // side for at, of, side in zip(place, shape[:2], side_2, strict=True))
            example = f"{float(output[0, 0, row, column]):.3f}"
    return TraceRow(
        stage="layer",
        step=name,
        count=len(output),
        shape=shape,
        dtype=str(output.dtype).removeprefix("torch."),
        low=float(output.min()),
        high=float(output.max()),
        example=example,
        ms_per_image=ms,
        parameters=parameters,
    )


def _strongest(output_CHW: torch.Tensor) -> NDArray[np.float32]:
    """Return the channel that varies most: many are near 0 everywhere."""
    channel = int(output_CHW.flatten(1).std(dim=1).argmax())
    strongest: NDArray[np.float32] = output_CHW[channel].float().cpu().numpy().copy()
    return strongest
