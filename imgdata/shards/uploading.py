"""An engine -> the same engine, whose finished shards are uploaded while the next ones are written."""

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from imgdata.shards.engines.protocol import Engine
from imgdata.shards.plan import ShardTask
from imgdata.shards.record import ShardReport
from imgdata.shards.writer import Progress

_UPLOADS = 2
"""Shards that are uploaded at a time, each in parts side by side. So many more wait; then workers wait."""
_POLL_S = 0.2


class Uploads(Protocol):
    """Where shards are uploaded to."""

    def mark(self) -> None:
        """Note that shards are about to be uploaded."""
        ...

    def forget(self, file: str) -> None:
        """Forget that a shard was uploaded."""
        ...

    def waiting(self) -> list[str]:
        """Return the shards that are finished and were not uploaded."""
        ...

    def send(self, file: str) -> Any:
        """Upload a shard."""
        ...

    def sent(self, file: str, uploaded: Any) -> None:
        """Note that a shard was uploaded, as `send` says."""
        ...


class UploadingEngine:
    """Hands tasks to an engine, and uploads what it wrote."""

    def __init__(self, engine: Engine, uploads: Uploads) -> None:
        self._engine = engine
        self._uploads = uploads
        self._files: queue.Queue[str | None] = queue.Queue(_UPLOADS)
        self._ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._stopped = threading.Event()

    def __enter__(self) -> "UploadingEngine":
        self._engine.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._engine.__exit__(*error)

    def run(self, tasks: Iterable[ShardTask], total: int, told: Progress) -> Iterator[ShardReport]:
        """Write every shard and give its report; the last one is given when all are uploaded.

        Raises as the engine does, and the first error of an upload.
        """
        self._uploads.mark()
        for _ in range(_UPLOADS):
            # Daemons: a program that ends does not wait for a server.
            threading.Thread(target=self._serve, name="imgdata-upload", daemon=True).start()
        for file in self._uploads.waiting():
            self._hand_over(file)
        for report in self._engine.run(self._forgotten(tasks), total, told):
            if report.samples:
                self._hand_over(report.file)
            yield report
        for _ in range(_UPLOADS):
            self._hand_over(None)
        for _ in range(_UPLOADS):
            self._raise(self._ended.get())

    def _forgotten(self, tasks: Iterable[ShardTask]) -> Iterator[ShardTask]:
        for task in tasks:
            self._uploads.forget(task.file)
            yield task

    def _hand_over(self, file: str | None) -> None:
        while True:
            with contextlib.suppress(queue.Empty):
                self._raise(self._ended.get_nowait())
            try:
                self._files.put(file, timeout=_POLL_S)
                return
            except queue.Full:
                continue

    def _raise(self, error: BaseException | None) -> None:
        if error is not None:
            raise error

    def _serve(self) -> None:
        try:
            while not self._stopped.is_set():
                try:
                    file = self._files.get(timeout=_POLL_S)
                except queue.Empty:
                    continue
                if file is None:
                    break
                uploaded = self._uploads.send(file)
                # Who has left the engine may have left the folder to another run.
                if not self._stopped.is_set():
                    self._uploads.sent(file, uploaded)
            self._ended.put(None)
        except BaseException as error:
            self._ended.put(error)
