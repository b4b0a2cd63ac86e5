"""The items of a phase -> lines of a file, each written as soon as it is known, so that a killed phase keeps them.

A line has the item's `path`, names from the outer to the inner, and one of `value`, `failed` with a message,
`not_measured` with the reason, or `begun`.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.gpu.sizes import Sizes, sizes_for
from imgdata.errors import MissingExtraError

ROOT = Path(__file__).resolve().parent.parent.parent
_ERROR = re.compile(r"(?:\[rank\d+\]: ?)?([\w.]*(?:Error|Exception): .*)")
"""A line of a traceback that names an error; torchrun puts the rank in front, and a summary behind it."""
_LONGEST = 400
"""Characters of a message that are kept."""
_END_S = 1.0
"""Seconds before the limit at which a phase begins nothing new."""


class NotMeasuredError(Exception):
    """An item that has no figure here, and why; not a fault."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a phase is told."""

    device: str
    """`cuda`, or `cpu` for a run that only proves that the code runs."""
    work: str
    """Folder for data and caches, which the phases share."""
    limit_s: float

    @property
    def folder(self) -> Path:
        """Folder for data and caches."""
        return Path(self.work)

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU."""
        return self.device != "cpu"

    @property
    def sizes(self) -> Sizes:
        """How much is done."""
        return sizes_for(self.device)

    def to_json(self) -> str:
        """Return all of it in one line."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(line: str) -> "Settings":
        """Return what `to_json` wrote."""
        return Settings(**json.loads(line))


class Running:
    """A phase that runs in this process."""

    def __init__(self, name: str, settings: Settings, notes: Path) -> None:
        self.name = name
        self.settings = settings
        self.sizes = settings.sizes
        self._notes = notes
        self._end = time.monotonic() + settings.limit_s - _END_S

    @property
    def left_s(self) -> float:
        """Seconds until the phase is ended."""
        return self._end - time.monotonic()

    def note(self, *path: str, value: Any) -> None:
        """Keep a value."""
        self._write(path, {"value": value})

    def fail(self, *path: str, reason: str) -> None:
        """Keep that an item failed."""
        self._write(path, {"failed": reason})

    def attempt(self, *path: str, work: Callable[[], Any], needs_s: float = 0.0) -> Any:
        """Do it, keep what it returns or how it failed, and return the value; None where there is none."""
        self._write(path, {"begun": True})
        if self.left_s < needs_s:
            found: dict[str, Any] = {"not_measured": f"no time was left within {self.settings.limit_s:g} s"}
        else:
            found = outcome(work)
        self._write(path, found)
        return found.get("value")

    def apart(self, *path: str, function: str, arguments: Mapping[str, Any], needs_s: float = 0.0) -> Any:
        """Do the same with `call`."""
        return self.attempt(*path, work=lambda: self.call(function, **arguments), needs_s=needs_s)

    def call(self, function: str, **arguments: Any) -> Any:
        """Return what `module:function` of this package returns, in a process of its own where the sizes ask for it."""
        if not self.sizes.apart:
            return call(function, self.settings, arguments)
        words = [function, self.settings.to_json(), json.dumps(arguments)]
        return value_of(run_process("benchmarks.gpu.one", "--item", *words, limit_s=self.left_s))

    def _write(self, path: tuple[str, ...], found: Mapping[str, Any]) -> None:
        with open(self._notes, "a") as file:
            file.write(json.dumps({"path": list(path), **found}) + "\n")
        if "begun" not in found:
            print(f"  {self.name}: {', '.join(path)}: {shown(found)}", flush=True)


def outcome(work: Callable[[], Any]) -> dict[str, Any]:
    """Do it, and return `value`, `failed` or `not_measured`."""
    try:
        return {"value": work()}
    except (NotMeasuredError, MissingExtraError) as error:
        return {"not_measured": message(error)}
    except ModuleNotFoundError as error:
        return {"failed": not_installed(error)}
    except Exception as error:  # Whatever it is, the other items must still run.
        return {"failed": f"{type(error).__name__}: {message(error)}"}


def not_installed(error: ImportError) -> str:
    """Return which package is missing."""
    return f"{error.name.partition('.')[0]} is not installed" if error.name else message(error)


def value_of(found: Mapping[str, Any]) -> Any:
    """Return the value of an outcome, or raise what it says instead."""
    if "not_measured" in found:
        raise NotMeasuredError(found["not_measured"])
    if "failed" in found:
        raise RuntimeError(found["failed"])
    return found["value"]


def call(function: str, settings: Settings, arguments: Mapping[str, Any]) -> Any:
    """Call `module:function` of this package."""
    from importlib import import_module

    module, _, name = function.partition(":")
    return getattr(import_module(f"benchmarks.gpu.{module}"), name)(settings, **arguments)


def run_process(module: str, *words: str, limit_s: float, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the JSON that `python -m MODULE WORDS` prints last. Raises `RuntimeError` where it fails or takes longer.

    It stays in the process group of its phase, and ends with it.
    """
    command = [sys.executable, "-m", module, *words]
    environment = {**os.environ, **(env or {})}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=max(limit_s, 0.1)
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"it took more than {limit_s:.0f} s, and was ended") from None
    if done.returncode:
        _ended(done.returncode, done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _ended(code: int, errors: str) -> NoReturn:
    raise RuntimeError(f"its process ended with {code}: {last_line(errors)}")


def last_line(text: str) -> str:
    """Return the last line that names an error, with its message; else the last line of words."""
    lines = [line.strip() for line in text.splitlines() if any(character.isalnum() for character in line)]
    errors = [found[1] for line in lines if (found := _ERROR.match(line))]
    return plain((errors or lines)[-1]) if lines else "it wrote nothing"


def message(error: BaseException | str) -> str:
    """Return an error's message in one line, without the places of this machine."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return plain(" ".join(lines)) if lines else "no message"


def plain(text: str) -> str:
    """Return a text without the folders of this machine, not too long."""
    for folder in (str(ROOT), os.environ.get("IMGDATA_GPU_WORK", ""), str(Path.home())):
        text = text.replace(f"{folder}/", "") if len(folder) > 1 else text
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."


def shown(found: Mapping[str, Any]) -> str:
    """Return an outcome in a few words, for a line of progress."""
    if "not_measured" in found:
        return f"not measured: {found['not_measured']}"
    if "failed" in found:
        return f"FAILED: {found['failed']}"
    value = found["value"]
    if not isinstance(value, dict):
        return str(value)
    words = [
        f"{name} {number:,.4g}" if isinstance(number, float) else f"{name} {number}"
        for name, number in value.items()
        if isinstance(number, int | float | str)
    ]
    return ", ".join(words[:5]) or "done"
