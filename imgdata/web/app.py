"""Addresses -> answers: pages, pictures, JSON."""

import json
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from imgdata.errors import ImgdataError
from imgdata.web import answers, pictures, reviewing
from imgdata.web.later import NotYetError
from imgdata.web.review import to_csv
from imgdata.web.viewer import Viewer

STATIC = Path(__file__).parent / "static"

Answer = Callable[[Viewer, Request], Any]
Picture = Callable[[Viewer, Request], Awaitable[Response]]

GET: dict[str, Answer] = {
    "dataset": answers.dataset_answer,
    "columns": answers.columns_answer,
    "rows": answers.rows_answer,
    "sample/{number:int}": answers.sample_answer,
    "nearest/{number:int}": answers.nearest_answer,
    "recipe": answers.recipe_answer,
    "predicted/{number:int}": answers.predicted_answer,
    "overview": answers.overview_answer,
    "run": answers.run_answer,
    "queues": reviewing.queues_answer,
    "queue": reviewing.queue_answer,
}
POST: dict[str, Answer] = {
    "decisions": reviewing.decide_answer,
    "undo": reviewing.undo_answer,
    "import": reviewing.import_answer,
    "save-view": reviewing.save_view_answer,
}
"""All that writes: decisions and views in the dataset's folder, nothing else."""
PICTURES: dict[str, Picture] = {
    "thumb/{number:int}/{side:int}": pictures.thumb,
    "picture/{number:int}": pictures.picture,
    "augmented/{number:int}/{epoch:int}": pictures.trained_on,
    "heat/{number:int}": pictures.heat,
}


def create_app(viewer: Viewer) -> Starlette:
    """Return the app, without the guard of `imgdata.web.security`, which must stand before it."""

    def api(answer: Answer) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            return await _answered(answer, viewer, request)

        return endpoint

    def shown(answer: Picture) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            return await answer(viewer, request)

        return endpoint

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
            *(Route(f"/{path}", shown(answer)) for path, answer in PICTURES.items()),
            Route("/api/decisions.csv", csv_file),
            *(Route(f"/api/{path}", api(answer)) for path, answer in GET.items()),
            *(Route(f"/api/{path}", api(answer), methods=["POST"]) for path, answer in POST.items()),
        ]
    )


async def _answered(answer: Answer, viewer: Viewer, request: Request) -> Response:
    """Run an answer in a thread; faults of the request are JSON with one message."""
    try:
        if request.method == "POST":
            request.state.body = json.loads(await request.body() or b"{}")
        found = await run_in_threadpool(answer, viewer, request)
        return JSONResponse(_plain(found))
    except NotYetError as error:
        return JSONResponse({"waiting": error.what, "done": error.done, "total": error.total}, 202)
    except ImgdataError as error:
        return pictures.refusal(error)
    except (IndexError, KeyError) as error:
        return JSONResponse({"error": f"there is none: {error}"}, 404)
    except (ValueError, RecursionError) as error:
        return JSONResponse({"error": str(error)}, 400)


def _plain(value: Any) -> Any:
    """Return a value as JSON takes it: numbers that are none become null."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
