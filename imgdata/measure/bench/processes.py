"""Jobs -> their results: each in a process of its own, all at the same time."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from types import TracebackType

from imgdata import errors
from imgdata.errors import ImgdataError
from imgdata.measure.bench.job import Job, Measured

_ONE = "imgdata.measure.bench.one"
_LAST_WORDS = 4000
"""Bytes of standard error that are looked at."""


def run_together(jobs: Sequence[Job], *, limit_s: float | None = None) -> list[Measured]:
    """Measure all jobs; none begins before the last one is warm. Raises what a process raised, or `ImgdataError`.

    After `limit_s` seconds the processes are ended, which is an `ImgdataError`, too.
    """
    with ExitStack() as stack:
        running = [stack.enter_context(_Running(job)) for job in jobs]
        for one in running:
            one.start()
        late = threading.Event()

        def end() -> None:
            late.set()
            for one in running:
                one.kill()

        if limit_s is not None:
            timer = threading.Timer(limit_s, end)
            stack.callback(timer.cancel)
            timer.start()
        try:
            for one in running:
                one.wait_until_ready()
            for one in running:
                one.begin()
            return [one.result() for one in running]
        except ImgdataError:
            if late.is_set():
                raise ImgdataError(f"it took more than {limit_s:g} s, and was ended") from None
            raise


class _Running:
    """A process that measures a job. The process and its children end with the block, whatever they do.

    The process starts inside the block, so that Ctrl-C ends it too.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and send it the job."""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _ONE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            # The same import path as here, whatever way this process found imgdata.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            # A group of its own: Ctrl-C reaches the parent alone, which ends all processes of the group.
            start_new_session=True,
        )
        self._tell(self._job.to_json())

    def __enter__(self) -> "_Running":
        self._errors = tempfile.TemporaryFile()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._errors.close()
        if self._process is None:
            return
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            # Nobody reads what was not read.
            with suppress(BrokenPipeError):
                pipe.close()

    def kill(self) -> None:
        """End the process and its children. May be called twice."""
        # Its children may be there when it has ended itself.
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def wait_until_ready(self) -> None:
        """Wait until the first batches have come."""
        self._answer()

    def begin(self) -> None:
        """Let it measure."""
        self._tell("begin")

    def result(self) -> Measured:
        """Return the figures, once they have come."""
        return Measured.from_json(self._answer())

    def _tell(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        # The answer says so where it has ended.
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()

    def _answer(self) -> str:
        """Return the next line. Raises the error that it holds, or `ImgdataError` where the process has ended."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ImgdataError(f"its process ended with {self._process.wait()}: {self._last_words()}")
        if line.startswith('{"error"'):
            told = json.loads(line)
            raise _error(told["error"], told["message"])
        return line

    def _last_words(self) -> str:
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - _LAST_WORDS))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "it wrote nothing"


def _error(name: str, message: str) -> ImgdataError:
    """Return the error of that class; a plain one for an image's, of which only the message is known."""
    kind = getattr(errors, name, ImgdataError)
    return ImgdataError(message) if kind is errors.ImageError else kind(message)
