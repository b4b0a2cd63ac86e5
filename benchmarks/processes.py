"""A module with a command line -> the JSON that it prints last, run in a fresh process.

The loaders of other projects run in an environment of their own, `.venv-peers`, which has none of what imgdata imports:
so a measuring process is a module of this folder, and not `imgdata.measure.bench.one`; of imgdata it imports only
`imgdata.measure.timing`, which needs NumPy alone. Turns and ratios are those of `imgdata.measure.bench.rounds`.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from benchmarks.report import ROOT

TIMEOUT_S = 600
PLAIN = {"IMGDATA_PILLOW": "plain", "OMP_NUM_THREADS": "1"}
"""Measured with Pillow in one thread, whatever the caller has on its path."""


def run_json(
    module: str,
    *arguments: object,
    python: str | Path = sys.executable,
    env: Mapping[str, str] = PLAIN,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """Return the last line of `python -m MODULE ARGUMENTS`; its own children end with it, whatever they do.

    Raises `click.ClickException` with the end of its standard error where it fails.
    """
    # The caller may have Pillow-SIMD on the path, which another interpreter can't load.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), "-m", module, *map(str, arguments)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**environment, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise click.ClickException(f"{' '.join(command)} took more than {timeout_s:g} s") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise click.ClickException(f"{' '.join(command)} failed:\n{err[-3000:]}")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found
