"""A module with a command line -> the JSON that it prints last, run in a fresh process."""

import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.report import ROOT

TIMEOUT_S = 600


def run_json(module: str, *arguments: object) -> dict[str, Any]:
    """The last line of `python -m MODULE ARGUMENTS`. Raises `RuntimeError` with what it said when it fails."""
    # Whoever calls may have Pillow-SIMD on the path: these are measured with Pillow.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**environment, "IMGDATA_PILLOW": "plain", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
