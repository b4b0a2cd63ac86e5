"""Figures of a run -> `benchmarks/results/NAME.json`, with what is needed to judge and repeat them."""

import json
import platform
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import PIL

from imgdata.version import __version__

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def machine() -> dict[str, Any]:
    """Date, commit, machine and versions."""
    from imgdata.measure.machine.host import look_at_cpu

    cpu = look_at_cpu()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "machine": {"cpu": cpu.model, "cores": cpu.allowed},
        "versions": {
            "python": platform.python_version(),
            # Pillow-SIMD has no distribution of its own here: its version tells it apart.
            "PIL": PIL.__version__,
            # A checkout that is not installed has a version all the same.
            "imgdata": __version__,
            **_versions("numpy", "simplejpeg", "webdataset"),
        },
    }


def _versions(*names: str) -> dict[str, str]:
    """Return the versions of those that are installed."""
    found = {}
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _commit() -> str:
    """Return the commit of the checkout; empty where there is no repository, or no git."""
    try:
        done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def save(name: str, report: dict[str, Any]) -> None:
    """Write the report, for the documentation and for comparing runs."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
