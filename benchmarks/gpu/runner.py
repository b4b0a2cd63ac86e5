"""A phase, its limit -> its notes and how it ended: in a process of its own, ended with all that it started."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.gpu.phases import Phase
from benchmarks.gpu.running import ROOT, Settings, last_line

_PROC = Path("/proc")


def run_phase(phase: Phase, settings: Settings, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return `passed`, `seconds`, `problems`, `not_measured` and `results` of a phase.

    What the phase had found until it ended is kept, however it ended. `problems` and `not_measured` are by item.
    """
    notes, log = (settings.folder / f"{phase.name}.{end}" for end in ("jsonl", "log"))
    notes.write_text("")
    command = [sys.executable, "-m", "benchmarks.gpu.one", phase.module, settings.to_json(), str(notes)]
    begun = time.monotonic()
    with open(log, "w") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stderr=errors,
            # A group of its own, so that all of it can be ended.
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(settings.limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_tree(process.pid)
            process.wait()
    found = gathered([json.loads(line) for line in notes.read_text().splitlines()])
    if code != 0:
        during = f" during {found['unfinished']}" if found["unfinished"] else ""
        found["problems"][""] = (
            f"took more than {settings.limit_s:g} s, and was ended{during}"
            if code is None
            else f"its process ended with {code}{during}: {last_line(log.read_text(errors='replace'))}"
        )
    return {
        "passed": not found["problems"],
        "seconds": round(time.monotonic() - begun, 1),
        "limit_s": settings.limit_s,
        "problems": found["problems"],
        "not_measured": found["not_measured"],
        "results": found["results"],
    }


def gathered(notes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the lines of a phase as `results` by their paths, `problems`, `not_measured`, and the item in progress."""
    results: dict[str, Any] = {}
    problems: dict[str, str] = {}
    not_measured: dict[str, str] = {}
    unfinished = ""
    for line in notes:
        name = ", ".join(line["path"])
        unfinished = name if "begun" in line else ""
        if "failed" in line:
            problems[name] = line["failed"]
        elif "not_measured" in line:
            not_measured[name] = line["not_measured"]
        elif "value" in line:
            inner = results
            for step in line["path"][:-1]:
                inner = inner.setdefault(step, {})
            inner[line["path"][-1]] = line["value"]
    return {"results": results, "problems": problems, "not_measured": not_measured, "unfinished": unfinished}


def end_tree(pid: int) -> None:
    """End a process, its group, and all that they started in groups of their own."""
    found: list[int] = []
    # Stopped first: what is stopped starts nothing more.
    while fresh := [one for one in [pid, *_descendants(pid)] if one not in found]:
        for one in fresh:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGSTOP)
        found += fresh
    for one in found:
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            # A process may end meanwhile.
            with suppress(OSError):
                # The name of the program is in parentheses and may hold any character.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found[1:]
