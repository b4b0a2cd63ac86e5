"""Errors of the system in the output folder: one clear message, and the next run ends as if none had been."""

import builtins
import errno
import hashlib
import io
import os

import pytest
from imgdata_cli.main import main

import imgdata
from imgdata import ShardOptions
from support.rawdata import class_folders

CALLS = {
    "mkdir": os,
    "open": os,
    "unlink": os,
    "replace": os,
    "rmdir": os,
    "fsync": os,
    "close": os,
    "scandir": os,
    "write": os,
    "stat": os,
    "io.open": io,
    "builtins.open": builtins,
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("raw") / "pets", {"train": 3, "val": 1})


def digests(out):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def expected(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("expected") / "out"
    imgdata.shard(raw, out, ShardOptions(shard_samples=4), workers=1)
    return digests(out)


class Faults:
    """Fails the `number`-th call that concerns the folder `out`; counts them."""

    def __init__(self, out, number, code):
        self.out, self.number, self.code, self.count = str(out), number, code, 0

    def concerns(self, subject):
        if isinstance(subject, int) and not isinstance(subject, bool):
            try:
                subject = os.readlink(f"/proc/self/fd/{subject}")
            except OSError:
                return False
        return isinstance(subject, str | os.PathLike) and os.fspath(subject).startswith(self.out)

    def around(self, call):
        def wrapped(*arguments, **options):
            if arguments and self.concerns(arguments[0]):
                self.count += 1
                if self.count == self.number:
                    raise OSError(
                        self.code,
                        os.strerror(self.code),
                        *([] if isinstance(arguments[0], int) else [str(arguments[0])]),
                    )
            return call(*arguments, **options)

        return wrapped


def run(raw, out, capfd):
    with pytest.raises(SystemExit) as ended:
        main(["shard", str(raw), str(out), "--shard-samples", "4", "--workers", "1", "--quiet"])
    return ended.value.code, capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("code", ["EIO", "ENOSPC", "EACCES"])
@pytest.mark.parametrize("call", CALLS)
def test_every_call_of_the_system_may_fail(raw, tmp_path, monkeypatch, capfd, expected, call, code):
    module, name = CALLS[call], call.rsplit(".", 1)[-1]
    for number in (1, 2, 3, 5, 8, 13, 21):
        out = tmp_path / f"out{number}"
        faults = Faults(out, number, getattr(errno, code))
        with monkeypatch.context() as patch:
            patch.setattr(module, name, faults.around(getattr(module, name)))
            exit_code, said = run(raw, out, capfd)
        assert "Traceback" not in said
        assert exit_code in (0, 1)
        if exit_code == 1:
            assert said.startswith("imgdata: ")
            assert said.count("\n") == 1
        assert run(raw, out, capfd) == (0, "")
        assert digests(out) == expected
        assert not (out / ".imgdata").exists()
        if faults.count < number:
            break


def test_a_fault_that_stays_hidden_is_none_of_the_dataset(raw, tmp_path, monkeypatch, expected):
    # Extended attributes are a convenience: without them the next run compares contents.
    monkeypatch.setattr(os, "setxattr", Faults("/", 1, errno.ENOTSUP).around(os.setxattr))
    imgdata.shard(raw, tmp_path / "out", ShardOptions(shard_samples=4), workers=1)
    assert digests(tmp_path / "out") == expected
    assert imgdata.shard(raw, tmp_path / "out", ShardOptions(shard_samples=4), workers=1).already_complete


@pytest.mark.parametrize(
    "fault", ["imgdata.shards.engines.local._start_process", "imgdata.shards.engines.local.threading.Thread.start"]
)
def test_workers_that_can_not_be_started_are_one_clear_message(raw, tmp_path, monkeypatch, fault):
    def fail(*_):
        raise (OSError(errno.EAGAIN, "Resource temporarily unavailable") if "process" in fault else RuntimeError("no"))

    monkeypatch.setattr("imgdata.shards.engines.local.PROCESSES_FROM", 0 if "process" in fault else 10**9)
    with monkeypatch.context() as patch:
        patch.setattr(fault, fail)
        with pytest.raises(imgdata.ShardError, match=r"workers can't be started: .* fewer --workers"):
            imgdata.shard(raw, tmp_path / "out", workers=2)


def test_too_little_space_is_found_before_the_first_shard(raw, tmp_path, monkeypatch):
    monkeypatch.setattr("imgdata.shards.begun.shutil.disk_usage", lambda path: type("Usage", (), {"free": 10_000})())
    with pytest.raises(
        imgdata.OutputError, match=r"no space left on the disk for this dataset: it needs about 0\.\d MB"
    ):
        imgdata.shard(raw, tmp_path / "out", workers=1)
    assert not list(tmp_path.rglob("*.tar"))


URLS = ["s3://bucket/ds", "gs://bucket/ds", "hf://datasets/a", "https://a.b/c", "file:///tmp/x", "abfs+ssl://a/b"]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(
    "arguments",
    [
        ["index", "{url}"],
        ["export", "{raw}", "{url}"],
        ["train", "{raw}", "--out={url}"],
        ["train", "s3://bucket/ds", "--out", "{url}"],
        ["features", "run", "{raw}", "-o", "{url}"],
    ],
    ids=" ".join,
)
def test_a_url_is_refused_in_one_line_before_the_first_byte(raw, tmp_path, monkeypatch, capfd, url, arguments):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([part.format(raw=raw, out=tmp_path / "out", url=url) for part in arguments])
    said = capfd.readouterr().err
    assert ended.value.code == 2
    assert said.count("\n") == 1
    assert f"{url} is a URL" in said
    assert list(tmp_path.iterdir()) == []


def test_a_function_refuses_urls_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(imgdata.OptionError, match="s3://b/d is a URL"):
        imgdata.index("s3://b/d")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda raw, out: None, None),
        (lambda raw, out: imgdata.shard(raw, out, workers=1), "OUT exists: complete already"),
        (lambda raw, out: imgdata.shard(raw, out, ShardOptions(seed=3), workers=1), "OUT exists: another dataset"),
        (lambda raw, out: (out.mkdir(), (out / "a").touch()), "OUT exists: not empty, and not made by imgdata"),
    ],
)
def test_a_dry_run_says_what_is_in_out(raw, tmp_path, capfd, prepare, says):
    prepare(raw, tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main(["shard", str(raw), str(tmp_path / "out"), "--dry-run"])
    shown = " ".join(capfd.readouterr().out.split())
    assert ended.value.code == 0
    assert (says in shown) if says else ("OUT" not in shown)
    assert sorted(tmp_path.rglob("*")) == before
