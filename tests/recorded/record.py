"""Make the records anew: `python tests/recorded/record.py [NAME...]`; see `README.md`."""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

import pyarrow as pa  # noqa: E402

from recorded import arrays, fixtures, folders  # noqa: E402


def record_folders() -> dict[str, Any]:
    found: dict[str, Any] = {"pyarrow": pa.__version__, "shard": {}, "index": {}}
    for command, cases, make in (
        ("shard", folders.SHARD, folders.shard),
        ("index", folders.INDEX, folders.index),
    ):
        for name, case in cases.items():
            found[command][name] = in_folder(lambda work, make=make, case=case: folders.record(case, make(case, work)))
    found["export"] = {"folder": in_folder(lambda work: folders.hashes(folders.export(work)))}
    return found


def record_arrays() -> dict[str, Any]:
    return {
        "orders": arrays.orders(),
        "parameters": arrays.parameters(),
        "mixes": arrays.mixes(),
        "noise": arrays.noise(),
    }


def record_dataset() -> dict[str, Any]:
    def make(work: Path) -> None:
        fixtures.make_dataset(work / "dataset")
        shutil.rmtree(fixtures.DATASET, ignore_errors=True)
        shutil.copytree(work / "dataset", fixtures.DATASET)

    in_folder(make)
    return {"views": fixtures.views(), "loaders": fixtures.loaders(), "reports": fixtures.reports()}


def record_run() -> dict[str, Any]:
    def make(work: Path) -> None:
        fixtures.make_run(work / "run")
        shutil.rmtree(fixtures.RUN, ignore_errors=True)
        shutil.copytree(work / "run", fixtures.RUN)

    in_folder(make)
    return {
        "whole": in_folder(lambda work: fixtures.whole(work, fixtures.SETTINGS)),
        "other": in_folder(lambda work: fixtures.whole(work, fixtures.OTHER_SETTINGS)),
        "answers": in_folder(fixtures.answers),
    }


RECORDS: dict[str, Callable[[], dict[str, Any]]] = {
    "folders": record_folders,
    "arrays": record_arrays,
    "dataset": record_dataset,
    "run": record_run,
}


def in_folder(make: Callable[[Path], Any]) -> Any:
    """What `make` gives, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        return make(Path(folder))


def lines(record: dict[str, Any]) -> str:
    """JSON with a line for each entry of the second level, so that a difference shows which."""
    parts = []
    for name, value in record.items():
        if isinstance(value, dict):
            entries = ",\n".join(f"  {json.dumps(key)}: {json.dumps(one)}" for key, one in value.items())
            parts.append(f" {json.dumps(name)}: {{\n{entries}\n }}")
        else:
            parts.append(f" {json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    for name in sys.argv[1:] or RECORDS:
        (HERE / f"{name}.json").write_text(lines(RECORDS[name]()))
        print(f"recorded {name}")
