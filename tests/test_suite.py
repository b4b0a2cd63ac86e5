"""The tests themselves: the same examples in each run, found cases kept, every test with a claim."""

import ast
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import found_cases
from support.places import REPOSITORY, TESTS

FILES = sorted(TESTS.rglob("test_*.py"))
PROPERTY = """
from hypothesis import given
from hypothesis import strategies as st

{more}
@given(st.integers(0, 10**9), st.data())
def test_small(number, data):
    words = data.draw(st.lists(st.integers(0, 9)))
    print("drawn", number, words)
    assert number < {limit} or len(words) < 2
"""


def run(folder: Path, limit: int, *, minutes: float = 0, more: str = "") -> subprocess.CompletedProcess[str]:
    """Run pytest on `PROPERTY` alone, as `make test` does, or for `minutes` as `make explore` does."""
    (folder / "test_rule.py").write_text(PROPERTY.format(limit=limit, more=more))
    environment = os.environ | {
        "IMGDATA_FOUND_CASES": str(folder / "found.json"),
        "IMGDATA_EXPLORE_UNTIL": str(time.time() + 60 * minutes) if minutes else "",
        "PYTHONPATH": os.pathsep.join(map(str, (TESTS, folder))),
    }
    environment.pop("PYTEST_XDIST_WORKER", None)
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-p", "support.found_cases"]
    return subprocess.run(
        [*command, "test_rule.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def drawn(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the examples that a run of `PROPERTY` printed."""
    return re.findall(r"^drawn (.*)", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_what_exploring_finds_is_kept_and_replayed_until_it_is_mended(tmp_path: Path) -> None:
    explored = run(tmp_path, 1000, minutes=2)
    assert explored.returncode == 1, explored.stdout + explored.stderr
    (case,) = json.loads((tmp_path / "found.json").read_text())
    assert case["test"] == "test_rule.py::test_small"
    assert "number=1000" in case["example"]
    assert "Draw 1: [0, 0]" in case["example"]
    assert "1000 < 1000" in case["error"]
    replayed = run(tmp_path, 1000)
    assert (replayed.returncode, drawn(replayed)) == (1, ["1000 [0, 0]"])
    mended = run(tmp_path, 10**9 + 1)
    assert mended.returncode == 0, mended.stdout
    assert drawn(mended)[0] == "1000 [0, 0]"
    assert len(drawn(mended)) > 50


@pytest.mark.slow
def test_examples_depend_neither_on_other_modules_nor_on_the_run(tmp_path: Path) -> None:
    (tmp_path / "numbers_of_a_module.py").write_text(f"NUMBERS = {list(range(900_000_000, 900_000_900, 9))}\n")
    alone, beside = (run(tmp_path, 10**9 + 1, more=more) for more in ("", "import numbers_of_a_module"))
    assert alone.returncode == beside.returncode == 0, alone.stdout + beside.stdout
    assert drawn(alone) == drawn(beside)


def test_kept_cases_are_of_tests_that_exist() -> None:
    for case in found_cases.cases():
        file, _, name = case["test"].partition("::")
        assert f"def {name.partition('[')[0]}(" in (REPOSITORY / file).read_text()


def claims(function: ast.FunctionDef, helpers: set[str], lines: list[str]) -> bool:
    """Return whether a test asserts something, itself or in a function beside it, or says why it does not."""
    if any("# Asserts nothing: " in line for line in lines[function.lineno - 1 : function.end_lineno]):
        return True
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in ("raises", "warns") or "assert" in name or name in helpers:
                return True
    return False


def test_every_test_asserts_something() -> None:
    without = set()
    for path in FILES:
        text = path.read_text()
        lines = text.splitlines()
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        others = [one for one in functions if not one.name.startswith("test_")]
        helpers = {one.name for one in others if any(isinstance(node, ast.Assert) for node in ast.walk(one))}
        without |= {one.name for one in functions if one not in others and not claims(one, helpers, lines)}
    assert without == set(), "add an assertion, or a comment `# Asserts nothing: ...` that says what would fail"


def test_the_readme_names_every_folder_and_every_helper() -> None:
    text = (TESTS / "README.md").read_text()
    folders = {path.parent.relative_to(TESTS).as_posix() for path in FILES} - {"."}
    helpers = {path.name for path in (TESTS / "support").glob("*.py")} - {"__init__.py"}
    assert [name for name in sorted(folders) if f"`{name}/`" not in text] == []
    assert [name for name in sorted(helpers) if f"`{name}`" not in text] == []


def test_the_makefile_leaves_out_files_that_exist_where_tests_run_again_with_pillow() -> None:
    text = (REPOSITORY / "Makefile").read_text().replace("\\\n", " ")
    [names] = re.findall(r"^ONLY_WRITTEN := (.*)$", text, re.MULTILINE)
    assert [name for name in names.split() if not (TESTS / f"{name}.py").is_file()] == []


def test_files_of_tests_have_names_of_their_own() -> None:
    # Without packages, pytest takes two of one name for the same module.
    names = [path.name for path in FILES]
    assert sorted(names) == sorted(set(names))
