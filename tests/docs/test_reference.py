"""Generated parts of the pages: they are what the code and the recorded runs say today."""

import json
import re
import subprocess
import sys

import pytest

import imgdata
from benchmarks import recorded
from support.pages import PAGES, reference
from support.places import REPOSITORY

README = (REPOSITORY / "README.md").read_text()


def test_generated_parts_are_up_to_date():
    # In a process of its own: click remembers the help of a command as it was when a test called the command alone.
    command = [sys.executable, REPOSITORY / "docs" / "reference.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_public_name_has_its_place_in_the_reference():
    page = (REPOSITORY / "docs" / "python-api.md").read_text()
    missing = [name for name in imgdata.__all__ if f"### imgdata.{name}\n" not in page]
    assert set(missing) <= {"__version__", "recipes", "views"}


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/architecture.md"])
def test_pages_name_nothing_deeper_than_the_public_names(page):
    text = (REPOSITORY / page).read_text()
    named = set(re.findall(r"(?<![\w/.-])imgdata\.([a-zA-Z_]+)", text))
    assert named <= set(imgdata.__all__)
    for namespace in ("recipes", "views"):
        inside = set(re.findall(rf"(?<![\w/.-])imgdata\.{namespace}\.(\w+)", text))
        assert [name for name in inside if not hasattr(getattr(imgdata, namespace), name)] == []


def test_every_command_has_its_place_in_the_reference():
    page = (REPOSITORY / "docs" / "commands.md").read_text()
    assert [name for name in reference.cli.commands if f"\n## imgdata {name}\n" not in page] == []


def test_what_stands_between_other_lines_stays():
    page = "before\n\n<!-- help models -->\n\nold\n\n<!-- end -->\n\nafter\n"
    filled = reference.fill(page)
    assert filled.startswith("before\n\n<!-- help models -->\n\n```text title=")
    assert filled.endswith("```\n\n<!-- end -->\n\nafter\n")
    assert "old" not in filled
    assert reference.fill(filled) == filled


def test_the_first_table_is_that_of_the_recorded_run():
    rows = json.loads((recorded.RESULTS / "loaders.json").read_text())["results"]["float32_2"]
    assert f"| **imgdata** | **{rows['imgdata']['images_per_s']:,.0f}** |" in README
    theirs = rows["torchvision v2"]
    assert f"| {theirs['images_per_s']:,.0f} | {theirs['cpu_ms_per_image']:.2f} |" in README


def test_the_first_table_hides_no_faster_loader():
    rows = json.loads((recorded.RESULTS / "loaders.json").read_text())["results"]["float32_2"]
    rates = {name: row["images_per_s"] for name, row in rows.items() if row["antialias"] and name != "imgdata"}
    assert f"| {max(rates.values()):,.0f} |" in README


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150
