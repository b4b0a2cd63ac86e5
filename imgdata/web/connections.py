"""A connection -> requests in good time, or its end: slow, endless and idle clients don't stop the others."""

from asyncio import TimerHandle, Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

REQUEST_S = 15.0
"""Seconds from a request's first byte, or from the start of a connection, to the request's last byte."""
MOST_HEAD_BYTES = 64 << 10
"""Bytes of a request's head at most."""
MOST_CONNECTIONS = 128
"""Connections that may be open; a further one ends the one that has been idle the longest."""


class Connection(HttpToolsProtocol):
    """Uvicorn's connection, with bounds on time, bytes and idleness."""

    _ends: TimerHandle | None = None
    _head_bytes = 0
    _in_head = True
    _used_s = 0.0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Take a connection; where there are too many, end an idle one."""
        super().connection_made(transport)
        self._used_s = self.loop.time()
        self._begin()
        if len(self.connections) > MOST_CONNECTIONS:
            idle: list[Any] = [one for one in self.connections if one is not self and one._is_idle]  # type: ignore[union-attr]
            if idle:
                min(idle, key=lambda one: one._used_s).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read a part of a request, whose head is bounded."""
        self._used_s = self.loop.time()
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("the head of the request is too large")

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_head = True
        self._begin()

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self._in_head, self._head_bytes = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request; the answer may take longer."""
        self._end()
        super().on_message_complete()
        self._in_head = True

    @property
    def _is_idle(self) -> bool:
        """Whether no answer is being made."""
        return self.cycle is None or self.cycle.response_complete

    def _begin(self) -> None:
        if self._ends is None:
            self._ends = self.loop.call_later(REQUEST_S, self._too_slow)

    def _end(self) -> None:
        if self._ends is not None:
            self._ends.cancel()
            self._ends = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()
