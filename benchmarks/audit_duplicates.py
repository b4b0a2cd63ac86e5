"""How well copies are found, beside imagededup and CleanVision: `python -m benchmarks.audit_duplicates`.

Makes files (`benchmarks.audit_tiles`), of which each edited one is a copy of one original, and counts the pairs that
each program calls copies: recall by edit, of pictures that pass the gate and of all; precision over all pairs. With
`--save` the figures go to `benchmarks/results/audit_duplicates.json`.
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.audit_tiles import EDITS, EXACT, edit_of, gates_of, origin, write_files
from benchmarks.report import machine, save

Pairs = Iterable[tuple[str, str]]


@click.command()
@click.option("--images", default=50_000, show_default=True, help="Distinct pictures.")
@click.option("--copies", default=1000, show_default=True, help="Edited copies of each kind.")
@click.option("--photographs", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of more.")
@click.option("--peers/--no-peers", default=True, help="Run imagededup and CleanVision as well.")
@click.option("--work", type=click.Path(path_type=Path), help="Folder to keep the files in.")
@click.option("--save", "keep", is_flag=True, help="Write the figures for the documentation.")
def main(images: int, copies: int, photographs: Path | None, peers: bool, work: Path | None, keep: bool) -> None:
    """Make the files, run the programs, print, save."""
    temporary = work or Path(tempfile.mkdtemp(prefix="imgdata-duplicates-"))
    files = temporary / "files"
    if not files.is_dir():
        write_files(files, images, copies, photographs)
    names = sorted(path.name for path in files.iterdir())
    passed = _passed(files, names)
    programs = ["imgdata", *(["imagededup PHash", "imagededup DHash", "CleanVision"] if peers else [])]
    rows = {}
    for name in programs:
        found = _in_process(name, files, temporary)
        rows[name] = {**_scores(found.pop("pairs"), names, passed), **found}
        print(json.dumps({name: rows[name]}), flush=True)
    report = {
        "command": f"python -m benchmarks.audit_duplicates --images {images} --copies {copies}"
        f"{' --photographs photographs' if photographs else ''}{'' if peers else ' --no-peers'} --save",
        **machine(),
        "images": sum(edit_of(name) is None for name in names),
        "clear": sum(passed[name] for name in names if edit_of(name) is None),
        "copies": {edit: sum(edit_of(name) == edit for name in names) for edit in EDITS},
        "programs": rows,
    }
    _print(report)
    if keep:
        save("audit_duplicates", report)
    if work is None:
        shutil.rmtree(temporary)


def _passed(files: Path, names: list[str]) -> dict[str, bool]:
    """Return for each original whether it has enough structure for what is promised."""
    from imgdata.auditing.hashes import CLEAR

    found = {}
    for name in names:
        if edit_of(name) is None:
            with Image.open(files / name) as image:
                found[name] = bool(gates_of([image])[0] >= CLEAR)
    return found


def _scores(pairs: Pairs, names: list[str], passed: dict[str, bool]) -> dict[str, Any]:
    """Return recall by edit, and precision over all pairs of pictures."""
    clear = {origin(name) for name, good in passed.items() if good}
    # Of one picture there are the original and at most one copy.
    right = {origin(one) for one, other in pairs if origin(one) == origin(other)}
    wrong = {frozenset(pair) for pair in pairs if origin(pair[0]) != origin(pair[1])}
    wrong_clear = sum(all(origin(name) in clear for name in pair) for pair in wrong)
    right_clear = len(right & clear)
    recall = {}
    for edit in EDITS:
        copied = {origin(name) for name in names if edit_of(name) == edit}
        recall[edit] = {
            "clear": round(len(copied & clear & right) / max(1, len(copied & clear)), 4),
            "all": round(len(copied & right) / max(1, len(copied)), 4),
        }
    return {
        "recall": recall,
        "precision": round(len(right) / max(1, len(right) + len(wrong)), 5),
        "precision_clear": round(right_clear / max(1, right_clear + wrong_clear), 5),
        "right": len(right),
        "wrong": len(wrong),
        "wrong_clear": wrong_clear,
    }


# --- The programs, each in a process of its own --------------------------------------------------------


def _in_process(name: str, files: Path, work: Path) -> dict[str, Any]:
    out = work / "found.json"
    command = [sys.executable, "-m", "benchmarks.audit_duplicates_run", name, str(files), str(out)]
    begun = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found: dict[str, Any] = json.loads(out.read_text())
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(time.perf_counter() - begun, 1), "cpu_seconds": round(cpu_s, 1), **found}


def _print(report: dict[str, Any]) -> None:
    table = Table(box=None, header_style="bold")
    table.add_column("recall, %")
    for name in report["programs"]:
        table.add_column(name, justify="right")
    for edit in EDITS:
        which = "all" if edit in EXACT else "clear"
        shares = [row["recall"][edit][which] for row in report["programs"].values()]
        table.add_row(edit, *(f"{100 * share:.1f}" for share in shares))
    for figure in ("precision", "precision_clear", "seconds", "cpu_seconds"):
        table.add_row(figure, *(str(row[figure]) for row in report["programs"].values()))
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
