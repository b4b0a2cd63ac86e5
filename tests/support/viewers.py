"""A viewer's server, and requests to it as any program may send them."""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import imgdata
from imgdata.web.server import Server
from imgdata.web.view import open_viewer
from support.patience import PATIENCE_S


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """A server in a thread of this process, or in a process of its own."""

    host: str
    port: int
    token: str

    @property
    def cookie(self) -> str:
        return f"imgdata-{self.port}={self.token}"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_S)

    def request(
        self, method: str, path: str, body: Any = None, *, known: bool = True, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """The answer to one request; `known`: with the cookie."""
        sent = {"cookie": self.cookie} if known else {}
        connection = self.connect()
        data = json.dumps(body).encode() if isinstance(body, dict | list) else body
        connection.request(method, path, data, {**sent, **(headers or {})})
        response = connection.getresponse()
        found = Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
        connection.close()
        return found

    def get(self, path: str, **more: Any) -> Answer:
        return self.request("GET", path, **more)

    def post(self, path: str, body: Any, **more: Any) -> Answer:
        return self.request("POST", path, body, **more)


@contextmanager
def served(dataset: Path | imgdata.Dataset, *, framed: bool = False, **options: Any) -> Iterator[Served]:
    """A server that ends with the block."""
    server = Server(open_viewer(dataset, **options), framed=framed)
    server.start()
    try:
        yield Served(server.address.host, server.address.port, server.address.token)
    finally:
        server.close()


@contextmanager
def commanded(*arguments: str | Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], Served]]:
    """`imgdata view ... --no-browser` and what its address says; killed at the end of the block."""
    words = [sys.executable, "-m", "imgdata_cli.main", "view", *map(str, arguments), "--no-browser"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = urlsplit(line.strip())
            assert address.hostname is not None, (line, process.stderr and process.stderr.read())
            assert address.port is not None
            yield process, Served(address.hostname, address.port, address.query.removeprefix("token="))
        finally:
            process.kill()


def rename_first_class(folder: Path, name: str) -> None:
    """Give the first class of a dataset another id and name."""
    path = folder / "dataset.json"
    manifest = json.loads(path.read_text())
    manifest["classes"][0] |= {"id": name, "name": name}
    path.write_text(json.dumps(manifest))
