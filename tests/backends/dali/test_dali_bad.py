"""Bad images in front of DALI, whose pipelines end with the first: found, remembered, and all else as ever."""

import os
import re
import shutil
from contextlib import closing

import numpy as np
import pytest

from imgdata import Loader, native
from imgdata.backends.cpu.backend import CpuBackend
from imgdata.backends.dali import faults, pipeline, pipeline_thread
from imgdata.backends.dali.backend import DaliBackend
from imgdata.errors import ImageError, ShardError
from imgdata.loader.bad_images import BadImageWarning
from imgdata.recipes import HorizontalFlip, RandomErasing, Recipe, Resize
from support.dali_faults import Faulty
from support.dali_work import BAD, NORMALIZE, by_dali, made, setup, work
from support.loaders import RECIPE, dataset, sample


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def flawed(tmp_path_factory):
    """A dataset in which the images `BAD` are."""
    return dataset(tmp_path_factory.mktemp("flawed"), BAD)


def test_bad_images_are_found_and_the_other_rows_are_as_ever(flawed, images):
    given, good = setup(flawed, RECIPE), setup(images, RECIPE)
    rows = [position for position in range(60) if position != 20]
    found, failed = by_dali(given, work(given, rows))
    expected, _ = by_dali(good, work(good, rows))
    bad = {rows.index(position): error for position, error in ((5, "corrupt"), (21, "truncated"), (44, "corrupt"))}
    assert {row: error.reason for row, error in failed.items()} == bad
    assert all(isinstance(error, ImageError) for error in failed.values())
    assert not found[list(bad)].any()
    fine = [row for row in range(len(rows)) if row not in bad]
    assert np.array_equal(found[fine], expected[fine])


def test_batches_in_flight_survive_a_bad_one_beside_them(flawed, images):
    given, good = setup(flawed, RECIPE), setup(images, RECIPE)
    parts = [range(0, 10), range(22, 32), range(40, 50), range(50, 60)]
    with closing(DaliBackend(given)) as backend, closing(DaliBackend(good)) as other:
        pending = [backend.start(work(given, part)) for part in parts]
        failed = [one.wait() for one in pending]
        assert [list(rows) for rows in failed] == [[5], [], [4], []]
        # Others take their place.
        assert pending[0].redo(np.array([5]), work(given, [33])) == {}
        assert list(pending[2].redo(np.array([4]), work(given, [5]))) == [4]
        assert pending[2].redo(np.array([4]), work(given, [8])) == {}
        for one, positions in zip(
            pending,
            ([0, 1, 2, 3, 4, 33, 6, 7, 8, 9], parts[1], [40, 41, 42, 43, 8, *range(45, 50)], parts[3]),
            strict=True,
        ):
            assert np.array_equal(one.images().numpy(), made(other, work(good, positions))[0])


def test_bad_images_are_remembered_for_the_next_run(flawed, monkeypatch, cache):
    given = setup(flawed, RECIPE)
    todo = work(given, [4, 5, 6, 44])
    first, failed = by_dali(given, todo)
    (file,) = cache.glob("dali-*.jsonl")
    assert len(file.read_text().splitlines()) == 2
    with open(file, "ab") as half:
        half.write(b"[7, 12")
    monkeypatch.setattr(pipeline_thread._Driver, "_recover", lambda *_: pytest.fail("found by a failure again"))
    again, failed_again = by_dali(given, todo)
    assert np.array_equal(again, first)
    assert {row: str(error) for row, error in failed_again.items()} == {
        row: str(error) for row, error in failed.items()
    }


def test_dali_never_sees_a_jpeg_with_stray_bytes_between_header_segments(tmp_path, monkeypatch):
    """They ended the process inside nvImageCodec 0.9.0, in most runs."""
    odd = {3: sample(3)[:20] + b"hello" + sample(3)[20:], 5: sample(5)[:20] + b"\xff" + sample(5)[20:]}
    given, seen = setup(dataset(tmp_path, odd, count=10), RECIPE), []
    start = pipeline.Graph.start
    monkeypatch.setattr(
        pipeline.Graph, "start", lambda self, encoded, arrays: (seen.extend(encoded), start(self, encoded, arrays))[1]
    )
    found, failed = by_dali(given, work(given, [2, 3, 4, 5]))
    assert failed == {}
    assert not any(bytes(one) in odd.values() for one in seen)
    assert sum(bytes(one) in (sample(2), sample(4)) for one in seen) == 2
    monkeypatch.setattr(native, "AVAILABLE", False)
    with closing(CpuBackend(given)) as backend:
        expected, _ = made(backend, work(given, [3, 5]))
    assert np.array_equal(found[[1, 3]], expected)


@pytest.mark.parametrize(
    "line", [b"5", b"null", b"[[1], 2, 3, 4]", b'["5", 1, "a", "b"]', b"\xff\xfe", b"[" * 10**5, b"[5, 1]", b"{}"]
)
def test_what_is_no_line_of_what_is_remembered_is_passed_over(flawed, cache, line):
    given = setup(flawed, RECIPE)
    todo = work(given, [4, 5])
    by_dali(given, todo)
    (file,) = cache.glob("dali-*-cpu-*.jsonl")
    file.write_bytes(line + b"\n" + file.read_bytes())
    assert list(by_dali(given, todo)[1]) == [1]


def test_what_is_remembered_holds_for_those_bytes_alone(flawed, images, tmp_path):
    copy = shutil.copytree(flawed, tmp_path / "copy")
    given = setup(copy, RECIPE)
    todo = work(given, [4, 5])
    assert list(by_dali(given, todo)[1]) == [1]
    shard = copy / given.split.index.row(5).shard
    shard.write_bytes(shard.read_bytes().replace(BAD[5], sample(5)))
    repaired, failed = by_dali(given, todo)
    assert failed == {}
    assert np.array_equal(repaired, by_dali(setup(images, RECIPE), todo)[0])


def test_a_cache_that_cannot_be_written_is_warned_of(flawed, cache, monkeypatch):
    cache.write_bytes(b"a file where the folder should be")
    given = setup(flawed, RECIPE)
    with closing(DaliBackend(given)) as backend:
        pending = backend.start(work(given, [5]))
        with pytest.raises(UserWarning, match=r"can't be written .*: set IMGDATA_CACHE"):
            pending.wait()


def test_a_crop_that_dali_refuses_and_the_host_does_not_is_the_hosts(images, monkeypatch, cache):
    given = setup(images, RECIPE)
    todo = work(given, [0, 1, 2])
    monkeypatch.setattr(native, "AVAILABLE", False)

    def says(spec, inputs):
        """As of a picture that is damaged below: it decodes to its first pixel, and no further."""
        rows = [bytes(data) for data in inputs["encoded"]]
        refused = sample(1) in rows and inputs["extent"].max() > 1
        return f"Failed to decode sample #{rows.index(sample(1))} : \n" if refused else None

    Faulty(monkeypatch, says)
    found, failed = by_dali(given, todo)
    assert failed == {}
    with closing(CpuBackend(given)) as backend:
        expected, _ = made(backend, todo)
    assert np.array_equal(found[1], expected[1])
    # DALI can make other crops of it, and will.
    assert not list(cache.glob("*"))


def test_a_failure_that_names_no_row_is_tried_row_by_row(flawed, monkeypatch):
    monkeypatch.setattr(faults, "_NAMED", re.compile("(never)"))
    given = setup(flawed, RECIPE)
    _, failed = by_dali(given, work(given, [0, 5, 6, 44]))
    assert sorted(failed) == [1, 3]


def test_the_first_bad_image_alone_costs_a_batch(flawed, monkeypatch):
    given, recovered = setup(flawed, RECIPE), []
    recover = pipeline_thread._Driver._recover
    monkeypatch.setattr(
        pipeline_thread._Driver, "_recover", lambda self, *found: (recovered.append(found), recover(self, *found))[1]
    )
    with closing(DaliBackend(given)) as backend:
        pending = [backend.start(work(given, part)) for part in ([5, 44, 6], [44, 5], [0, 44])]
        assert [sorted(one.wait()) for one in pending] == [[0, 1], [0, 1], [1]]
    assert len(recovered) == 1


def test_batches_in_flight_end_when_no_pipeline_can_be_built_any_more(flawed, monkeypatch):
    given, build, built = setup(flawed, RECIPE), pipeline._build, []

    def building(spec):
        built.append(spec)
        if len(built) > 2:
            raise MemoryError("no memory")
        return build(spec)

    monkeypatch.setattr(pipeline, "_build", building)
    with closing(DaliBackend(given)) as backend:
        pending = [backend.start(work(given, part)) for part in ([0, 5], [1], [2])]
        for one in pending:
            with pytest.raises(MemoryError, match="no memory"):
                one.wait()


def test_skipped_rows_are_the_same_on_all_backends(flawed):
    recipe = Recipe(Resize(size=(20, 30)), HorizontalFlip(), NORMALIZE, RandomErasing(p=1.0))
    shown = {}
    for name in ("cpu", "dali", "resident"):
        options = {"split": "train", "batch_size": 30, "recipe": recipe, "threads": 2, "shuffle": "none"}
        with pytest.warns(BadImageWarning), Loader(flawed, **options, backend=name) as loader:
            bad = [image for batch in loader for image in batch.images[~batch.valid].numpy().copy()]
        shown[name] = np.stack(bad)
    assert len(shown["cpu"]) == len(BAD)
    assert np.array_equal(shown["cpu"], shown["dali"])
    assert np.array_equal(shown["cpu"], shown["resident"])


def test_other_faults_of_dali_are_not_a_pictures(images, monkeypatch):
    given = setup(images, RECIPE)

    def failing(graph):
        raise RuntimeError("unspecified launch failure")

    with closing(DaliBackend(given)) as backend, monkeypatch.context() as patch:
        patch.setattr(pipeline_thread.Graph, "take", failing)
        pending = [backend.start(work(given, [number])) for number in range(3)]
        for one in pending:
            with pytest.raises(RuntimeError, match="unspecified launch failure"):
                one.wait()
        patch.undo()
        assert made(backend, work(given, [0]))[1] == {}


def test_a_shard_that_is_gone_is_named(images, tmp_path):
    copy = shutil.copytree(images, tmp_path / "copy")
    given = setup(copy, RECIPE)
    os.unlink(copy / "demo-train-000000.tar")
    with closing(DaliBackend(given)) as backend:
        pending = backend.start(work(given, range(10)))
        with pytest.raises(ShardError, match=r"demo-train-000000\.tar: No such file"):
            pending.wait()
