"""Every state in which a crash or a power cut may leave what a writer writes -> how often nothing is lost: counts.

`python -m benchmarks.reliability --save` writes `benchmarks/results/reliability.json`. The states, and what is asserted
of each, are those of `tests/storage/test_crash_prefixes.py`. Temporary folders are made where `TMPDIR` says.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.recorded import recorded
from benchmarks.report import ROOT, machine, save

sys.path.insert(0, str(ROOT / "tests"))


def main() -> int:
    """Replay the crashes of every writer, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/reliability.json")
    parser.add_argument("--only", nargs="*", help="names of writers; the counts of others stay")
    arguments = parser.parse_args()
    from support.crashes import WORKS

    rows = [measure(name) for name in WORKS if not arguments.only or name in arguments.only]
    if arguments.save:
        if arguments.only:
            # What is not counted anew stays.
            counted = {row["writer"]: row for row in [*recorded()["reliability"]["writers"], *rows]}
            rows = [counted[name] for name in WORKS if name in counted]
        save("reliability", {**machine(), "writers": rows})
    return int(any(row[kind]["lost"] for row in rows for kind in ("killed", "powerless")))


def measure(name: str) -> dict[str, Any]:
    """Return how many states there are of a writer, and how they read."""
    from support.crashes import WORKS, replay, trace_of
    from support.traces import killed, powerless

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        work = WORKS[name](place)
        trace, old, new, end = trace_of(work, place / "out")
        row: dict[str, Any] = {"writer": name, "steps": len(trace.steps)}
        for kind, states in (("killed", killed), ("powerless", powerless)):
            crashes = states(trace)
            counts, wrong = replay(work, crashes, old, new, end, place)
            found = {how: counts[how] for how in ("old", "new", "error")}
            row[kind] = {"states": len(crashes), **found, "lost": len(wrong)}
            print(f"{name}, {kind}: {row[kind]}", *wrong, sep="\n", flush=True)
    return row


if __name__ == "__main__":
    raise SystemExit(main())
