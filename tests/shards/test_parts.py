"""A dataset that many machines write, a part each, is that of one run: byte for byte, whatever dies in between."""

import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import imgdata
from imgdata import OptionError, OutputError, ShardOptions, SourceError
from imgdata.shards import begun, part_files
from imgdata.shards.frozen import _Unpacker, freeze, open_frozen
from imgdata.shards.job_folder import own
from imgdata.shards.part_files import ClosedError, attempt, frozen_path
from imgdata.shards.plan import make_plan
from imgdata.sources.detect import list_source
from imgdata.sources.options import SourceOptions
from support.patience import PATIENCE_S
from support.rawdata import class_folders

SOURCE = "synthetic:samples=300,classes=5,width=96,height=64,val=50"
OPTIONS = ShardOptions(shard_samples=3, json_members=True)


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("raw") / "pets", {"train": 5, "val": 2})


@pytest.fixture(scope="module")
def whole(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    imgdata.shard(raw, out, OPTIONS, workers=1)
    return digests(out)


@pytest.mark.parametrize("parts", [1, 3, 20])
def test_parts_make_the_dataset_of_one_run(raw, whole, tmp_path, parts):
    out = tmp_path / "out"
    begun = imgdata.begin_parts(raw, out, OPTIONS, workers=1)
    assert (begun["samples"], begun["shards"], begun["finished_shards"]) == (21, 7, 0)
    done = [imgdata.write_part(out, part, parts, workers=2) for part in reversed(range(parts))]
    assert sum(part.shards for part in done) == 7
    assert sum(part.samples for part in done) == 21
    summary = imgdata.finish_parts(out)
    assert summary.samples == 21
    assert digests(out) == whole
    assert imgdata.verify(out) == []
    assert imgdata.finish_parts(out).already_complete
    assert imgdata.write_part(out, 0, 3).already_complete
    assert imgdata.shard(raw, out, OPTIONS).already_complete


def test_a_part_holds_every_nth_shard(raw, tmp_path):
    imgdata.begin_parts(raw, tmp_path, OPTIONS, workers=1)
    imgdata.write_part(tmp_path, 1, 3, workers=1)
    assert sorted(path.name for path in tmp_path.glob("*.tar")) == ["pets-train-000001.tar", "pets-train-000004.tar"]


def test_a_part_again_writes_nothing_again(raw, tmp_path):
    imgdata.begin_parts(raw, tmp_path, OPTIONS, workers=1)
    first = imgdata.write_part(tmp_path, 0, 2, workers=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    again = imgdata.write_part(tmp_path, 0, 2, workers=1)
    assert (again.resumed_shards, again.samples_written, again.samples) == (4, 0, first.samples)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}


def test_a_plan_again_keeps_what_is_written(raw, whole, tmp_path):
    out = tmp_path / "out"
    imgdata.begin_parts(raw, out, OPTIONS, workers=1)
    frozen = frozen_path(out).read_bytes()
    imgdata.write_part(out, 0, 2, workers=1)
    assert imgdata.begin_parts(raw, out, OPTIONS, workers=1)["finished_shards"] == 4
    assert frozen_path(out).read_bytes() == frozen
    imgdata.write_part(out, 1, 2, workers=1)
    imgdata.finish_parts(out)
    assert digests(out) == whole
    assert imgdata.begin_parts(raw, out, OPTIONS, workers=1)["complete"]


def test_parts_and_one_run_complete_each_other(raw, whole, tmp_path):
    out = tmp_path / "out"
    imgdata.begin_parts(raw, out, OPTIONS, workers=1)
    imgdata.write_part(out, 0, 2, workers=1)
    summary = imgdata.shard(raw, out, OPTIONS, workers=1)
    assert summary.resumed_shards == 4
    assert digests(out) == whole


def test_finishing_too_early_names_the_parts_to_run_again(raw, whole, tmp_path):
    out = tmp_path / "out"
    imgdata.begin_parts(raw, out, OPTIONS, workers=1)
    with pytest.raises(OutputError, match=r"7 of 7 shards are missing, as no part has run yet"):
        imgdata.finish_parts(out)
    imgdata.write_part(out, 2, 5, workers=1)
    message = r"6 of 7 shards are missing, of 4 parts of 5; run them again \(--array=0-1,3-4; the first is --part 0/5\)"
    with pytest.raises(OutputError, match=message):
        imgdata.finish_parts(out)
    for part in (0, 1, 3, 4):
        imgdata.write_part(out, part, 5, workers=1)
    imgdata.finish_parts(out)
    assert digests(out) == whole


def test_a_shard_that_was_lost_is_missing_and_its_part_writes_it_again(raw, whole, tmp_path):
    out = tmp_path / "out"
    imgdata.begin_parts(raw, out, OPTIONS, workers=1)
    for part in range(2):
        imgdata.write_part(out, part, 2, workers=1)
    (out / "pets-train-000003.tar").write_bytes(b"cut short")
    with pytest.raises(OutputError, match=r"1 of 7 shards is missing, of 1 part of 2; run it again \(--array=1;"):
        imgdata.finish_parts(out)
    assert imgdata.write_part(out, 1, 2, workers=1).samples_written == 3
    imgdata.finish_parts(out)
    assert digests(out) == whole


def test_shards_of_which_nothing_is_left_leave_no_gap_in_the_numbers(tmp_path):
    from support.rawdata import encoded

    folder = tmp_path / "in" / "a"
    folder.mkdir(parents=True)
    for number in range(6):
        (folder / f"{number}.jpg").write_bytes(b"" if number in (0, 3) else encoded(number))
    options = ShardOptions(shard_samples=1, shuffle=False)
    imgdata.shard(tmp_path / "in", tmp_path / "alone", options, workers=1)
    imgdata.begin_parts(tmp_path / "in", tmp_path / "out", options)
    parts = [imgdata.write_part(tmp_path / "out", part, 4, workers=1) for part in range(4)]
    assert [part.rejected for part in parts] == [{"empty": 1}, {}, {}, {"empty": 1}]
    imgdata.finish_parts(tmp_path / "out")
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")


def test_a_plan_that_replaces_a_dataset_leaves_it_until_the_new_one_is_complete(raw, tmp_path):
    out = tmp_path / "out"
    imgdata.shard(raw, out, OPTIONS, workers=1)
    old = digests(out)
    other = ShardOptions(shard_samples=4)
    with pytest.raises(OutputError, match="use the same, another folder, or --overwrite"):
        imgdata.begin_parts(raw, out, other)
    imgdata.begin_parts(raw, out, other, overwrite=True)
    imgdata.write_part(out, 0, 2, workers=1)
    assert {name: hash for name, hash in old.items() if (out / name).exists()} == old
    imgdata.write_part(out, 1, 2, workers=1)
    imgdata.finish_parts(out)
    imgdata.shard(raw, tmp_path / "alone", other, workers=1)
    assert digests(out) == digests(tmp_path / "alone")


def test_an_image_that_changed_since_the_plan_ends_its_part(raw, tmp_path):
    source = tmp_path / "pets"
    shutil.copytree(raw, source)
    imgdata.begin_parts(source, tmp_path / "out", OPTIONS, workers=1)
    for image in source.rglob("*.jpg"):
        os.utime(image, ns=(1, 1))
    with pytest.raises(
        SourceError, match=r"changed between listing and reading.*; where it changed after --plan, run --plan again"
    ):
        imgdata.write_part(tmp_path / "out", 0, 1, workers=1)
    imgdata.begin_parts(source, tmp_path / "out", OPTIONS, workers=1)
    imgdata.write_part(tmp_path / "out", 0, 1, workers=1)
    assert imgdata.finish_parts(tmp_path / "out").samples == 21


def test_files_have_the_same_state_on_machines_that_number_them_differently(raw, whole, tmp_path, monkeypatch):
    imgdata.begin_parts(raw, tmp_path / "out", OPTIONS, workers=1)
    # As if this machine had the files on a network, whose numbers are not steady.
    monkeypatch.setattr("imgdata.storage.file_state.steady_devices", lambda: frozenset())
    monkeypatch.setattr("imgdata.shards.copying.steady_devices", lambda: frozenset())
    imgdata.write_part(tmp_path / "out", 0, 1, workers=1)
    imgdata.finish_parts(tmp_path / "out")
    assert digests(tmp_path / "out") == whole


def test_nothing_planned_is_one_clear_message(tmp_path):
    with pytest.raises(OutputError, match=r"nothing is planned here; begin with `imgdata shard SOURCE"):
        imgdata.write_part(tmp_path / "out", 0, 1)
    with pytest.raises(OutputError, match="nothing is planned here"):
        imgdata.finish_parts(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_that_was_begun_without_a_plan_for_parts_says_so(raw, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("imgdata.shards.finish.finish", stop)
        with pytest.raises(KeyboardInterrupt):
            imgdata.shard(raw, tmp_path, OPTIONS, workers=1)
    for call in (lambda: imgdata.write_part(tmp_path, 0, 1), lambda: imgdata.finish_parts(tmp_path)):
        with pytest.raises(OutputError, match=r"begun without a plan for parts; run `imgdata shard SOURCE .* --plan`"):
            call()
    assert imgdata.begin_parts(raw, tmp_path, OPTIONS)["finished_shards"] == 7
    imgdata.finish_parts(tmp_path)


def test_a_finish_that_was_interrupted_is_repeated(raw, whole, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    imgdata.begin_parts(raw, out, OPTIONS, workers=1)
    imgdata.write_part(out, 0, 1, workers=1)
    with monkeypatch.context() as patch:
        patch.setattr("imgdata.shards.finish.write_sidecars", stop)
        with pytest.raises(KeyboardInterrupt):
            imgdata.finish_parts(out)
    with pytest.raises(OutputError, match="every shard is written, and finishing has begun"):
        imgdata.write_part(out, 0, 1)
    imgdata.finish_parts(out)
    assert digests(out) == whole


@pytest.mark.parametrize(("part", "parts"), [(3, 3), (-1, 3), (0, 0)])
def test_parts_that_do_not_exist_are_refused(raw, tmp_path, part, parts):
    with pytest.raises(OptionError, match=r"part must be (0/|of 1 or more)"):
        imgdata.write_part(tmp_path, part, parts)


def test_other_versions_and_encoders_are_refused(raw, tmp_path, monkeypatch):
    imgdata.begin_parts(raw, tmp_path, shard_samples=3, resize=8)
    with monkeypatch.context() as patch:
        patch.setattr("imgdata.shards.planned_shard.encoder", lambda: "Pillow 1.0")
        with pytest.raises(OutputError, match=r"planned where images are encoded by .*, here by Pillow 1\.0"):
            imgdata.write_part(tmp_path, 0, 1)
    monkeypatch.setattr("imgdata.shards.planned_shard.__version__", "9.9")
    with pytest.raises(OutputError, match=r"planned by imgdata .*, this is 9\.9; use one version"):
        imgdata.write_part(tmp_path, 0, 1)


# Who is late


def late(folder, plan_id, work):
    """Write a shard, or do other work, while it goes on elsewhere."""
    with attempt(folder, plan_id) as place:
        work(place)


def test_a_process_that_is_late_changes_nothing_after_the_end(raw, whole, tmp_path):
    out = tmp_path / "out"
    imgdata.begin_parts(raw, out, OPTIONS, workers=1)
    plan_id = open_frozen(frozen_path(out)).facts.plan_id

    def meanwhile(place):
        imgdata.write_part(out, 0, 1, workers=1)
        imgdata.finish_parts(out)
        os.replace(place / "pets-train-000000.tar", out / "pets-train-000000.tar")

    for _ in range(2):
        with pytest.raises(ClosedError):
            late(out, plan_id, meanwhile)
    assert digests(out) == whole


def test_a_process_that_is_late_is_ended_by_another_plan(raw, tmp_path):
    imgdata.begin_parts(raw, tmp_path, OPTIONS, workers=1)
    plan_id = open_frozen(frozen_path(tmp_path)).facts.plan_id

    def meanwhile(place):
        imgdata.begin_parts(raw, tmp_path, ShardOptions(shard_samples=5), overwrite=True)
        (place / "shard.tar").write_bytes(b"of the old plan")

    for _ in range(2):
        with pytest.raises(ClosedError):
            late(tmp_path, plan_id, meanwhile)


def test_a_folder_that_is_being_removed_explains_the_error_of_its_process(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(part_files, "_LEAVING_S", PATIENCE_S)
    imgdata.begin_parts(raw, tmp_path, OPTIONS, workers=1)
    plan_id = open_frozen(frozen_path(tmp_path)).facts.plan_id

    def meanwhile(place):
        threading.Timer(0.2, part_files.close_parts, [tmp_path]).start()
        raise OutputError("a file of the folder is gone")

    with pytest.raises(ClosedError):
        late(tmp_path, plan_id, meanwhile)


@pytest.mark.slow
def test_parts_that_race_with_the_end_change_nothing_without_locks_either(tmp_path, monkeypatch):
    import fcntl

    from support.rawdata import encoded

    folder = tmp_path / "in" / "a"
    folder.mkdir(parents=True)
    for number in range(12):
        # Shards of which nothing is left: others are renumbered at the end.
        (folder / f"{number:02}.jpg").write_bytes(b"" if number in (0, 3, 7) else encoded(number))
    options = ShardOptions(shard_samples=1, shuffle=False)
    imgdata.shard(tmp_path / "in", tmp_path / "alone", options, workers=1)
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    replace, pauses = os.replace, random.Random(5)

    def replace_slowly(source, target):
        if "parts-" in str(source):
            time.sleep(pauses.random() * 0.03)
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_slowly)
    for number in range(8):
        out = tmp_path / f"out{number}"
        imgdata.begin_parts(tmp_path / "in", out, options)
        with ThreadPoolExecutor(6) as machines:
            parts = [machines.submit(imgdata.write_part, out, part % 3, 3, workers=1) for part in range(6)]
            finished = False
            while not finished:
                alive = not all(part.done() for part in parts)
                try:
                    imgdata.finish_parts(out)
                    finished = True
                except OutputError:
                    if not alive:
                        raise
        for part in parts:
            assert part.exception() is None or "the job was finished" in str(part.exception())
        assert digests(out) == digests(tmp_path / "alone")


def test_what_a_killed_process_left_is_removed_by_the_next_on_its_machine(raw, tmp_path, monkeypatch):
    imgdata.begin_parts(raw, tmp_path, OPTIONS, workers=1)
    plan_id = open_frozen(frozen_path(tmp_path)).facts.plan_id
    with attempt(tmp_path, plan_id) as place:
        # Kept, as this process lives.
        imgdata.write_part(tmp_path, 0, 2, workers=1)
        assert place.exists()
        monkeypatch.setattr(part_files, "_runs", lambda process: False)
        imgdata.write_part(tmp_path, 1, 2, workers=1)
        assert not place.exists()


def test_whoever_owns_the_folder_keeps_parts_out(raw, tmp_path, monkeypatch):
    monkeypatch.setattr("imgdata.shards.job_folder._WAIT_S", 0.0)
    imgdata.begin_parts(raw, tmp_path, OPTIONS, workers=1)
    with own(tmp_path), pytest.raises(OutputError, match="another imgdata run plans, writes or finishes"):
        imgdata.write_part(tmp_path, 0, 1)


def test_where_locks_do_not_work_nothing_depends_on_them(raw, whole, tmp_path, monkeypatch):
    import errno
    import fcntl

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    out = tmp_path / "out"
    imgdata.begin_parts(raw, out, OPTIONS, workers=1)
    plan_id = open_frozen(frozen_path(out)).facts.plan_id

    def meanwhile(place):
        imgdata.write_part(out, 0, 1, workers=1)
        (place / "pets-train-000001.tar").write_bytes(b"half of it")
        imgdata.finish_parts(out)
        os.replace(place / "pets-train-000001.tar", out / "pets-train-000001.tar")

    with pytest.raises(ClosedError):
        late(out, plan_id, meanwhile)
    assert digests(out) == whole


def test_a_part_whose_job_ended_meanwhile_says_so(raw, tmp_path, monkeypatch):
    imgdata.begin_parts(raw, tmp_path, OPTIONS, workers=1)
    publish = part_files.publish

    def publish_late(place, folder, report):
        part_files.close_parts(folder)
        publish(place, folder, report)

    monkeypatch.setattr("imgdata.shards.part_places.publish", publish_late)
    with pytest.raises(
        OutputError, match=r"the job was finished, or planned anew, while this part was writing; `imgdata"
    ):
        imgdata.write_part(tmp_path, 0, 1, workers=1)
    assert list(tmp_path.glob("*.tar")) == []


def test_a_bad_image_ends_a_part_where_the_plan_says_so(raw, tmp_path):
    source = tmp_path / "pets"
    shutil.copytree(raw, source)
    next(source.rglob("*.jpg")).write_bytes(b"")
    imgdata.begin_parts(source, tmp_path / "out", shard_samples=3, on_bad="fail")
    with pytest.raises(imgdata.ImageError, match=r"empty.*on-bad 'reject' leaves such images out"):
        imgdata.write_part(tmp_path / "out", 0, 1, workers=1)


# The file of the plan


@pytest.mark.parametrize(
    "source", ["synthetic:samples=9,classes=2,width=8,height=8", "folders", "zip", "tars", "parquet", "npz"]
)
def test_a_frozen_plan_of_every_source_gives_the_same_tasks(raw, tmp_path, source):
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = sorted((raw / "train").rglob("*.jpg"))
    if source == "folders":
        source = raw
    elif source == "zip":
        source = shutil.make_archive(str(tmp_path / "pets"), "zip", raw)
    elif source == "tars":
        imgdata.shard(raw, tmp_path / "tars", workers=1)
        source = tmp_path / "tars"
    elif source == "parquet":
        table = pa.table({"image": [path.read_bytes() for path in images], "label": list(range(len(images)))})
        pq.write_table(table, tmp_path / "pets.parquet")
        source = tmp_path / "pets.parquet"
    elif source == "npz":
        source = tmp_path / "pets.npz"
        np.savez(source, x_train=np.zeros((6, 8, 8, 3), np.uint8), y_train=np.arange(6))
    plan = make_plan(list_source(source, SourceOptions()), OPTIONS)
    freeze(plan, tmp_path / "plan.arrow", source=str(source), identity={}, state="")
    frozen = open_frozen(tmp_path / "plan.arrow")
    assert frozen.num_shards == plan.num_shards
    tasks = [frozen.task(number, tmp_path) for number in range(frozen.num_shards)]
    again = frozen.plan()
    for task, wanted, from_plan in zip(tasks, plan.tasks(tmp_path), again.tasks(tmp_path), strict=True):
        assert (task.file, task.split, task.refs, task.json_classes) == (
            wanted.file,
            wanted.split,
            wanted.refs,
            wanted.json_classes,
        )
        assert from_plan.refs == wanted.refs
        assert task.reader.read(task.refs[0]) == wanted.reader.read(wanted.refs[0])
    assert again.splits[0].estimated_bytes == plan.splits[0].estimated_bytes


def test_paths_of_a_plan_are_absolute(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(raw.parent)
    imgdata.begin_parts("pets", tmp_path / "out", OPTIONS, workers=1)
    monkeypatch.chdir(tmp_path)
    imgdata.write_part("out", 0, 1, workers=1)
    assert imgdata.finish_parts("out").samples == 21


def test_the_file_of_a_plan_calls_nothing_but_classes_of_imgdata():
    class Evil:
        def __reduce__(self):
            return os.system, ("false",)

    for value in (Evil(), subprocess.Popen, shutil.rmtree):
        with pytest.raises(pickle.UnpicklingError, match="no class of imgdata"):
            _Unpacker(__import__("io").BytesIO(pickle.dumps(value))).load()


def test_a_damaged_plan_is_one_clear_message_and_is_made_again(raw, tmp_path):
    imgdata.begin_parts(raw, tmp_path, OPTIONS, workers=1)
    frozen_path(tmp_path).write_bytes(b"damaged")
    with pytest.raises(OutputError, match=r"plan\.arrow: damaged, .* --plan` again"):
        imgdata.write_part(tmp_path, 0, 1)
    imgdata.begin_parts(raw, tmp_path, OPTIONS, workers=1)
    assert imgdata.write_part(tmp_path, 0, 1, workers=1).samples == 21


def test_images_of_packed_sources_are_copied_out_once_by_the_plan(raw, tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = sorted((raw / "train").rglob("*.jpg"))
    table = pa.table({"image": [path.read_bytes() for path in images], "label": list(range(len(images)))})
    pq.write_table(table, tmp_path / "pets.parquet")
    imgdata.shard(tmp_path / "pets.parquet", tmp_path / "alone", OPTIONS, workers=1)
    monkeypatch.setattr(begun, "SPOOL_BYTES", 0)
    out = tmp_path / "out"
    imgdata.begin_parts(tmp_path / "pets.parquet", out, OPTIONS)
    assert (out / ".imgdata" / "images.spool").exists()
    (tmp_path / "pets.parquet").rename(tmp_path / "away")
    imgdata.write_part(out, 0, 1, workers=1)
    imgdata.finish_parts(out)
    assert digests(out) == digests(tmp_path / "alone")


# Processes


SLOW = """
import os, time
replace = os.replace
def replace_slowly(source, target):
    # A shard that is finished; otherwise all of them may be before this test's process acts.
    if str(target).endswith(".tar"):
        time.sleep(0.2)
    replace(source, target)
os.replace = replace_slowly
"""


def command(*arguments, slow=False):
    script = "import imgdata_cli.main as m; m.main()"
    return [sys.executable, "-c", (SLOW if slow else "") + script, "shard", SOURCE, *map(str, arguments)]


def quietly(*arguments):
    done = subprocess.run(command(*arguments, "--json", "--quiet"), check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def test_four_processes_at_once_one_killed_and_one_twice_make_the_dataset_of_one_run(tmp_path):
    options = ["--shard-samples", 20, "--name", "syn"]
    quietly(tmp_path / "alone", *options)
    out = tmp_path / "out"
    assert quietly(out, *options, "--plan")["shards"] == 18
    running = [
        subprocess.Popen(command(out, "--part", f"{part}/4", "--workers", 1, "--quiet", slow=part == 2))
        for part in (0, 1, 2, 3, 3)
    ]
    end = time.monotonic() + PATIENCE_S
    while not (out / "syn-train-000002.tar").exists() and time.monotonic() < end:
        time.sleep(0.005)
    running[2].send_signal(signal.SIGKILL)
    assert [process.wait(PATIENCE_S) for process in running] == [0, 0, -signal.SIGKILL, 0, 0]
    early = subprocess.run(command(out, "--finish"), stderr=subprocess.PIPE, text=True)
    assert early.returncode == 1
    assert "--array=2; the first is --part 2/4" in early.stderr
    assert "Traceback" not in early.stderr
    again = quietly(out, "--part", "2/4")
    assert 1 <= again["resumed_shards"] < again["shards"] == 4
    quietly(out, "--finish")
    assert digests(out) == digests(tmp_path / "alone")
