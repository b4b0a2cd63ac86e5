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
    """Let `os.fsync` and exports not wait for the disk, in this process; programs that tests start wait for it."""
    os.fsync = open_descriptor  # type: ignore[assignment]
    export: Any = sys.modules.get("imgdata.shards.export")
    if export is not None:
        # It would wait for what all programs have written to this file system.
        export.sync_tree = Path.stat


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
