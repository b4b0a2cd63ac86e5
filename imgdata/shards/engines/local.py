"""Shard tasks -> reports, on the cores of this machine.

The workers of a small job are threads of this process, which start at once: most of the time is spent on decoding,
hashing and copying, for which Python's lock is released. A large job gets processes that communicate by pipes. These
processes are not `multiprocessing` children: such children run the user's main script again, or inherit the locks of
its threads, and stay alive when the script is killed.
"""

import contextlib
import dataclasses
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from typing import IO

from imgdata.devices import own_cores
from imgdata.errors import ShardError
from imgdata.shards.plan import ShardTask
from imgdata.shards.record import ShardReport
from imgdata.shards.writer import Progress, write_shard

PROCESSES_FROM = 40_000
"""Samples from which processes pay. They take 0.25 s to start; two threads lose 7 us an image to the lock."""

_END_S = 10.0
"""Seconds in which a worker process ends whose answers have ended."""
_WORKER = "from imgdata.shards.engines.local import serve; serve()"
_Event = tuple[int, int, int] | ShardReport | BaseException


class _StoppedError(Exception):
    """The engine was left while a thread was writing."""


class LocalEngine:
    """Workers on this machine: threads for fewer than `PROCESSES_FROM` samples, processes otherwise.

    Processes inherit the descriptor `lock`: the output folder stays locked until the last of them has ended.
    """

    def __init__(self, *, workers: int, samples: int, lock: int | None = None) -> None:
        self._workers = workers
        self._lock = lock
        self._in_processes = workers > 1 and samples >= PROCESSES_FROM
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        self._tasks: queue.SimpleQueue[ShardTask | None] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._cores = len(own_cores())
        self._writing: set[int] = set()
        """Threads of this process that write a shard now."""

    def __enter__(self) -> "LocalEngine":
        try:
            for _ in range(self._workers if self._in_processes else 0):
                self._processes.append(_start_process(self._lock))
        except OSError as error:
            self.__exit__()
            raise _no_workers(error) from error
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        for process in self._processes:
            process.kill()
            process.wait()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                # What was not sent yet has no reader any more.
                with contextlib.suppress(BrokenPipeError):
                    assert pipe is not None
                    pipe.close()

    def run(self, tasks: Iterable[ShardTask], total: int, told: Progress) -> Iterator[ShardReport]:
        """Write every shard and give its report as soon as it is finished.

        Where there are fewer shards than workers, several threads prepare the images of each. The first error
        is raised here; leaving the engine ends the other workers, whose shards then leave nothing behind.
        """
        threads = -(-self._workers // max(total, 1))
        attendants = [partial(self._attend, process, threads) for process in self._processes]
        attendants = attendants or [partial(self._write, threads)] * self._workers
        for attendant in attendants:
            thread = threading.Thread(target=attendant, daemon=True)
            try:
                thread.start()
            except RuntimeError as no_thread:
                raise _no_workers(no_thread) from no_thread
            self._threads.append(thread)
        # One task ahead of the workers keeps them busy; a task holds the references of a whole shard.
        waiting = iter(tasks)
        open_tasks = sum(self._hand_out(waiting) for _ in range(len(attendants) + 1))
        while open_tasks:
            match self._events.get():
                case tuple() as done:
                    told(*done)
                case ShardReport() as report:
                    open_tasks += self._hand_out(waiting) - 1
                    yield report
                case error:
                    raise error

    def _hand_out(self, tasks: Iterator[ShardTask]) -> int:
        task = next(tasks, None)
        if task is None:
            return 0
        self._tasks.put(task)
        return 1

    def _write(self, threads: int) -> None:
        """Write the shards in this thread of this process."""

        def tell(*done: int) -> None:
            if self._stopped.is_set():
                raise _StoppedError
            self._events.put(done)  # type: ignore[arg-type]

        while (task := self._tasks.get()) is not None:
            self._writing.add(threading.get_ident())
            try:
                self._events.put(write_shard(task, tell, threads=threads, has_spare_core=self._has_spare_core))
            except _StoppedError:
                return
            except BaseException as error:
                # Raised again by `run`, in the thread that waits for the reports.
                self._events.put(error)
                return
            finally:
                self._writing.discard(threading.get_ident())

    def _has_spare_core(self) -> bool:
        """Return whether a core of this process has no shard to write, now."""
        return len(self._writing) < self._cores

    def _attend(self, process: "subprocess.Popen[bytes]", threads: int) -> None:
        """Hand tasks to a worker process and read its answers; the main function of a thread."""
        assert process.stdin is not None
        assert process.stdout is not None
        spare = self._workers < self._cores
        while (task := self._tasks.get()) is not None:
            try:
                pickle.dump((task, threads, spare), process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
                process.stdin.flush()
                while True:
                    event = pickle.load(process.stdout)
                    self._events.put(event)
                    if not isinstance(event, tuple):
                        break
            except (EOFError, OSError, pickle.UnpicklingError, ValueError):
                self._events.put(
                    ShardError(
                        f"{task.file}: the worker process ended (exit code {_exit_code(process)}); if it was killed "
                        "for memory, use fewer --workers; the same command resumes from the finished shards"
                    )
                )
                return
            except Exception as error:
                # A task that can't be pickled, say: raised again by `run`.
                self._events.put(error)
                return


def _exit_code(process: "subprocess.Popen[bytes]") -> int:
    """Return the exit code of a worker process whose answers ended; one that lives on is killed."""
    try:
        return process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _no_workers(error: Exception) -> ShardError:
    reason = (error.strerror if isinstance(error, OSError) else None) or error
    return ShardError(f"workers can't be started: {reason}; use fewer --workers; the same command resumes")


def _start_process(lock: int | None) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # The same import path as here, whatever way this process found imgdata.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
        pass_fds=() if lock is None else (lock,),
        # Ctrl-C reaches the parent alone, which ends the workers.
        start_new_session=True,
    )


def serve() -> None:
    """Run a worker process: read tasks from standard input until it ends, and answer on standard output."""
    answers: IO[bytes] = os.fdopen(os.dup(1), "wb")
    # Nothing that a library prints may get between the answers.
    os.dup2(2, 1)
    reader = None

    def send(event: object) -> None:
        pickle.dump(event, answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()

    # A parent that was killed can't read: the first progress report then ends this process too.
    with contextlib.suppress(BrokenPipeError):
        while True:
            try:
                task, threads, spare = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            # What a reader keeps in memory serves all tasks.
            if reader == task.reader:
                task = dataclasses.replace(task, reader=reader)
            reader = task.reader
            try:
                send(write_shard(task, lambda *done: send(done), threads=threads, has_spare_core=partial(bool, spare)))
            except BrokenPipeError:
                raise
            except Exception as error:
                send(error)
