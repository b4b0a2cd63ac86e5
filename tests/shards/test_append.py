"""`shard(..., append=True)`: a dataset grows by versions; what was made of an earlier one still finds it."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import imgdata
from imgdata.dataset.index import index_id
from support.rawdata import encoded, pictures_of

FIRST = {"train/cat": 5, "train/dog": 4, "val/cat": 2}
MORE = {"train/ant": 3, "train/dog": 4}
"""A new class, whose id comes before the others, and more of one that is there."""


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return pictures_of(tmp_path_factory.mktemp("first") / "pets", FIRST)


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    return pictures_of(tmp_path_factory.mktemp("more") / "new", MORE, first=100)


@pytest.fixture(scope="module")
def made(raw, tmp_path_factory):
    """The dataset before anything is appended; not to be changed."""
    out = tmp_path_factory.mktemp("made") / "out"
    imgdata.shard(raw, out, shard_samples=3, workers=1)
    return out


@pytest.fixture
def out(made, tmp_path):
    return shutil.copytree(made, tmp_path / "out", copy_function=shutil.copy2)


def append(source, out, **options):
    return imgdata.shard(source, out, append=True, workers=1, **{"shard_samples": 3, **options})


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def rows(dataset, split):
    return [(sample.key, sample.label, sample.image) for sample in dataset[split]]


def test_the_samples_and_classes_of_a_version_stay_where_they_were(out, more):
    before = imgdata.open(out)
    first = {split: rows(before, split) for split in before}
    summary = append(more, out)
    after = imgdata.open(out)
    assert (summary.version, after.version, before.version) == (2, 2, 1)
    assert [one.id for one in after.classes] == ["cat", "dog", "ant"]
    assert rows(after, "train")[:9] == first["train"]
    assert rows(after, "val") == first["val"]
    assert len(after["train"]) == 16
    added = {key: after.classes[label].id for key, label, _ in rows(after, "train")[9:]}
    assert added == {f"ant/{n}": "ant" for n in range(100, 103)} | {f"dog/{n}": "dog" for n in range(100, 104)}
    assert imgdata.verify(out) == []
    assert not (out / ".imgdata").exists()


def test_shards_are_numbered_on_and_no_file_of_the_version_before_changes(out, more):
    before = digests(out)
    append(more, out)
    after = digests(out)
    assert sorted(name for name in after if name.endswith(".tar")) == [
        *(f"pets-train-{number:06d}.tar" for number in range(6)),
        "pets-val-000000.tar",
    ]
    of_one_name = {"dataset.json", "_info.json", "README.md", "croissant.json", "pets-train.wids.json"}
    assert {name for name in before if before[name] != after[name]} == of_one_name


def test_every_version_can_be_opened(out, more, tmp_path):
    append(more, out)
    third = pictures_of(tmp_path / "third", {"test/cat": 2, "val/bee": 1}, first=200)
    append(third, out)
    versions = [imgdata.open(out, version=number) for number in (1, 2, 3)]
    assert [list(map(len, one.splits.values())) for one in versions] == [[9, 2], [16, 2], [16, 3, 2]]
    assert [[named.id for named in one.classes] for one in versions] == [
        ["cat", "dog"],
        ["cat", "dog", "ant"],
        ["cat", "dog", "ant", "bee"],
    ]
    assert [one.version for one in versions] == [1, 2, 3]
    assert imgdata.open(out).at(2)["train"].index.path == versions[1]["train"].index.path
    with pytest.raises(imgdata.OptionError, match=r"version must be 1 to 3, which the dataset pets has, got 4"):
        imgdata.open(out, version=4)
    assert imgdata.verify(out, deep=True) == []


def test_dataset_json_has_the_fingerprints_of_all_versions(out, made, more):
    append(more, out)
    content = json.loads((out / "dataset.json").read_text())
    assert [one["splits"]["train"]["samples"] for one in content["versions"]] == [9, 16]
    wanted = [index_id(imgdata.open(folder)["train"].index) for folder in (made, out)]
    assert [one["splits"]["train"]["fingerprint"] for one in content["versions"]] == wanted
    assert len(set(wanted)) == 2


def test_the_same_images_are_not_appended_twice(out, more):
    append(more, out)
    before = digests(out)
    again = append(more, out)
    assert again.already_complete
    assert digests(out) == before


def test_the_command_that_made_the_dataset_finds_it_complete(out, raw, more):
    append(more, out)
    assert imgdata.shard(raw, out, shard_samples=3, workers=1).already_complete


def test_images_that_changed_since_they_were_appended_are_noticed(out, more, tmp_path):
    source = shutil.copytree(more, tmp_path / "new")
    append(source, out)
    changed = source / "train" / "ant" / "100.jpg"
    size, seed = changed.stat().st_size, 0
    while len(data := encoded(seed, (40, 48))) > size:
        seed += 1
    changed.write_bytes(data + b"\0" * (size - len(data)))
    with pytest.raises(imgdata.OutputError, match=r"was appended to when 1 image of the source had other bytes"):
        append(source, out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": 16}, r"resize: None -> 16"),
        ({"hash": "xxh128"}, r"hash: 'sha256' -> 'xxh128'"),
        ({"format": "png"}, r"format: 'keep' -> 'png'"),
        ({"on_bad": "repair"}, r"on_bad: 'reject' -> 'repair'"),
        ({"json_members": True}, r"json_members: False -> True"),
        ({"name": "other"}, r"name must be 'pets', that of the dataset, got 'other'"),
    ],
)
def test_options_must_be_those_of_the_dataset(out, more, options, message):
    before = digests(out)
    with pytest.raises(imgdata.OptionError, match=message):
        append(more, out, **options)
    assert digests(out) == before
    assert not (out / ".imgdata").exists()


@pytest.mark.parametrize("options", [{"shard_samples": 2}, {"seed": 5}, {"shuffle": False}, {"on_bad": "fail"}])
def test_options_that_choose_and_order_samples_are_free(out, more, options):
    append(more, out, **options)
    assert len(imgdata.open(out)["train"]) == 16


def test_keys_that_are_taken_are_one_error_and_nothing_is_written(out, tmp_path):
    before = digests(out)
    source = pictures_of(tmp_path / "again", {"train/cat": 2, "val/cat": 2}, first=1)
    with pytest.raises(imgdata.OutputError, match=r"samples with 3 keys of the 4 in again: .*\(val/cat/001.jpg\)"):
        append(source, out)
    assert digests(out) == before
    assert not (out / ".imgdata").exists()


def test_a_prefix_makes_keys_that_are_free(out, raw, tmp_path):
    append(raw, out, key_prefix="again/")
    both = imgdata.open(out)
    assert len(both["train"]) == 18
    keys = [sample.key for sample in both["train"]]
    assert {key.removeprefix("again/") for key in keys[9:]} == set(keys[:9])
    assert imgdata.verify(out) == []
    with pytest.raises(imgdata.OptionError, match="key_prefix must be up to 40 letters"):
        append(raw, out, key_prefix="ü")


def test_a_folder_without_a_dataset_is_refused(more, tmp_path):
    with pytest.raises(imgdata.OutputError, match=r"no finished dataset to append to; leave out --append"):
        append(more, tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(imgdata.OptionError, match=r"append and overwrite can't be given together"):
        append(more, tmp_path / "nothing", overwrite=True)


def test_samples_without_labels_are_refused_where_the_dataset_has_some(out, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "900.jpg").write_bytes(encoded(1))
    with pytest.raises(imgdata.OptionError, match=r"target must be class, as in the dataset, got none in flat"):
        append(flat, out, label_from="none")


def test_bad_images_of_an_append_are_counted_in_a_list_of_their_own(out, more, tmp_path):
    source = shutil.copytree(more, tmp_path / "new")
    (source / "train" / "ant" / "101.jpg").write_bytes(b"no image at all")
    summary = append(source, out)
    assert summary.rejected == {"not-an-image": 1}
    assert [json.loads(line)["source"] for line in (out / "rejects.v2.jsonl").read_text().splitlines()] == [
        "train/ant/101.jpg"
    ]
    assert json.loads((out / "dataset.json").read_text())["counts"]["rejected"] == 1
    assert append(source, out).rejected == {"not-an-image": 1}
    assert imgdata.verify(out) == []


def test_columns_grow_with_the_rows(tmp_path):
    for name, numbers, more_columns in (("a", range(3), {"age": 1}), ("b", range(3, 5), {"age": 2.5, "town": "Ulm"})):
        folder = tmp_path / name
        folder.mkdir()
        lines = []
        for number in numbers:
            (folder / f"{number}.jpg").write_bytes(encoded(number))
            lines.append(json.dumps({"path": f"{number}.jpg", "label": "x", **more_columns}))
        (folder / "table.jsonl").write_text("\n".join(lines))
    out = tmp_path / "out"
    imgdata.shard(tmp_path / "a", out, workers=1, table=tmp_path / "a" / "table.jsonl")
    imgdata.shard(tmp_path / "b", out, workers=1, table=tmp_path / "b" / "table.jsonl", append=True)
    everything = np.arange(5)
    after = imgdata.open(out)["train"].columns
    assert after.values("age", everything).tolist() == [1.0, 1.0, 1.0, 2.5, 2.5]
    assert after.values("town", everything) == ["", "", "", "Ulm", "Ulm"]
    before = imgdata.open(out, version=1)["train"].columns
    assert before.types == {"age": "whole number"}
    assert imgdata.verify(out) == []


def test_views_of_an_earlier_version_stay_the_same_samples(out, more):
    before = imgdata.open(out)
    half = imgdata.open_view(before, "train", "fraction=0.5")
    imgdata.save_view(half, "half")
    imgdata.save_view(imgdata.open_view(before, "val", "where class==cat"), "cats")
    append(more, out)
    after = imgdata.open(out)
    for name, split, wanted in (("half", "train", half), ("cats", "val", None)):
        view = imgdata.load_view(after, name)
        assert wanted is None or (view.fingerprint, view.position_N.tolist()) == (
            wanted.fingerprint,
            wanted.position_N.tolist(),
        )
        assert [one.id for one in view.classes] == ["cat", "dog"]
        assert view.split == split
    assert len(imgdata.open_view(after, "train", "fraction=0.5")) == 8
    imgdata.save_view(imgdata.open_view(after, "train", "where class==ant"), "ants")
    assert len(imgdata.load_view(after, "ants")) == 3
    with pytest.raises(imgdata.ShardError, match="made of other images or labels"):
        imgdata.load_view(imgdata.open(out, version=1), "ants")


def test_overwriting_a_dataset_that_has_grown_leaves_nothing_of_it(out, raw, more, made, tmp_path):
    append(more, out)
    imgdata.shard(raw, out, shard_samples=3, workers=1, overwrite=True, seed=9)
    imgdata.shard(raw, out, shard_samples=3, workers=1, overwrite=True)
    assert digests(out) == digests(made)


def test_an_index_that_is_rebuilt_keeps_all_versions(out, more):
    append(more, out)
    before, content = digests(out), json.loads((out / "dataset.json").read_text())
    (out / "pets-train.index.parquet").unlink()
    imgdata.index(out)
    assert digests(out) == before
    (out / "pets-train.v2.index.parquet").unlink()
    imgdata.index(out)
    again = json.loads((out / "dataset.json").read_text())
    for old, new in zip(content["versions"], again["versions"], strict=True):
        assert old["splits"]["train"]["fingerprint"] == new["splits"]["train"]["fingerprint"]
    assert imgdata.open(out)["train"].index.row(0).source == imgdata.open(out, version=1)["train"].index.row(0).source
    assert imgdata.verify(out) == []


def test_a_version_whose_index_is_lost_or_damaged_is_a_fault(out, more):
    append(more, out)
    path = out / "pets-train.index.parquet"
    data = path.read_bytes()
    path.unlink()
    (fault,) = imgdata.verify(out)
    assert (fault.shard, fault.what.startswith("missing")) == (path.name, True)
    path.write_bytes(data[:-5] + b"other")
    (fault,) = imgdata.verify(out)
    assert fault.what.startswith("sha256 is")


def test_a_plan_names_the_shards_that_would_be_added(out, more):
    before = digests(out)
    plan = imgdata.plan_shards(more, out=out, append=True, shard_samples=3)
    assert (plan["splits"]["train"]["first"], plan["splits"]["train"]["last"]) == (
        "pets-train-000003.tar",
        "pets-train-000005.tar",
    )
    assert plan["out"] == "exists: a run adds these samples as version 2"
    assert digests(out) == before
    append(more, out)
    assert imgdata.plan_shards(more, out=out, append=True, shard_samples=3)["out"] == (
        "exists: version 2 has these samples already"
    )


class Stop(imgdata.Watcher):
    """Ends a run after its first shard."""

    def __init__(self, out):
        self.out = out

    def advanced(self, samples, num_bytes, rejects):
        if len(list((self.out / ".imgdata").rglob("*.tar"))) >= 1:
            raise KeyboardInterrupt


def test_an_append_that_was_begun_is_resumed_and_others_wait(out, more, made, tmp_path):
    whole = shutil.copytree(made, tmp_path / "whole")
    append(more, whole)
    with pytest.raises(KeyboardInterrupt):
        append(more, out, watch=Stop(out))
    assert digests(out) == digests(made)
    assert imgdata.verify(out) == []
    other = pictures_of(tmp_path / "other", {"train/cat": 1}, first=300)
    with pytest.raises(imgdata.OutputError, match=r"another append was begun here .* or delete the folder"):
        append(other, out)
    assert append(more, out).resumed_shards >= 1
    assert digests(out) == digests(whole)
    assert not (out / ".imgdata").exists()


KILLED = """
import os, shutil, sys, imgdata
made, more, root = sys.argv[1:]
CALLS = ("replace", "unlink", "rmdir", "open", "mkdir")

def dying(call, left):
    def counted(*arguments, **options):
        path = str(arguments[0]) if arguments and isinstance(arguments[0], (str, os.PathLike)) else ""
        if "/out" in path:
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
        return call(*arguments, **options)
    return counted

count = 1
while True:
    out = f"{root}/out{count}"
    shutil.copytree(made, out)
    child = os.fork()
    if child == 0:
        left = [count]
        for name in CALLS:
            setattr(os, name, dying(getattr(os, name), left))
        try:
            imgdata.shard(more, out, append=True, workers=1, shard_samples=3)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(count, code)
    if code != 9:
        break
    count += 13
"""


@pytest.mark.slow
def test_an_append_that_is_killed_at_any_system_call_leaves_the_old_version_or_the_new_one(made, more, tmp_path):
    whole = shutil.copytree(made, tmp_path / "whole")
    append(more, whole)
    old, new = digests(made), digests(whole)
    command = [sys.executable, "-c", KILLED, str(made), str(more), str(tmp_path)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    codes = [int(line.split()[1]) for line in lines]
    assert codes[-1] == 0
    assert len(codes) > 6
    for line in lines:
        out = tmp_path / f"out{line.split()[0]}"
        version = imgdata.open(out).version
        assert [fault for fault in imgdata.verify(out) if fault.serious and version == 1] == []
        assert digests(out)["dataset.json"] in (old["dataset.json"], new["dataset.json"])
        append(more, out)
        assert digests(out) == new
        assert imgdata.verify(out) == []
        assert not (out / ".imgdata").exists()


def test_any_run_ends_an_append_that_is_whole(out, raw, more, monkeypatch):
    calls = []

    def killed(job):
        calls.append(job.out)
        # The first call is before the shards are written.
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("imgdata.shards.job.complete_append", killed)
        with pytest.raises(KeyboardInterrupt):
            append(more, out)
    assert imgdata.open(out).version == 1
    assert imgdata.shard(raw, out, shard_samples=3, workers=1).already_complete
    assert imgdata.open(out).version == 2
    assert not (out / ".imgdata").exists()


def test_inspect_names_the_version_and_those_before(out, more):
    assert "versions" not in imgdata.inspect(out).to_dict()
    append(more, out)
    summary = imgdata.inspect(out)
    assert summary.to_dict()["versions"] == (11, 18)
    assert "version 2; samples of earlier versions: 1: 11" in str(summary)


def test_masks_must_be_there_in_both_or_in_none(out, tmp_path):
    raw = tmp_path / "raw"
    for name in ("images", "masks"):
        (raw / name).mkdir(parents=True)
    (raw / "images" / "500.jpg").write_bytes(encoded(1, (40, 48)))
    Image.new("L", (40, 48)).save(raw / "masks" / "500.png")
    with pytest.raises(imgdata.OptionError, match=r"further images must be none, as in the dataset, got mask \(mask\)"):
        append(raw, out)


def test_a_source_of_one_class_is_nothing_to_note(out, tmp_path):
    summary = append(pictures_of(tmp_path / "new", {"train/ant": 2}), out)
    assert not [text for text in summary.warnings if "only one class" in text]
    assert "only one class" not in (out / "README.md").read_text()


COMMANDS = [
    (["--append", "--plan"], "--append can't be given with --plan"),
    (["--append", "--overwrite"], "append and overwrite can't be given together"),
    (["--append", "--engine", "ray"], "append can't be given with engine 'ray'"),
    (["--append", "--resize", "8"], "resize: None -> 8"),
]


@pytest.mark.parametrize(("options", "message"), COMMANDS)
def test_the_command_refuses_what_can_not_be_appended_in_one_line(out, more, options, message):
    before = digests(out)
    ended = subprocess.run(
        [sys.executable, "-m", "imgdata_cli.main", "shard", str(more), str(out), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert message in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert digests(out) == before
