"""Faults of a GPU, in DALI's own words, are told as such: no picture is blamed, and no memory is kept."""

import gc
import io
import re
from contextlib import closing, suppress

import numpy as np
import pytest
from PIL import Image

from imgdata.backends.dali import pipeline_thread
from imgdata.backends.dali.backend import DaliBackend
from imgdata.backends.dali.faults import DecodeError
from imgdata.backends.dali.pipeline import Graph
from imgdata.errors import DeviceMemoryError, ImgdataError
from support.dali_faults import NAMES_NONE, NAMES_ROW, OTHER_FAULTS, SHORTAGES, SPEC, Faulty, crops
from support.dali_work import by_dali, made, setup, work
from support.loaders import RECIPE


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def always(said):
    return lambda spec, inputs: said


def in_batches(said):
    return lambda spec, inputs: said if len(inputs["encoded"]) > 1 else None


def raised(backend, todo):
    with pytest.raises(Exception) as caught:  # noqa: PT011  what it is, the test says
        backend.start(todo).wait()
    return caught.value


@pytest.mark.parametrize("said", SHORTAGES)
@pytest.mark.parametrize("fails", [always, in_batches])
def test_short_memory_is_one_clear_error_and_no_picture_is_blamed(images, monkeypatch, cache, said, fails):
    faulty = Faulty(monkeypatch, fails(said))
    given = setup(images, RECIPE)
    with closing(DaliBackend(given)) as backend:
        error = raised(backend, work(given, range(60)))
        assert isinstance(error, DeviceMemoryError)
        assert isinstance(error, MemoryError)
        assert isinstance(error, ImgdataError)
        assert str(error) == (
            f"out of memory on cpu in NVIDIA DALI ({said.splitlines()[0]}); use a batch_size below 64, "
            "dali_options={'depth': 1}, fewer threads than 2, each of which decodes a picture, or end what else uses "
            "its memory"
        )
        assert len(faulty.built) == 1
        assert not list(cache.glob("*"))
        # Once there is memory again, the next batch is as ever.
        faulty.says = always(None)
        assert made(backend, work(given, range(60)))[1] == {}


@pytest.mark.parametrize("said", OTHER_FAULTS)
def test_other_faults_of_the_machine_are_told_in_dalis_words(images, monkeypatch, cache, said):
    faulty = Faulty(monkeypatch, always(said))
    given = setup(images, RECIPE)
    with closing(DaliBackend(given)) as backend:
        error = raised(backend, work(given, range(60)))
    assert said.splitlines()[0] in str(error)
    assert not isinstance(error, DecodeError | MemoryError)
    assert len(faulty.built) == 1
    assert not list(cache.glob("*"))


@pytest.mark.parametrize("said", [NAMES_ROW, NAMES_NONE])
def test_a_decoder_that_fails_on_everything_blames_no_picture(images, monkeypatch, cache, said):
    """As for want of memory, which nvImageCodec tells of each picture."""
    faulty = Faulty(monkeypatch, always(said))
    given = setup(images, RECIPE)
    with closing(DaliBackend(given)) as backend:
        error = raised(backend, work(given, range(60)))
    first_line = said.splitlines()[0].strip()
    assert f"not because of a picture: a good picture fails as well; it says: {first_line}" in str(error)
    assert "`nvidia-smi`" in str(error)
    assert len(faulty.built) <= 3
    assert not list(cache.glob("*"))


@pytest.mark.parametrize("said", [NAMES_ROW, NAMES_NONE])
def test_a_batch_of_which_no_row_fails_alone_is_run_once_more(images, monkeypatch, cache, said):
    given = setup(images, RECIPE)
    todo = work(given, range(60))
    expected, _ = by_dali(given, todo)
    faulty = Faulty(monkeypatch, in_batches(said))
    with closing(DaliBackend(given)) as backend:
        error = raised(backend, todo)
        assert "not because of a picture: a batch of 60 fails, and none of it alone" in str(error)
        assert sum(spec.batch_size > 1 for spec in faulty.built) == 2
        assert len(faulty.built) <= 6
        left = [said]
        faulty.says = lambda spec, inputs: left.pop() if left and len(inputs["encoded"]) > 1 else None
        found, failed = made(backend, todo)
    assert failed == {}
    assert np.array_equal(found, expected)
    assert not list(cache.glob("*"))


def test_a_good_picture_is_never_remembered_where_memory_goes_and_comes(images, monkeypatch, cache):
    """Whatever run fails, and whatever it says: what is remembered was refused while others were not."""
    random = np.random.Generator(np.random.Philox(key=[5, 0]))
    texts = [None, NAMES_ROW, NAMES_NONE, *SHORTAGES[:2]]
    Faulty(monkeypatch, lambda spec, inputs: texts[int(random.integers(len(texts)))] if left.pop() else None)
    given = setup(images, RECIPE)
    for _ in range(20):
        left = [False] * 1000 + [True] * 2
        with closing(DaliBackend(given)) as backend:
            pending = [backend.start(work(given, range(first, first + 20))) for first in (0, 20, 40)]
            for one in pending:
                with suppress(RuntimeError, MemoryError):
                    assert one.wait() == {}
    assert not list(cache.glob("*"))


def test_pictures_are_tried_alone_in_one_pipeline_as_long_as_they_succeed(images, monkeypatch):
    given = setup(images, RECIPE)
    once = [NAMES_NONE]
    faulty = Faulty(monkeypatch, lambda spec, inputs: once.pop() if once else None)
    assert by_dali(given, work(given, range(60)))[1] == {}
    assert [spec.batch_size for spec in faulty.built] == [64, 1, 1, 64]


def test_a_pipeline_that_failed_is_gone_before_the_collector_runs(images, monkeypatch):
    faulty = Faulty(monkeypatch, always("CUDA runtime API error cudaErrorLaunchFailure (719):"))
    given = setup(images, RECIPE)
    gc.collect()
    gc.disable()
    try:
        with closing(DaliBackend(given)) as backend:
            pending = backend.start(work(given, range(20)))
            with pytest.raises(RuntimeError, match="cudaErrorLaunchFailure"):
                pending.wait()
            assert len(faulty.built) == 1
            assert len(faulty.alive) == 0
    finally:
        gc.enable()


def test_a_pipeline_that_met_a_bad_picture_is_gone_before_others_are_built(images, monkeypatch):
    alive = []
    once = [NAMES_ROW]
    faulty = Faulty(monkeypatch, lambda spec, inputs: once.pop() if once else None)
    decodes = pipeline_thread._Driver._decodes

    def counting(driver, *given, **more):
        alive.append(len(faulty.alive))
        return decodes(driver, *given, **more)

    monkeypatch.setattr(pipeline_thread._Driver, "_decodes", counting)
    given = setup(images, RECIPE)
    gc.collect()
    gc.disable()
    try:
        assert by_dali(given, work(given, range(20)))[1] == {}
        assert alive == [0, 0]
    finally:
        gc.enable()


# --- bad pictures, in DALI's own words ---------------------------------------------------------------------------


def encoded(format, **options):
    pixels = np.random.Generator(np.random.Philox(key=[3, 0])).integers(0, 255, (120, 160, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


GOOD = encoded("JPEG")
BAD_JPEGS = {
    "no tables": (re.sub(rb"\xff\xdb", b"\xff\xe5", GOOD), 1),
    "no picture": (b"hello world" * 50, None),
    "an end alone": (b"\xff\xd8\xff\xd9", None),
    "cut in its header": (GOOD[:100], None),
    "cut in its pixels": (GOOD[: len(GOOD) // 2], 1),
    "a PNG, cut": (encoded("PNG")[:500], None),
    "an unknown frame": (GOOD.replace(b"\xff\xc0", b"\xff\xcf", 1), 1),
    "12 bits": (GOOD.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c", 1), 1),
}


@pytest.mark.parametrize("name", BAD_JPEGS)
def test_a_bad_picture_is_told_from_a_fault(name):
    data, row = BAD_JPEGS[name]
    graph = Graph(SPEC)
    graph.start([np.frombuffer(one, np.uint8) for one in (GOOD, data, GOOD)], crops(3))
    with pytest.raises(DecodeError) as caught:
        graph.take()
    assert caught.value.row == row


def test_a_crop_outside_of_a_picture_is_no_pictures_fault():
    graph = Graph(SPEC)
    graph.start([np.frombuffer(GOOD, np.uint8)] * 3, crops(3, width=999))
    with pytest.raises(RuntimeError, match="cropping window") as caught:
        graph.take()
    assert not isinstance(caught.value, DecodeError)
