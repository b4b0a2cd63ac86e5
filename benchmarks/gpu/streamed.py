"""pytest plug-in of the phase `suite`: writes a line when a test begins, and one as soon as it has ended."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

_WORDS = 300


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that another process has run."""
    done = set(json.loads((_folder() / "done.json").read_text()))
    if out := [item for item in items if item.nodeid in done]:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item.nodeid not in done]


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Write that a file could not be imported."""
    if report.failed:
        _write(report.nodeid, "failed", None, str(report.longrepr))


def pytest_runtest_logstart(nodeid: str) -> None:
    """Write that a test begins."""
    _write(nodeid, "begun", None, "")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write how a test went: its call, or what went wrong before or after it."""
    if report.when == "call" or not report.passed:
        seconds = round(report.duration, 2)
        _write(report.nodeid, report.outcome, seconds, "" if report.passed else _text(report.longrepr))


def _write(test: str, outcome: str, seconds: float | None, text: str) -> None:
    row: dict[str, Any] = {"test": test, "outcome": outcome, "seconds": seconds, "message": _short(text)}
    with open(_folder() / "tests.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")


def _text(found: Any) -> str:
    """Return a traceback; of a skipped test, whose report is (file, line, reason), the reason."""
    return str(found[2]) if isinstance(found, tuple) else str(found)


def _short(text: str) -> str:
    """Return the line of a traceback that names the error, or its last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("E").strip() for line in lines if line.startswith("E  ")]
    return (errors[0] if errors else lines[-1] if lines else "")[:_WORDS]


def _folder() -> Path:
    return Path(os.environ["IMGDATA_GPU_TESTS"])
