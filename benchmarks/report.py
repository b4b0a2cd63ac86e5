"""Figures of a run -> `benchmarks/results/NAME.json`, with what is needed to judge and repeat them."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import PIL

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def machine() -> dict[str, Any]:
    """Date, commit, machine and versions."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "machine": {"cpu": _cpu_model(), "cores": len(os.sched_getaffinity(0))},
        "versions": {
            "python": platform.python_version(),
            # Pillow-SIMD has no distribution of its own here: its version tells it apart.
            "PIL": PIL.__version__,
            **{name: version(name) for name in ("imgdata", "numpy", "simplejpeg", "webdataset")},
        },
    }


def save(name: str, report: dict[str, Any]) -> None:
    """Write the report, for the documentation and for comparing runs."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
