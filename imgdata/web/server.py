"""A dataset -> a server on this machine, and the browser that shows it."""

import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from imgdata.errors import MissingExtraError, OptionError
from imgdata.web.viewer import Viewer, new_token

_BACKLOG = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int
    token: str

    @property
    def url(self) -> str:
        """The address to open, token included."""
        return f"http://{self.host}:{self.port}/?token={self.token}"


class Server:
    """A running server; `close` ends it at once."""

    def __init__(self, viewer: Viewer, *, host: str = "127.0.0.1", port: int = 0, framed: bool = False) -> None:
        """Listen on a port, 0 for any that is free; `run` or `start` begins to answer.

        Raises `OptionError`, `MissingExtraError`.
        """
        try:
            import uvicorn

            from imgdata.web.app import create_app
        except ImportError as error:
            raise MissingExtraError("the viewer needs a server: pip install 'imgdata[web]'") from error
        from imgdata.web.security import LOOPBACK, Guard

        self._socket = _listen(host, port)
        self.address = Address(host=host, port=int(self._socket.getsockname()[1]), token=new_token())
        app = Guard(
            create_app(viewer),
            token=self.address.token,
            hosts=_hosts(host, LOOPBACK),
            port=self.address.port,
            framed=framed,
        )
        config = uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            lifespan="off",
            timeout_keep_alive=30,
            timeout_graceful_shutdown=1,
            limit_concurrency=256,
            h11_max_incomplete_event_size=32 << 10,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None
        self._viewer = viewer

    def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Answer requests until Ctrl-C."""
        started()
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._viewer.close()

    def start(self) -> None:
        """Answer requests in a thread of its own."""
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End a server that `start` started."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(timeout=5)
        self._socket.close()
        self._viewer.close()


def open_browser(url: str) -> bool:
    """Open the address in a browser; return whether there is one."""
    try:
        return webbrowser.open(url)
    except webbrowser.Error:
        return False


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        if sys.platform != "win32":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        raise OptionError(
            f"{host}:{port} can't be listened on: {error.strerror or error}; choose another with --port, or 0 for any"
        ) from error
    return listening


def _hosts(host: str, loopback: Sequence[str]) -> Sequence[str]:
    return loopback if host in ("127.0.0.1", "localhost", "::1") else (*loopback, host, socket.gethostname())
