"""How well copies are found, beside imagededup and CleanVision: `python -m benchmarks.audit_duplicates`.

Makes files (`benchmarks.audit_tiles`), of which each edited one is a copy of one original, and counts the pairs that
each program calls copies: recall by edit, of clear pictures, of CIFAR-shaped ones among them, and of all; precision
over all pairs. With `--save` the figures go to `benchmarks/results/audit_duplicates.json`.
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

from benchmarks.audit_tiles import EDITS, EXACT, SMALL, edit_of, gates_of, origin, write_files
from benchmarks.report import RESULTS, machine, save
from imgdata.auditing.hashes import CLEAR

Pairs = Iterable[tuple[str, str]]
PROGRAMS = ("imgdata", "imagededup PHash", "imagededup DHash", "CleanVision")


@click.command()
@click.option("--images", default=50_000, show_default=True, help="Distinct pictures.")
@click.option("--copies", default=1000, show_default=True, help="Edited copies of each kind.")
@click.option("--photographs", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of more.")
@click.option("--program", "programs", multiple=True, type=click.Choice(PROGRAMS), help="Which to run.  [default: all]")
@click.option("--work", type=click.Path(path_type=Path), help="Folder to keep the files in.")
@click.option("--save", "keep", is_flag=True, help="Write the figures for the documentation.")
def main(
    images: int, copies: int, photographs: Path | None, programs: tuple[str, ...], work: Path | None, keep: bool
) -> None:
    """Make the files, run the programs, print, save."""
    temporary = work or Path(tempfile.mkdtemp(prefix="imgdata-duplicates-"))
    files = temporary / "files"
    if not files.is_dir():
        write_files(files, images, copies, photographs)
    names = sorted(path.name for path in files.iterdir())
    groups = _groups(files, names)
    rows = {}
    for name in programs or PROGRAMS:
        found = _in_process(name, files, temporary)
        rows[name] = {**_scores(found.pop("pairs"), names, groups), **found}
        print(json.dumps({name: rows[name]}), flush=True)
    report = {
        "command": f"python -m benchmarks.audit_duplicates --images {images} --copies {copies}"
        f"{' --photographs photographs' if photographs else ''}"
        f"{''.join(f' --program {chr(34)}{name}{chr(34)}' for name in programs)} --save",
        **machine(),
        "images": sum(edit_of(name) is None for name in names),
        "groups": {group: len(numbers) for group, numbers in groups.items()},
        "copies": {edit: sum(edit_of(name) == edit for name in names) for edit in EDITS},
        "programs": rows,
    }
    _print(report)
    if keep:
        save("audit_duplicates", _recorded() | {f"{images}": report})
    if work is None:
        shutil.rmtree(temporary)


def _recorded() -> dict[str, Any]:
    path = RESULTS / "audit_duplicates.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _groups(files: Path, names: list[str]) -> dict[str, set[int]]:
    """Return the numbers of originals that are clear, of those the small ones and the others, and of all."""
    found: dict[str, set[int]] = {"clear": set(), "small": set(), "all": set()}
    for name in names:
        if edit_of(name) is None:
            with Image.open(files / name) as image:
                clear, small = bool(gates_of([image])[0] >= CLEAR), max(image.size) <= SMALL
            found["all"].add(origin(name))
            if clear:
                found["small" if small else "clear"].add(origin(name))
    return found


def _scores(pairs: Pairs, names: list[str], groups: dict[str, set[int]]) -> dict[str, Any]:
    """Return recall by edit and group, and precision over all pairs, and those of clear pictures."""
    clear = groups["clear"] | groups["small"]
    # Of one picture there are the original and at most one copy.
    right = {origin(one) for one, other in pairs if origin(one) == origin(other)}
    wrong = {frozenset(pair) for pair in pairs if origin(pair[0]) != origin(pair[1])}
    wrong_clear = sum(all(origin(name) in clear for name in pair) for pair in wrong)
    recall = {}
    for edit in EDITS:
        copied = {origin(name) for name in names if edit_of(name) == edit}
        recall[edit] = {
            group: round(len(copied & numbers & right) / max(1, len(copied & numbers)), 4)
            for group, numbers in groups.items()
        }
    return {
        "recall": recall,
        "precision": round(len(right) / max(1, len(right) + len(wrong)), 5),
        "precision_clear": round(len(right & clear) / max(1, len(right & clear) + wrong_clear), 5),
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
    table.add_column("recall, of CIFAR-shaped ones apart")
    for name in report["programs"]:
        table.add_column(name, justify="right")
    for edit in EDITS:
        rows = [row["recall"][edit] for row in report["programs"].values()]
        shown = [[row["all"]] if edit in EXACT else [row["clear"], row["small"]] for row in rows]
        table.add_row(edit, *(" / ".join(f"{share:.1%}" for share in shares) for shares in shown))
    for figure in ("precision", "precision_clear", "seconds", "cpu_seconds"):
        table.add_row(figure, *(str(row[figure]) for row in report["programs"].values()))
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
