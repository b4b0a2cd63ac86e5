"""imgdata without PyTorch: what works, and what says in one line how to install it."""

import re
import subprocess
import sys
import textwrap
import tomllib
import venv
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from support.places import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
OWN = {"imgdata": REPOSITORY / "imgdata", "imgdata_cli": REPOSITORY / "cli"}


def needed(requirements: list[str], seen: set[str]) -> Iterator[metadata.Distribution]:
    """Every package that these requirements bring without extras, each once."""
    for requirement in map(Requirement, requirements):
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and requirement.name.lower() not in seen:
            seen.add(requirement.name.lower())
            package = metadata.distribution(requirement.name)
            yield package
            yield from needed(package.requires or [], seen)


def core() -> dict[str, metadata.Distribution]:
    """The packages that `pip install imgdata` brings, by name."""
    return {package.name: package for package in needed(PROJECT["dependencies"], set())}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment that has what `pip install imgdata` brings, and nothing else."""
    folder = tmp_path_factory.mktemp("core")
    venv.create(folder, symlinks=True, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name, place in OWN.items():
        (packages / name).symlink_to(place)
    for package in core().values():
        for top in {file.parts[0] for file in package.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            (packages / top).symlink_to(Path(str(package.locate_file(top))))
    return folder / "bin" / "python"


def run(*command: str | Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    """A program's answer, with nothing of this environment."""
    return subprocess.run(command, cwd=folder, env={"HOME": str(folder)}, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def dataset(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `out/`, a dataset of 24 pictures."""
    folder = tmp_path_factory.mktemp("data")
    options = ("--split", "train=0.75,val=0.25")
    made = run(
        python, "-m", "imgdata_cli.main", "shard", "synthetic:samples=24,classes=3", "out", *options, folder=folder
    )
    assert made.returncode == 0, made.stderr
    return folder


def test_pytorch_is_not_among_what_the_core_needs() -> None:
    assert "torch" not in core()


WORKS = [
    "shard out ready --crop-ready",
    "verify out --deep",
    "inspect out",
    "inspect out --sheet sheet.png",
    "index out",
    "export out folders",
    "save-view out half fraction=0.5",
    "audit out -o report --skip labels",
    "audit out -o report",
    "models",
    "cache",
    "train --help",
]


@pytest.mark.slow
@pytest.mark.parametrize("words", WORKS)
def test_a_command_works_without_pytorch(words: str, python: Path, dataset: Path) -> None:
    done = run(python, "-m", "imgdata_cli.main", *words.split(), folder=dataset)
    assert done.returncode == 0, done.stderr


REFUSED = [
    ("train out --out run", "this command needs PyTorch: pip install 'imgdata[torch]'"),
    ("bench out", "this command needs PyTorch: pip install 'imgdata[torch]'"),
    ("doctor out", "this command needs PyTorch: pip install 'imgdata[torch]'"),
    ("trace out", "this command needs PyTorch: pip install 'imgdata[torch]'"),
    ("parity out", "this command needs PyTorch: pip install 'imgdata[torch]'"),
    ("inspect out --sheet sheet.png --augmented", "the loader needs PyTorch: pip install 'imgdata[torch]'"),
    ("evaluate run out", "a trained network needs PyTorch: pip install 'imgdata[torch]'"),
    ("audit out --only labels", "a network that looks at the pictures needs PyTorch: pip install 'imgdata[audit]'"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("words", "line"), REFUSED)
def test_a_command_that_needs_pytorch_says_what_to_install(words: str, line: str, python: Path, dataset: Path) -> None:
    done = run(python, "-m", "imgdata_cli.main", *words.split(), folder=dataset)
    assert (done.returncode, done.stderr) == (1, f"imgdata: {line}\n")


BLOCKED = """
import sys

sys.modules["torch"] = None  # as where it is not installed
import imgdata

dataset = imgdata.open("out")
print(len(dataset["train"]), dataset["train"][0].pil().mode)


def said(call):
    try:
        call()
    except imgdata.MissingExtraError as error:
        print(error)


said(lambda: imgdata.Loader("out", split="train", batch_size=4, recipe=imgdata.recipes.imagenet_train(32)))
said(lambda: dataset.torch("train"))
said(lambda: imgdata.train)
said(lambda: imgdata.create_model("cnn", num_classes=10, size=32))
said(lambda: imgdata.load_trained)
"""


def test_python_says_what_to_install(tmp_path: Path) -> None:
    shard = "import imgdata; imgdata.shard('synthetic:samples=16,classes=2', 'out')"
    for program in (shard, BLOCKED):
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert done.stdout == textwrap.dedent(
        """\
        16 RGB
        the loader needs PyTorch: pip install 'imgdata[torch]'
        Dataset.torch needs PyTorch: pip install 'imgdata[torch]'
        imgdata.train needs PyTorch: pip install 'imgdata[torch]'
        a network needs PyTorch: pip install 'imgdata[torch]'
        a trained network needs PyTorch: pip install 'imgdata[torch]'
        """
    )


def test_every_extra_that_is_named_exists() -> None:
    files = [file for folder in OWN.values() for file in folder.rglob("*.py")]
    named = {name for file in files for name in re.findall(r"pip install 'imgdata\[([\w-]+)\]'", file.read_text())}
    assert named - set(PROJECT["optional-dependencies"]) == set()
