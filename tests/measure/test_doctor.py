"""`imgdata doctor` without a dataset: what it sees of a machine, what it finds wrong with one, and its text."""

import json
import re
from dataclasses import replace

import pytest
from click.testing import CliRunner
from imgdata_cli.commands.doctor import command

from imgdata import native
from imgdata.cgroups import cpu_quota, memory_limit
from imgdata.measure.doctor.problems import Needs, find_problems
from imgdata.measure.machine.gpu import Gpu
from imgdata.measure.machine.host import Cpu, Machine, Memory, look_at_cpu, look_at_machine, look_at_memory

GIB = 2**30


def system(root, files):
    """A folder with `/proc` and `/sys` of another machine."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


# --- control groups -----------------------------------------------------------------------------------

V2, V1 = {"proc/self/cgroup": "0::/a/b\n"}, {"proc/self/cgroup": "4:memory:/a\n3:cpu,cpuacct:/a\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        (V2, None),
        (V2 | {"sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, None),
        (V2 | {"sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 1.5),
        # A group above allows less.
        (V2 | {"sys/fs/cgroup/a/b/cpu.max": "400000 100000\n", "sys/fs/cgroup/a/cpu.max": "200000 100000\n"}, 2.0),
        # Inside a container the path of the host is not there, and the own group is the topmost.
        (V2 | {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        ({"proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3.0),
        (V1 | {"sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "9\n"}, None),
        (V1 | {"sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "8\n", "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "4\n"}, 2.0),
        # Memory's group is no processor's.
        ({"proc/self/cgroup": "4:memory:/a\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "8\n"}, None),
    ],
)
def test_the_quota_is_the_least_of_all_groups(tmp_path, files, quota):
    assert cpu_quota(system(tmp_path, files)) == quota


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        (V2 | {"sys/fs/cgroup/a/memory.max": "max\n"}, None),
        (V2 | {"sys/fs/cgroup/a/b/memory.max": "4096\n", "sys/fs/cgroup/memory.max": "8192\n"}, 4096),
        (V1 | {"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        (V1 | {"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1073741824\n"}, GIB),
    ],
)
def test_the_limit_of_memory_is_the_least_of_all_groups(tmp_path, files, limit):
    assert memory_limit(system(tmp_path, files)) == limit


def test_a_processor_is_described_by_what_linux_says(tmp_path):
    facts = "model name\t: Fast 9000\nflags\t\t: fpu avx2 sse4_2 ht\n\nmodel name\t: Fast 9000\n"
    cpu = look_at_cpu(system(tmp_path, V2 | {"proc/cpuinfo": facts, "sys/fs/cgroup/cpu.max": "50000 100000\n"}))
    assert (cpu.model, cpu.features, cpu.quota, cpu.usable) == ("Fast 9000", ("sse4_2", "avx2"), 0.5, 0.5)


def test_second_threads_of_a_core_are_told_apart(tmp_path):
    cores = look_at_cpu().allowed
    everyone = {f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list": "0-127\n" for core in range(256)}
    assert look_at_cpu(system(tmp_path, everyone)).physical == 1
    assert look_at_cpu(tmp_path / "nothing").physical == cores


def test_memory_is_in_bytes_and_not_beyond_the_limit(tmp_path):
    facts = "MemTotal:       4000 kB\nMemFree:  10 kB\nMemAvailable:   3000 kB\n"
    files = V2 | {"proc/meminfo": facts, "sys/fs/cgroup/memory.max": "2048000\n"}
    memory = look_at_memory(system(tmp_path, files))
    assert (memory.total_bytes, memory.available_bytes, memory.limit_bytes) == (4_096_000, 3_072_000, 2_048_000)
    assert memory.usable_bytes == 2_048_000
    assert memory.shm_bytes is None


def test_a_system_that_tells_nothing_is_no_fault(tmp_path):
    assert look_at_cpu(tmp_path).features == ()
    assert look_at_memory(tmp_path).total_bytes > 0


# --- problems -----------------------------------------------------------------------------------------

VERSIONS = {"torch": "2.15.0", "torch_cuda": "12.8", "dali": "2.4.0 (nvidia-dali-cuda120)", "pillow": None}
GPU = Gpu(name="H200", memory_bytes=141 * GIB, driver="570.1", jpeg_engines=7)
SOUND = Machine(
    cpu=Cpu(model="Fast 9000", features=("avx2",), cores=16, allowed=16, physical=8, quota=None, load=0.1),
    memory=Memory(
        total_bytes=64 * GIB,
        available_bytes=60 * GIB,
        limit_bytes=None,
        shm_bytes=32 * GIB,
        shm_free_bytes=32 * GIB,
    ),
    gpus=(GPU,),
    torch_gpus=1,
    torch_threads=8,
    versions=VERSIONS,
    native=True,
    native_fault=None,
    simd="avx2",
    dali_fault=None,
    open_files=(1024, 524_288),
    cache="/cache",
    cache_free_bytes=100 * GIB,
    cache_writable=True,
    environment={"OMP_NUM_THREADS": "8", "NCCL_DEBUG": "WARN"},
)


def test_a_sound_machine_has_no_problem():
    assert find_problems(SOUND) == []


PROBLEMS = [
    ({"native": False, "native_fault": "not built"}, "error", "not active.*not built", "gcc libjpeg-dev"),
    ({"torch_gpus": 0, "versions": VERSIONS | {"torch_cuda": None}}, "error", "built without CUDA", "pip install"),
    ({"torch_gpus": 0, "environment": {"CUDA_VISIBLE_DEVICES": ""}}, "error", "CUDA_VISIBLE_DEVICES hides", "unset"),
    ({"torch_gpus": 0}, "error", "for CUDA 12.8, the driver is 570.1", "update NVIDIA's driver"),
    ({"dali_fault": "too new"}, "warning", "can't be used: too new", "dali-cuda130"),
    ({"gpus": (), "torch_gpus": 0, "dali_fault": "broken"}, "note", "broken", "pip install"),
    ({"versions": VERSIONS | {"dali": None}}, "note", "DALI is not installed", "imgdata[dali]"),
    ({"versions": VERSIONS | {"torch_cuda": "13.2"}}, "note", "for CUDA 12, PyTorch for CUDA 13.2", "same major"),
    ({"cpu": replace(SOUND.cpu, quota=2.5), "torch_threads": 2}, "warning", "time of 2.5 cores, but 16", "threads=2"),
    ({"torch_threads": 17}, "warning", "17 threads on 16", "OMP_NUM_THREADS=16"),
    ({"cpu": replace(SOUND.cpu, load=9.0)}, "note", "on average 9.0 threads wanted to run", "--threads 7"),
    ({"cpu": replace(SOUND.cpu, load=20.0)}, "warning", "keep the cores busy", "OMP_NUM_THREADS=1"),
    ({"memory": replace(SOUND.memory, shm_bytes=64 * 2**20)}, "warning", "/dev/shm has 64 MiB", "shm-size"),
    ({"open_files": (1024, 1024)}, "warning", "only 1,024 files", "ulimit -n"),
    ({"environment": {"CUDA_LAUNCH_BLOCKING": "1"}}, "warning", "CUDA_LAUNCH_BLOCKING=1", "unset CUDA_LAUNCH"),
    ({"cache_free_bytes": 2**20}, "warning", "1 MiB are free.*/cache", "IMGDATA_CACHE"),
    ({"cache_writable": False}, "warning", "can't be written: /cache", "IMGDATA_CACHE"),
    ({"versions": VERSIONS | {"pillow": "12.0"}}, "note", "Pillow 12.0 runs, not Pillow-SIMD", "pillow-simd"),
]


@pytest.mark.parametrize(("change", "severity", "what", "remedy"), PROBLEMS, ids=[row[2] for row in PROBLEMS])
def test_each_problem_is_found_alone_with_its_remedy(change, severity, what, remedy):
    (problem,) = find_problems(replace(SOUND, **change))
    assert problem.severity == severity
    assert re.search(what, problem.what)
    assert remedy in problem.remedy


@pytest.mark.parametrize("limit", [-1, 4096, 1_048_576])
def test_enough_open_files_are_no_problem(limit):
    assert find_problems(replace(SOUND, open_files=(256, limit))) == []


def test_the_worst_comes_first():
    broken = replace(SOUND, native=False, native_fault="x", cache_writable=False, cpu=replace(SOUND.cpu, load=9.0))
    assert [problem.severity for problem in find_problems(broken)] == ["error", "warning", "note"]


@pytest.mark.parametrize(
    ("formats", "operates", "native_active", "expected"),
    [
        (["jpeg"], False, True, None),  # the extension does all of it
        (["jpeg"], True, True, "rotates and recolours"),
        (["jpeg", "png"], False, True, "decodes and resizes png"),
        (["png"], True, True, "decodes and resizes png and rotates and recolours"),
        (["jpeg"], False, False, "resizes"),
    ],
)
def test_pillow_is_a_problem_where_it_has_work(formats, operates, native_active, expected):
    machine = replace(SOUND, versions=VERSIONS | {"pillow": "12.0"}, native=native_active)
    found = [one for one in find_problems(machine, Needs(formats=formats, operates=operates)) if "Pillow 1" in one.what]
    assert [one.what.partition("Pillow 12.0 ")[2].partition(" here")[0] for one in found] == [expected] * bool(expected)


def test_pillow_simd_is_no_problem():
    machine = replace(SOUND, versions=VERSIONS | {"pillow_simd": "12.0.post0"})
    assert find_problems(machine, Needs(formats=["png"], operates=True)) == []


# --- the command --------------------------------------------------------------------------------------


def test_this_machine_is_reported_as_json():
    result = CliRunner().invoke(command, ["--json"])
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert list(report) == ["machine", "problems", "data", "stages", "bottleneck", "advice", "tuned"]
    assert (report["stages"], report["advice"], report["bottleneck"], report["tuned"]) == ([], [], None, None)
    machine = report["machine"]
    assert machine["native"] == native.AVAILABLE
    assert machine["cpu"]["allowed"] >= 1
    assert machine["versions"]["torch"]
    assert all(set(problem) == {"severity", "what", "remedy"} for problem in report["problems"])


def test_the_text_has_problems_first_and_the_machine_behind(monkeypatch):
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    text = CliRunner().invoke(command, []).stdout
    assert text.index("CUDA_LAUNCH_BLOCKING=1 is set") < text.index("remedy: `unset CUDA_LAUNCH_BLOCKING`")
    assert text.index("remedy: ") < text.index("processor")


def test_without_the_extension_the_report_says_why(monkeypatch):
    monkeypatch.setattr(native, "AVAILABLE", False)
    problems = find_problems(look_at_machine())
    assert problems[0].severity == "error"
    assert "Pillow decodes every JPEG whole" in problems[0].what


@pytest.mark.parametrize(("option", "value"), [("--model", "resnet9"), ("--tune", None), ("--batch-size", "8")])
def test_what_needs_a_dataset_says_so(option, value):
    result = CliRunner().invoke(command, [option, *([value] if value else [])])
    assert f"{option} needs a dataset" in str(result.exception)
