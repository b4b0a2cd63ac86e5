"""The package as people install it: complete, typed, and the same from a wheel, an sdist and the repository."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import imgdata
from imgdata import native
from support.places import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
SOURCES = ("imgdata", "cli")


def run(*command: str | Path, folder: Path, path: Path | None = None) -> str:
    """Stdout of `command`, run in `folder` with nothing but `path` on PYTHONPATH."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python_files() -> set[str]:
    """Every file that belongs into the wheel, by its installed name."""
    return {
        re.sub(r"^cli/", "imgdata_cli/", file.relative_to(REPOSITORY).as_posix())
        for source in SOURCES
        for file in (REPOSITORY / source).rglob("*")
        if file.suffix in (".py", ".pyi") or file.name == "py.typed"
    }


def c_files() -> set[str]:
    """The sources of the extension, by their place in the repository."""
    return {file.relative_to(REPOSITORY).as_posix() for file in (REPOSITORY / "imgdata").rglob("*.[ch]")}


def test_the_package_list_equals_the_tree() -> None:
    in_tree = {name.rpartition("/")[0].replace("/", ".") for name in python_files()}
    assert PROJECT["tool"]["setuptools"]["packages"] == sorted(in_tree)


def test_every_folder_with_modules_is_a_package() -> None:
    without = [name for name in python_files() if f"{name.rpartition('/')[0]}/__init__.py" not in python_files()]
    assert without == []


def test_the_lists_of_dependencies_are_sorted() -> None:
    project = PROJECT["project"]
    for names in (project["dependencies"], *project["optional-dependencies"].values()):
        own_first = sorted(names, key=lambda name: (not name.startswith("imgdata["), name.lower()))
        assert names == own_first


def test_constraints_pin_every_dependency() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[^\s=]+( ; .+)?", pin)] == []
    pinned = {pin.partition("==")[0].lower() for pin in pins}
    project = PROJECT["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    needed = {re.split(r"[\[<>=!~ ]", name)[0].lower() for name in named} - {"imgdata"}
    assert needed - pinned == set()


def test_the_changelog_names_the_version() -> None:
    assert re.search(
        rf"^## {re.escape(imgdata.__version__)}\b", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what packaging needs, so that no build folder appears in the repository."""
    folder = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)
    return folder


SHOWN = {
    "imgdata/auditing/report/style.css",
    *(f"imgdata/web/static/{path.name}" for path in (REPOSITORY / "imgdata" / "web" / "static").iterdir()),
}
"""What the report and the viewer show in a browser."""


@pytest.fixture(scope="module")
def archives(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from this sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, tree, folder=folder)
    return folder


@pytest.fixture
def empty_environment(tmp_path: Path) -> Path:
    """Python of a new environment: this one's packages can be imported, but not its imgdata."""
    venv.create(tmp_path / "env", symlinks=True, with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    own = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=tmp_path).strip())
    # Folders named in a .pth file are searched, their own .pth files are not read: an editable imgdata stays out.
    (own / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def install(python: Path, *what: str | Path) -> None:
    """`pip install` without dependencies or network."""
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install")
    run(*pip, "--quiet", "--no-index", "--no-deps", "--no-build-isolation", *what, folder=python.parent)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist", "editable"])
def test_an_installed_imgdata_runs_away_from_the_repository(
    kind: str, tree: Path, archives: Path, empty_environment: Path, tmp_path: Path
) -> None:
    ways: dict[str, list[str | Path]] = {
        "wheel": list(archives.glob("*.whl")),
        "sdist": list(archives.glob("*.tar.gz")),
        "editable": ["--editable", tree],
    }
    install(empty_environment, *ways[kind])
    found = "import imgdata, imgdata_cli; print(imgdata.__file__); print(imgdata_cli.__file__)"
    places = run(empty_environment, "-c", found, folder=tmp_path).split()
    home = tree if kind == "editable" else empty_environment.parent.parent
    assert [Path(place).is_relative_to(home) for place in places] == [True, True]
    available = run(empty_environment, "-c", "from imgdata import native; print(native.AVAILABLE)", folder=tmp_path)
    assert available.strip() == str(native.AVAILABLE)
    command = empty_environment.parent / "imgdata"
    assert imgdata.__version__ in run(command, "--version", folder=tmp_path)
    assert "shard" in run(command, "--help", folder=tmp_path)


@pytest.mark.slow
def test_the_wheel_and_the_sdist_hold_every_module_and_nothing_else(archives: Path) -> None:
    (wheel,) = archives.glob("*.whl")
    (sdist,) = archives.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name for name in archive.namelist() if ".dist-info/" not in name}
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    compiled = {name for name in in_wheel if re.fullmatch(r"imgdata/native/_compiled\.[^/]*(so|pyd)", name)}
    assert in_wheel - compiled == python_files() | SHOWN
    assert len(compiled) == native.AVAILABLE
    assert {re.sub(r"^imgdata_cli/", "cli/", name) for name in python_files()} - in_sdist == set()
    assert c_files() | SHOWN <= in_sdist
    assert {"LICENSE", "README.md", "pyproject.toml", "setup.py"} <= in_sdist


@pytest.mark.slow
def test_where_the_extension_cannot_be_compiled_the_rest_is_installed(
    tree: Path, empty_environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where libjpeg's headers are missing: the first header that comes is one that stops the compiler.
    (tmp_path / "headers").mkdir()
    (tmp_path / "headers" / "jpeglib.h").write_text("#error no such file\n")
    monkeypatch.setenv("CPATH", str(tmp_path / "headers"))
    install(empty_environment, shutil.copytree(tree, tmp_path / "tree", ignore=shutil.ignore_patterns("build", "*.so")))
    code = "from imgdata import native; from imgdata.images.encode import encoder; "
    code += "print(native.__file__, native.AVAILABLE, encoder())"
    place, available, encoder = run(empty_environment, "-c", code, folder=tmp_path).strip().split(" ", 2)
    assert Path(place).is_relative_to(empty_environment.parent.parent)
    assert available == "False"
    assert encoder.startswith("simplejpeg ")


@pytest.mark.slow
def test_a_module_with_its_own_libjpeg_serves_every_version_of_python_and_has_to_compile(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native.AVAILABLE:
        pytest.skip("nothing is compiled here")
    # As wheels/build.py does, but for the library: a script for the linker that names the system's stands for it.
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libjpeg.a").write_text("INPUT(-ljpeg)\n")
    (tmp_path / "include").mkdir()
    monkeypatch.setenv("IMGDATA_LIBJPEG_TURBO", str(tmp_path))
    copied = shutil.copytree(tree, tmp_path / "tree", ignore=shutil.ignore_patterns("build", "*.so"))
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", copied)
    run(*build, folder=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert re.fullmatch(r"imgdata-[^-]+-cp311-abi3-[^-]+\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        assert "imgdata/native/_compiled.abi3.so" in archive.namelist()

    shutil.rmtree(copied / "build")
    (tmp_path / "include" / "jpeglib.h").write_text("#error no such file\n")
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "no such file" in done.stdout + done.stderr


def test_what_builds_wheels_is_pinned() -> None:
    lines = (REPOSITORY / "wheels" / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"(#.*|[a-z0-9-]+==[\d.]+)", line)] == []
