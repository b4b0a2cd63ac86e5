"""What tests leave out because it takes time and proves nothing: waits for the disk, and figures of most runs."""

import io
import os
import sys
from pathlib import Path
from typing import Any

from PIL import Image


def open_descriptor(descriptor: int) -> None:
    """Do no more than `os.fsync` must: raise `OSError` where `descriptor` is not open. No power is cut in a test."""
    os.fstat(descriptor)


def skip_waits_for_the_disk() -> None:
    """Let `os.fsync` return at once, in this process; programs that tests start wait for the disk."""
    os.fsync = open_descriptor  # type: ignore[assignment]


def draw_figures(drawn: bool) -> None:
    """Let runs draw their curves and confusion matrices, or write blank pictures in their places."""
    course: Any = sys.modules.get("imgdata.training.course")
    if course is not None:
        plots = sys.modules["imgdata.training.plots"]
        course.plot_curves = plots.plot_curves if drawn else _blank
        course.plot_confusion = plots.plot_confusion if drawn else _blank


def _blank(figures: Any, *rest: Any) -> None:
    from imgdata.storage.atomic import write_atomic

    data = io.BytesIO()
    Image.new("L", (1, 1)).save(data, "PNG")
    [path] = [one for one in rest if isinstance(one, Path)]
    write_atomic(path, data.getvalue())
