"""Random examples: the same ones in `make test`, new ones in `make explore`, whose failures are kept and replayed.

Plug-in of pytest. A failing example is saved in `tests/found_cases.json`: the test, what Hypothesis drew for it in its
own notation, and for readers the example and the error. Every later run of that test replays it first.
"""

import json
import os
import re
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck
from hypothesis.errors import DidNotReproduce
from hypothesis.internal.conjecture import providers

from support.places import TESTS

FILE = Path(os.environ.get("IMGDATA_FOUND_CASES") or TESTS / "found_cases.json")
UNTIL = float(os.environ.get("IMGDATA_EXPLORE_UNTIL") or 0)
"""When `make explore` ends, in seconds since 1970; 0 in every other run."""

# A busy machine is no fault of a test: no example has a deadline, none is drawn too slowly.
COMMON: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
hypothesis.settings.register_profile("same", **COMMON, derandomize=True)
hypothesis.settings.register_profile(
    "new", **COMMON, database=None, max_examples=300, print_blob=True, report_multiple_bugs=False
)
hypothesis.settings.load_profile("new" if UNTIL else "same")

if not UNTIL:
    # Hypothesis also draws numbers and words that stand in the modules imported so far. Which those are depends on the
    # tests that are run together, and on the path of the repository.
    providers._get_local_constants = providers.Constants


def cases() -> list[dict[str, str]]:
    """Return what is kept: `test`, `drawn`, `example` and `error` of each case."""
    return json.loads(FILE.read_text()) if FILE.exists() else []


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Replay the kept cases of a test, then run it."""
    if not UNTIL:
        names = pyfuncitem._fixtureinfo.argnames
        arguments = {name: pyfuncitem.funcargs[name] for name in names}
        for case in cases():
            if case["test"] == pyfuncitem.nodeid:
                replay(pyfuncitem.obj, arguments, case["drawn"])
    return (yield)


def replay(test: Any, arguments: dict[str, Any], drawn: str) -> None:
    """Run a test of Hypothesis with one example; an example that fails no more is as good as a passed one."""
    hypothesis.reproduce_failure(hypothesis.__version__, drawn.encode())(test)
    try:
        test(**arguments)
    except DidNotReproduce:
        pass
    finally:
        test._hypothesis_internal_use_reproduce_failure = None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is left when the time of `make explore` is over."""
    if UNTIL and time.time() > UNTIL:
        pytest.skip("the time is over")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the example of a test that failed in `make explore`."""
    if UNTIL and report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        text = report.longreprtext
        if found := re.search(r"@reproduce_failure\('[^']+', b'([^']+)'\)", text):
            keep(report.nodeid, found[1], text)


def keep(test: str, drawn: str, text: str) -> None:
    """Write a case into the file, with the example and the error that `text`, the report, names."""
    kept = cases()
    if any((case["test"], case["drawn"]) == (test, drawn) for case in kept):
        return
    # As pytest shows errors: `E` stands before each line of them.
    said = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
    example = re.search(r"(?:Failing test case|Falsifying example): (.*?) (?:You can reproduce|$)", " ".join(said))
    case = {
        "test": test,
        "drawn": drawn,
        "example": " ".join(example[1].split()) if example else "",
        "error": said[0] if said else "",
    }
    FILE.write_text(json.dumps(sorted([*kept, case], key=lambda case: case["test"]), indent=1) + "\n")
