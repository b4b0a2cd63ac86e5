"""`imgdata view` and `imgdata.view`: what is opened, how it ends, and one message for each thing that is wrong."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from imgdata_cli.main import cli

import imgdata
import imgdata.web.decisions
import imgdata.web.server
import imgdata.web.view
from imgdata.auditing.report.files import write_report
from imgdata.auditing.result import AuditResult
from imgdata.dataset.index_schema import INDEX_SCHEMA
from imgdata.dataset.index_writing import write_index
from imgdata.errors import ImgdataError, MissingExtraError, OptionError, ShardError
from support.animals import animals
from support.audits import animal_findings
from support.patience import PATIENCE_S
from support.viewers import commanded, served


def refused(*arguments: str | Path) -> ImgdataError:
    """The error of a command that does not start."""
    result: Result = CliRunner().invoke(cli, ["view", *map(str, arguments)])
    assert isinstance(result.exception, ImgdataError), result.output
    return result.exception


@pytest.fixture
def out(zoo: Path, tmp_path: Path) -> Path:
    """A dataset that may be changed."""
    return shutil.copytree(zoo, tmp_path / "out")


def report(folder: Path, work: Path) -> Path:
    """A report of made-up findings on a dataset."""
    found = AuditResult(
        dataset=str(folder),
        name="animals",
        splits={"train": 20},
        views={},
        findings=tuple(animal_findings(folder)),
        checks=(),
    )
    write_report(found, imgdata.open(folder), work / "report")
    return work / "report"


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_address_stands_on_a_line_of_its_own_and_ctrl_c_ends_at_once(zoo: Path, stop: signal.Signals) -> None:
    with commanded(zoo) as (process, server):
        assert server.get(f"/?token={server.token}", known=False).status == 303
        assert server.get("/").status == 200
        # Neither an open connection nor one in the middle of a request keeps it.
        idle = socket.create_connection((server.host, server.port), PATIENCE_S)
        idle.sendall(b"GET / HTTP/1.1\r\n")
        process.send_signal(stop)
        rest, said = process.communicate(timeout=PATIENCE_S)
        idle.close()
    assert (process.returncode, rest, said.strip()) == (130, "", "imgdata: interrupted")


def test_findings_become_a_queue(zoo: Path, tmp_path: Path) -> None:
    reviews = tmp_path / "mine.jsonl"
    options = ("--findings", report(zoo, tmp_path), "--author", "Ada", "--reviews", reviews)
    with commanded(zoo, *options) as (_, server):
        found = server.get("/api/dataset").json
        assert found["author"] == "Ada"
        assert server.get("/api/rows?mark=finding:leak").json["total"] == 1
        (key,) = [row["key"] for row in server.get("/api/rows?count=1").json["rows"]]
        decided = server.post("/api/decisions", {"decisions": [{"split": "train", "key": key, "action": "flag"}]})
        assert decided.status == 200
    (line,) = reviews.read_text().splitlines()
    assert (json.loads(line)["author"], json.loads(line)["key"]) == ("Ada", key)


def test_findings_of_another_dataset_are_refused(zoo: Path, tmp_path: Path) -> None:
    other = animals(tmp_path / "other")
    found = report(zoo, tmp_path)
    shutil.rmtree(other)
    imgdata.shard(
        tmp_path / "other" / "raw", other, imgdata.ShardOptions(name="others", seed=9, shard_samples=6), workers=1
    )
    message = str(refused(other, "--findings", found))
    assert message.startswith(f"{found}: not of this dataset: it names 'cat/000' as sample ")
    assert f"run `imgdata audit {other} -o REPORT` again" in message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder.mkdir(), "no findings.parquet there; `imgdata audit DATASET -o"),
        (lambda folder: None, "no findings.parquet there; `imgdata audit DATASET -o"),
        (
            lambda folder: (folder.mkdir(), (folder / "findings.parquet").write_bytes(b"PAR1")),
            "no findings of an audit",
        ),
    ],
    ids=["empty", "missing", "damaged"],
)
def test_a_folder_without_findings_is_refused(zoo: Path, tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "report")
    assert message in str(refused(zoo, "--findings", tmp_path / "report"))


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--features", "no such file; `imgdata features RUN"),
        ("--run", "must be the folder of a run"),
        ("--findings", "no findings"),
    ],
)
def test_what_is_shown_beside_the_samples_must_be_there(zoo: Path, tmp_path: Path, flag: str, message: str) -> None:
    said = str(refused(zoo, flag, tmp_path / "none"))
    assert str(tmp_path / "none") in said
    assert message in said


def test_a_port_in_use_is_one_message(zoo: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = refused(zoo, "--port", str(port))
    assert isinstance(error, OptionError)
    assert str(error).startswith(f"127.0.0.1:{port} can't be listened on: Address already in use; choose another with")


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "httptools"])
def test_without_the_extra_the_message_names_it(zoo: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    error = refused(zoo)
    assert isinstance(error, MissingExtraError)
    assert str(error) == "the viewer needs a server: pip install 'imgdata[web]'"


def test_without_a_browser_the_address_is_printed(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imgdata.web.server, "open_browser", lambda url: False)
    monkeypatch.setattr(imgdata.web.server.Server, "run", lambda self: self.close())
    result = CliRunner().invoke(cli, ["view", str(zoo)])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("http://127.0.0.1:")
    assert "no browser was found here" in result.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "example.org"])
def test_other_machines_connect_only_where_that_is_meant(zoo: Path, host: str) -> None:
    error = refused(zoo, "--host", host)
    assert isinstance(error, OptionError)
    for part in ("everybody who has the address sees all samples", "nothing is encrypted", "--allow-remote", "ssh -L"):
        assert part in str(error)


def test_a_host_that_is_meant_is_listened_on_with_a_note(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imgdata.web.server.Server, "run", lambda self: self.close())
    result = CliRunner().invoke(cli, ["view", str(zoo), "--host", "0.0.0.0", "--allow-remote", "--no-browser"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"http://{socket.gethostname()}:")
    assert "nothing is encrypted" in result.stderr


def test_a_host_that_is_none_is_one_message(zoo: Path) -> None:
    error = refused(zoo, "--host", "no.such.host.invalid", "--allow-remote")
    assert "no.such.host.invalid:0 can't be listened on" in str(error)


def test_no_samples_is_one_message(out: Path) -> None:
    manifest = json.loads((out / "dataset.json").read_text())
    for name, split in imgdata.open(out).items():
        write_index(split.index.path, INDEX_SCHEMA.empty_table())
        entry = manifest["splits"][name]
        entry["samples"] = 0
        entry["shards"] = [{**shard, "samples": 0} for shard in entry["shards"]]
    (out / "dataset.json").write_text(json.dumps(manifest))
    assert str(refused(out)) == f"{out}: no samples to show"


def test_a_folder_that_is_no_dataset_is_one_message(tmp_path: Path) -> None:
    assert str(tmp_path) in str(refused(tmp_path))


def test_a_damaged_index_is_one_message(out: Path) -> None:
    path = imgdata.open(out)["train"].index.path
    path.write_bytes(path.read_bytes()[:100])
    error = refused(out)
    assert isinstance(error, ShardError)
    assert f"imgdata index {out}" in str(error)


def test_damaged_decisions_are_one_message_that_names_the_line(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"id": "a"}\n')
    assert 'a line must be a decision, got b\'{"id": "a"}\'' in str(refused(zoo, "--reviews", tmp_path / "d.jsonl"))


def test_where_a_shard_vanished_the_page_works_and_the_picture_says_so(out: Path) -> None:
    shards = imgdata.open(out)["train"].shards
    shards[0].unlink()
    with served(out) as server:
        assert server.get("/").status == 200
        assert len(server.get("/api/rows").json["rows"]) == 26
        for path in ("/thumb/0/96", "/picture/0"):
            answer = server.get(path)
            assert answer.status == 500
            assert answer.json["error"] == f"{shards[0]}: No such file or directory; copy the shard again"
        assert server.get("/thumb/19/96").status == 200


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EROFS, "can't be written (Read-only file system); start `imgdata view` with --reviews FILE"),
        (errno.EACCES, "can't be written (Permission denied); start `imgdata view` with --reviews FILE"),
        (errno.ENOSPC, "no space left on the disk; free some and decide again; the decision is not saved"),
        (errno.EIO, "can't be written: Input/output error; the decision is not saved"),
    ],
)
def test_a_decision_that_can_not_be_saved_is_lost_with_a_message_and_alone(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    path = tmp_path / "decisions.jsonl"
    decision = {"decisions": [{"split": "train", "key": f"train/cat/00{one}", "action": "flag"} for one in range(3)]}
    write, calls = os.write, []

    def half(descriptor: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) > 1:
            raise OSError(number, os.strerror(number))
        return write(descriptor, data[: len(data) // 2])

    with served(zoo, reviews=path) as server:
        assert server.post("/api/decisions", decision).status == 200
        before = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(imgdata.web.decisions.os, "write", half)
            answer = server.post("/api/decisions", decision)
        assert answer.status == 500
        assert message in answer.json["error"]
        assert path.read_bytes() == before
        assert server.get("/api/rows").status == 200
        assert server.post("/api/decisions", decision).status == 200
    assert len(path.read_text().splitlines()) == 6


def test_from_python_the_viewer_has_an_address_and_an_end(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(imgdata.web.view, "open_browser", opened.append)
    with imgdata.view(zoo) as shown:
        assert opened == [shown.url]
        assert shown.url.startswith("http://127.0.0.1:")
        assert shown.url in repr(shown)
        port = int(shown.url.split(":")[2].split("/")[0])
        socket.create_connection(("127.0.0.1", port), PATIENCE_S).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), PATIENCE_S)


def test_a_notebook_shows_a_frame_whose_address_has_the_token(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Shell:
        config = {"IPKernelApp": {}}  # noqa: RUF012

    monkeypatch.setitem(sys.modules, "IPython", type("IPython", (), {"get_ipython": staticmethod(Shell)})())
    monkeypatch.setattr(imgdata.web.view, "open_browser", lambda url: pytest.fail("a browser in a notebook"))
    dataset = imgdata.open(zoo)
    with imgdata.view(dataset, findings=animal_findings(zoo), height=500) as shown:
        frame = shown._repr_html_()
    token = shown.url.rpartition("token=")[2]
    assert f'/t/{token}/"' in frame
    assert 'height="500"' in frame


def test_from_python_findings_must_fit_as_well(zoo: Path) -> None:
    findings = animal_findings(zoo)
    other = [one for one in findings if one.place is not None][:1]
    moved = other[0].place
    assert moved is not None
    wrong = dataclasses.replace(other[0], place=moved._replace(position=10**9))
    with pytest.raises(OptionError, match=r"findings: not of this dataset: it names .* as sample 1000000000 of"):
        imgdata.view(zoo, findings=[wrong], browser=False)
