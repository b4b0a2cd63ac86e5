"""Shard tasks -> reports, on the processes of this machine.

Workers are plain Python processes that talk over pipes, not `multiprocessing` children: those run the
user's main script again, or inherit the locks of its threads, and leave orphans behind when it is killed.
"""

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import IO

from imgdata.errors import ShardError
from imgdata.shards.plan import ShardTask
from imgdata.shards.record import ShardReport
from imgdata.shards.writer import Progress, write_shard

_WORKER = "from imgdata.shards.engines import serve; serve()"


class LocalEngine:
    """Worker processes on this machine; they start, and import what they need, as soon as this is entered."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: _Pool | None = None

    def __enter__(self) -> "LocalEngine":
        if self._workers > 1:
            self._pool = _Pool(self._workers)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.close()

    def run(self, tasks: Iterable[ShardTask], num_tasks: int, progress: Progress) -> Iterator[ShardReport]:
        """Write every shard and give its report as soon as it is finished.

        Where there are fewer shards than workers, each gets threads instead. The first error is raised here;
        leaving the engine then ends the other workers, whose shards leave nothing behind.
        """
        if self._pool is None:
            return (write_shard(task, progress) for task in tasks)
        return self._pool.run(iter(tasks), -(-self._workers // max(num_tasks, 1)), progress)


class _Pool:
    """Worker processes, each with a thread that hands it tasks and listens to it."""

    def __init__(self, workers: int) -> None:
        # The same import path as here, whatever way this process found imgdata.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-P", "-c", _WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                # Ctrl-C reaches the parent alone, which ends the workers.
                start_new_session=True,
            )
            for _ in range(workers)
        ]
        self._events: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._tasks: queue.SimpleQueue[ShardTask | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def close(self) -> None:
        """End the processes, whatever they do."""
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

    def run(self, tasks: Iterator[ShardTask], threads: int, progress: Progress) -> Iterator[ShardReport]:
        """Reports in the order in which shards get finished."""
        for process in self._processes:
            thread = threading.Thread(target=self._attend, args=(process, threads), daemon=True)
            thread.start()
            self._threads.append(thread)
        # One task ahead of the workers is enough to keep them busy; tasks hold a whole shard's references.
        open_tasks = 0
        for _ in range(len(self._processes) + 1):
            open_tasks += self._hand_out(tasks)
        while open_tasks:
            match self._events.get():
                case tuple() as done:
                    progress(*done)
                case ShardReport() as report:
                    open_tasks += self._hand_out(tasks) - 1
                    yield report
                case BaseException() as error:
                    raise error

    def _hand_out(self, tasks: Iterator[ShardTask]) -> int:
        task = next(tasks, None)
        if task is None:
            return 0
        self._tasks.put(task)
        return 1

    def _attend(self, process: "subprocess.Popen[bytes]", threads: int) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        while (task := self._tasks.get()) is not None:
            try:
                pickle.dump((task, threads), process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
                process.stdin.flush()
                while True:
                    event = pickle.load(process.stdout)
                    self._events.put(event)
                    if not isinstance(event, tuple):
                        break
            except (EOFError, OSError, pickle.UnpicklingError, ValueError):
                self._events.put(
                    ShardError(
                        f"{task.file}: the worker process ended (exit code {process.wait()}); if it was killed "
                        "for memory, use fewer --workers; the same command goes on from the finished shards"
                    )
                )
                return


def serve() -> None:
    """Main function of a worker: read tasks from standard input until it ends, answer on standard output."""
    answers: IO[bytes] = os.fdopen(os.dup(1), "wb")
    # Nothing that a library prints may get between the answers.
    os.dup2(2, 1)

    def send(event: object) -> None:
        pickle.dump(event, answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()

    # A parent that was killed can't read: the first progress report then ends this process too.
    with contextlib.suppress(BrokenPipeError):
        while True:
            try:
                task, threads = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            try:
                send(write_shard(task, lambda *done: send(done), threads=threads))
            except BrokenPipeError:
                raise
            except Exception as error:
                send(error)
