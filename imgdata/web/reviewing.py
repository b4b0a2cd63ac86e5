"""A request of the review page -> the queue, decisions on disk, views saved, CSV files taken in."""

from dataclasses import asdict
from typing import Any

from starlette.requests import Request

from imgdata.errors import OptionError
from imgdata.web.answers import MOST_ROWS, cell, cells, finding_answer, whole
from imgdata.web.decisions import Decision, made_together
from imgdata.web.query import query_of
from imgdata.web.review import expected, from_csv, in_conflict, save_views
from imgdata.web.viewer import Viewer

_EXPECTED = 100
_LONGEST_NAME = 80


def queues_answer(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Return what there is to review, and how much of it is decided."""
    viewer.decisions.read()
    decided_M = viewer.decided(_author(viewer, dict(request.query_params)))
    holding = viewer.decisions.holding()
    counts: dict[str, int] = {}
    for by_author in holding.values():
        for action in {one.action for one in by_author.values()}:
            counts[action] = counts.get(action, 0) + 1
    return {
        "findings": [
            {"kind": kind, "total": len(numbers), "decided": int(decided_M[numbers].sum())}
            for kind, numbers in viewer.finding_numbers.items()
        ],
        "conflicts": len(in_conflict(viewer.decisions)),
        "decisions": counts,
        "decided": int(decided_M.sum()),
        "authors": sorted({author for by_author in holding.values() for author in by_author}),
    }


def queue_answer(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Return what is left to decide of a query: what nobody decided on, and the author did not skip.

    Of a set of decisions (`decision:flag`) all is left: a new decision takes a sample out of the set.
    """
    parameters = dict(request.query_params)
    author = _author(viewer, parameters)
    count = min(whole(parameters.pop("count", "50"), "count"), MOST_ROWS)
    mark = parameters.get("mark", "")
    viewer.decisions.read()
    numbers = viewer.answers.numbers(query_of(parameters))
    by_number = viewer.findings_by_number(mark.removeprefix("finding:"))
    decided_M = viewer.decided(author)
    total = len(numbers)
    left_K = numbers if mark.startswith("decision:") else numbers[~decided_M[numbers]]
    left: list[int]
    if by_number:
        # The surest first, whatever the order of the shards.
        inside = set(left_K.tolist())
        left = [number for number in by_number if number in inside]
    else:
        left = left_K[: max(count, _EXPECTED)].tolist()
    following = [by_number[number] for number in left[:_EXPECTED] if number in by_number]
    shown = left[:count]
    return {
        "total": total,
        "decided": total - len(left_K),
        "yield": expected(following),
        "items": [
            {"row": row, "finding": _finding(viewer, number, mark)}
            for number, row in zip(shown, cells(viewer, shown), strict=True)
        ],
    }


def _finding(viewer: Viewer, number: int, mark: str) -> dict[str, Any] | None:
    of_kind = viewer.findings_by_number(mark.removeprefix("finding:")).get(number)
    finding = of_kind or viewer.finding_of(number)
    return None if finding is None else finding_answer(viewer, finding)


def decide_answer(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Write decisions, which are on disk when this returns; one undo takes back what was sent together."""
    values = _body(request)
    each = values.get("decisions")
    if not isinstance(each, list) or not 0 < len(each) <= MOST_ROWS:
        raise OptionError(f"decisions must be a list of 1 to {MOST_ROWS}")
    decisions = made_together(_author(viewer, values), [_plain(one) for one in each])
    viewer.decisions.add(decisions)
    return {"decisions": [asdict(one) for one in decisions]}


def undo_answer(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Take back what the author decided last, and return it."""
    author = _author(viewer, _body(request))
    last = viewer.decisions.last(author)
    if last is None:
        return {"undone": [], "item": None}
    group = viewer.decisions.group(last)
    viewer.decisions.add(
        made_together(author, [{"split": one.split, "key": one.key, "action": "undo", "of": one.id} for one in group])
    )
    return {"undone": [asdict(one) for one in group], "item": _item_of(viewer, group[0])}


def _item_of(viewer: Viewer, decision: Decision) -> dict[str, Any] | None:
    place = (decision.split, decision.key)
    number = viewer.rows.numbers([place]).get(place)
    if number is None:
        return None
    return {"row": cell(viewer, number), "finding": _finding(viewer, number, "")}


def save_view_answer(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Save what was decided as views."""
    values = _body(request)
    name = values.get("name", "")
    if not isinstance(name, str):
        raise OptionError("name must be a text")
    viewer.decisions.read()
    said = save_views(viewer.dataset, viewer.decisions, name, overwrite=values.get("overwrite") is True)
    return {"message": "; ".join(said), "lines": said, "name": name, "folder": str(viewer.dataset.path)}


def import_answer(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Add the decisions of a CSV file."""
    text = _body(request).get("csv", "")
    if not isinstance(text, str):
        raise OptionError("csv must be a text")
    return {"added": from_csv(text, viewer.decisions, viewer.dataset)}


def _body(request: Request) -> dict[str, Any]:
    values = request.state.body
    if not isinstance(values, dict):
        raise OptionError("the request must be an object")
    return values


def _author(viewer: Viewer, values: dict[str, Any]) -> str:
    """Return who decides: the name that the page sends, else the one that the viewer was started with."""
    author = values.pop("author", "") or viewer.author
    if not isinstance(author, str) or len(author) > _LONGEST_NAME or not author.isprintable():
        raise OptionError(f"author must be a name of at most {_LONGEST_NAME} printable characters")
    return author.strip() or viewer.author


def _plain(value: object) -> dict[str, Any]:
    known = ("split", "key", "action", "old", "new", "reason", "of")
    if not isinstance(value, dict):
        raise OptionError("a decision must be an object")
    return {name: value[name] for name in known if name in value}
