"""Addresses -> answers: pages, pictures, JSON."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from imgdata.auditing.finding import Finding
from imgdata.errors import ImageError, ImgdataError, OptionError
from imgdata.views.saved import list_views
from imgdata.web.decisions import Sample, made
from imgdata.web.overview import overview
from imgdata.web.query import query_of
from imgdata.web.review import expected, from_csv, queue, save_views, to_csv
from imgdata.web.thumbnails import SIDES
from imgdata.web.viewer import Viewer

STATIC = Path(__file__).parent / "static"
MOST_ROWS = 500
"""Rows of one answer at most."""
_POLL_S = 0.05
_FOREVER = "private, max-age=31536000, immutable"
_TYPES = {"jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif", "avif": "image/avif"}
"""What browsers show; other formats go as PNG."""

Answer = Callable[[Viewer, Request], Any]


def create_app(viewer: Viewer) -> Starlette:
    """Return the app, without the guard of `imgdata.web.security`, which must stand before it."""

    def api(answer: Answer) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            return await _answered(answer, viewer, request)

        return endpoint

    async def thumb(request: Request) -> Response:
        return await _thumb(viewer, request)

    async def picture(request: Request) -> Response:
        return await _picture(viewer, request)

    async def page(request: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    async def csv_file(request: Request) -> Response:
        text = await run_in_threadpool(to_csv, viewer.decisions)
        return Response(
            text, media_type="text/csv", headers={"content-disposition": 'attachment; filename="decisions.csv"'}
        )

    return Starlette(
        routes=[
            Route("/", page),
            Mount("/static", StaticFiles(directory=STATIC)),
            Route("/thumb/{number:int}/{side:int}", thumb),
            Route("/picture/{number:int}", picture),
            Route("/api/dataset", api(_dataset)),
            Route("/api/rows", api(_rows)),
            Route("/api/sample/{number:int}", api(_sample)),
            Route("/api/overview", api(_overview)),
            Route("/api/queue", api(_queue)),
            Route("/api/decisions", api(_decide), methods=["POST"]),
            Route("/api/decisions.csv", csv_file),
            Route("/api/import", api(_import), methods=["POST"]),
            Route("/api/undo", api(_undo), methods=["POST"]),
            Route("/api/save-view", api(_save_view), methods=["POST"]),
        ]
    )


async def _answered(answer: Answer, viewer: Viewer, request: Request) -> Response:
    """Run an answer in a thread; faults of the request are JSON with one message."""
    try:
        if request.method == "POST":
            request.state.body = json.loads(await request.body() or b"{}")
        return JSONResponse(await run_in_threadpool(answer, viewer, request))
    except (OptionError, ValueError) as error:
        return JSONResponse({"error": str(error)}, 400)
    except (IndexError, KeyError) as error:
        return JSONResponse({"error": f"there is none: {error}"}, 404)
    except ImgdataError as error:
        return JSONResponse({"error": str(error)}, 500)


async def _thumb(viewer: Viewer, request: Request) -> Response:
    number, side = int(request.path_params["number"]), int(request.path_params["side"])
    if side not in SIDES:
        return JSONResponse({"error": f"side must be one of {SIDES}"}, 400)
    try:
        split, position = viewer.rows.place(number)
    except IndexError as error:
        return JSONResponse({"error": str(error)}, 404)
    etag = f'"{int(split.index.xxh64_N[position]):016x}-{side}"'
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
        return JSONResponse({"error": str(error)}, 422 if isinstance(error, ImageError) else 500)
    return Response(data, media_type="image/jpeg", headers={"etag": etag, "cache-control": _FOREVER})


async def _picture(viewer: Viewer, request: Request) -> Response:
    number = int(request.path_params["number"])
    try:
        split, position = viewer.rows.place(number)
        row = viewer.rows.row(number)
        data = await run_in_threadpool(split.read, position)
    except IndexError as error:
        return JSONResponse({"error": str(error)}, 404)
    except ImgdataError as error:
        return JSONResponse({"error": str(error)}, 500)
    kind = _TYPES.get(row.format, "application/octet-stream")
    return Response(data, media_type=kind, headers={"etag": f'"{row.xxh64:016x}"', "cache-control": _FOREVER})


def _dataset(viewer: Viewer, request: Request) -> dict[str, Any]:
    dataset = viewer.dataset
    return {
        "name": dataset.manifest.name,
        "splits": [{"name": split.name, "samples": len(split)} for split in viewer.rows.splits],
        "classes": [list(one) for one in dataset.manifest.classes],
        "samples": len(viewer.rows),
        "author": viewer.author,
        "formats": sorted({word for split in viewer.rows.splits for word in split.index.words("format")}),
        "columns": [],
        "views": list_views(dataset),
        "findings": {kind: len(numbers) for kind, numbers in viewer.finding_numbers.items()},
    }


def _rows(viewer: Viewer, request: Request) -> dict[str, Any]:
    parameters = dict(request.query_params)
    start, count = int(parameters.pop("start", 0)), int(parameters.pop("count", 100))
    if start < 0 or not 0 <= count <= MOST_ROWS:
        raise OptionError(f"start must be 0 or more and count 0 to {MOST_ROWS}, got {start} and {count}")
    numbers = viewer.answers.numbers(query_of(parameters))
    shown = numbers[start : start + count].tolist()
    return {"total": len(numbers), "start": start, "rows": [_cell(viewer, number) for number in shown]}


def _cell(viewer: Viewer, number: int) -> dict[str, Any]:
    split, position = viewer.rows.place(number)
    (key,) = viewer.rows.keys([number])
    return {
        "number": number,
        "key": key,
        "split": split.name,
        "label": int(split.index.label_N[position]),
        "hash": f"{int(split.index.xxh64_N[position]):016x}",
        "decisions": [asdict(one) for one in viewer.decisions.of(Sample(split.name, key))],
    }


def _sample(viewer: Viewer, request: Request) -> dict[str, Any]:
    number = int(request.path_params["number"])
    row = viewer.rows.row(number)
    return {
        **row._asdict(),
        "xxh64": f"{row.xxh64:016x}",
        "decisions": [asdict(one) for one in viewer.decisions.of(Sample(row.split, row.key))],
    }


def _overview(viewer: Viewer, request: Request) -> dict[str, Any]:
    found = overview(viewer.rows)
    for one in found["classes"]:
        one["examples"] = [_cell(viewer, number) for number in one["examples"]]
    return found


def _queue(viewer: Viewer, request: Request) -> dict[str, Any]:
    parameters = dict(request.query_params)
    count = min(int(parameters.pop("count", 50)), MOST_ROWS)
    kind = parameters.get("mark", "").removeprefix("finding:")
    numbers: Any = viewer.answers.numbers(query_of(parameters))
    by_number = viewer.findings_by_number(kind)
    if by_number:
        # The surest first, whatever the order of the shards.
        inside = set(numbers.tolist())
        numbers = [number for number in by_number if number in inside]
    viewer.decisions.read()
    left = queue(numbers, viewer.sample, viewer.decisions, viewer.author)
    following = [by_number[number] for number in left.numbers[:100] if number in by_number]
    return {
        "total": left.total,
        "decided": left.decided,
        "yield": expected(following),
        "items": [_item(viewer, number, by_number.get(number)) for number in left.numbers[:count]],
    }


def _item(viewer: Viewer, number: int, finding: Finding | None) -> dict[str, Any]:
    return {"row": _cell(viewer, number), "finding": None if finding is None else _finding(viewer, finding)}


def _finding(viewer: Viewer, finding: Finding) -> dict[str, Any]:
    other = finding.other
    return {
        "kind": finding.kind,
        "what": finding.what,
        "score": finding.score,
        "message": finding.message,
        "evidence": dict(finding.evidence),
        "proposal": finding.proposal,
        "label": finding.label,
        "other": None if other is None else _cell(viewer, viewer.rows.number(other.split, other.key)),
    }


def _undo(viewer: Viewer, request: Request) -> dict[str, Any]:
    last = viewer.decisions.last(viewer.author)
    if last is None:
        return {"undone": None, "item": None}
    viewer.decisions.add([made(viewer.author, split=last.split, key=last.key, action="undo", of=last.id)])
    number = viewer.rows.number(last.split, last.key)
    return {"undone": asdict(last), "item": _item(viewer, number, viewer.finding_of(number))}


def _save_view(viewer: Viewer, request: Request) -> dict[str, Any]:
    name = request.state.body.get("name", "")
    if not isinstance(name, str):
        raise OptionError("name must be a text")
    said = save_views(viewer.dataset, viewer.decisions, name, overwrite=request.state.body.get("overwrite") is True)
    return {"message": "; ".join(said)}


def _import(viewer: Viewer, request: Request) -> dict[str, Any]:
    text = request.state.body.get("csv", "")
    if not isinstance(text, str):
        raise OptionError("csv must be a text")
    return {"added": from_csv(text, viewer.decisions, viewer.dataset)}


def _decide(viewer: Viewer, request: Request) -> dict[str, Any]:
    values = request.state.body
    if not isinstance(values, dict) or not isinstance(values.get("decisions"), list):
        raise OptionError("decisions must be a list")
    decisions = [made(viewer.author, **_plain(one)) for one in values["decisions"]]
    viewer.decisions.add(decisions)
    return {"decisions": [asdict(one) for one in decisions]}


def _plain(value: object) -> dict[str, Any]:
    known = ("split", "key", "action", "old", "new", "reason", "of")
    if not isinstance(value, dict):
        raise OptionError("a decision must be an object")
    return {name: value[name] for name in known if name in value}
