"""A wheel of dist/ -> whether it installs, imports and passes the tests of the compiled part where nothing else is.

The environment is new, holds no PyTorch, and sees neither a compiler nor headers.
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / "build" / "wheel" / "check"
NEEDED_BY_TESTS = ("hypothesis", "pytest", "pytest-timeout", "scikit-image", "scikit-learn")
"""The last two for their photographs."""

IMPORTED = """
from importlib.util import find_spec

from imgdata import native

assert native.AVAILABLE, "the extension can't be imported"
assert find_spec("torch") is None, "PyTorch was installed"
assert ("avx2" in native.SIMD) == (" avx2" in open("/proc/cpuinfo").read()), native.SIMD
libraries = {line.split()[-1] for line in open("/proc/self/maps") if "libjpeg" in line}
assert not libraries, libraries
print(f"libjpeg-turbo {native.libjpeg_version()}, {'/'.join(native.SIMD)}, in {native._compiled.__file__}")
"""


def run(*command: str | Path) -> str:
    """Return what a command prints, which finds the environment's own programs alone; exit where it fails."""
    environment = {"HOME": str(FOLDER), "PATH": str(FOLDER / "env" / "bin"), "TMPDIR": str(FOLDER)}
    kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.endswith("_PROXY")}
    done = subprocess.run(command, cwd=FOLDER, env=environment | kept, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"make wheel: {' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")
    return done.stdout


def check(wheel: Path) -> None:
    """Install the wheel in an empty environment, and try it there."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    venv.create(FOLDER / "env", with_pip=True)
    python = FOLDER / "env" / "bin" / "python"
    quiet = ("--disable-pip-version-check", "--quiet", "--quiet")
    pip = (python, "-m", "pip", *quiet, "install", "--only-binary", ":all:")
    run(*pip, "--constraint", REPOSITORY / "constraints.txt", wheel)
    (packages,) = (FOLDER / "env").glob("lib/python*/site-packages")
    size = sum(file.stat().st_size for file in packages.rglob("*") if file.is_file())
    print(f"Installed: {size / 1e6:.0f} MB with everything that imgdata needs")
    print(run(python, "-c", IMPORTED).strip().replace(f"{packages}/", ""))
    run(*pip, "--constraint", REPOSITORY / "constraints.txt", *NEEDED_BY_TESTS)
    shutil.copytree(REPOSITORY / "tests", FOLDER / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", FOLDER)
    print(run(python, "-m", "pytest", "--quiet", "-m", "not slow", "tests/native").splitlines()[-1])
