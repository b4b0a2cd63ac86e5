"""Every request -> whether it may pass: its host, its token, where it comes from, its size; and what answers carry.

The server speaks for the person who started it: a page of another origin in the same browser must neither read nor
write through it (CSRF, DNS rebinding), and names of classes and files are never code.
"""

import hmac
import ipaddress
from collections.abc import Sequence
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
MOST_BYTES = 1 << 20
"""Bytes of a request's body at most."""
LONGEST_QUERY = 4096
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors {ancestors}",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_FRAMES = "http://127.0.0.1:* http://localhost:*"
_TOO_LARGE = "the request is too large"


def answer_headers(*, framed: bool) -> list[tuple[str, str]]:
    """Return what every answer carries; `framed`: pages of this machine, such as a notebook, may show it in a frame."""
    ancestors = _FRAMES if framed else "'none'"
    return [(name, value.format(ancestors=ancestors)) for name, value in HEADERS.items()]


class Guard:
    """An ASGI app around another that lets only the browser pass that has the token."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str,
        hosts: Sequence[str],
        port: int,
        framed: bool = False,
        remote: bool = False,
    ) -> None:
        """Accept `hosts`, names such as those of `LOOPBACK`, in the header `Host`; any port, as tunnels have others.

        `framed`: a request may have the token in its path, as browsers keep cookies out of frames. `remote`: addresses
        in numbers are accepted too; no name that an attacker owns is one of these.
        """
        self._app, self._token = app, token
        self._cookie = f"imgdata-{port}"
        self._hosts = {host.lower() for host in hosts}
        self._framed, self._remote = framed, remote

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        scope = self._below_token(scope)
        refusal = self._refusal(scope)

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start" and _is_unknown(message):
                message["headers"] = [*message["headers"], (b"content-disposition", b"attachment")]
            await send(message)

        answer: ASGIApp = refusal or self._app
        try:
            await answer(scope, receive if refusal is not None else _bounded(receive), send_safely)
        except ClientDisconnect:
            # The client hung up within its request: there is nobody to answer.
            return

    def _below_token(self, scope: Scope) -> Scope:
        """Return a framed request without the token that begins its path."""
        start = f"/t/{self._token}"
        if not (self._framed and scope["path"].startswith(f"{start}/")):
            return scope
        path = scope["path"][len(start) :]
        return {**scope, "path": path, "raw_path": path.encode(), "state": {**scope.get("state", {}), "known": True}}

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if not self._is_own(host):
            return PlainTextResponse("this address is not one of the server's", 421)
        if len(scope["query_string"]) > LONGEST_QUERY or len(scope["path"]) > LONGEST_QUERY:
            return PlainTextResponse("the address is too long", 414)
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("only GET and POST", 405, {"allow": "GET, HEAD, POST"})
        if scope["method"] == "POST":
            site, origin = headers.get("sec-fetch-site"), headers.get("origin")
            own = origin is not None and origin.partition("://")[2].lower() == host
            # Browsers send both; a program without them has no cookies of anybody but itself.
            if (site is not None and site != "same-origin") or (origin is not None and not own):
                return PlainTextResponse("requests that change something must come from the page itself", 403)
            length = headers.get("content-length", "0")
            if not length.isdecimal() or int(length) > MOST_BYTES:
                return PlainTextResponse(_TOO_LARGE, 413, {"connection": "close"})
        return self._without_token(scope, headers)

    def _is_own(self, host: str) -> bool:
        name, _, port = host.rpartition(":")
        if not name or not port.isdecimal():
            name = host
        return name in self._hosts or (self._remote and _is_number(name))

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        """Return None where the request has the cookie; a redirect that sets it where the address has the token."""
        if scope.get("state", {}).get("known") or _same(_cookie(headers, self._cookie), self._token):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = next((value for name, value in query if name == "token"), "")
        if scope["method"] == "GET" and _same(given, self._token):
            # The token leaves the address bar, and so the history and bookmarks. Always to the page: a path such as
            # `//elsewhere` would lead away.
            response = RedirectResponse("/", 303)
            response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
            return response
        if _same(headers.get("authorization", "").removeprefix("Bearer "), self._token):
            return None
        return PlainTextResponse(
            "open the address that `imgdata view` printed, with its token; each start has another one", 403
        )


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())


def _is_number(name: str) -> bool:
    """Return whether a host is an address in numbers, `10.0.0.7` or `[fe80::1]`."""
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _cookie(headers: Headers, name: str) -> str:
    # Not by `http.cookies`, which stops at the first odd cookie: those of all servers of this machine come together.
    for part in headers.get("cookie", "").split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value.strip('"')
    return ""


def _is_unknown(message: Message) -> bool:
    names = dict(message["headers"])
    return names.get(b"content-type") == b"application/octet-stream" and b"content-disposition" not in names


def _bounded(receive: Receive) -> Receive:
    """Return `receive` that refuses a body which is larger than it may be, whatever its header says."""
    total = 0

    async def bounded() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > MOST_BYTES:
            raise HTTPException(413, _TOO_LARGE, {"connection": "close"})
        return message

    return bounded
