"""The phases of a report -> the figures that the targets are about, or why there is none."""

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

CORES = 16
_OURS, _DECODING = "imgdata, dali", "decoding alone"
_BY_HAND = "dali"

Figures = dict[str, dict[str, Any]]
"""By name: `value`, perhaps with `beside`, what it was compared with; or `why` there is no value."""


class MissingFigureError(Exception):
    """A figure that can't be made, and why."""


def figures(phases: Mapping[str, Any]) -> Figures:
    """Return all of them."""
    return {name: _figure(make, phases) for name, make in _FIGURES.items()}


def _figure(make: Callable[[Mapping[str, Any]], dict[str, Any]], phases: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return make(phases)
    except MissingFigureError as reason:
        return {"why": str(reason)}


def _at(phases: Mapping[str, Any], phase: str, *path: str) -> Any:
    """Return a result of a phase. Raises `MissingFigureError`."""
    if phase not in phases:
        raise MissingFigureError(f"the phase {phase} was not run")
    found: Any = phases[phase]["results"]
    for step in path:
        if not isinstance(found, Mapping) or step not in found:
            raise MissingFigureError(_reason(phases[phase], path))
        found = found[step]
    if found is None:
        raise MissingFigureError(f"{', '.join(path)}: it has no such figure here")
    return found


def _reason(phase: Mapping[str, Any], path: tuple[str, ...]) -> str:
    """Return what the phase says of an item without a result, or of the items around it."""
    said = {**phase["not_measured"], **phase["problems"]}
    for length in range(len(path), 0, -1):
        name = ", ".join(path[:length])
        if name in said:
            return f"{name}: {said[name]}"
    if said.get(""):
        return str(said[""])
    # Without pictures nothing else was tried.
    return f"pictures: {said['pictures']}" if "pictures" in said else f"{', '.join(path)}: it was not reached"


def _against_best(dtype: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return ours against the fastest other loader that was measured; DALI by hand must be among them."""

    def make(phases: Mapping[str, Any]) -> dict[str, Any]:
        ours = _at(phases, "loaders", dtype, _OURS, "rounds")
        _at(phases, "loaders", dtype, _BY_HAND)
        rows = _at(phases, "loaders", dtype)
        others = {name: row for name, row in rows.items() if name != _DECODING and not name.startswith("imgdata")}
        best = max(others, key=lambda name: float(others[name]["images_per_s"]))
        return {"value": _ratio(ours, others[best]["rounds"]), "beside": best}

    return make


def _against_decoding(phases: Mapping[str, Any]) -> dict[str, Any]:
    ours, alone = (_at(phases, "loaders", "float16", name, "rounds") for name in (_OURS, _DECODING))
    return {"value": _ratio(ours, alone)}


def _ratio(ours: list[float], its: list[float]) -> float:
    return round(median(own / other for own, other in zip(ours, its, strict=False)), 4)


def _network(name: str, figure: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    return lambda phases: {"value": _at(phases, "end_to_end", "networks", name, figure)}


def _best_resident(phases: Mapping[str, Any]) -> dict[str, Any]:
    """Return the faster of the two ways to train the small network: as it is, or compiled."""
    plain = _at(phases, "end_to_end", "networks", "resnet9, 1024", "real_images_per_s")
    try:
        compiled = _at(phases, "end_to_end", "networks", "resnet9, 1024, compiled", "real_images_per_s")
    except MissingFigureError:
        compiled = 0.0
    return {"value": max(plain, compiled), "beside": "compiled" if compiled > plain else "as it is"}


def _threads(phases: Mapping[str, Any]) -> dict[str, Any]:
    rows = _at(phases, "loaders", "cpu threads")
    if str(CORES) not in rows:
        raise MissingFigureError(f"fewer than {CORES} cores")
    one = _at(phases, "loaders", "cpu threads", "1", "images_per_s")
    return {"value": round(rows[str(CORES)]["images_per_s"] / one, 3)}


def _python(phases: Mapping[str, Any]) -> dict[str, Any]:
    return {"value": _at(phases, "loaders", "python", _OURS, "python_us_per_image")}


def _memory(phases: Mapping[str, Any]) -> dict[str, Any]:
    return {"value": _at(phases, "faults", "memory", "last_to_first")}


_FIGURES: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "loader_float16": _against_best("float16"),
    "loader_uint8": _against_best("uint8"),
    "decoding": _against_decoding,
    "resnet50": _network("resnet50, 256", "ratio"),
    "resnet18": _network("resnet18, 256", "ratio"),
    "resnet9_1024": _network("resnet9, 1024", "ratio"),
    "resnet9_512": _network("resnet9, 512", "ratio"),
    "resident": _best_resident,
    "python_us": _python,
    "threads": _threads,
    "memory": _memory,
}
