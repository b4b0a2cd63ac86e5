"""Servers on this machine that speak as object stores and web servers do, and a proxy that spoils what they say."""

import atexit
import contextlib
import ctypes
import functools
import hashlib
import http.client
import http.server
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import unquote, urlsplit

import pytest

import imgdata
from imgdata.storage import remote
from imgdata.storage.remote import RemoteStore
from imgdata.storage.remote_client import RemoteSettings
from support.patience import PATIENCE_S

KEY, SECRET, BUCKET = "imgdata", "not-a-secret", "tests"


@dataclass(frozen=True)
class S3:
    """A folder in a bucket of a server that speaks S3's language: a bucket for each test would fill the server."""

    endpoint: str
    folder: str

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}/{self.folder}"

    def upload(self, folder: Path, prefix: str) -> str:
        """Put all files of a folder below `prefix`; the URL of the copy."""
        store = RemoteStore(f"{self.url}/{prefix}", endpoint=self.endpoint)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                store.put(path.relative_to(folder).as_posix(), path)
        return store.url


def environment(endpoint: str) -> dict[str, str]:
    """The variables by which a program finds the server, and its keys."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def find_program(name: str) -> str:
    """The path of a program beside Python or on the path; skips the test where it can't be had."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@functools.cache
def _seaweed() -> str:
    """The address of a SeaweedFS that lives as long as this process: it takes four seconds to start."""
    for _ in range(3):
        # Another program may take one of its ports first.
        endpoint = _started()
        if endpoint is not None:
            return endpoint
    raise AssertionError("SeaweedFS did not start")


def s3_environment() -> dict[str, str]:
    """The variables by which a program finds the S3 that lives as long as this process."""
    with mock.patch.dict(os.environ, environment("")):
        return environment(_seaweed())


def _started() -> str | None:
    root = Path(tempfile.mkdtemp(prefix="imgdata-s3-"))
    keys = [{"accessKey": KEY, "secretKey": SECRET}]
    who = {"name": "tests", "credentials": keys, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (root / "keys.json").write_text(json.dumps({"identities": [who]}))
    parts = ("master", "volume", "filer", "s3")
    ports = dict(zip([f"{part}.port{kind}" for part in parts for kind in ("", ".grpc")], free_ports(8), strict=True))
    words = ["server", "-dir", str(root), "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1", "-filer", "-s3"]
    words += [f"-{name}={port}" for name, port in ports.items()]
    words += [f"-s3.config={root / 'keys.json'}", "-volume.max=50", "-master.volumeSizeLimitMB=64"]
    # Ports that it would take beside those, and news that it would send.
    words += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    with open(root / "log", "w") as output:
        process = subprocess.Popen(
            [find_program("weed"), "-logtostderr=true", *words],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            preexec_fn=_end_with_parent,
        )
    atexit.register(_end, process, root, os.getpid())
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    store = RemoteStore(
        f"s3://{BUCKET}", endpoint=endpoint, settings=RemoteSettings(tries=1, connect_s=5.0, stall_s=5.0)
    )
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(imgdata.ImgdataError):
            # The first write makes the bucket, and needs all parts of the server.
            store.put("ready", b"yes")
            return endpoint
        time.sleep(0.1)
    return None


def _end_with_parent() -> None:
    """Let the system end this process when the tests are killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """Ports of this machine on which nothing listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _end(process: "subprocess.Popen[bytes]", root: Path, pid: int) -> None:
    if os.getpid() == pid:
        process.kill()
        process.wait()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def s3(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3:
    """A folder of the test's own in a bucket, with the variables by which a program finds it."""
    for variable in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(variable, raising=False)
    # The keys first: the server's start is told by a write.
    for variable, value in environment("").items():
        monkeypatch.setenv(variable, value)
    endpoint = _seaweed()
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    name = hashlib.sha256(f"{request.node.nodeid} {os.getpid()}".encode()).hexdigest()[:12]
    return S3(endpoint, name)


@dataclass
class Fault:
    """What the proxy does to requests that match, so many times."""

    kind: str
    """`status`, `reset` (before the answer), `cut` (the body ends early), `stall` (the body stops), `etag` (another
    one), `lost` (the request is done, its answer is not sent), `silent` (nor is anything else: the client waits)."""
    times: int = 1
    match: str = ""
    """Part of `METHOD /path`."""
    status: int = 503


@dataclass
class Proxy:
    """What passes through to a server, with faults; `requests` are `METHOD /path range`."""

    endpoint: str
    faults: list[Fault] = field(default_factory=list)
    latency_s: float = 0.0
    requests: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)
    choose: Callable[[str], Fault | None] = lambda request: None
    """The fault of a request that none of `faults` matches."""

    def fault(self, request: str) -> Fault | None:
        """The next fault for a request, which counts as used."""
        with self.lock:
            found = next((one for one in self.faults if one.times > 0 and one.match in request), None)
            if found is not None:
                found.times -= 1
                return found
        return self.choose(request)


def impatient(monkeypatch: pytest.MonkeyPatch, cache: Path, *, tries: int, **settings: Any) -> None:
    """Let stores be asked again without a pause, and `cache` be the cache folder."""
    changed = replace(remote.SETTINGS, backoff_s=0.001, tries=tries, **settings)
    monkeypatch.setattr(remote, "SETTINGS", changed)
    monkeypatch.setenv("IMGDATA_CACHE", str(cache))


@contextlib.contextmanager
def faulty(
    upstream: str,
    *faults: Fault,
    latency_s: float = 0.0,
    choose: Callable[[str], Fault | None] = lambda request: None,
) -> Iterator[Proxy]:
    """A proxy before the server at `upstream` that ends with the block."""
    proxy = Proxy("", list(faults), latency_s, choose=choose)
    target = urlsplit(upstream).netloc

    class Handler(_Handler):
        def answer(self) -> None:
            _pass_on(self, proxy, target)

    with _serving(Handler) as address:
        proxy.endpoint = address
        try:
            yield proxy
        finally:
            proxy.ended.set()


@contextlib.contextmanager
def web_server(folder: Path, *, etags: bool = True, ranges: bool = True) -> Iterator[str]:
    """A plain web server of a folder; its address. Without `etags` files have a time only."""

    class Handler(_Handler):
        def answer(self) -> None:
            _send_file(self, folder, etags=etags, ranges=ranges)

    with _serving(Handler) as address:
        yield address


@contextlib.contextmanager
def nginx(folder: Path, tmp_path: Path) -> Iterator[str]:
    """Debian's nginx on a folder; its address. Skips where it is not installed."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    (port,) = free_ports(1)
    places = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}\n"
        f"http {{ access_log off; {places} server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n"
    )
    with subprocess.Popen([program, "-c", str(config), "-e", f"{tmp_path}/error.log"]) as process:
        try:
            _await_port(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def _await_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError("the server did not start")


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # Of 64 processes that connect at once, most would wait for seconds.
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients go away, and that is what is tested."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes, and the second would wait for an acknowledgement.
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def answer(self) -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        self.answer()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextlib.contextmanager
def _serving(handler: type[_Handler]) -> Iterator[str]:
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE_S)


def _pass_on(handler: _Handler, proxy: Proxy, target: str) -> None:
    request = f"{handler.command} {handler.path}"
    size = int(handler.headers.get("content-length") or 0)
    data = handler.rfile.read(size)
    with proxy.lock:
        proxy.requests.append(f"{request} {handler.headers.get('range', '')}".rstrip())
    if proxy.latency_s:
        time.sleep(proxy.latency_s)
    fault = proxy.fault(request)
    if fault is not None and fault.kind == "status":
        text = b"<Error><Code>Fault</Code><Message>made for a test</Message></Error>"
        handler.send(fault.status, {"content-length": str(len(text))}, text)
        return
    if fault is not None and fault.kind == "reset":
        _reset(handler)
        return
    connection = http.client.HTTPConnection(target, timeout=PATIENCE_S)
    # With the host that the client named: it has signed it.
    connection.request(handler.command, handler.path, data, dict(handler.headers.items()))
    response = connection.getresponse()
    body = response.read()
    connection.close()
    hop = {"connection", "transfer-encoding", "keep-alive"}
    headers = {name: value for name, value in response.getheaders() if name.lower() not in hop}
    if handler.command != "HEAD":
        headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
        headers["content-length"] = str(len(body))
    if fault is None:
        handler.send(response.status, headers, body)
    elif fault.kind == "etag":
        named = {name: value for name, value in headers.items() if name.lower() != "etag"}
        handler.send(response.status, {**named, "etag": '"another"'}, body)
    elif fault.kind == "lost":
        _reset(handler)
    elif fault.kind == "silent":
        proxy.ended.wait(PATIENCE_S)
        handler.close_connection = True
    else:
        handler.send(response.status, headers, body[: len(body) // 2])
        handler.wfile.flush()
        if fault.kind == "stall":
            proxy.ended.wait(PATIENCE_S)
        handler.close_connection = True


def _reset(handler: _Handler) -> None:
    """Close the connection so that the client sees a reset, not an end."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def _send_file(handler: _Handler, folder: Path, *, etags: bool, ranges: bool) -> None:
    path = folder / unquote(urlsplit(handler.path).path).lstrip("/")
    if not path.is_file():
        handler.send(404, {"content-length": "0"}, b"")
        return
    data = path.read_bytes()
    time_text = handler.date_time_string(int(path.stat().st_mtime))
    headers = {"last-modified": time_text, **({"etag": f'"{hashlib.md5(data).hexdigest()}"'} if etags else {})}
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("range") or "")
    if asked is None or not ranges:
        handler.send(200, {**headers, "content-length": str(len(data))}, data)
        return
    start, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
    if start >= len(data):
        handler.send(416, {**headers, "content-range": f"bytes */{len(data)}", "content-length": "0"}, b"")
        return
    part = data[start : end + 1]
    more = {"content-range": f"bytes {start}-{end}/{len(data)}", "content-length": str(len(part))}
    handler.send(206, {**headers, **more}, part)
