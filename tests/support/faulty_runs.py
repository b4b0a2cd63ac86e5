"""A program: work whose calls fail as seeds say, one seed after the other, and what came of each.

Reads lines of JSON, `{"work": ..., "seed": ...}`, and answers each with one line: the schedule, the faults that were
made, the outcome. `python tests/support/faulty_runs.py "shard --append" 17` repeats one seed.

What must come of it: what an undisturbed run gives, or one error of imgdata that names a place. Then, without faults,
the same work ends as if there had been none.
"""

import contextlib
import faulthandler
import gc
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest import mock

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))

from imgdata.errors import ImgdataError  # noqa: E402
from imgdata.sources import reading  # noqa: E402
from imgdata.storage import remote  # noqa: E402
from support.crashes import Work, outcome  # noqa: E402
from support.faults import Met, Planned, Site, draw, failing, failing_store, preloaded  # noqa: E402
from support.faulty_work import ALL, ON_S3, SERVER, Found, Reading, Writing  # noqa: E402
from support.patience import PATIENCE_S  # noqa: E402
from support.remote_servers import s3_environment  # noqa: E402

LONGEST_S = 200
"""A run that takes longer hangs: the program ends, with all stacks."""
ERROR_IN_BETWEEN = ("shard --overwrite", "compact")
"""Work that exchanges files, so that a reader may find an error where there was a dataset."""


class Trials:
    """One kind of work, done again and again in copies of its old state."""

    def __init__(self, name: str, stack: contextlib.ExitStack) -> None:
        self._name = name
        self._place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imgdata-faults-"))).resolve()
        self._work = ALL[name](self._place, stack)
        self._work.before(self._place / "before")
        self._old: Found = None
        if isinstance(self._work, Work):
            with self._copy() as folder:
                self._old = outcome(self._work, folder)
        with self._copy() as folder:
            met = Met()
            self._made = self._attempt(folder, (), met)
            if isinstance(self._made, BaseException):
                raise self._made
            self._sites, self._new, self._end = met.sites, *self._left(folder)

    def run(self, seed: int, planned: Sequence[Planned] | None = None) -> dict[str, Any]:
        """Do the work with the faults that the seed draws, or with these, and again without; say what came of it."""
        planned = draw(seed, self._sites) if planned is None else planned
        said: dict[str, Any] = {"work": self._name, "seed": seed, "schedule": [str(one) for one in planned]}
        met = Met()
        with self._copy() as folder, _noticed() as odd:
            try:
                found = self._attempt(folder, planned, met)
                said["outcome"], said["text"] = self._judge(found, folder)
                assert not odd, odd
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-3:]
                steps = " < ".join(f"{Path(one.filename).name}:{one.lineno}" for one in reversed(where))
                said["outcome"], said["text"] = "wrong", f"{type(error).__name__}: {error} ({steps})"
        said["made"] = [str(one) for one in met.made]
        return said

    def _judge(self, found: Found, folder: Path) -> tuple[str, str]:
        text = ""
        if isinstance(found, ImgdataError):
            text = str(found)
            assert text, "an error without a message"
            assert "\n" not in text, text
            assert str(self._place) in text or "://" in text, f"no place is named: {text}"
        work = self._work
        if isinstance(work, Reading):
            assert text or found == self._made, "another result"
            again = self._attempt(folder, (), Met())
            assert again == self._made, f"without faults there is another result behind {text}: {again}"
            return ("error" if text else "same"), text
        left = outcome(work, folder)
        may_fail = isinstance(self._old, ImgdataError) or self._name in ERROR_IN_BETWEEN
        if not text:
            assert not isinstance(left, ImgdataError), f"no error was raised, and a reader finds: {left}"
            assert left == self._new, "no error was raised, and a reader finds something else"
        elif isinstance(left, ImgdataError):
            assert may_fail, f"what was there is lost: {left}"
        else:
            assert left in (self._old, self._new), "a reader finds neither the old state nor the new one"
        again = self._attempt(folder, (), Met())
        if isinstance(again, ImgdataError):
            raise AssertionError(f"the next run ends with an error, behind {text or 'none'}: {again}")
        assert self._left(folder) == (self._new, self._end), f"the next run leaves something else, behind: {text}"
        return ("error" if text else "same"), text

    def _left(self, folder: Path) -> tuple[Found, Found]:
        return (self._work.read(folder), self._work.ends(folder)) if isinstance(self._work, Work) else (None, None)

    @contextlib.contextmanager
    def _copy(self) -> Iterator[Path]:
        folder = self._place / "out"
        shutil.copytree(self._place / "before", folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
            if isinstance(self._work, Writing):
                self._work.clean()

    def _attempt(self, folder: Path, planned: Sequence[Planned], met: Met) -> Found:
        """Do the work while the planned calls fail; return what it gives, or its error. `met` is filled."""
        with contextlib.ExitStack() as stack:
            server = getattr(self._work, "server", "")
            if server:
                address = stack.enter_context(failing_store(server, planned, met))
                stack.enter_context(mock.patch.dict(os.environ, {SERVER: address}))
            stack.enter_context(failing(self._place, planned, met))
            try:
                return self._work.act(folder)
            except ImgdataError as error:
                return error


@contextlib.contextmanager
def _noticed() -> Iterator[list[str]]:
    """Yield a list of what nobody raises: errors of threads and of finalizers, warnings of others than imgdata."""
    odd: list[str] = []

    def thread(happened: threading.ExceptHookArgs) -> None:
        odd.append(f"in a thread: {happened.exc_value!r}")

    def finalizer(happened: Any) -> None:
        odd.append(f"in {happened.object!r}: {happened.exc_value!r}")

    with contextlib.ExitStack() as stack:
        seen = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        stack.enter_context(mock.patch.object(threading, "excepthook", thread))
        stack.enter_context(mock.patch.object(sys, "unraisablehook", finalizer))
        yield odd
        gc.collect()
        odd += [f"{one.filename}: {one.message}" for one in seen if not one.category.__module__.startswith("imgdata")]


class Runner:
    """This program in a process of its own, with `faults.c` in it."""

    def __init__(self, **environment: str) -> None:
        command = [sys.executable, str(Path(__file__).resolve())]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **preloaded(), **environment, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def close(self) -> None:
        """End the program."""
        self._process.kill()
        self._process.wait(PATIENCE_S)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def run(self, work: str, seed: int, planned: Sequence[Planned] | None = None) -> dict[str, Any]:
        """Return what came of a seed, or of planned faults. Raises `AssertionError` where the program hung or died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        faults = None if planned is None else [asdict(one) for one in planned]
        print(json.dumps({"work": work, "seed": seed, "planned": faults}), file=self._process.stdin, flush=True)
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE_S)
        line = self._process.stdout.readline() if ready else ""
        assert line, f"{work}, seed {seed}: the run hung or died; repeat it by `python {__file__} '{work}' {seed}`"
        return dict(json.loads(line))


def main() -> int:
    """Answer the lines of the standard input, or run the work and seeds that are named."""
    remote.SETTINGS = replace(remote.SETTINGS, backoff_s=0.001, tries=3, stall_s=0.4, connect_s=5.0)
    reading.RETRY_S = (0.001,) * len(reading.RETRY_S)
    os.environ["OMP_NUM_THREADS"] = "1"
    trials: dict[str, Trials] = {}
    wrong = 0
    with contextlib.ExitStack() as stack:
        cache = stack.enter_context(tempfile.TemporaryDirectory())
        os.environ["IMGDATA_CACHE"] = cache
        name, *seeds = sys.argv[1:] or [""]
        lines = (json.dumps({"work": name, "seed": int(seed)}) for seed in seeds) if name else sys.stdin
        # What libraries print is none of the answers.
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        for line in lines:
            faulthandler.dump_traceback_later(LONGEST_S, exit=True)
            asked = json.loads(line)
            if asked["work"] not in trials:
                trials[asked["work"]] = Trials(asked["work"], stack)
            faults = asked.get("planned")
            planned = None if faults is None else [Planned(**{**one, "site": Site(**one["site"])}) for one in faults]
            said = trials[asked["work"]].run(asked["seed"], planned)
            wrong += said["outcome"] == "wrong"
            print(json.dumps(said, indent=1 if name else None), file=answers, flush=True)
        faulthandler.cancel_dump_traceback_later()
    return int(wrong > 0)


if __name__ == "__main__":
    if "LD_PRELOAD" in os.environ:
        sys.exit(main())
    more = s3_environment() if ON_S3 in sys.argv else {}
    done = subprocess.run([sys.executable, *sys.argv], env={**os.environ, **preloaded(), **more}, check=False)
    sys.exit(done.returncode)
