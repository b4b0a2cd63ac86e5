"""A row -> a small JPEG of its picture, decoded at a part of its size straight from the tar."""

import io
import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass

from PIL import Image, ImageOps

from imgdata import native
from imgdata.errors import ImageError
from imgdata.images.pillow import opaque, open_image, pillow_errors
from imgdata.images.probe import probe
from imgdata.web.rows import Row, Rows

SIDES = (64, 96, 128, 160, 224, 320, 480, 960)
"""Longer side of a thumbnail in pixels; others are not made, so that nobody fills the memory with sizes."""
_QUALITY = 82
_CACHE_BYTES = 64 << 20
_MAX_PIXELS = 300_000_000


class Thumbnails:
    """Makes thumbnails in a few threads, the last asked for first, and keeps the last 64 MB of them."""

    def __init__(self, rows: Rows, threads: int) -> None:
        self._rows = rows
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._bytes = 0
        self._waiting: list[_Task] = []
        self._ready = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._work, daemon=True, name="thumbnails") for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, number: int, side: int) -> "Future[bytes]":
        """Return the thumbnail that will be; cancel it when nobody waits any more.

        Its errors are `IndexError`, `ImageError` for a picture that can't be decoded, `ShardError`.
        """
        task = _Task(number, side, Future())
        with self._ready:
            kept = self._kept.get((number, side))
            if kept is not None:
                self._kept.move_to_end((number, side))
                task.future.set_result(kept)
            else:
                self._waiting.append(task)
                self._ready.notify()
        return task.future

    def close(self) -> None:
        """End the threads; what waits is cancelled."""
        with self._ready:
            self._closed = True
            for task in self._waiting:
                task.future.cancel()
            self._ready.notify_all()

    def _work(self) -> None:
        while True:
            with self._ready:
                while not self._waiting and not self._closed:
                    self._ready.wait()
                if self._closed:
                    return
                # Whoever scrolls on has no use for what came before.
                task = self._waiting.pop()
            if not task.future.set_running_or_notify_cancel():
                continue
            try:
                split, position = self._rows.place(task.number)
                row = self._rows.row(task.number)
                data = thumbnail(split.read(position), row, task.side)
            except Exception as error:  # Raised where the thumbnail is waited for.
                task.future.set_exception(error)
                continue
            self._keep((task.number, task.side), data)
            task.future.set_result(data)

    def _keep(self, name: tuple[int, int], data: bytes) -> None:
        with self._ready:
            self._bytes += len(data) - len(self._kept.pop(name, b""))
            self._kept[name] = data
            while self._bytes > _CACHE_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1])


@dataclass(frozen=True, slots=True)
class _Task:
    number: int
    side: int
    future: "Future[bytes]"


def thumbnail(data: bytes, row: Row, side: int) -> bytes:
    """Return a JPEG whose longer side is `side` pixels, or that of the picture where it is smaller; upright.

    Raises `ImageError`.
    """
    width, height = row.width, row.height
    scale = min(side / max(width, height, 1), 1.0)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    if native.AVAILABLE and row.format == "jpeg" and row.orientation == 1 and width and height:
        # Half of the decode's pixels at least are left for the antialiased resize.
        shrink = next((one for one in (8, 4, 2) if min(width // size[0], height // size[1]) >= one), 1)
        made = native.resize_jpeg(data, size, from_size=(width, height), quality=_QUALITY, shrink=shrink)
        if made is not None:
            return made
    return _by_pillow(data, side)


def _by_pillow(data: bytes, side: int) -> bytes:
    info = probe(data)
    if info.width * info.height > _MAX_PIXELS:
        raise ImageError("too-large", f"{info.width} x {info.height} pixels")
    with pillow_errors(), open_image(data, info.format) as image:
        image.draft("RGB", (side, side))
        upright = ImageOps.exif_transpose(image) or image
        flat = _on_white(upright)
        flat.thumbnail((side, side), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        flat.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "I;16", "F"):
        # What a viewer shows of 16 bits: the most significant ones.
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    return opaque(image).convert("RGB")
