"""The phase `suite`: the tests that need a GPU -> passed, failed, skipped or crashed, one by one.

Each result is written as soon as the test ends. Where a test ends the whole process, those behind it run in another.
"""

import json
import os
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

from benchmarks.gpu.running import ROOT, Running, last_line, plain

_TESTS = ROOT / "tests"
_MARKERS = ("mark.gpu", "on_devices")
"""Words of a test file that has tests for a GPU: the marker, and that of tests which run on the processor as well."""
_END_S = 1.0
"""Seconds in which what was found is noted, before the phase itself is ended."""
_PASSED, _FAILED = 0, 1
"""Exit codes of pytest after a whole run."""


def run(phase: Running) -> None:
    """Run all, note each, and how many there were."""
    try:
        import_module("pytest")
    except ImportError:
        phase.fail("tests", reason="pytest is not installed")
        return
    results, code, words = outcomes(phase, gpu_files()[: phase.sizes.test_files])
    phase.note("tests", value=results)
    wrong = {name: result for name, result in results.items() if result["outcome"] in ("failed", "crashed")}
    for name, result in wrong.items():
        phase.fail("tests", name, reason=f"{result['outcome']}: {result['message']}")
    kinds = [result["outcome"] for result in results.values()]
    phase.note("counts", value={kind: kinds.count(kind) for kind in sorted(set(kinds))})
    if code is None:
        phase.fail(
            "tests", reason=f"{len(results)} tests were run within {phase.settings.limit_s:g} s; others were left"
        )
    elif code not in (_PASSED, _FAILED) and not wrong:
        phase.fail("tests", reason=f"pytest ended with {code}: {words}")


def outcomes(phase: Running, files: list[str]) -> tuple[dict[str, dict[str, Any]], int | None, str]:
    """Return `outcome`, `seconds` and `message` of each test, what pytest ended with, and its last words.

    Where time was up pytest ended with None, and the tests that it had not reached are missing.
    """
    results: dict[str, dict[str, Any]] = {}
    while True:
        code, words = _pytest(phase, files, sorted(results))
        fresh, unfinished = _read(phase)
        results |= fresh
        if unfinished is None or unfinished in results:
            return results, code, words
        # It ended the process, or took all the time, and is not tried again.
        message = "no time was left" if code is None else f"its process ended with {code}"
        results[unfinished] = {"outcome": "crashed", "seconds": None, "message": message}
        if code is None:
            return results, code, words


def gpu_files() -> list[str]:
    """Return the test files that mention the marker: others need not even be importable here."""
    return sorted(
        str(path.relative_to(ROOT))
        for path in _TESTS.rglob("test_*.py")
        if any(word in path.read_text() for word in _MARKERS)
    )


def _pytest(phase: Running, files: list[str], done: list[str]) -> tuple[int | None, str]:
    """Run the tests but those that are done; return what pytest ended with, None at the limit, and its last words."""
    folder = phase.settings.folder
    (folder / "tests.jsonl").write_text("")
    (folder / "done.json").write_text(json.dumps(done))
    environment = {**os.environ, "IMGDATA_GPU_TESTS": str(folder), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    if not phase.settings.on_gpu:
        environment.pop("IMGDATA_GPU", None)
    command = [sys.executable, "-m", "pytest", *files, "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "benchmarks.gpu.streamed", "--continue-on-collection-errors", "--basetemp", str(folder / "tmp")]
    log = folder / "pytest.log"
    code: int | None = None
    with open(log, "w") as output, suppress(subprocess.TimeoutExpired):
        limit_s = max(phase.left_s - _END_S, 0.1)
        code = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False, timeout=limit_s
        ).returncode
    return code, last_line(log.read_text(errors="replace"))


def _read(phase: Running) -> tuple[dict[str, dict[str, Any]], str | None]:
    """Return the results of the last process by test, and the test that it was in when it ended."""
    results: dict[str, dict[str, Any]] = {}
    unfinished = None
    for line in (phase.settings.folder / "tests.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["outcome"] == "begun":
            unfinished = row["test"]
            continue
        unfinished = None
        message = plain(row["message"]) if row["message"] else ""
        results[row["test"]] = {"outcome": row["outcome"], "seconds": row["seconds"], "message": message}
    return results, unfinished
