"""A request of a page -> what it shows, as values for JSON: rows, one sample, the overview, runs."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
from starlette.requests import Request

from imgdata.auditing.finding import Finding
from imgdata.errors import ImgdataError, OptionError
from imgdata.views.saved import list_views
from imgdata.web.augmented import recipe_of
from imgdata.web.columns import described
from imgdata.web.decisions import Sample
from imgdata.web.neighbours import members_of, same_class
from imgdata.web.overview import views
from imgdata.web.query import query_of
from imgdata.web.runs import scores, summary
from imgdata.web.viewer import RUN_COLUMNS, Viewer

MOST_ROWS = 500
"""Rows of one answer at most."""
_WORST = 24


def dataset_answer(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Return what every page needs to know."""
    dataset = viewer.dataset
    return {
        "name": dataset.manifest.name,
        "folder": str(dataset.path),
        "splits": [{"name": split.name, "samples": len(split)} for split in viewer.rows.splits],
        "classes": [list(one) for one in dataset.manifest.classes],
        "samples": len(viewer.rows),
        "author": viewer.author,
        "formats": sorted({word for split in viewer.rows.splits for word in split.index.words("format")}),
        "has_json": viewer.has_json,
        "columns": [f"{run.name}.{what}" for run in viewer.runs for what in RUN_COLUMNS],
        "views": list_views(dataset),
        "findings": {kind: len(numbers) for kind, numbers in viewer.finding_numbers.items()},
        "runs": [run.name for run in viewer.runs],
        "has_features": bool(viewer.features),
    }


def columns_answer(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Return the columns of the `json` members. Raises `NotYetError` while they are read."""
    return {"columns": described(viewer.json_columns.get()) if viewer.has_json else []}


def rows_answer(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Return some rows of a query, from `start` on."""
    parameters = dict(request.query_params)
    start, count = whole(parameters.pop("start", "0"), "start"), whole(parameters.pop("count", "100"), "count")
    if start < 0 or not 0 <= count <= MOST_ROWS:
        raise OptionError(f"start must be 0 or more and count 0 to {MOST_ROWS}, got {start} and {count}")
    numbers = viewer.answers.numbers(query_of(parameters))
    return {"total": len(numbers), "start": start, "rows": cells(viewer, numbers[start : start + count].tolist())}


def cells(viewer: Viewer, numbers: Iterable[int]) -> list[dict[str, Any]]:
    """Return what the grid shows of rows."""
    wanted = list(numbers)
    made = []
    for number, key in zip(wanted, viewer.rows.keys(wanted), strict=True):
        split, position = viewer.rows.place(number)
        made.append(
            {
                "number": number,
                "key": key,
                "split": split.name,
                "label": int(split.index.label_N[position]),
                "width": int(split.index.width_N[position]),
                "height": int(split.index.height_N[position]),
                "size": int(split.index.size_N[position]),
                "hash": split.version(position),
                "decisions": [asdict(one) for one in viewer.decisions.of(Sample(split.name, key))],
            }
        )
    return made


def cell(viewer: Viewer, number: int) -> dict[str, Any]:
    """Return what the grid shows of a row."""
    return cells(viewer, [number])[0]


def sample_answer(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Return all of one sample, and what comes before and after it in the query's order."""
    number = int(request.path_params["number"])
    row = viewer.rows.row(number)
    split, position = viewer.rows.place(number)
    faults = []
    fields: dict[str, object] = {}
    members = []
    digest = split.version(position)
    try:
        digest = f"{split.hash(position):016x}"
        fields = split.fields(position)
    except ImgdataError as error:
        faults.append(str(error))
    try:
        members = [one._asdict() for one in members_of(viewer.rows, number)]
    except (ImgdataError, OSError) as error:
        faults.append(str(error))
    return {
        **row._asdict(),
        "xxh64": digest,
        "fields": fields,
        "members": members,
        "faults": faults,
        "decisions": [asdict(one) for one in viewer.decisions.of(Sample(row.split, row.key))],
        "findings": [finding_answer(viewer, one) for one in viewer.findings_of(number)],
        "alike": [{**cell(viewer, other), "kind": kind} for other, kind in viewer.alike.get(number, [])[:_WORST]],
        "same_class": cells(viewer, same_class(viewer.rows, number)),
        **_place(viewer, request, number),
    }


def _place(viewer: Viewer, request: Request, number: int) -> dict[str, Any]:
    numbers = viewer.answers.numbers(query_of(dict(request.query_params)))
    found = np.flatnonzero(numbers == number)
    if not len(found):
        return {"place": None, "total": len(numbers), "previous": None, "next": None}
    place = int(found[0])
    return {
        "place": place,
        "total": len(numbers),
        "previous": int(numbers[place - 1]) if place else None,
        "next": int(numbers[place + 1]) if place + 1 < len(numbers) else None,
    }


def nearest_answer(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Return the rows nearest in features. Raises `NotYetError` while they are read."""
    if not viewer.features:
        return {"nearest": []}
    found = viewer.vectors.get().nearest(int(request.path_params["number"]))
    return {"nearest": [{**cell(viewer, number), "alike": alike} for number, alike in found]}


def recipe_answer(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Return whose recipe makes the pictures that training gets, in words, and the seed."""
    name, split = request.query_params.get("run", ""), request.query_params.get("split", "")
    if split not in viewer.dataset:
        raise OptionError(f"split must be one of {', '.join(viewer.dataset)}, got {split!r}")
    recipe, seed, words = recipe_of(viewer.dataset, split, viewer.run(name) if name else None)
    return {"recipe": words, "seed": seed, "steps": [str(op) for op in recipe.ops]}


def predicted_answer(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Return what a run predicts for one sample."""
    run = viewer.run(request.query_params.get("run", ""))
    split, position = viewer.rows.place(int(request.path_params["number"]))
    return {"run": run.name, "predictions": run.top(split.name, position)}


def overview_answer(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Return what the overview shows, without the predictions of runs."""
    found = dict(viewer.statistics)
    numbers = [number for one in found["classes"][:200] for number in one["examples"]]
    cell_of = {one["number"]: one for one in cells(viewer, numbers)}
    found["classes"] = [
        {**one, "examples": [cell_of[number] for number in one["examples"] if number in cell_of]}
        for one in found["classes"]
    ]
    found["findings"] = [
        {"kind": kind, "samples": len(numbers), "examples": cells(viewer, numbers[:8])}
        for kind, numbers in viewer.finding_numbers.items()
    ]
    found["general"] = [{"kind": one.kind, "message": one.message} for one in viewer.findings if one.place is None][:50]
    found["views"] = views(viewer.dataset)
    found["runs"] = [summary(run) for run in viewer.runs]
    return found


def run_answer(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Return the scores and the worst mistakes of a run. Raises `NotYetError` while it predicts."""
    run = viewer.run(request.query_params.get("run", ""))
    found = run.predicted.get()
    loss_N = np.where(found.right_N, -np.inf, found.loss_N)
    worst = [int(row) for row in np.argsort(-loss_N, kind="stable")[:_WORST] if loss_N[row] > -np.inf]
    numbers = viewer.numbers_of(found)
    shown = cells(viewer, numbers[worst].tolist())
    return {
        **scores(run, found),
        "worst": [
            {
                **one,
                "label_name": run.classes[int(found.label_N[row])][1],
                "predicted": run.classes[int(found.predicted_N[row])][1],
                "probability": float(found.probability_N[row]),
            }
            for row, one in zip(worst, shown, strict=True)
        ],
    }


def finding_answer(viewer: Viewer, finding: Finding) -> dict[str, Any]:
    """Return what the review shows of a finding."""
    other = finding.other
    number = None if other is None else viewer.rows.numbers([(other.split, other.key)]).get((other.split, other.key))
    return {
        "kind": finding.kind,
        "what": finding.what,
        "score": finding.score,
        "message": finding.message,
        "evidence": dict(finding.evidence),
        "proposal": finding.proposal,
        "label": finding.label,
        "other": None if number is None else cell(viewer, number),
    }


def whole(text: str, name: str) -> int:
    """Return a parameter as a whole number. Raises `OptionError`."""
    try:
        return int(text)
    except ValueError:
        raise OptionError(f"{name} must be a whole number, got {text[:40]!r}") from None
