"""A dataset -> a server on this machine, and the browser that shows it."""

import asyncio
import ipaddress
import logging
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from imgdata.errors import MissingExtraError, OptionError
from imgdata.web.viewer import Viewer, new_token

_BACKLOG = 128
_LOG = "uvicorn.error"


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int
    token: str

    @property
    def origin(self) -> str:
        """Scheme, host and port; the name of this machine where the server listens on all of its addresses."""
        host = socket.gethostname() if is_wildcard(self.host) else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def url(self) -> str:
        """The address to open, token included."""
        return f"{self.origin}/?token={self.token}"

    @property
    def frame_url(self) -> str:
        """The address for a frame in a notebook, with the token in its path: browsers keep cookies out of frames."""
        return f"{self.origin}/t/{self.token}/"


class Server:
    """A running server; `close` ends it at once."""

    def __init__(self, viewer: Viewer, *, host: str = "127.0.0.1", port: int = 0, framed: bool = False) -> None:
        """Listen on a port, 0 for any that is free; `run` or `start` begins to answer.

        Raises `OptionError`, `MissingExtraError`.
        """
        require_extra()
        import uvicorn

        from imgdata.web.app import create_app
        from imgdata.web.connections import Connection
        from imgdata.web.security import LOOPBACK, Guard, answer_headers

        self._socket = _listen(host, port)
        self.address = Address(host=host, port=int(self._socket.getsockname()[1]), token=new_token())
        remote = not is_loopback(host)
        app = Guard(
            create_app(viewer),
            token=self.address.token,
            hosts=_hosts(host, LOOPBACK) if remote else LOOPBACK,
            port=self.address.port,
            framed=framed,
            remote=remote,
        )
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            loop="asyncio",
            log_config=None,
            log_level="error",
            access_log=False,
            lifespan="off",
            timeout_keep_alive=30,
            backlog=_BACKLOG,
            proxy_headers=False,
            server_header=False,
            headers=answer_headers(framed=framed),
        )

        class AtOnce(uvicorn.Server):
            """Ends without waiting for clients; a decision that is being written is written whole by its thread."""

            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                # Requests that are cut off are no faults.
                logging.getLogger(_LOG).setLevel(logging.CRITICAL + 1)
                for server in self.servers:
                    server.close()
                for one in sockets or ():
                    one.close()
                connections: list[Any] = list(self.server_state.connections)
                for connection in connections:
                    connection.transport.abort()
                await asyncio.sleep(0)

        self._server = AtOnce(config)
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


def require_extra() -> None:
    """Raise `MissingExtraError` where the packages of a server are not installed."""
    try:
        import httptools  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("the viewer needs a server: pip install 'imgdata[web]'") from error


def open_browser(url: str) -> bool:
    """Open the address in a browser; return whether there is one."""
    try:
        return webbrowser.open(url)
    except webbrowser.Error:
        return False


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_wildcard(host: str) -> bool:
    """Return whether a host means all addresses of this machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    listening = None
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # The protocol is named, else asyncio leaves Nagle's algorithm on, and each answer takes 40 ms more.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if sys.platform != "win32":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except (OSError, UnicodeError) as error:
        if listening is not None:
            listening.close()
        why = getattr(error, "strerror", None) or error
        raise OptionError(
            f"{host}:{port} can't be listened on: {why}; choose another with --port, or 0 for any"
        ) from error
    return listening


def _hosts(host: str, loopback: Sequence[str]) -> Sequence[str]:
    return (*loopback, host, socket.gethostname(), socket.getfqdn())
