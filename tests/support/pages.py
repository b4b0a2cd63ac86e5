"""Pages of the documentation -> their code blocks, run in order in a folder that holds what the pages speak of."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from imgdata_cli.main import cli

from imgdata.errors import ImgdataError
from support.page_data import provide
from support.places import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "docs"))

import figures  # noqa: F401 - found through the line above; for tests of pages
import reference

PAGES = ("README.md", "CONTRIBUTING.md", *reference.page_names())
COMMANDS = ("bash", "console")
RUN = (*COMMANDS, "python")
SHOWN = ("text", "json", "csv", "diff")
"""What a block may be beside code: output, data; diffs are run by `tests/plugins`."""

SMALLER = (
    (r"--resume --epochs \d+", "--resume --epochs 2"),
    (r"--epochs (?!2$)\d+", "--epochs 1"),
    (r"--model (?!cnn)\S+", "--model cnn"),
    (r"(?<=--unfreeze-after )\d+", "1"),
    (r"(?<=--batch-size )\d+", "8"),
    (r"(?<!--tune )--seconds \d+", "--seconds 0.2"),
    (r"--tune --seconds \d+", "--tune --seconds 1"),
    (r"(?<=--checkpoint-steps )\d+", "1"),
    (r'model="resnet\d+"', 'model="cnn"'),
    (r"epochs=\d+", "epochs=1"),
    (r"batch_size=\d+", "batch_size=8"),
    (r'"batch_size": \d+', '"batch_size": 8'),
    (r"num_workers=\d+", "num_workers=0"),
    (r"(?<=_train\()224|(?<=_eval\()224|(?<=Crop\()224|(?<=size=)224", "32"),
    (r"(?<=\brange\()\d+|(?<=, )90(?=\))", "1"),
    (r"count=\d+", "count=20"),
    (r'"cuda"', '"cpu"'),
    (r"\[12345\]", "[3]"),
    (r"(?<=length=)\d+", "40"),
    (r"--compare \S+", "--compare torchvision"),
    (r"photos/ --explain", "new/ --explain"),
    (r"--images \d+", "--images 4"),
    (r"samples=1000,", "samples=20,"),
    (r"% 1000 == 999", "% 1000 == 2"),
    (r"models\.resnet\d+", "models.resnet18"),
    (r"--synthetic\b", "--synthetic --steps 1 --batch-size 8"),
    (r"num_classes=10\b", "num_classes=2"),
    (r"zip\(pixels, labels\)", "list(zip(pixels, labels))[::20]"),
    (r"> 0\.95", "> 0"),
    (r"seconds=\d+", "seconds=0.2, rounds=1"),
    (r"= 8, 40, 64, 2, 600, 800", "= 4, 40, 64, 2, 240, 320"),
    (r"LABELS = 10,", "LABELS = 5,"),
)
"""What pages have -> what the time of a test and its pictures allow."""
ADDED = {
    "train": {"--epochs": "1", "--model": "cnn"},
    "bench": {"--seconds": "0.2", "--rounds": "1", "--threads": "1"},
    "doctor": {"--seconds": "1"},
    "parity": {"--images": "2", "--size": "32"},
}
"""Options that a command gets where its line has none of that name, and names no run whose settings hold."""

_FENCE = re.compile(r"^(\s*)```(\w*)(.*)$")
_NOT_RUN = re.compile(r"^<!-- not run: (.+) -->$")
_SHELL = re.compile(r"[|<>;&*{]|\$\(")
_EXIT_CODE = re.compile(r"# exit code (\d+)")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    not_run: str = ""
    """Why a test can't run it, as the page's comment before it says."""


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page that people wrote; generated parts hold nothing to run."""
    found, lines = [], iter(enumerate((REPOSITORY / page).read_text().splitlines(), 1))
    before, generated = "", False
    for number, line in lines:
        generated = (generated or bool(reference.OPENING.match(line))) and line != reference.END
        fence = _FENCE.match(line)
        if fence is None:
            before = line.strip() or before
            continue
        inside = []
        for _, text in lines:
            if text.strip() == "```":
                break
            inside.append(text.removeprefix(fence[1]))
        reason = _NOT_RUN.match(before)
        before = ""
        if not generated:
            content = "\n".join(inside)
            why = reason[1] if reason else ""
            found.append(Block(page=page, line=number, language=fence[2], text=content, not_run=why))
    return found


def indented_code(page: str) -> list[str]:
    """Return lines of code by indentation, which a page must not have: no language says what they are."""
    text = reference.PART.sub("", (REPOSITORY / page).read_text())
    text = re.sub(r"^(\s*)```.*?^\s*```$", "", text, flags=re.MULTILINE | re.DOTALL)
    found, in_list = [], False
    for paragraph in re.split(r"\n\s*\n", text):
        first = paragraph.lstrip("\n").splitlines()[:1]
        in_list = any(re.match(r"\s*(-|\d+\.|!!!|\?\?\?) ", line) for line in first) or (
            in_list and first[0][:1] == " "
        )
        found += [line for line in first if line.startswith("    ") and not in_list]
    return found


@dataclass
class Session:
    """A reader who does all that a page says, in a folder of their own."""

    folder: Path
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})

    def run(self, block: Block) -> str:
        """Run a block and return what it prints; what fails is named with its place in the page."""
        with contextlib.chdir(self.folder):
            if block.language == "python":
                code = _smaller(block.text)
                provide(self.folder, code)
                with contextlib.redirect_stdout(io.StringIO()) as printed:
                    exec(compile("\n" * block.line + code, block.page, "exec"), self.names)
                return printed.getvalue()
            return "".join([self._command(command, f"{block.page}:{block.line}") for command in _commands(block)])

    def _command(self, line: str, place: str) -> str:
        found = _EXIT_CODE.search(line)
        expected = int(found[1]) if found else 0
        line = _smaller(line.partition(" # ")[0]).strip()
        words = shlex.split(line)
        provide(self.folder, line)
        if words[0] == "imgdata" and not _SHELL.search(re.sub(r"'[^']*'|\"[^\"]*\"", "", line)):
            said, code = _imgdata(_with_added(words[1:]))
        else:
            paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
            done = subprocess.run(
                ["bash", "-e", "-c", line],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "PATH": paths},
            )
            said, code = done.stdout + done.stderr, done.returncode
        assert code == expected, f"{place}: {line}\nexit code {code}, not {expected}\n{said}"
        return said


def not_printed(shown: str, printed: str) -> list[str]:
    """Return the lines of `shown` that aren't among the printed ones, whatever numbers stand in them.

    `...` stands for any lines, and at the end of a line for any rest of it.
    """
    lines = {_wording(line) for line in printed.splitlines()}
    return [
        line
        for line in shown.splitlines()
        if (words := _wording(line)) not in lines
        and not (words.endswith("...") and any(one.startswith(words.removesuffix("...").strip()) for one in lines))
    ]


def _wording(line: str) -> str:
    """Return a line without what differs from run to run: numbers, units, bars, spaces, the plural of 1."""
    line = re.sub(r"[\u2580-\u258f]+", " ", line)
    line = re.sub(r"\d[\d,.]*(e-\d+)?", "0", line)
    line = re.sub(r"\b[kMG]B\b", "bytes", line)
    return " ".join(re.sub(r"\b(shard|image|sample|epoch)s\b", r"\1", line).split())


def _commands(block: Block) -> Iterator[str]:
    """Yield the commands of a block, each as one line."""
    text = block.text.replace("\\\n", " ")
    for line in text.splitlines():
        if block.language == "console":
            if line.startswith("$ "):
                yield line[2:]
        elif line.strip() and not line.startswith("#"):
            yield line


def _smaller(text: str) -> str:
    for usual, small in SMALLER:
        text = re.sub(usual, small, text)
    return text


def _imgdata(arguments: list[str]) -> tuple[str, int]:
    """Run a command in this process, which has imported everything; return what it prints, and its exit code."""
    try:
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    except ImgdataError as error:
        return str(error), 1
    return result.output, result.exit_code


def _with_added(words: list[str]) -> list[str]:
    if {"--resume", "--config"} & set(words):
        return words
    added = [(name, value) for name, value in ADDED.get(words[0], {}).items() if name not in words]
    return [*words, *(word for pair in added for word in pair)]
