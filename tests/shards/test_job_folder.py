"""What an output folder holds decides what a run may do there: nothing of anyone else's is ever removed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import imgdata
from imgdata import Encoding, ShardOptions
from support.rawdata import class_folders, encoded
from support.tars import shard_writer


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("raw") / "pets", {"train": 6, "val": 2})


def sharded(source, out, *, overwrite=False, **options):
    return imgdata.shard(source, out, ShardOptions(**options), workers=1, overwrite=overwrite)


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def interrupted(source, out, **options):
    """Stop a run when its first shard stands."""

    class Stop(imgdata.Watcher):
        def advanced(self, samples, num_bytes, rejects):
            if list(Path(out).glob("*.tar")):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        imgdata.shard(source, out, ShardOptions(**options), workers=1, watch=Stop())
    assert list(Path(out).glob("*.tar"))
    assert not (Path(out) / "dataset.json").exists()


@pytest.mark.parametrize(
    "pattern", ["{out}", "{out}/*.tar", "{out}/pets-train-000000.tar", "{out}/pets-val-000000.tar::{other}"]
)
def test_shards_that_are_read_are_never_overwritten(raw, tmp_path, pattern):
    out, other = tmp_path / "o", tmp_path / "other"
    sharded(raw, out)
    sharded(raw, other)
    before = {name: (out / name).read_bytes() for name in names(out)}
    source = pattern.format(out=out, other=other / "pets-train-000000.tar")
    with pytest.raises(imgdata.OutputError, match=r"is the source itself|is read; write the shards to another folder"):
        sharded(source, out, overwrite=True, encoding=Encoding(resize=16))
    assert {name: (out / name).read_bytes() for name in names(out)} == before


def test_an_output_inside_the_source_is_refused(tmp_path):
    raw = class_folders(tmp_path / "in", {"": 2})
    with pytest.raises(imgdata.OutputError, match="is inside the source"):
        sharded(raw, raw / "out")
    assert not (raw / "out").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_tars_that_were_indexed_are_never_replaced(raw, tmp_path, overwrite):
    folder = shard_writer(tmp_path / "foreign", {"train": 4})
    imgdata.index(folder)
    before = names(folder)
    with pytest.raises(imgdata.OutputError, match="`imgdata index` found here, which are not replaced"):
        sharded(raw, folder, overwrite=overwrite)
    assert names(folder) == before


@pytest.mark.parametrize("other", ["letter.txt", ".hidden.tmp", ".folder.tmp/"])
def test_what_others_left_is_not_touched(raw, tmp_path, other):
    if other.endswith("/"):
        (tmp_path / other).mkdir()
    else:
        (tmp_path / other).write_text("mine")
    with pytest.raises(imgdata.OutputError, match="not empty, and not made by imgdata"):
        sharded(raw, tmp_path, overwrite=True)
    assert names(tmp_path) == [other.rstrip("/")]


def test_an_overwrite_that_was_cut_off_is_completed_by_the_next_run(raw, tmp_path):
    out = tmp_path / "o"
    sharded(raw, out, shard_samples=2, name="first")
    kill = (
        "import os, sys, pathlib, imgdata\n"
        "unlink, count = pathlib.Path.unlink, [0]\n"
        "def dying(self, missing_ok=False):\n"
        "    count[0] += 'first' in self.name\n"
        "    if count[0] == 3: os._exit(9)\n"
        "    unlink(self, missing_ok=missing_ok)\n"
        "pathlib.Path.unlink = dying\n"
        "imgdata.shard(sys.argv[1], sys.argv[2], imgdata.ShardOptions(name='second'), workers=1, overwrite=True)\n"
    )
    assert subprocess.run([sys.executable, "-c", kill, raw, out], check=False).returncode == 9
    assert any(name.startswith("first") for name in names(out))
    sharded(raw, out, name="second")
    assert not any(name.startswith("first") for name in names(out))
    assert imgdata.verify(out) == []
    assert len(imgdata.open(out)["train"]) == 18


def test_an_unfinished_dataset_is_overwritten_as_a_whole(raw, tmp_path):
    out = tmp_path / "o"
    interrupted(raw, out, shard_samples=2, name="first")
    sharded(raw, out, name="second", overwrite=True)
    assert not any(name.startswith("first") for name in names(out))
    assert not (out / ".imgdata").exists()


def test_a_resume_with_other_cuts_is_refused(raw, tmp_path, monkeypatch):
    out = tmp_path / "o"
    options = {"encoding": Encoding(format="png"), "shard_bytes": 20_000}
    interrupted(raw, out, **options)
    # Another encoder makes other sizes, by which the survey would cut otherwise.
    monkeypatch.setattr("imgdata.shards.plan.SURVEY_SAMPLES", 1)
    monkeypatch.setattr("imgdata.shards.plan._sample_bytes", lambda image_N, label_N, has_json: image_N * 0 + 9000)
    with pytest.raises(imgdata.OutputError, match="finished shards do not fit"):
        sharded(raw, out, **options)


def test_a_resume_with_another_encoder_is_refused(raw, tmp_path, monkeypatch):
    out = tmp_path / "o"
    options = {"encoding": Encoding(resize=24), "shard_samples": 4}
    interrupted(raw, out, **options)
    monkeypatch.setattr("imgdata.shards.begun.encoder", lambda: "a pencil")
    with pytest.raises(imgdata.OutputError, match=r"encoder: .* -> 'a pencil'"):
        sharded(raw, out, **options)


def test_the_encoder_stands_in_the_manifest_only_where_images_are_encoded(raw, tmp_path):
    sharded(raw, tmp_path / "kept")
    sharded(raw, tmp_path / "small", encoding=Encoding(resize=24))
    options = {n: json.loads((tmp_path / n / "dataset.json").read_text())["options"] for n in ("kept", "small")}
    assert "encoder" not in options["kept"]
    assert "Pillow" in options["small"]["encoder"]


def test_the_end_of_one_run_leaves_the_job_folder_of_the_next_alone(raw, tmp_path):
    # A run waits for the lock while another ends: it must then find the folder finished, whatever the timing.
    out = tmp_path / "o"
    # Longer than a busy machine needs: how long a run waits is not what this is about.
    script = (
        "import imgdata.shards.job_folder as folder; folder._WAIT_S = 120; from imgdata_cli.main import main; main()"
    )
    command = [sys.executable, "-c", script, "shard", raw, out, "--quiet", "--workers", "1"]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, said
    assert imgdata.verify(out) == []
    assert not (out / ".imgdata").exists()


def test_workers_of_a_killed_run_hold_the_lock_until_they_end(raw, tmp_path):
    script = (
        "import os, signal, imgdata\n"
        "import imgdata.shards.engines.local as engines\n"
        "engines.PROCESSES_FROM = 0\n"
        "class Die(imgdata.Watcher):\n"
        "    def advanced(self, *done): os.kill(os.getpid(), signal.SIGKILL)\n"
        "source = 'synthetic:samples=2000,width=96,height=64'\n"
        "options = imgdata.ShardOptions(shard_samples=500)\n"
        f"imgdata.shard(source, {str(tmp_path / 'o')!r}, options, workers=2, watch=Die())\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    # The lock is had only when no worker writes any more.
    sharded("synthetic:samples=2000,width=96,height=64", tmp_path / "o", shard_samples=500)
    assert imgdata.verify(tmp_path / "o") == []


def test_shard_size_holds_where_images_are_repaired(tmp_path):
    folder = tmp_path / "in" / "a"
    folder.mkdir(parents=True)
    for number in range(60):
        odd = number % 2
        name = f"{number}.{'png' if odd else 'jpg'}"
        (folder / name).write_bytes(encoded(number, (160, 120), format="PNG" if odd else "JPEG"))
    sharded(tmp_path / "in", tmp_path / "o", on_bad="repair", shard_bytes=60_000)
    sizes = [path.stat().st_size for path in (tmp_path / "o").glob("*.tar")]
    assert len(sizes) > 2
    # The size is estimated, from the mean of a few images.
    assert max(sizes) < 1.5 * 60_000


def test_a_finished_dataset_that_lost_a_file_is_not_called_complete(raw, tmp_path):
    sharded(raw, tmp_path / "o")
    os.unlink(tmp_path / "o" / "pets-val-000000.idx")
    with pytest.raises(imgdata.ShardError, match=r"without its \.idx"):
        sharded(raw, tmp_path / "o")
