"""Every request -> whether it may pass: its host, its token, where it comes from, its size; and what answers carry.

The server speaks for the person who started it: a page of another origin in the same browser must neither read nor
write through it (CSRF, DNS rebinding), and names of classes and files are never code.
"""

import hmac
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
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


class Guard:
    """An ASGI app around another that lets only the browser pass that has the token."""

    def __init__(self, app: ASGIApp, *, token: str, hosts: Sequence[str], port: int, framed: bool = False) -> None:
        """Accept `hosts` (names without a port, such as those of `LOOPBACK`) with `port` in the header `Host`.

        `framed`: pages of the same machine, such as a notebook, may show the app in a frame.
        """
        self._app, self._token = app, token
        self._cookie = f"imgdata-{port}"
        self._hosts = {f"{host}:{port}" for host in hosts} | ({*hosts} if port == 80 else set())
        self._framed = framed
        ancestors = "http://127.0.0.1:* http://localhost:*" if framed else "'none'"
        self._headers = [(name.encode(), value.format(ancestors=ancestors).encode()) for name, value in HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        scope = self._below_token(scope)
        refusal = self._refusal(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in self._headers if name not in present),
                ]
            await send(message)

        answer: ASGIApp = refusal or self._app
        await answer(scope, _bounded(receive) if refusal is None else receive, send_with_headers)

    def _below_token(self, scope: Scope) -> Scope:
        """Return a framed request without the token that begins its path: browsers keep cookies out of frames."""
        start = f"/t/{self._token}"
        if not (self._framed and scope["path"].startswith(f"{start}/")):
            return scope
        path = scope["path"][len(start) :]
        return {**scope, "path": path, "raw_path": path.encode(), "state": {**scope.get("state", {}), "known": True}}

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if headers.get("host", "") not in self._hosts:
            return PlainTextResponse("this address is not one of the server's", 421)
        if len(scope["query_string"]) > LONGEST_QUERY or len(scope["path"]) > LONGEST_QUERY:
            return PlainTextResponse("the address is too long", 414)
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("only GET and POST", 405)
        if scope["method"] == "POST":
            site, origin = headers.get("sec-fetch-site"), headers.get("origin")
            own = origin is not None and origin.partition("://")[2] in self._hosts
            # Browsers send both; a program without them has no cookies of anybody but itself.
            if (site is not None and site != "same-origin") or (origin is not None and not own):
                return PlainTextResponse("requests that change something must come from the page itself", 403)
            if int(headers.get("content-length", "0") or 0) > MOST_BYTES:
                return PlainTextResponse("the request is too large", 413)
        return self._without_token(scope, headers)

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        """Return None where the request has the cookie; a redirect that sets it where the address has the token."""
        if scope.get("state", {}).get("known") or _same(_cookie(headers, self._cookie), self._token):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = next((value for name, value in query if name == "token"), "")
        if scope["method"] == "GET" and _same(given, self._token):
            # The token leaves the address bar, and so the history and bookmarks.
            response = RedirectResponse(scope["path"] or "/", 303)
            response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
            return response
        if _same(headers.get("authorization", "").removeprefix("Bearer "), self._token):
            return None
        return PlainTextResponse(
            "open the address that `imgdata view` printed, with its token; each start has another one", 403
        )


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _cookie(headers: Headers, name: str) -> str:
    cookies = SimpleCookie()
    try:
        cookies.load(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookies[name].value if name in cookies else ""


def _bounded(receive: Receive) -> Receive:
    """Return `receive` that ends the request where its body is larger than it may be, whatever its header says."""
    total = 0

    async def bounded() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > MOST_BYTES:
            return {"type": "http.disconnect"}
        return message

    return bounded
