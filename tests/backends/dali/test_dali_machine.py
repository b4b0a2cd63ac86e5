"""Where DALI can be used and where not, what is tried and remembered of a machine, and a pipeline of DALI's alone."""

import ctypes
import io
import json
import resource
import shutil
import sys
import tarfile
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import imgdata
from imgdata.augment.params import params
from imgdata.backends.dali import available, crop_probe, nvjpeg
from imgdata.backends.dali.crop_probe import CROPS, SLOWER, TOO_OLD, UNSAFE
from imgdata.backends.dali.faults import DecodeError
from imgdata.backends.dali.geometry import Shape, geometry
from imgdata.backends.dali.held_tensors import Held
from imgdata.backends.dali.pipeline import Graph
from imgdata.backends.dali.webdataset_pipeline import READER, dali_pipeline
from imgdata.errors import DeviceMemoryError, MissingExtraError, OptionError, ShardError
from imgdata.recipes import CenterCrop, PadRandomCrop, RandomResizedCrop, Recipe, Resize
from imgdata.storage.cache_folder import CacheWarning
from support.dali_faults import SPEC
from support.loaders import SAMPLES, sample
from support.patience import PATIENCE_S

# --- what is refused ---------------------------------------------------------------------------------------------


def test_without_dali_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    said = available.refusal("cpu")
    assert said is not None
    assert said.startswith("backend 'dali' needs NVIDIA DALI: pip install 'imgdata[dali]'")
    with pytest.raises(MissingExtraError, match="dali-cuda130"):
        dali_pipeline("nowhere", split="train", batch_size=1)


@pytest.mark.parametrize(
    ("version", "driver", "device", "said"),
    [
        ("2.4.0", None, "cpu", None),
        ("2.3.1", None, "cpu", "NVIDIA DALI must be 2.4 or later, got 2.3.1; pip install"),
        ("2.4.0", None, "cuda", "device 'cuda' needs an NVIDIA GPU and its driver, got none; use device='cpu'"),
        ("2.4.0", (11, 8), "cuda:1", "must support CUDA 12, for which this DALI was built, got one for CUDA 11.8"),
        ("2.4.0", (12, 2), "cuda", None),
        ("2.10.0", (13, 0), "cuda", None),
    ],
)
def test_what_is_wrong_is_said_with_the_way_out(monkeypatch, version, driver, device, said):
    monkeypatch.setattr(available, "load", lambda: SimpleNamespace(__version__=version, __cuda_version__=12986))
    monkeypatch.setattr(available, "driver_cuda", lambda: driver)
    found = available.refusal(device)
    assert (found is None) if said is None else (said in (found or ""))


def test_dali_for_another_cuda_names_the_other_extra(monkeypatch):
    monkeypatch.setattr(available, "load", lambda: SimpleNamespace(__version__="2.4.0", __cuda_version__=1300))
    monkeypatch.setattr(available, "driver_cuda", lambda: (12, 9))
    assert "install the other DALI: pip install 'imgdata[dali]' for CUDA 12" in (available.refusal("cuda") or "")


class Driver:
    """A driver that has `count` GPUs."""

    def __init__(self, version: int, count: int, broken: int = 0) -> None:
        self.version, self.count, self.broken = version, count, broken

    def cuInit(self, _: int) -> int:  # noqa: N802
        return self.broken

    def cuDriverGetVersion(self, place: object) -> int:  # noqa: N802
        place._obj.value = self.version  # type: ignore[attr-defined]
        return 0

    def cuDeviceGetCount(self, place: object) -> int:  # noqa: N802
        place._obj.value = self.count  # type: ignore[attr-defined]
        return 0


@pytest.mark.parametrize(
    ("driver", "expected"),
    [(Driver(12040, 1), (12, 4)), (Driver(13010, 8), (13, 1)), (Driver(12040, 0), None), (Driver(12040, 1, 100), None)],
)
def test_the_drivers_version_is_read(monkeypatch, driver, expected):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)
    assert available.driver_cuda() == expected


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (100, "needs an NVIDIA GPU and its driver, got none"),
        (3, "gives CUDA_ERROR_NOT_INITIALIZED (3); a process forked from one that used a GPU can't use it"),
        (802, "gives CUDA_ERROR_SYSTEM_NOT_READY (802); start NVIDIA's fabric manager"),
        (803, "gives CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803); restart the machine"),
        (721, "gives an error (721); see what `nvidia-smi` says, or use device='cpu'"),
    ],
)
def test_what_the_driver_says_at_its_start_is_named(monkeypatch, code, said):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver(13010, 1, code))
    assert said in (available.refusal("cuda:0") or "")


# --- the trial of crops ------------------------------------------------------------------------------------------


@pytest.fixture
def new_nvjpeg(monkeypatch):
    """Whichever is installed, nvJPEG is said to be one that decodes crops."""
    monkeypatch.setattr(nvjpeg, "nvjpeg_version", lambda: (13, 3))


def test_the_trial_passes_on_the_processor():
    assert crop_probe.trial(None) == CROPS


def test_a_verdict_is_remembered_for_the_machine(monkeypatch, new_nvjpeg, tmp_path):
    tried, verdicts = [], {0: CROPS, 1: UNSAFE, 2: SLOWER}
    monkeypatch.setattr(crop_probe, "_try", lambda device: tried.append(device) or verdicts[device])
    monkeypatch.setattr(crop_probe, "machine", lambda device: f"GPU {device}")
    for _ in range(2):
        assert [crop_probe.crop_decode_is_safe(device, tmp_path) for device in range(3)] == [True, False, False]
    assert tried == [0, 1, 2]
    assert json.loads((tmp_path / "dali-crop.json").read_text()) == {
        "GPU 0": "crops",
        "GPU 1": "unsafe",
        "GPU 2": "slower than whole pictures",
    }
    # Cut off, or as older versions wrote it.
    for content in ("{half", '{"GPU 0": true}', '{"GPU 0": [1]}'):
        (tmp_path / "dali-crop.json").write_text(content)
        assert crop_probe.crop_decode_is_safe(0, tmp_path) is True
        assert tried.pop() == 0


@pytest.mark.parametrize(
    ("command", "verdict"),
    [
        ("exit 0", CROPS),
        ("exit 3", UNSAFE),
        ("exit 4", SLOWER),
        ("kill -ABRT $$", UNSAFE),
        ("kill -SEGV $$", UNSAFE),
    ],
)
def test_a_verdict_is_what_became_of_the_trials_process(monkeypatch, tmp_path, command, verdict):
    assert tried_by(monkeypatch, tmp_path, command) == verdict


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("echo RuntimeError: CUDA allocation failed >&2; exit 1", "RuntimeError: CUDA allocation failed"),
        ("echo terminate called: std::bad_alloc >&2; kill -ABRT $$", "terminate called: std::bad_alloc"),
        ("kill -KILL $$", "the process ended with -9"),
        ("kill -INT $$", "the process ended with -2"),
        ("exec sleep 60", "no end within 0.5 s"),
    ],
)
def test_no_verdict_comes_of_short_memory_a_signal_from_outside_or_a_long_wait(monkeypatch, tmp_path, command, said):
    monkeypatch.setattr(crop_probe, "_TIMEOUT_S", 0.5 if "sleep" in command else PATIENCE_S)
    with pytest.warns(RuntimeWarning, match=r"cuda:0 could not be tried \((.*)\); .* tries again") as caught:
        assert tried_by(monkeypatch, tmp_path, command) is None
    assert f"({said})" in str(caught[0].message)


def tried_by(monkeypatch, folder, command):
    """The verdict where the trial's process is this command of a shell."""
    trial = folder / "python"
    trial.write_text(f"#!/bin/sh\n{command}\n")
    trial.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(trial))
    return crop_probe._try(0)


@pytest.mark.parametrize(
    ("version", "tried"), [((12, 4), False), ((13, 1), False), ((13, 2), True), ((14, 0), True), (None, True)]
)
def test_an_nvjpeg_that_leaves_crops_to_the_host_is_not_tried(monkeypatch, tmp_path, version, tried):
    monkeypatch.setattr(nvjpeg, "nvjpeg_version", lambda: version)
    monkeypatch.setattr(crop_probe, "_try", lambda _: CROPS)
    monkeypatch.setattr(crop_probe, "machine", lambda _: "GPU")
    assert crop_probe.crop_decode_is_safe(0, tmp_path) is tried
    assert crop_probe.crop_verdict(0, tmp_path) == (CROPS if tried else TOO_OLD)
    assert (tmp_path / "dali-crop.json").exists() is tried


def test_the_version_of_nvjpeg_is_read_without_a_gpu():
    version = nvjpeg.nvjpeg_version()
    assert version is None or version[0] == int(str(available.load().__cuda_version__)[:2])


@pytest.mark.parametrize(("crop_s", "verdict"), [(0.5, CROPS), (1.0, SLOWER), (3.0, SLOWER)])
def test_crops_that_are_not_faster_than_whole_pictures_are_not_decoded(monkeypatch, crop_s, verdict):
    class OnTheProcessor(Graph):
        def __init__(self, spec):
            super().__init__(replace(spec, device_id=None))

    monkeypatch.setattr(crop_probe, "Graph", OnTheProcessor)
    monkeypatch.setattr(crop_probe, "_ROUNDS", 1)
    monkeypatch.setattr(crop_probe, "_seconds", lambda graphs, *_: [1.0, crop_s])
    assert crop_probe.trial(0) == verdict


def test_crops_and_whole_pictures_are_timed_in_the_same_rounds():
    pictures = [crop_probe._picture(number, np.random.default_rng(number)) for number in range(3)]
    graphs = [Graph(replace(SPEC, batch_size=3)) for _ in range(2)]
    arrays = crop_probe._crops([size for _, size in pictures], np.random.default_rng(0))
    found = crop_probe._seconds(graphs, [np.frombuffer(data, np.uint8) for data, _ in pictures], arrays)
    assert len(found) == 2
    assert min(found) > 0


def test_the_trial_needs_free_memory_and_leaves_no_core_file(monkeypatch):
    limits = []
    monkeypatch.setattr(resource, "setrlimit", lambda what, limit: limits.append((what, limit)))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 2**36))
    with pytest.raises(DeviceMemoryError, match=r"cuda:1 must have 2 GiB free, got 1\.0"):
        crop_probe.main(1)
    assert limits == [(resource.RLIMIT_CORE, (0, 0))]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**33, 2**36))
    for code, verdict in ((0, CROPS), (3, UNSAFE), (4, SLOWER)):
        monkeypatch.setattr(crop_probe, "trial", lambda device, verdict=verdict: verdict)
        assert crop_probe.main(0) == code


def test_a_trial_that_could_not_be_made_is_made_again(monkeypatch, new_nvjpeg, tmp_path):
    verdicts = [None, CROPS]
    monkeypatch.setattr(crop_probe, "_try", lambda _: verdicts.pop(0))
    monkeypatch.setattr(crop_probe, "machine", lambda _: "GPU")
    assert [crop_probe.crop_decode_is_safe(0, tmp_path) for _ in range(3)] == [False, True, True]


def test_a_verdict_that_cannot_be_kept_is_warned_of(monkeypatch, new_nvjpeg, tmp_path):
    monkeypatch.setattr(crop_probe, "_try", lambda _: CROPS)
    monkeypatch.setattr(crop_probe, "machine", lambda _: "GPU")
    (tmp_path / "file").write_bytes(b"")
    with pytest.warns(CacheWarning, match=r"dali-crop\.json: can't be written.*; .* set IMGDATA_CACHE to a folder"):
        assert crop_probe.crop_decode_is_safe(0, tmp_path / "file") is True


def test_a_codec_that_fails_on_crops_is_not_trusted(monkeypatch):
    windows = crop_probe._windows

    def failing(graph, encoded, arrays):
        if graph.crops:
            raise DecodeError("nvImageCodec failure")
        return windows(graph, encoded, arrays)

    class Tried(Graph):
        def __init__(self, spec):
            super().__init__(spec)
            self.crops = spec.crop_decode

    monkeypatch.setattr(crop_probe, "Graph", Tried)
    monkeypatch.setattr(crop_probe, "_windows", failing)
    assert crop_probe.trial(None) == UNSAFE

    def failing_whole(graph, encoded, arrays):
        if graph.crops:
            broken.append(1)
        if broken:
            raise DecodeError("nvImageCodec failure")
        return windows(graph, encoded, arrays)

    monkeypatch.setattr(crop_probe, "_ROUNDS", 1)
    # All fails by then: it says nothing of crops.
    broken: list[int] = []
    monkeypatch.setattr(crop_probe, "_windows", failing_whole)
    with pytest.raises(DecodeError):
        crop_probe.trial(None)


# --- tensors that a stream still reads ---------------------------------------------------------------------------


def test_tensors_are_held_until_the_stream_has_read_them(monkeypatch):
    done, waited = set(), []

    class Event:
        def __init__(self):
            self.number = len(events)
            events.append(self)

        def record(self, stream):
            pass

        def query(self):
            return self.number in done

        def synchronize(self):
            waited.append(self.number)

    class Pixels:
        pass

    events: list[Event] = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    held, alive = Held(), weakref.WeakSet()

    def hold():
        pixels = Pixels()
        alive.add(pixels)
        held.until_read(pixels, torch.device("cuda"))

    hold()
    hold()
    assert len(alive) == 2
    done.add(0)
    hold()
    assert len(alive) == 2
    held.close()
    assert (waited, len(alive)) == ([1, 2], 0)


# --- geometry ----------------------------------------------------------------------------------------------------

GEOMETRIES = {
    "crop": (Recipe(RandomResizedCrop(size=16)), Shape(resizes=True, radius=1, margins=False, mirrored=False)),
    "resize": (
        Recipe(Resize(size=20, interpolation="bicubic"), CenterCrop(size=16)),
        Shape(resizes=True, radius=2, margins=False, mirrored=False),
    ),
    "margins": (Recipe(CenterCrop(size=32)), Shape(resizes=False, radius=1, margins=True, mirrored=False)),
    "mirrored": (
        Recipe(Resize(size=(20, 20)), PadRandomCrop(size=20, padding=6, mode="reflect")),
        Shape(resizes=True, radius=1, margins=True, mirrored=True),
    ),
}


@pytest.mark.parametrize("name", GEOMETRIES)
@given(width=st.integers(1, 4000), height=st.integers(1, 4000), seed=st.integers(0, 1000))
def test_only_the_box_is_decoded_and_all_that_the_window_needs(name, width, height, seed):
    recipe, shape = GEOMETRIES[name]
    batch = params(
        recipe, np.array([width, 9]), np.array([height, 9]), seed=seed, epoch=0, position_N=np.array([seed, 0])
    )
    inputs = geometry(batch, np.array([False, True]), shape)
    (left, top, box_width, box_height), _ = batch.box_N4.tolist()
    (x, y), (part_width, part_height) = inputs["anchor"][0].tolist(), inputs["extent"][0].tolist()
    assert left <= x < x + part_width <= left + box_width
    assert top <= y < y + part_height <= top + box_height
    assert inputs["anchor"][1].tolist() == [0, 0]
    assert (inputs["extent"][1] <= 8).all()
    assert all(array.flags.c_contiguous and len(array) == 2 for array in inputs.values())
    if not shape.resizes:
        return
    scale_2 = np.array([box_width, box_height]) / batch.resized_N2[0]
    begin_2, end_2 = inputs["roi_start"][0][::-1], inputs["roi_end"][0][::-1]
    np.testing.assert_allclose((end_2 - begin_2) / inputs["size"][0][::-1], scale_2, rtol=1e-3)
    # The filter's reach is there, unless the box ends.
    reach_2 = shape.radius * np.maximum(scale_2, 1.0)
    low_2 = np.array([x - left, y - top])
    high_2 = np.array([left + box_width - x - part_width, top + box_height - y - part_height])
    assert ((begin_2 >= reach_2 - 0.01) | (low_2 == 0)).all()
    assert ((inputs["extent"][0] - end_2 >= reach_2 - 0.01) | (high_2 == 0)).all()


# --- a pipeline of DALI's alone ----------------------------------------------------------------------------------


def labels_of(pipeline, batches):
    return [int(value) for _ in range(batches) for value in np.array(pipeline.run()[-1].as_tensor()).ravel()]


def test_dali_reads_our_shards_by_our_index_files(images):
    pipeline = dali_pipeline(images, split="train", batch_size=6, threads=2)
    assert pipeline.reader_meta(READER)["epoch_size"] == SAMPLES
    assert labels_of(pipeline, SAMPLES // 6) == [number % 3 for number in range(SAMPLES)]


def test_dali_reads_a_part_of_a_split_and_does_what_it_is_told(images):
    from nvidia.dali import fn

    def small(encoded):
        return fn.resize(fn.decoders.image(encoded), size=(8, 8)), fn.peek_image_shape(encoded)

    pipeline = dali_pipeline(
        imgdata.open(images), split="train", batch_size=5, transform=small, shard_id=1, num_shards=2
    )
    pixels, shape, label = pipeline.run()
    assert pixels.as_tensor().shape() == [5, 8, 8, 3]
    assert np.array(shape.as_tensor())[0].tolist() == [40, 48 + 30, 3]
    assert np.array(label.as_tensor()).ravel().tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(("extension", "text"), [("jpg", b"12\n"), ("jpeg", b" 12 "), ("JPG", b"00012\r\n")])
def test_labels_of_other_peoples_tars_are_those_of_the_index(tmp_path, extension, text):
    with tarfile.open(tmp_path / "some-train-000000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in ((f"a.{extension}", sample(0)), ("a.cls", text)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    split = imgdata.index(tmp_path, workers=1)["train"]
    assert split.index.label_N.tolist() == [12]
    assert labels_of(dali_pipeline(tmp_path, split="train", batch_size=1), 1) == [12]


def test_options_of_dalis_reader_go_before_ours(images):
    pipeline = dali_pipeline(images, split="train", batch_size=2, missing_component_behavior="skip", shuffle=True)
    assert len(pipeline.run()) == 2


def test_a_pipeline_over_what_is_not_there_is_refused(images, tmp_path):
    with pytest.raises(OptionError, match="split must be one of train, got 'test'"):
        dali_pipeline(images, split="test", batch_size=1)
    copy = shutil.copytree(images, tmp_path / "copy")
    (copy / "demo-train-000002.idx").unlink()
    with pytest.raises(ShardError, match=r"demo-train-000002\.idx: no such DALI index; make it with `imgdata index"):
        dali_pipeline(copy, split="train", batch_size=1)
