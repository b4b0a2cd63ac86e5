"""Digits to look at and their findings; the viewer's app without a server; a server that can be killed."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imgdata
from imgdata.auditing.finding import Finding, Place
from imgdata.auditing.findings_file import read_findings, write_parquet
from imgdata.web.app import create_app
from imgdata.web.viewer import Viewer, viewer_of
from support.digit_runs import digit_folders
from support.patience import PATIENCE_S


def digits_with_metadata(work: Path) -> Path:
    """A dataset of 160 and 40 digits, from a table, with a number and a word in each `json` member."""
    raw = digit_folders(work / "raw", {"train": 160, "val": 40})
    lines = ["file,label,split,year,side,note"]
    for number, path in enumerate(sorted(raw.rglob("*.png"))):
        split, label, _ = path.relative_to(raw).parts
        file = path.relative_to(raw).as_posix()
        lines.append(f"{file},{label},{split},{2000 + number % 20},{'left' if number % 3 else 'right'},<b>{number}</b>")
    (raw / "labels.csv").write_text("\n".join(lines) + "\n")
    options = imgdata.ShardOptions(json_members=True, shard_samples=90)
    imgdata.shard(raw, work / "out", options, workers=1)
    return work / "out"


def label_findings(out: Path, count: int) -> list[Finding]:
    """Findings on the first samples to train with, each of which proposes the next class; the surest first."""
    split = imgdata.open(out)["train"]
    return [
        Finding(
            kind="label",
            what="another class",
            place=_place(split, position),
            score=1 - position / 1000,
            message=f"labelled {split[position].label}, looks like the next",
            proposal="relabel",
            label=imgdata.open(out).classes[(int(split[position].label) + 1) % 10].id,
        )
        for position in range(count)
    ]


def pair_findings(out: Path, count: int) -> list[Finding]:
    """Findings that put a sample beside another, which is to be kept, from the last samples on."""
    split = imgdata.open(out)["train"]
    return [
        Finding(
            kind="near-duplicate",
            what="re-encoded",
            place=_place(split, len(split) - 1 - 2 * number),
            other=_place(split, len(split) - 2 - 2 * number),
            score=0.9,
            message="nearly the same picture",
            proposal="exclude",
        )
        for number in range(count)
    ]


def _place(split: Any, position: int) -> Place:
    row = split.index.row(position)
    return Place(split.name, row.key, row.source, position)


@dataclass(frozen=True)
class Site:
    """The viewer's app, asked without a server and without its guard."""

    viewer: Viewer

    def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of an address."""
        return asyncio.run(self._call("GET", path, b""))

    def json(self, path: str) -> Any:
        """Return the values of an address; waits for what is still computed."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            status, body = self.get(path)
            if status != 202 or time.monotonic() > deadline:
                assert status == 200, body
                return json.loads(body)
            time.sleep(0.01)

    def post(self, path: str, **values: Any) -> Any:
        """Return the values of an address that writes."""
        status, body = asyncio.run(self._call("POST", path, json.dumps(values).encode()))
        assert status == 200, body
        return json.loads(body)

    async def _call(self, method: str, address: str, body: bytes) -> tuple[int, bytes]:
        path, _, query = address.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [],
        }
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await create_app(self.viewer)(scope, receive, send)
        return sent[0]["status"], b"".join(one.get("body", b"") for one in sent[1:])


@contextmanager
def site(out: Path, findings: Sequence[Finding] = (), **options: Any) -> Iterator[Site]:
    """A viewer's app; its threads end with the block."""
    viewer = viewer_of(imgdata.open(out), author="ann", findings=findings, **options)
    try:
        yield Site(viewer)
    finally:
        viewer.close()


class Running:
    """A server in a process of its own."""

    def __init__(self, out: Path, report: Path | None = None, port: int = 0) -> None:
        words = [sys.executable, "-m", "support.viewer_sites", str(out), str(port), *([str(report)] if report else [])]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:"), "the server did not start"

    @property
    def port(self) -> int:
        """Port that it listens on."""
        return int(self.url.split(":")[2].partition("/")[0])

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def running(out: Path, report: Path | None = None) -> Iterator[Running]:
    """A server that ends with the block."""
    server = Running(out, report)
    try:
        yield server
    finally:
        server.kill()


def write_report(folder: Path, findings: Sequence[Finding]) -> Path:
    """Write findings as an audit does."""
    folder.mkdir()
    write_parquet(folder / "findings.parquet", findings, {})
    return folder


def _serve(out: str, port: str, *report: str) -> None:
    from imgdata.web.server import Server

    findings = read_findings(report[0]) if report else ()
    server = Server(viewer_of(imgdata.open(out), author="ann", findings=findings), port=int(port))
    print(server.address.url, flush=True)
    # Where whoever started it was killed, nobody would end it.
    parent = os.getppid()
    server.start()
    while os.getppid() == parent:
        time.sleep(0.2)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
