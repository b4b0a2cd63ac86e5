"""What imgdata writes, orders, draws and reads is what it was when `tests/recorded` was made.

The records are of whole files and long arrays, on purpose: they say that nothing changed, not why it should be so.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recorded import arrays, fixtures, folders

HERE = Path(__file__).parent / "recorded"
WITHIN = 1e-3
"""How far losses and probabilities may be off: sums of floats differ between processors and versions of PyTorch."""


def recorded(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return content


def as_json(value: Any) -> Any:
    """As it comes back from a record."""
    return json.loads(json.dumps(value))


def assert_close(found: Any, expected: Any, within: float, where: str = "") -> None:
    """Equal, but for floats, which may be off by `within`."""
    if isinstance(expected, dict):
        assert sorted(found) == sorted(expected), where
        for key in expected:
            assert_close(found[key], expected[key], within, f"{where} / {key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_close(one, other, within, f"{where} / {number}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=within, rel=within), where
    else:
        assert found == expected, where


def assert_recorded(case: folders.Case, out: Path, expected: dict[str, Any]) -> None:
    """The files of the dataset folder are those recorded; the index to the byte where PyArrow is the same."""
    found = as_json(folders.record(case, out))
    if pa.__version__ != recorded("folders")["pyarrow"]:
        found.pop("indices", None)
        expected = {key: value for key, value in expected.items() if key != "indices"}
    assert found == expected


@pytest.mark.parametrize("name", folders.SHARD)
def test_shard_writes_the_same_files(name: str, tmp_path: Path) -> None:
    case = folders.SHARD[name]
    assert_recorded(case, folders.shard(case, tmp_path), recorded("folders")["shard"][name])


@pytest.mark.parametrize("name", folders.INDEX)
def test_index_writes_the_same_files(name: str, tmp_path: Path) -> None:
    case = folders.INDEX[name]
    assert_recorded(case, folders.index(case, tmp_path), recorded("folders")["index"][name])


def test_export_writes_the_same_files(tmp_path: Path) -> None:
    assert folders.hashes(folders.export(tmp_path)) == recorded("folders")["export"]["folder"]


@pytest.mark.parametrize("what", ["orders", "parameters", "mixes", "noise"])
def test_order_and_draws_are_the_same(what: str) -> None:
    assert_close(as_json(getattr(arrays, what)()), recorded("arrays")[what], 1e-6)


def test_the_dataset_that_was_written_then_is_what_would_be_written_now(tmp_path: Path) -> None:
    fixtures.make_dataset(tmp_path / "dataset")
    now, then = folders.ordered(tmp_path / "dataset"), folders.ordered(fixtures.DATASET)
    assert now.keys() == then.keys()
    # The texts for people and other tools say more than they did, and dataset.json has their hashes.
    changed = {name for name in now if now[name] != then[name]} - {"README.md", "croissant.json", "dataset.json"}
    # Names of the training split that stood in the other one as well have another key there now.
    assert {Path(name).suffix for name in changed} <= {".tar", ".idx", ".parquet"}
    assert all(name.startswith("trees-val") for name in changed)
    assert folders.hashes(tmp_path / "dataset" / "views") == folders.hashes(fixtures.DATASET / "views")


@pytest.mark.parametrize("what", ["views", "loaders", "reports"])
def test_the_dataset_that_was_written_then_gives_the_same(what: str) -> None:
    assert_close(as_json(getattr(fixtures, what)()), recorded("dataset")[what], 2e-5)


def test_a_run_that_was_cut_off_then_goes_on_to_the_same_losses(tmp_path: Path) -> None:
    assert_close(fixtures.resumed(tmp_path), recorded("run")["whole"], WITHIN)


@pytest.mark.parametrize(("name", "settings"), [("whole", fixtures.SETTINGS), ("other", fixtures.OTHER_SETTINGS)])
def test_a_run_from_the_start_comes_to_the_same_losses(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    assert_close(fixtures.whole(tmp_path, settings), recorded("run")[name], WITHIN)


def test_a_run_that_was_written_then_gives_the_same_answers(tmp_path: Path) -> None:
    assert_close(fixtures.answers(tmp_path), recorded("run")["answers"], WITHIN)


def test_a_run_that_was_written_then_is_the_beginning_of_the_one_that_was_not_cut_off() -> None:
    steps = fixtures.course(fixtures.RUN)["steps"]
    assert_close(steps, recorded("run")["whole"]["steps"][: len(steps)], WITHIN)
