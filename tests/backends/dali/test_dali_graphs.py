"""Pipelines for a GPU, looked at without one: DALI takes all their arguments, and rows are what they should be."""

import io
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from itertools import product

import numpy as np
import pytest
from PIL import Image

from imgdata.backends.dali import backend as dali_backend
from imgdata.backends.dali import pipeline
from imgdata.backends.dali.backend import DaliBackend
from imgdata.backends.dali.geometry import Shape
from support.dali_faults import SPEC, Faulty, on_gpu
from support.dali_work import made, setup, work
from support.loaders import RECIPE, dataset, sample

SHAPES = {
    "crop": Shape(resizes=True, radius=1, margins=False, mirrored=False),
    "cubic": Shape(resizes=True, radius=2, margins=False, mirrored=False),
    "window": Shape(resizes=False, radius=1, margins=True, mirrored=False),
    "mirrored": Shape(resizes=True, radius=1, margins=True, mirrored=True),
}
OUTPUTS = [("uint8", True), ("uint8", False), ("float16", True), ("float32", False), ("float32", True)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGDATA_CACHE", str(tmp_path / "cache"))


def serialized(spec):
    """The pipeline for `spec` as DALI writes it into a file, which checks every argument and needs no GPU."""
    graph = import_module("nvidia.dali.pipeline").Pipeline(
        batch_size=8, num_threads=2, device_id=None, prefetch_queue_depth=1, exec_dynamic=True
    )
    with graph:
        graph.set_outputs(pipeline._windows(spec))
    return graph.serialize()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_dali_takes_every_pipeline_for_a_gpu(shape):
    """Forty: all shapes, outputs and decoders, with other flips, loads and hints each time."""
    flips = list(product((True, False), repeat=2))
    for number, ((dtype, channels_last), crop_decode) in enumerate(product(OUTPUTS, (True, False))):
        left, top = flips[number % 4]
        spec = on_gpu(
            SPEC,
            shape=shape,
            flips=left,
            vflips=top,
            dtype=dtype,
            channels_last=channels_last,
            crop_decode=crop_decode,
            hw_decoder_load=(None, 0.0, 0.95)[number % 3],
            largest_2=(None, (500, 375))[number % 2],
        )
        text = serialized(spec)
        assert b"mixed" in text
        assert (b"decoders__ImageSlice" in text) == crop_decode
        assert (b"preallocate_width_hint" in text) == (spec.largest_2 is not None)
        assert (b"hw_decoder_load" in text) == (spec.hw_decoder_load is not None)


def decoder_options(monkeypatch, spec):
    """The arguments of the decoder."""
    decoders, seen = import_module("nvidia.dali.fn").decoders, {}

    def watched(decoder):
        def decode(*inputs, **options):
            seen.update(options)
            return decoder(*inputs, **options)

        return decode

    with monkeypatch.context() as patch:
        for name in ("image", "image_slice"):
            patch.setattr(decoders, name, watched(getattr(decoders, name)))
        serialized(spec)
    return seen


@pytest.mark.parametrize("crop_decode", [True, False])
def test_threads_of_a_gpus_decoder_stay_on_the_cores_that_the_user_chose(monkeypatch, crop_decode):
    assert decoder_options(monkeypatch, on_gpu(SPEC, crop_decode=crop_decode))["affine"] is False
    assert "affine" not in decoder_options(monkeypatch, SPEC)


def as_on_gpu(monkeypatch):
    """Backends that think they were on a GPU as far as the pipeline, and make their batches on the processor."""
    faulty = Faulty(monkeypatch, lambda spec, inputs: seen.append(len(inputs["encoded"])))
    seen = faulty.runs = []
    spec = dali_backend._spec
    monkeypatch.setattr(dali_backend, "_spec", lambda *given: on_gpu(spec(*given)))
    init = DaliBackend.__init__

    def making(backend, given):
        init(backend, given)
        backend.spec = replace(backend.spec, device_id=None)

    monkeypatch.setattr(DaliBackend, "__init__", making)
    return faulty


@pytest.mark.parametrize(
    ("counts", "runs"),
    [
        ([64, 64, 20], [64, 64, 20]),
        ([20, 64], [64, 20, 64]),  # the first shows nothing
        ([64, 3], [64, 3]),
    ],
)
def test_the_first_run_of_a_pipeline_on_a_gpu_is_of_full_size(images, monkeypatch, counts, runs):
    """NvImageCodec gives the engine its share of the first batch, in all batches to come."""
    given = setup(images, RECIPE, batch_size=64)
    todo = [work(given, [number % 60 for number in range(count)]) for count in counts]
    with closing(DaliBackend(given)) as backend:
        expected = [made(backend, one)[0] for one in todo]
    faulty = as_on_gpu(monkeypatch)
    with closing(DaliBackend(given)) as backend:
        found = [made(backend, one)[0] for one in todo]
    assert faulty.runs == runs
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_row_is_tried_alone_with_as_little_memory_as_can_be(images, monkeypatch):
    given = setup(images, RECIPE, batch_size=64, threads=8)
    faulty = as_on_gpu(monkeypatch)
    faulty.says = lambda spec, inputs: (
        f"Failed to decode sample #{rows.index(sample(5))} : "
        if sample(5) in (rows := [bytes(data) for data in inputs["encoded"]])
        else None
    )
    with closing(DaliBackend(given)) as backend:
        assert made(backend, work(given, range(60)))[1] == {}
    whole, *tried, again = faulty.built
    assert (
        (whole.batch_size, whole.threads, whole.hw_decoder_load)
        == (again.batch_size, again.threads, 0.95)
        == (64, 8, 0.95)
    )
    assert whole.largest_2 is not None
    # The first pixel, then a good picture in its place, and the first pixel again before it is remembered.
    assert [(spec.batch_size, spec.threads, spec.largest_2) for spec in tried] == [(1, 1, None)] * 3
    assert [spec.hw_decoder_load for spec in tried] == [0.0, 0.95, 0.0]


def stored(**options):
    pixels = np.full((40, 60, 3), (200, 30, 90), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def test_jpegs_that_hold_rgb_never_reach_a_gpus_decoder(tmp_path, monkeypatch):
    folder = dataset(tmp_path, {2: stored(keep_rgb=True), 3: stored()}, count=5)
    given, fed = setup(folder, RECIPE), []
    start = pipeline.Graph.start
    monkeypatch.setattr(
        pipeline.Graph, "start", lambda self, encoded, arrays: (fed.extend(encoded), start(self, encoded, arrays))[1]
    )

    def pixels():
        with closing(DaliBackend(given)) as backend:
            found, failed = made(backend, work(given, [2, 3]))
        assert failed == {}
        return found

    by_dali = pixels()
    assert any(bytes(one) == stored(keep_rgb=True) for one in fed)
    fed.clear()
    as_on_gpu(monkeypatch)
    by_host = pixels()
    assert not any(bytes(one) == stored(keep_rgb=True) for one in fed)
    assert any(bytes(one) == stored() for one in fed)
    for found in (by_dali, by_host):
        assert np.abs(found.transpose(0, 2, 3, 1).astype(int) - (200, 30, 90)).max() <= 3
