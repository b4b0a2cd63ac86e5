"""The GPUs of a machine: what NVIDIA's programs and libraries answer -> what doctor says of them."""

import ctypes
import sys
from types import SimpleNamespace

import pytest
from imgdata_cli.display import doctor as display

from imgdata.measure.machine import gpu
from imgdata.measure.machine.gpu import Gpu, JpegEngines, find_gpus, jpeg_engines, nvjpeg_libraries


@pytest.fixture
def nvidia(tmp_path, monkeypatch):
    """A folder of NVIDIA's packages; `add` puts a file there that is no library."""
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    )

    def add(name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no library")
        return path

    return add


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("NVIDIA H100 80GB HBM3, 81559, 575.57.08", [("NVIDIA H100 80GB HBM3", 81559 * 2**20, "575.57.08")]),
        ("A100, 40960, 570.1\nL4, 23034, 570.1", [("A100", 40960 * 2**20, "570.1"), ("L4", 23034 * 2**20, "570.1")]),
        # One that shares the host's memory, and one with a comma in its name.
        ("Orin (nvgpu), [N/A], 540.3", [("Orin (nvgpu)", 0, "540.3")]),
        ("GH200, 480GB, 97871, 560.35", [("GH200, 480GB", 97871 * 2**20, "560.35")]),
    ],
)
def test_the_drivers_table_becomes_gpus(tmp_path, monkeypatch, answer, expected):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(gpu, "jpeg_engines", lambda: JpegEngines(1, 5))
    found = find_gpus()
    assert [(one.name, one.memory_bytes, one.driver) for one in found] == expected
    assert {(one.jpeg_engines, one.jpeg_cores, one.jpeg_fault) for one in found} == {(1, 5, None)}


def test_a_driver_in_trouble_is_no_gpu(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho NVIDIA-SMI has failed because it could not communicate with the driver\nexit 9\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert find_gpus() == ()


def test_nvjpeg_is_found_where_cuda_12_and_cuda_13_put_it(nvidia):
    assert nvjpeg_libraries() == []
    twelve = nvidia("nvjpeg/lib/libnvjpeg.so.12")
    assert nvjpeg_libraries() == [twelve]
    thirteen = nvidia("cu13/lib/libnvjpeg.so.13")
    nvidia("cu13/lib/libcudart.so.13")
    assert nvjpeg_libraries() == [thirteen, twelve]


def test_the_first_library_that_knows_is_believed(nvidia, monkeypatch):
    nvidia("nvjpeg/lib/libnvjpeg.so.12")
    nvidia("cu13/lib/libnvjpeg.so.13")
    answers = {"13": '[null, null, "status 1"]', "12": "[7, 1, null]"}
    monkeypatch.setattr(gpu, "_output", lambda command: answers[command[-1].rpartition(".")[2]])
    assert jpeg_engines() == JpegEngines(7, 1)
    answers["12"] = answers["13"]
    assert jpeg_engines() == JpegEngines(None, fault="status 1")


def test_a_library_that_is_none_leaves_the_engines_unknown(nvidia):
    assert jpeg_engines() == JpegEngines(None, fault="nvJPEG is not installed")
    nvidia("cu13/lib/libnvjpeg.so.13")
    assert jpeg_engines() == JpegEngines(None, fault="nvJPEG can't be loaded")


def nvjpeg(made, told, engines, cores):
    """A library whose two calls return the statuses `made` and `told`, and these numbers."""

    def tell(handle, *pointers):
        for pointer, number in zip(pointers, (engines, cores), strict=True):
            ctypes.cast(pointer, ctypes.POINTER(ctypes.c_uint))[0] = number
        return told

    return SimpleNamespace(nvjpegCreateEx=lambda *arguments: made, nvjpegGetHardwareDecoderInfo=tell)


@pytest.mark.parametrize(
    ("library", "expected"),
    [
        (nvjpeg(0, 0, 1, 5), JpegEngines(1, 5)),
        (nvjpeg(0, 0, 7, 1), JpegEngines(7, 1)),
        # NVJPEG_STATUS_ARCH_MISMATCH, ..._IMPLEMENTATION_NOT_SUPPORTED
        (nvjpeg(7, 0, 1, 1), JpegEngines(0, 0)),
        (nvjpeg(9, 0, 1, 1), JpegEngines(0, 0)),
        (nvjpeg(0, 9, 1, 1), JpegEngines(0, 0)),
        # ..._NOT_INITIALIZED, ..._ALLOCATOR_FAILURE, ..._EXECUTION_FAILED
        (nvjpeg(1, 0, 1, 1), JpegEngines(None, fault="status 1")),
        (nvjpeg(5, 0, 1, 1), JpegEngines(None, fault="status 5")),
        (nvjpeg(0, 6, 1, 1), JpegEngines(None, fault="status 6")),
    ],
)
def test_only_two_answers_mean_that_there_are_no_engines(monkeypatch, library, expected):
    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda path: library)
    assert gpu._ask_nvjpeg("libnvjpeg.so.13") == expected


@pytest.mark.parametrize(
    ("engines", "shown"),
    [
        (JpegEngines(1, 5), "1 of 5 cores"),
        (JpegEngines(7, 1), "7"),
        (JpegEngines(0, 0), "0"),
        (JpegEngines(None, fault="status 5"), "unknown: status 5"),
    ],
)
def test_engines_are_shown_with_their_cores(engines, shown):
    number, cores, fault = engines
    one = Gpu(name="A", memory_bytes=1, driver=None, jpeg_engines=number, jpeg_cores=cores, jpeg_fault=fault)
    assert display._engines(one) == shown


def test_the_library_is_asked_without_importing_anything_of_ours(monkeypatch, nvidia):
    """The question is asked in a process of its own, by the module's file."""
    library, commands = nvidia("cu13/lib/libnvjpeg.so.13"), []
    monkeypatch.setattr(gpu, "_output", lambda command: commands.append(command) or "")
    jpeg_engines()
    assert commands == [[sys.executable, gpu.__file__, str(library)]]


@pytest.mark.gpu
def test_a_gpu_is_found_with_its_driver_and_its_engines():
    found = find_gpus()[0]
    assert found.memory_bytes > 2**30
    # None of A100, L4, H100 and H200 leaves nvJPEG without an answer.
    assert (found.jpeg_fault, found.jpeg_engines is None) == (None, False)
