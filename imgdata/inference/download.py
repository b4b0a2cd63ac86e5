"""A URL -> the bytes behind it, within limits of size and of time: servers may be slow or hostile."""

import http.client
import socket
import threading
import urllib.request
from contextlib import suppress
from urllib.request import Request

from imgdata.version import __version__


def download(url: str, *, max_bytes: int, timeout_s: float, total_s: float) -> bytes:
    """Return up to `max_bytes + 1` bytes of the contents of an http or https `url`.

    Raises `TimeoutError` after `timeout_s` without any byte, and after `total_s` in all, however slowly headers or
    body drip; else what `urllib.request` raises.
    """
    connections = _Connections()
    opener = urllib.request.OpenerDirector()
    # No other schemes: an answer may redirect to them.
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Http(connections),
        _Https(connections),
    ):
        opener.add_handler(handler)
    watch = threading.Timer(total_s, connections.end)
    watch.daemon = True
    watch.start()
    try:
        request = Request(url, headers={"User-Agent": f"imgdata/{__version__}"})
        with opener.open(request, timeout=timeout_s) as answer:
            data: bytes = answer.read(max_bytes + 1)
    except (OSError, http.client.HTTPException, ValueError):
        connections.check(total_s)
        raise
    finally:
        watch.cancel()
    connections.check(total_s)
    return data


class _Connections:
    """The connections of one download, ended when its time is over."""

    def __init__(self) -> None:
        self._connections: list[http.client.HTTPConnection] = []
        self._sockets: list[socket.socket] = []
        self._over = threading.Event()

    def watched(self, kind: type[http.client.HTTPConnection]) -> type[http.client.HTTPConnection]:
        """Return a class of connections like `kind` that this object can end."""
        connections = self

        class Watched(kind):  # type: ignore[misc, valid-type]
            def connect(self) -> None:
                connections._connections.append(self)
                super().connect()
                # A connection gives its socket to the response, and forgets it, where the server closes it in the end.
                connections._sockets.append(self.sock)

        return Watched

    def end(self) -> None:
        """End all connections: a thread that waits for bytes continues at once."""
        self._over.set()
        for ended in (*self._sockets, *(connection.sock for connection in self._connections)):
            if ended is not None:
                with suppress(OSError):
                    ended.shutdown(socket.SHUT_RDWR)

    def check(self, total_s: float) -> None:
        """Raise `TimeoutError` when they were ended."""
        if self._over.is_set():
            raise TimeoutError(f"no whole answer within {total_s:g} s")


class _Http(urllib.request.HTTPHandler):
    def __init__(self, connections: _Connections) -> None:
        super().__init__()
        self._connection = connections.watched(http.client.HTTPConnection)

    def http_open(self, req: Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, connections: _Connections) -> None:
        super().__init__()
        self._connection = connections.watched(http.client.HTTPSConnection)

    def https_open(self, req: Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, req)
