"""A request for a picture -> its bytes: thumbnails, what is stored, what training makes of it, where a run looks."""

import asyncio
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from imgdata.errors import ImageError, ImgdataError, MissingExtraError, OptionError
from imgdata.web.answers import whole
from imgdata.web.augmented import MOST_EPOCHS, augmented, recipe_of
from imgdata.web.thumbnails import SIDES
from imgdata.web.viewer import Viewer

_POLL_S = 0.05
_FOREVER = "private, max-age=31536000, immutable"
_TYPES = {"jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif", "avif": "image/avif"}
"""What browsers show; for other formats the page asks for a thumbnail."""
_HEAT = np.array([[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]], np.float32)
"""Matplotlib's `inferno`, from no heat to the most."""


async def thumb(viewer: Viewer, request: Request) -> Response:
    """Return a thumbnail; it is dropped when the browser hangs up before it is made."""
    number, side = int(request.path_params["number"]), int(request.path_params["side"])
    if side not in SIDES:
        return JSONResponse({"error": f"side must be one of {SIDES}"}, 400)
    try:
        split, position = viewer.rows.place(number)
    except IndexError as error:
        return JSONResponse({"error": str(error)}, 404)
    etag = f'"{split.version(position)}-{side}"'
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"etag": etag, "cache-control": _FOREVER})
    waiting = viewer.thumbnails.submit(number, side)
    future = asyncio.wrap_future(waiting)
    while not future.done():
        await asyncio.wait([future], timeout=_POLL_S)
        # Scrolled by: the browser has hung up.
        if not future.done() and await request.is_disconnected():
            waiting.cancel()
            return Response(status_code=499)
    try:
        data = future.result()
    except (ImgdataError, OSError) as error:
        return refusal(error)
    return Response(data, media_type="image/jpeg", headers={"etag": etag, "cache-control": _FOREVER})


async def picture(viewer: Viewer, request: Request) -> Response:
    """Return a picture as it is stored."""
    number = int(request.path_params["number"])
    try:
        split, position = viewer.rows.place(number)
        row = viewer.rows.row(number)
        data = await run_in_threadpool(split.read, position)
    except IndexError as error:
        return JSONResponse({"error": str(error)}, 404)
    except (ImgdataError, OSError) as error:
        return refusal(error)
    kind = _TYPES.get(row.format, "application/octet-stream")
    return Response(data, media_type=kind, headers={"etag": f'"{split.version(position)}"', "cache-control": _FOREVER})


async def trained_on(viewer: Viewer, request: Request) -> Response:
    """Return what the recipe of a run, or the usual one, makes of a picture in an epoch."""
    return await _made(viewer, request, _trained_on)


def _trained_on(viewer: Viewer, request: Request) -> bytes:
    split, position = viewer.rows.place(int(request.path_params["number"]))
    epoch = int(request.path_params["epoch"])
    if not 1 <= epoch <= MOST_EPOCHS:
        raise OptionError(f"epoch must be from 1 to {MOST_EPOCHS:,}, got {epoch}")
    name = request.query_params.get("run", "")
    recipe, seed, _ = recipe_of(viewer.dataset, split.name, viewer.run(name) if name else None)
    if request.query_params.get("seed"):
        seed = whole(request.query_params["seed"], "seed")
    return png(augmented(viewer.dataset, split.name, position, recipe, seed, epoch - 1))


async def heat(viewer: Viewer, request: Request) -> Response:
    """Return where a run looks for one of its classes, over the picture in grey."""
    return await _made(viewer, request, _heat)


def _heat(viewer: Viewer, request: Request) -> bytes:
    run = viewer.run(request.query_params.get("run", ""))
    split, position = viewer.rows.place(int(request.path_params["number"]))
    pixels_HWC, heat_HW = run.heat(split.name, position, whole(request.query_params.get("output", "0"), "output"))
    place_HW = heat_HW.clip(0, 1) * (len(_HEAT) - 1)
    below_HW = np.minimum(place_HW.astype(np.int64), len(_HEAT) - 2)
    part_HW1 = (place_HW - below_HW)[..., None]
    colour_HWC = _HEAT[below_HW] * (1 - part_HW1) + _HEAT[below_HW + 1] * part_HW1
    share_HW1 = 0.8 * heat_HW.clip(0, 1)[..., None]
    grey_HW1 = pixels_HWC.mean(axis=2, keepdims=True) * 255
    return png((grey_HW1 * (1 - share_HW1) + colour_HWC * share_HW1).round().astype(np.uint8))


def png(pixels_HWC: NDArray[np.uint8]) -> bytes:
    """Return pixels as a PNG, without loss."""
    file = io.BytesIO()
    Image.fromarray(pixels_HWC).save(file, "PNG", compress_level=1)
    return file.getvalue()


async def _made(viewer: Viewer, request: Request, make: Callable[[Viewer, Request], bytes]) -> Response:
    try:
        data = await run_in_threadpool(make, viewer, request)
    except IndexError as error:
        return JSONResponse({"error": str(error)}, 404)
    except (ImgdataError, OSError) as error:
        return refusal(error)
    return Response(data, media_type="image/png", headers={"cache-control": "private, max-age=3600"})


def refusal(error: Exception) -> Response:
    """Return one message: 422 for a picture, 400 for a request, 501 for a missing extra, 500 for the dataset."""
    kinds: list[tuple[Any, int]] = [(ImageError, 422), (OptionError, 400), (MissingExtraError, 501)]
    return JSONResponse({"error": str(error)}, next((code for kind, code in kinds if isinstance(error, kind)), 500))
