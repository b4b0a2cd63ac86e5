"""Phases that were run -> the report, as JSON: written whole after each phase, beside the phases of runs before."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.card import short
from benchmarks.gpu.figures import figures
from benchmarks.gpu.phases import PHASES
from benchmarks.report import RESULTS, machine
from imgdata.storage.atomic import write_atomic

Report = dict[str, Any]


def final_place(card: str) -> Path:
    """Return the file of a card's results."""
    return RESULTS / f"gpu-{short(card)}.json"


def begin(place: Path, card: str, device: str, words: Sequence[str]) -> Report:
    """Return the report to add to: that in the file, where it is of this card and only some phases are run again."""
    place_and_time = machine()
    fresh = {
        "command": " ".join(["python -m benchmarks.gpu", *words]),
        **place_and_time,
        "card": card,
        "device": device,
        "phases": {},
        "figures": {},
    }
    fresh["machine"] = {**place_and_time["machine"], "gpu": card}
    if "--phase" not in words or not place.exists():
        return fresh
    try:
        before = json.loads(place.read_text())
    except ValueError:
        return fresh
    if not isinstance(before, dict) or before.get("card") != card:
        return fresh
    return {**fresh, "phases": dict(before.get("phases", {}))}


def add(report: Report, name: str, phase: Mapping[str, Any]) -> None:
    """Put in the results of a phase, in the order of the phases, and the figures that follow from all of them."""
    phases = {**report["phases"], name: {"commit": report["commit"], "date": report["date"], **phase}}
    report["phases"] = {one: phases[one] for one in PHASES if one in phases}
    report["figures"] = figures(report["phases"]) if report["device"] != "cpu" else {}
    found = phases.get("machine", {}).get("results", {}).get("versions", {})
    report["versions"] = {**report["versions"], **{one: value for one, value in found.items() if value}}


def write(report: Report, place: Path) -> None:
    """Write it whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(place, (json.dumps(report, indent=2) + "\n").encode())


def problems(report: Report, names: Sequence[str]) -> Iterator[str]:
    """Yield a line for each thing that failed in these phases."""
    for name in names:
        for item, reason in report["phases"][name]["problems"].items():
            yield f"{name}: {item}: {reason}" if item else f"{name}: {reason}"
