"""Decisions of people on samples, in a file that only grows: one line of JSON each, on disk before the next picture.

Several programs may append to one file at once. What holds for a sample is the last decision of each author that was
not taken back; where authors differ, both are kept and the sample is in conflict.
"""

import errno
import json
import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from imgdata.errors import OptionError, OutputError
from imgdata.storage.locks import LockHeldError, locked

Action = Literal["accept", "relabel", "exclude", "flag", "skip", "undo"]
ACTIONS: tuple[Action, ...] = ("accept", "relabel", "exclude", "flag", "skip", "undo")
_LONGEST = 500
_WAIT_S = 10.0
_END_OF_TIME = 1e11
"""Seconds since 1970 in the year 5138: later ones are no dates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What one person decided on one sample."""

    id: str
    """Unique: the author, the time in nanoseconds, and a number among those that were made together."""
    author: str
    time: float
    """Seconds since 1970."""
    split: str
    key: str
    action: Action
    old: str = ""
    """Id of the class before; empty for none."""
    new: str = ""
    """Id of the class that a `relabel` gives."""
    reason: str = ""
    of: str = ""
    """The decision that an `undo` takes back."""


class Sample(NamedTuple):
    """A sample that is decided on."""

    split: str
    key: str


class Decisions:
    """The decisions in a file; what others append is seen at the next `read`. Safe in threads and processes."""

    def __init__(self, path: Path) -> None:
        """Open the file, which is made by the first decision. Raises `OptionError` for a line that is none."""
        self.path = path
        self.version = 0
        """Grows whenever there are new decisions."""
        self._lock = threading.RLock()
        self._all: list[Decision] = []
        self._read_bytes = 0
        self._held: Mapping[Sample, Mapping[str, Decision]] = {}
        self._held_version = -1
        self.read()

    def __len__(self) -> int:
        return len(self._all)

    def read(self) -> None:
        """Read what was appended since; a last line without an end, of a program that was killed, is not one yet."""
        with self._lock:
            try:
                with self.path.open("rb") as file:
                    file.seek(self._read_bytes)
                    data = file.read()
            except FileNotFoundError:
                return
            except OSError as error:
                raise OutputError(f"{self.path}: can't be read: {error.strerror or error}") from error
            whole = data[: data.rfind(b"\n") + 1]
            for line in whole.splitlines():
                if line.strip():
                    self._all.append(self._parsed(line))
            self._read_bytes += len(whole)
            self.version += bool(whole)

    def add(self, decisions: Iterable[Decision]) -> None:
        """Append decisions, together; they are on disk when this returns. Raises `OutputError`."""
        data = b"".join(
            json.dumps(_lean(one), ensure_ascii=True, separators=(",", ":")).encode() + b"\n" for one in decisions
        )
        with self._lock:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with locked(self.path.with_suffix(".lock"), wait_s=_WAIT_S), self.path.open("ab", buffering=0) as file:
                    self.read()
                    # A line without an end is of a program that was killed: nobody else writes now.
                    if os.fstat(file.fileno()).st_size > self._read_bytes:
                        os.ftruncate(file.fileno(), self._read_bytes)
                    self._append(file.fileno(), data)
            except LockHeldError as error:
                raise OutputError(
                    f"{self.path}: another program has been writing for {_WAIT_S:g} s; try again"
                ) from error
            except OSError as error:
                raise OutputError(f"{self.path}: {_unwritten(error)}; the decision is not saved") from error
            self.read()

    def _append(self, descriptor: int, data: bytes) -> None:
        """Write all of the data, or none. Raises `OSError`."""
        try:
            written = 0
            while written < len(data):
                written += os.write(descriptor, data[written:])
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, self._read_bytes)
            raise

    def all(self) -> tuple[Decision, ...]:
        """Return every decision, the oldest first, also those that were taken back."""
        with self._lock:
            return tuple(self._all)

    def of(self, sample: Sample) -> list[Decision]:
        """Return the decisions on a sample that hold, one for each author, the oldest first."""
        return list(self.holding().get(sample, {}).values())

    def group(self, decision: Decision) -> list[Decision]:
        """Return the decisions that were made together with this one, and it, the oldest first; none taken back."""
        with self._lock:
            undone = {one.of for one in self._all if one.action == "undo"}
            mine = _moment(decision)
            return [one for one in self._all if _moment(one) == mine and one.action != "undo" and one.id not in undone]

    def holding(self) -> Mapping[Sample, Mapping[str, Decision]]:
        """Return for each sample what each author decided last and did not take back."""
        with self._lock:
            if self._held_version == self.version:
                return self._held
            undone = {one.of for one in self._all if one.action == "undo"}
            found: dict[Sample, dict[str, Decision]] = {}
            for one in self._all:
                if one.action == "undo" or one.id in undone:
                    continue
                authors = found.setdefault(Sample(one.split, one.key), {})
                authors.pop(one.author, None)
                authors[one.author] = one
            self._held, self._held_version = found, self.version
            return found

    def last(self, author: str) -> Decision | None:
        """Return the last decision of an author that was not taken back."""
        with self._lock:
            undone = {one.of for one in self._all if one.action == "undo"}
            mine = (one for one in reversed(self._all) if one.author == author and one.action != "undo")
            return next((one for one in mine if one.id not in undone), None)

    def _parsed(self, line: bytes) -> Decision:
        try:
            values = json.loads(line)
            return checked(values)
        except (ValueError, TypeError, OptionError) as error:
            raise OptionError(f"{self.path}: a line must be a decision, got {line[:80]!r} ({error})") from error


def checked(values: Mapping[str, Any]) -> Decision:
    """Return the decision of these values. Raises `OptionError` for a wrong one."""
    if not isinstance(values, Mapping):
        raise OptionError(f"a decision must be an object, got {type(values).__name__}")
    texts = {name: values.get(name, "") for name in ("id", "author", "split", "key", "old", "new", "reason", "of")}
    for name, value in texts.items():
        if not isinstance(value, str) or len(value) > _LONGEST:
            raise OptionError(f"{name} must be a text of at most {_LONGEST} characters, got {value!r:.80}")
    action, when = values.get("action"), values.get("time", 0.0)
    if action not in ACTIONS:
        raise OptionError(f"action must be one of {', '.join(ACTIONS)}, got {action!r:.80}")
    if isinstance(when, bool) or not isinstance(when, int | float) or not 0 <= when < _END_OF_TIME:
        raise OptionError(f"time must be seconds since 1970, got {when!r:.80}")
    if action == "relabel" and not texts["new"]:
        raise OptionError("a relabel must have a new class")
    # As many digits as a table of times has.
    return Decision(action=action, time=round(float(when), 6), **texts)


def made(author: str, **values: Any) -> Decision:
    """Return a new decision of an author, of now. Raises `OptionError`."""
    return made_together(author, [values])[0]


def made_together(author: str, each: Iterable[Mapping[str, Any]]) -> list[Decision]:
    """Return new decisions of an author, of now, which one undo takes back. Raises `OptionError`."""
    now, moment = time.time(), time.time_ns()
    return [
        checked({**values, "id": f"{author}-{moment}-{number}", "author": author, "time": now})
        for number, values in enumerate(each)
    ]


def _moment(decision: Decision) -> tuple[str, str]:
    parts = decision.id.removeprefix(f"{decision.author}-").split("-")
    return decision.author, parts[0] if len(parts) == 2 else decision.id


def _unwritten(error: OSError) -> str:
    """Return why a decision can't be written, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space left on the disk; free some and decide again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"can't be written ({error.strerror}); start `imgdata view` with --reviews FILE in a folder of yours"
    return f"can't be written: {error.strerror or error}"


def _lean(decision: Decision) -> dict[str, Any]:
    return {name: value for name, value in asdict(decision).items() if value != ""}
