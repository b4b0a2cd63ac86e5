"""The command: `python -m benchmarks.gpu [--phase NAME] [--limit FACTOR] [--json PATH]`.

Runs the phases on the GPU of this machine, writes the results after each, prints what failed and the targets. Ends with
1 where anything failed, or where there is no GPU; a target that was missed is no failure. `--device cpu` runs the same
code at tiny sizes up to where a GPU is missed: a proof that it runs, whose figures mean nothing.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.phases import PHASES

_ROOM = 4 * 10**9
"""Bytes that the data take at most."""
_INTERRUPTED = 130


def main(words: Sequence[str]) -> int:
    """Run the command; return what it ends with."""
    wanted = _parsed(words)
    if wanted.device == "cpu":
        card = "no GPU"
        if wanted.json is None:
            return _refuse("--device cpu needs --json PATH: results without a GPU get no name of their own")
    else:
        found = _card()
        if "missing" in found:
            return _refuse(f"it needs an NVIDIA GPU: {found['missing']}")
        card = found["name"]
    try:
        from benchmarks.gpu.report import final_place
    except ImportError as error:
        return _refuse(f"{(error.name or str(error)).partition('.')[0]} is not installed: imgdata can't be imported")
    place = wanted.json or final_place(card)
    with tempfile.TemporaryDirectory(prefix="imgdata-gpu-", dir=_roomy()) as work:
        return _run(wanted, words, card, place, Path(work))


def _run(wanted: argparse.Namespace, words: Sequence[str], card: str, place: Path, work: Path) -> int:
    from benchmarks.gpu import report as reports
    from benchmarks.gpu.runner import run_phase
    from benchmarks.gpu.running import Settings

    names = [name for name in PHASES if not wanted.phase or name in wanted.phase]
    environment, report = _environment(work, wanted.device), reports.begin(place, card, wanted.device, words)
    begun = time.monotonic()
    done: list[str] = []
    for name in names:
        phase = PHASES[name]
        settings = Settings(device=wanted.device, work=str(work), limit_s=round(phase.limit_s * wanted.limit, 1))
        print(f"[{time.monotonic() - begun:3.0f} s] {name}: {phase.what} (at most {settings.limit_s:g} s)", flush=True)
        try:
            found = run_phase(phase, settings, environment)
        except KeyboardInterrupt:
            print(f"interrupted during {name}; {len(done)} phases are in {place}", file=sys.stderr)
            return _INTERRUPTED
        reports.add(report, name, found)
        reports.write(report, place)
        done.append(name)
        verdict = "passed" if found["passed"] else "FAILED"
        print(f"[{time.monotonic() - begun:3.0f} s] {name}: {verdict} in {found['seconds']:g} s", flush=True)
    return _end(report, done, place)


def _end(report: dict[str, object], done: Sequence[str], place: Path) -> int:
    from benchmarks.gpu.page import verdicts
    from benchmarks.gpu.report import problems

    print(f"\n{verdicts(report)}\n\nresults: {place}")
    failed = list(problems(report, done))
    for line in failed:
        print(f"failed: {line}")
    return 1 if failed else 0


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--phase", action="append", choices=PHASES, help="only this one; may be given several times")
    parser.add_argument("--limit", type=_factor, default=1.0, metavar="FACTOR", help="all limits times so much")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results here, not into benchmarks/results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    return parser.parse_args(words)


def _factor(text: str) -> float:
    factor = float(text)
    if not 0 < factor <= 100:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 100, got {text}")
    return factor


def _refuse(reason: str) -> int:
    print(f"make gpu: {reason}", file=sys.stderr)
    return 1


def _card() -> dict[str, str]:
    """Return the GPU's `name`, or what is `missing`."""
    import json

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.card"], capture_output=True, text=True, cwd=_root(), check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"missing": f"PyTorch can't be asked: {lines[-1] if lines else f'it ended with {done.returncode}'}"}
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def _environment(work: Path, device: str) -> dict[str, str]:
    """Return what the phases find in their environment: the checkout as if it were installed, and a cache of theirs."""
    packages = work / "packages"
    packages.mkdir()
    (packages / "imgdata_cli").symlink_to(_root() / "cli")
    path = [str(_root()), str(packages), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "IMGDATA_CACHE": str(work / "cache"),
        "IMGDATA_GPU_WORK": str(work),
        "IMGDATA_PILLOW": "plain",
        **({"IMGDATA_GPU": "1"} if device != "cpu" else {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}),
    }


def _roomy() -> Path | None:
    """Return a folder in memory, so that no disk is measured, where it is large enough; None for the usual one."""
    shm = Path("/dev/shm")
    return shm if shm.is_dir() and shutil.disk_usage(shm).free > _ROOM else None


def _root() -> Path:
    return Path(__file__).resolve().parent.parent.parent


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
