"""`--overwrite` writes beside, and swaps when the new dataset is whole; it can be cut off at any system call."""

import hashlib
import os
import shutil
import subprocess
import sys

import pytest

import imgdata
from imgdata import ShardOptions
from support.rawdata import class_folders

OLD = ShardOptions(name="old", shard_samples=3)
NEW = ShardOptions(name="new", shard_samples=2)
SAME_NAME = ShardOptions(name="old", shard_samples=2, seed=3)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("raw") / "pets", {"train": 3, "val": 2})


def run(raw, out, options, *, overwrite=False, watch=None):
    return imgdata.shard(raw, out, options, workers=1, overwrite=overwrite, watch=watch)


def digests(out):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def expected(raw, tmp_path_factory):
    folders = {}
    for name, options in (("old", OLD), ("new", NEW), ("same name", SAME_NAME)):
        folders[name] = tmp_path_factory.mktemp("expected") / "out"
        run(raw, folders[name], options)
    return {name: digests(folder) for name, folder in folders.items()}


class Stop(imgdata.Watcher):
    """Ends the run after some shards."""

    def __init__(self, out, shards=2):
        self.out, self.shards = out, shards

    def advanced(self, samples, num_bytes, rejects):
        if len(list((self.out / ".imgdata").rglob("*.tar"))) >= self.shards:
            raise KeyboardInterrupt


def test_the_old_dataset_is_whole_until_the_new_one_is(raw, tmp_path, expected):
    out = tmp_path / "out"
    run(raw, out, OLD)
    with pytest.raises(KeyboardInterrupt):
        run(raw, out, NEW, overwrite=True, watch=Stop(out))
    assert digests(out) == expected["old"]
    assert len(imgdata.open(out)["train"]) == 9
    assert imgdata.verify(out) == []


@pytest.mark.parametrize("overwrite", [True, False])
def test_an_overwrite_that_was_cut_off_is_resumed_by_the_same_options(raw, tmp_path, expected, overwrite):
    out = tmp_path / "out"
    run(raw, out, OLD)
    with pytest.raises(KeyboardInterrupt):
        run(raw, out, NEW, overwrite=True, watch=Stop(out))
    summary = run(raw, out, NEW, overwrite=overwrite)
    assert summary.resumed_shards >= 2
    assert digests(out) == expected["new"]
    assert not (out / ".imgdata").exists()


def test_the_first_run_with_overwrite_is_resumed_too(raw, tmp_path, expected):
    out = tmp_path / "out"

    class Early(Stop):
        def advanced(self, samples, num_bytes, rejects):
            if len(list(out.glob("*.tar"))) >= 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(raw, out, NEW, overwrite=True, watch=Early(out))
    assert run(raw, out, NEW, overwrite=True).resumed_shards >= 2
    assert digests(out) == expected["new"]


def test_other_options_begin_the_overwrite_anew_and_the_old_ones_find_the_old_dataset(raw, tmp_path, expected):
    out = tmp_path / "out"
    run(raw, out, OLD)
    with pytest.raises(KeyboardInterrupt):
        run(raw, out, NEW, overwrite=True, watch=Stop(out))
    assert run(raw, out, OLD).already_complete
    assert run(raw, out, SAME_NAME, overwrite=True).resumed_shards == 0
    assert digests(out) == expected["same name"]
    assert not (out / ".imgdata").exists()


def test_an_unfinished_overwrite_is_not_taken_for_a_refused_dataset(raw, tmp_path):
    out = tmp_path / "out"
    run(raw, out, OLD)
    with pytest.raises(KeyboardInterrupt):
        run(raw, out, NEW, overwrite=True, watch=Stop(out))
    with pytest.raises(imgdata.OutputError, match=r"was made with other options .*--overwrite"):
        run(raw, out, SAME_NAME)


KILL = """
import os, sys, imgdata
import imgdata.shards.job_folder as folder

raw, root, name, samples, seed, counts = *sys.argv[1:4], *map(int, sys.argv[4:6]), sys.argv[6:]
original = folder.JobFolder.swap_in
options = imgdata.ShardOptions(name=name, shard_samples=samples, seed=seed)

def dying(call, out, left):
    def counted(*arguments, **options):
        path = str(arguments[0]) if arguments and isinstance(arguments[0], (str, os.PathLike)) else ""
        if out in path:
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
        return call(*arguments, **options)
    return counted

for count in counts:
    out = f"{root}/out{count}"
    child = os.fork()
    if child:
        print(count, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        continue

    def swapping(*arguments, **options):
        # From the moment at which the new dataset is whole.
        left = [int(count)]
        for name in ("replace", "unlink", "rmdir", "open"):
            setattr(os, name, dying(getattr(os, name), out, left))
        return original(*arguments, **options)

    folder.JobFolder.swap_in = swapping
    try:
        imgdata.shard(raw, out, options, workers=1, overwrite=True)
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)
    os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("options", [NEW, SAME_NAME], ids=["other names", "the same names"])
def test_a_swap_that_is_killed_at_any_system_call_is_completed_by_the_next_run(raw, tmp_path, expected, options):
    wanted = expected["new" if options is NEW else "same name"]
    run(raw, tmp_path / "old", OLD)
    counts = list(map(str, range(1, 60, 4)))
    for count in counts:
        shutil.copytree(tmp_path / "old", tmp_path / f"out{count}")
    arguments = [str(raw), str(tmp_path), options.name, str(options.shard_samples), str(options.seed), *counts]
    done = subprocess.run([sys.executable, "-c", KILL, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    ended = dict(map(str.split, done.stdout.splitlines()))
    assert set(ended.values()) <= {"9", "0"}
    for count in (count for count, code in ended.items() if code == "9"):
        out = tmp_path / f"out{count}"
        if (out / "dataset.json").exists():
            assert imgdata.verify(out) == []
        else:
            with pytest.raises(imgdata.ShardError, match="run the same `imgdata shard` command again"):
                imgdata.open(out)
        run(raw, out, options)
        assert digests(out) == wanted
        assert not (out / ".imgdata").exists()
    assert list(ended.values()).count("9") > 3


def test_what_others_put_beside_the_dataset_stays(raw, tmp_path):
    out = tmp_path / "out"
    run(raw, out, OLD)
    (out / "letter.txt").write_text("mine")
    (out / "views").mkdir()
    run(raw, out, NEW, overwrite=True)
    assert (out / "letter.txt").read_text() == "mine"
    assert (out / "views").is_dir()


def test_an_overwrite_of_an_earlier_version_that_was_cut_off_is_completed(raw, tmp_path, expected):
    out = tmp_path / "out"
    run(raw, out, OLD)
    (out / ".imgdata").mkdir()
    gone = [path.name for path in out.iterdir() if path.is_file()]
    (out / ".imgdata" / "plan.json").write_text(f'{{"discard": {gone!r}}}'.replace("'", '"'))
    os.unlink(out / "dataset.json")
    run(raw, out, NEW)
    assert digests(out) == expected["new"]
