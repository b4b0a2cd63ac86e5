"""Stores that speak as Google's and Azure's do.

The first one is made here, after the description of its XML interface; the second one is Azurite, Microsoft's own
emulator, where it is installed.
"""

import atexit
import base64
import contextlib
import datetime
import email.utils
import functools
import hashlib
import hmac
import http.client
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from support.patience import PATIENCE_S
from support.remote_servers import _end_with_parent, _Handler, _serving, free_ports

BUCKET = "tests"
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Those of every Azurite: no secret."""
VARIABLES = ("AZURE_", "AZURITE_", "GOOGLE_", "STORAGE_EMULATOR_HOST")
"""What variables that a client reads begin with."""


@dataclass(frozen=True)
class Cloud:
    """A folder in a bucket of such a server, and the variables by which a program finds it."""

    scheme: str
    address: str
    folder: str

    @property
    def url(self) -> str:
        return f"{self.scheme}://{BUCKET}/{self.folder}"

    def environment(self, address: str | None = None) -> dict[str, str]:
        """The variables; with an `address` for a proxy before the server."""
        address = address or self.address
        if self.scheme == "gs":
            return {"STORAGE_EMULATOR_HOST": address}
        words = f"AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={address}/{ACCOUNT};"
        return {"AZURE_STORAGE_CONNECTION_STRING": f"DefaultEndpointsProtocol=http;{words}"}


@contextlib.contextmanager
def cloud(scheme: str, folder: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A server of `gs` or `az`, with its variables set and no others of its kind."""
    for variable in [variable for variable in os.environ if variable.startswith(VARIABLES)]:
        monkeypatch.delenv(variable)
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(google_store()) if scheme == "gs" else azurite()
        found = Cloud(scheme, address, folder)
        for variable, value in found.environment().items():
            monkeypatch.setenv(variable, value)
        yield found


@dataclass(frozen=True)
class _Object:
    data: bytes
    generation: int
    modified_s: float
    etag: str


@dataclass
class _Bucket:
    objects: dict[str, _Object] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    writes: int = 0

    def put(self, name: str, data: bytes) -> _Object:
        self.writes += 1
        self.objects[name] = _Object(data, self.writes, time.time(), f"{hash(data) & 0xFFFFFFFF:08x}{self.writes}")
        return self.objects[name]


@contextlib.contextmanager
def google_store() -> Iterator[str]:
    """A server of the XML interface of Google Cloud Storage with one bucket; its address."""
    bucket = _Bucket()

    class Handler(_Handler):
        def answer(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            data = self.rfile.read(size)
            place = urlsplit(self.path)
            name, _, path = unquote(place.path).lstrip("/").partition("/")
            asked = {key: values[0] for key, values in parse_qs(place.query, keep_blank_values=True).items()}
            if name != BUCKET:
                _fail(self, 404, "NoSuchBucket")
            elif self.command in ("GET", "HEAD"):
                _google_read(self, bucket, path, asked)
            else:
                _google_write(self, bucket, path, asked, data)

    with _serving(Handler) as address:
        yield address


def _google_read(handler: _Handler, bucket: _Bucket, path: str, asked: dict[str, str]) -> None:
    if not path:
        _google_list(handler, bucket, asked)
        return
    found = bucket.objects.get(path)
    if found is None:
        _fail(handler, 404, "NoSuchKey")
        return
    if handler.headers.get("if-match") not in (None, f'"{found.etag}"'):
        _fail(handler, 412, "PreconditionFailed")
        return
    part, status, more = found.data, 200, {}
    if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("range") or ""):
        start = int(wanted[1])
        if start >= len(found.data):
            _fail(handler, 416, "InvalidRange")
            return
        part, status = found.data[start : int(wanted[2] or len(found.data)) + 1], 206
        more = {"content-range": f"bytes {start}-{start + len(part) - 1}/{len(found.data)}"}
    handler.send(status, {**_google_headers(found), **more, "content-length": str(len(part))}, part)


def _google_list(handler: _Handler, bucket: _Bucket, asked: dict[str, str]) -> None:
    """Two objects a page: all that read lists have to ask for more pages."""
    names = sorted(name for name in bucket.objects if name.startswith(asked.get("prefix", "")))
    start = int(asked.get("continuation-token", 0))
    more = f"<NextContinuationToken>{start + 2}</NextContinuationToken>" if start + 2 < len(names) else ""
    entries = []
    for name in names[start : start + 2]:
        found = bucket.objects[name]
        when = datetime.datetime.fromtimestamp(found.modified_s, datetime.UTC).isoformat()
        entries.append(
            f"<Contents><Key>{escape(name)}</Key><Generation>{found.generation}</Generation>"
            f"<LastModified>{when}</LastModified><ETag>{found.etag}</ETag><Size>{len(found.data)}</Size></Contents>"
        )
    _say(handler, f"<ListBucketResult><Name>{BUCKET}</Name>{more}{''.join(entries)}</ListBucketResult>")


def _google_write(handler: _Handler, bucket: _Bucket, path: str, asked: dict[str, str], data: bytes) -> None:
    there = bucket.objects.get(path)
    generation = handler.headers.get("x-goog-if-generation-match")
    if generation is not None and int(generation) != (0 if there is None else there.generation):
        _fail(handler, 412, "PreconditionFailed")
    elif "uploads" in asked:
        upload = str(len(bucket.uploads))
        bucket.uploads[upload] = {}
        _say(handler, f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>")
    elif "uploadId" in asked:
        _google_part(handler, bucket, path, asked, data)
    elif handler.command == "DELETE":
        if bucket.objects.pop(path, None) is None:
            _fail(handler, 404, "NoSuchKey")
        else:
            handler.send(204, {"content-length": "0"}, b"")
    elif source := handler.headers.get("x-goog-copy-source"):
        found = bucket.objects.get(unquote(source).partition("/")[2])
        if found is None:
            _fail(handler, 404, "NoSuchKey")
        else:
            _say(handler, f"<CopyObjectResult><ETag>{bucket.put(path, found.data).etag}</ETag></CopyObjectResult>")
    else:
        handler.send(200, {**_google_headers(bucket.put(path, data)), "content-length": "0"}, b"")


def _google_part(handler: _Handler, bucket: _Bucket, path: str, asked: dict[str, str], data: bytes) -> None:
    parts = bucket.uploads.get(asked["uploadId"])
    if parts is None:
        _fail(handler, 404, "NoSuchUpload")
    elif handler.command == "PUT":
        parts[int(asked["partNumber"])] = data
        handler.send(200, {"etag": f'"{hashlib.md5(data).hexdigest()}"', "content-length": "0"}, b"")
    elif handler.command == "DELETE":
        del bucket.uploads[asked["uploadId"]]
        handler.send(204, {"content-length": "0"}, b"")
    else:
        numbers = [int(number) for number in re.findall(rb"<PartNumber>(\d+)<", data)]
        made = bucket.put(path, b"".join(parts[number] for number in numbers))
        del bucket.uploads[asked["uploadId"]]
        answer = f'<CompleteMultipartUploadResult><ETag>"{made.etag}"</ETag></CompleteMultipartUploadResult>'
        _say(handler, answer, {"x-goog-generation": str(made.generation)})


def _google_headers(found: _Object) -> dict[str, str]:
    when = email.utils.formatdate(found.modified_s, usegmt=True)
    return {"etag": f'"{found.etag}"', "last-modified": when, "x-goog-generation": str(found.generation)}


def _say(handler: _Handler, text: str, headers: dict[str, str] | None = None, status: int = 200) -> None:
    body = f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()
    handler.send(status, {**(headers or {}), "content-length": str(len(body))}, body)


def _fail(handler: _Handler, status: int, code: str) -> None:
    _say(handler, f"<Error><Code>{code}</Code></Error>", status=status)


@functools.cache
def azurite() -> str:
    """The address of an Azurite that lives as long as this process, with a container; skips where there is none."""
    names = [Path(sys.executable).with_name("azurite-blob"), Path(sys.prefix, "node_modules/.bin/azurite-blob")]
    program = next((str(path) for path in names if path.exists()), shutil.which("azurite-blob"))
    if program is None:
        pytest.skip("Azurite is not installed: npm install -g azurite")
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [program, "--blobPort", str(port), "--inMemoryPersistence", "--silent", "--disableTelemetry"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        preexec_fn=_end_with_parent,
    )
    atexit.register(_end, process, os.getpid())
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError):
            assert _make_container(port) == 201
            return f"http://127.0.0.1:{port}"
        time.sleep(0.1)
    raise AssertionError("Azurite did not start")


def _end(process: "subprocess.Popen[bytes]", pid: int) -> None:
    if os.getpid() == pid:
        process.kill()
        process.wait()


def _make_container(port: int) -> int:
    """The status of a signed request that makes the container."""
    date = email.utils.formatdate(usegmt=True)
    path = f"/{ACCOUNT}/{BUCKET}"
    signed = f"x-ms-date:{date}\nx-ms-version:2021-12-02\n/{ACCOUNT}{path}\nrestype:container"
    text = "PUT" + "\n" * 12 + signed
    digest = hmac.new(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256).digest()
    headers = {
        "x-ms-date": date,
        "x-ms-version": "2021-12-02",
        "content-length": "0",
        "authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}",
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request("PUT", f"{path}?restype=container", headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status
