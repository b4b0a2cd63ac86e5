"""`make gpu`: without a GPU it says so; every phase runs here at a tiny size; what fails is named, and alone."""

import io
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from PIL import Image, JpegImagePlugin

import imgdata
from benchmarks.gpu import __main__ as command_module
from benchmarks.gpu import card, figures, loaders, page, pictures, report, runner, running, suite
from benchmarks.gpu.phases import PHASES, Phase
from benchmarks.gpu.running import NotMeasuredError, Running, Settings
from benchmarks.gpu.sizes import TINY
from benchmarks.report import RESULTS, ROOT
from benchmarks.targets import GPU_TARGETS

NEEDS_A_GPU = {
    "machine": {"nvidia-smi", "jpeg engines", "nvml affinity", "crop trial"},
    "end_to_end": {"networks, resnet9, 2, compiled"},
    "faults": {"out of memory, loader", "out of memory, training"},
    "training": {"fp16", "compile"},
}
"""Items that only a GPU can give, by phase."""
OTHERS = ("torchcodec", "torchvision-batched", "dali-fused")
"""Loaders that may be missing, or not run, on a processor."""


def command(*words, path="", **environment):
    """Run the command as `make gpu` does."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    outside["PYTHONPATH"] = os.pathsep.join(filter(None, (str(path), outside.get("PYTHONPATH"))))
    run = [sys.executable, "-m", "benchmarks.gpu", *map(str, words)]
    return subprocess.run(run, cwd=ROOT, env=outside | environment, capture_output=True, text=True)


def results_folder():
    return {file.name: file.read_bytes() for file in RESULTS.glob("*.json")}


@pytest.fixture
def settings(tmp_path):
    return Settings(device="cpu", work=str(tmp_path), limit_s=600)


@pytest.fixture
def phase(settings, tmp_path):
    return Running("test", settings, tmp_path / "notes.jsonl")


# --- the command


def test_without_a_gpu_one_line_says_what_is_missing_and_nothing_is_written(tmp_path):
    before = results_folder()
    done = command("--json", tmp_path / "gpu.json", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    assert (
        done.stderr
        == "make gpu: it needs an NVIDIA GPU: CUDA_VISIBLE_DEVICES is empty, which hides every GPU; unset it\n"
    )
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []
    assert results_folder() == before


def test_results_without_a_gpu_get_no_final_name():
    done = command("--device", "cpu")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "make gpu: --device cpu needs --json PATH: results without a GPU get no name of their own\n"


def test_results_are_written_under_the_name_of_the_card(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(command_module, "_card", lambda: {"name": "NVIDIA Fake 80GB"})
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    assert command_module.main(["--phase", "faults", "--limit", "0.001"]) == 1
    written = json.loads((tmp_path / "gpu-fake-80gb.json").read_text())
    assert (written["card"], list(written["phases"])) == ("NVIDIA Fake 80GB", ["faults"])
    assert written["figures"]["memory"] == {"why": written["phases"]["faults"]["problems"][""]}
    assert "failed: faults: took more than" in capfd.readouterr().out


@pytest.mark.parametrize("words", [("--phase", "nothing"), ("--limit", "0"), ("--limit", "many")])
def test_words_that_mean_nothing_are_refused(words):
    done = command(*words)
    assert done.returncode == 2
    assert words[0] in done.stderr
    assert "Traceback" not in done.stderr


def test_phases_beyond_their_limits_fail_and_the_others_still_run(tmp_path):
    done = command("--device", "cpu", "--limit", "0.001", "--json", tmp_path / "gpu.json")
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if line.startswith("failed: ")]
    assert [line.split(": ")[1] for line in failed] == list(PHASES)
    assert all("and was ended" in line for line in failed)
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert list(written["phases"]) == list(PHASES)
    assert not any(phase["passed"] for phase in written["phases"].values())


def test_the_limits_together_are_less_than_eight_minutes_and_are_on_the_page():
    assert sum(phase.limit_s for phase in PHASES.values()) < 480
    text = (ROOT / "docs" / "gpu.md").read_text()
    assert all(f"| `{name}` | {phase.limit_s:g} s |" in text for name, phase in PHASES.items())


# --- every phase, on the processor


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Output and results of all phases on the processor."""
    place = tmp_path_factory.mktemp("gpu") / "gpu.json"
    before = results_folder()
    done = command("--device", "cpu", "--limit", "20", "--json", place)
    assert results_folder() == before
    return done, json.loads(place.read_text())


@pytest.mark.slow
def test_every_phase_runs_up_to_where_a_gpu_is_missed(whole):
    done, written = whole
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(written["phases"]) == list(PHASES)
    for name, phase in written["phases"].items():
        assert phase["problems"] == {}, name
        missing = {item for item in phase["not_measured"] if not item.endswith(OTHERS)}
        assert missing == NEEDS_A_GPU.get(name, set()), name


@pytest.mark.slow
def test_loaders_are_measured_beside_each_other_in_rounds(whole):
    results = whole[1]["phases"]["loaders"]["results"]
    for dtype in ("float16", "uint8"):
        rows = results[dtype]
        assert {"imgdata, dali", "imgdata, cpu", "dali"} <= set(rows)
        assert all(len(rows[name]["rounds"]) == TINY.loader_rounds for name in ("imgdata, dali", "dali"))
        assert all(row["images_per_s"] > 0 and row["cpu_ms_per_image"] > 0 for row in rows.values())
    assert "decoding alone" in results["float16"]
    assert {f"imgdata, dali, hw_decoder_load={load:g}" for load in (0.65, 0.95, 1.0)} <= set(results["uint8"])
    assert results["resident"]["imgdata, resident"]["bad"] == 0
    assert results["python"]["imgdata, dali"]["python_us_per_image"] > 0


@pytest.mark.slow
def test_faults_and_runs_have_their_figures(whole):
    phases = whole[1]["phases"]
    bad = phases["faults"]["results"]["bad pictures"]
    assert bad["planted"] == bad["found"] == bad["remembered"] > 0
    assert phases["faults"]["results"]["memory"]["epochs"] == TINY.few_epochs
    training = phases["training"]["results"]
    assert training["resume"]["epochs"] == 2
    assert training["torchrun, 1 rank"]["backend"] == "gloo"
    assert set(phases["end_to_end"]["results"]["networks"]) == {"resnet9, 2", "cnn, 4"}
    assert {one["outcome"] for one in phases["suite"]["results"]["tests"].values()} == {"skipped"}


@pytest.mark.slow
def test_a_run_on_the_processor_meets_no_target(whole):
    done, written = whole
    assert written["figures"] == {}
    table = done.stdout.partition("\n\n")[2]
    assert "not measured  no GPU" in table
    assert "  met  " not in table
    assert "  missed  " not in table


# --- what is not installed


def hidden(folder, *packages):
    """A folder that, in front of the path, makes these packages look as if they were not installed."""
    for package in packages:
        path = folder / f"{package.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"raise ModuleNotFoundError('No module named {package}', name='{package}')\n")
    return folder


@pytest.mark.slow
def test_a_missing_package_fails_its_phase_by_name_alone(tmp_path):
    path = hidden(tmp_path, "pyarrow", "pytest")
    done = command(
        *("--phase", "suite", "--phase", "training", "--device", "cpu", "--limit", "20"),
        *("--json", tmp_path / "gpu.json"),
        path=path,
    )
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if line.startswith("failed: ")]
    assert failed[0] == "failed: suite: tests: pytest is not installed"
    assert failed[1:] == ["failed: training: its process ended with 1: pyarrow is not installed"]
    assert "Traceback" not in done.stdout + done.stderr


def test_a_report_says_nothing_of_packages_that_are_missing(monkeypatch):
    def version(name):
        if name == "simplejpeg":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr("benchmarks.report.version", version)
    assert set(report.machine()["versions"]) == {"python", "PIL", "imgdata", "numpy", "webdataset"}


def test_without_dali_its_figures_are_not_measured_and_that_is_no_failure(phase, monkeypatch):
    monkeypatch.setattr("imgdata.backends.dali.available.load", missing_dali)
    for entry in list(loaders._entries(phase))[:2]:
        phase.attempt(entry.group, entry.name, work=lambda entry=entry: entry.measure(60))
    found = runner.gathered(lines(phase))
    assert (found["problems"], found["results"]) == ({}, {})
    assert list(found["not_measured"]) == ["float16, imgdata, dali", "float16, dali"]
    assert all("needs NVIDIA DALI" in reason for reason in found["not_measured"].values())


def missing_dali():
    raise imgdata.errors.MissingExtraError("backend 'dali' needs NVIDIA DALI: pip install 'imgdata[dali]'")


# --- a phase and its process


def lines(phase):
    return [json.loads(line) for line in phase._notes.read_text().splitlines()]


def fake_phase(folder, body, limit_s=600):
    """What is found of a phase with this body."""
    (folder / "fakes").mkdir()
    (folder / "fakes" / "fake.py").write_text(f"import os, signal\n\n\ndef run(phase):\n    {body}\n")
    path = os.pathsep.join((str(ROOT), str(folder), os.environ["PYTHONPATH"]))
    settings = Settings(device="cpu", work=str(folder), limit_s=limit_s)
    fake = Phase(name="fake", limit_s=limit_s, what="", package="fakes")
    return runner.run_phase(fake, settings, {"PYTHONPATH": path})


def test_what_a_killed_phase_had_found_is_kept(tmp_path):
    body = "phase.note('a', 'b', value=1); phase.attempt('c', work=lambda: os.kill(os.getpid(), signal.SIGKILL))"
    found = fake_phase(tmp_path, body)
    assert found["results"] == {"a": {"b": 1}}
    assert found["problems"][""].startswith("its process ended with -9 during c: ")
    assert not found["passed"]


def test_an_item_that_fails_costs_no_other(tmp_path):
    found = fake_phase(tmp_path, "phase.attempt('a', work=lambda: 1 / 0); phase.attempt('b', work=lambda: 2)")
    assert found["results"] == {"b": 2}
    assert found["problems"] == {"a": "ZeroDivisionError: division by zero"}


def test_a_phase_that_can_not_start_says_what_is_missing(tmp_path):
    found = fake_phase(tmp_path, "import nowhere.at_all")
    assert found["problems"] == {"": "its process ended with 1: nowhere is not installed"}


def test_messages_name_no_folder_of_this_machine(tmp_path):
    found = fake_phase(tmp_path, f"phase.attempt('a', work=lambda: open({str(ROOT / 'none.txt')!r}))")
    assert str(ROOT) not in str(found)
    assert "none.txt" in found["problems"]["a"]


def test_everything_that_a_process_started_ends_with_it(tmp_path):
    sleeper = "import time; time.sleep(600)"
    starter = (
        f"import subprocess, sys; one = subprocess.Popen([sys.executable, '-c', {sleeper!r}], start_new_session=True); "
        "print(one.pid, flush=True); one.wait()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    inner = int(process.stdout.readline())
    runner.end_tree(process.pid)
    assert process.wait() == -9
    process.stdout.close()
    deadline = time.monotonic() + 60
    while is_running(inner) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(inner)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_items_run_in_processes_of_their_own_and_tell_their_outcome(phase):
    phase.sizes = replace(TINY, apart=True)
    arguments = {"model": "cnn", "backend": "cpu", "batch_size": 2, "compile": True}
    with pytest.raises(NotMeasuredError, match="says nothing about a GPU"):
        phase.call("end_to_end:measure", **arguments)
    with pytest.raises(RuntimeError, match=r"OptionError: batch_size must be a whole number of at least 1, got 0"):
        phase.call("end_to_end:measure", **arguments | {"batch_size": 0, "compile": False})


@pytest.mark.slow
def test_a_loader_is_measured_in_a_process_of_its_own(phase, monkeypatch):
    monkeypatch.setattr(running, "sizes_for", lambda device: replace(TINY, apart=True, pictures=16, batch=4))
    phase.sizes = phase.settings.sizes
    # The pictures, too, are made by several processes, and are the same.
    found = [imgdata.open(pictures.folder(phase.settings, "jpegs"))["train"].read(row) for row in range(16)]
    assert found == pictures._batch(TINY.picture_scale, 0, 16)
    assert loaders._by_bench(phase, "jpegs", dtype="uint8", backend="cpu", threads=1)(600)["images_per_s"] > 0


def test_what_there_is_no_time_for_is_named(phase):
    phase.attempt("a", work=lambda: 1, needs_s=10_000)
    assert runner.gathered(lines(phase))["not_measured"] == {"a": "no time was left within 600 s"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Traceback\n  here\nValueError: it broke\n", "ValueError: it broke"),
        (
            "[rank0]: a.b.TrainingError: no GPU\nE1 errors.ChildFailedError:\n  time: now\n======\n",
            "a.b.TrainingError: no GPU",
        ),
        ("no package\n------\n\n", "no package"),
        ("\n", "it wrote nothing"),
    ],
)
def test_of_what_a_process_wrote_the_error_is_kept(text, line):
    assert running.last_line(text) == line


# --- the tests' phase

TESTS = """
import os
import pytest

pytestmark = pytest.mark.MARKER

def test_one():
    pass

def test_two():
    assert 1 + 1 == 3, "arithmetic"

def test_three():
    os.abort()

@pytest.mark.skip(reason="no such card")
def test_four():
    pass

def test_five():
    pass
"""


@pytest.mark.slow
def test_a_test_that_ends_the_process_costs_no_other_test(phase, tmp_path):
    (tmp_path / "test_some.py").write_text(TESTS.replace("MARKER", "gpu"))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu: needs one\n")
    results, code, _ = suite.outcomes(phase, [str(tmp_path / "test_some.py")])
    found = {name.rpartition("::")[2]: (result["outcome"], result["message"]) for name, result in results.items()}
    assert found["test_one"] == found["test_five"] == ("passed", "")
    assert found["test_two"] == ("failed", "AssertionError: arithmetic")
    assert found["test_three"] == ("crashed", "its process ended with -6")
    assert found["test_four"] == ("skipped", "Skipped: no such card")
    assert code == 0


def test_tests_that_were_run_before_the_limit_keep_their_results(phase, monkeypatch):
    def until_time_is_up(phase, files, done):
        rows = [("a", "begun"), ("a", "passed"), ("b", "begun")]
        lines = [{"test": test, "outcome": outcome, "seconds": 1.0, "message": ""} for test, outcome in rows]
        (phase.settings.folder / "tests.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        return None, ""

    monkeypatch.setattr(suite, "_pytest", until_time_is_up)
    suite.run(phase)
    found = runner.gathered(lines(phase))
    assert found["results"]["counts"] == {"crashed": 1, "passed": 1}
    assert found["problems"] == {
        "tests, b": "crashed: no time was left",
        "tests": "2 tests were run within 600 s; others were left",
    }


def test_a_suite_that_takes_all_the_time_is_ended(settings, tmp_path):
    phase = Running("suite", replace(settings, limit_s=0.1), tmp_path / "notes.jsonl")
    assert suite.outcomes(phase, suite.gpu_files())[:2] == ({}, None)


def test_only_files_that_mention_the_marker_are_run():
    files = suite.gpu_files()
    assert {"tests/backends/dali/test_dali_gpu.py", "tests/loader/test_loader_gpu.py"} < set(files)
    for file in files:
        text = (ROOT / file).read_text()
        assert "mark.gpu" in text or "on_devices" in text


# --- figures, verdicts, the page


def rows(**rates):
    return {name.replace("_", ", "): {"images_per_s": rate[0], "rounds": rate} for name, rate in rates.items()}


def phases(**results):
    return {
        name: {
            "passed": True,
            "seconds": 1.5,
            "limit_s": 9,
            "problems": {},
            "not_measured": {},
            "results": found,
            "commit": "abc",
            "date": "2026-01-01",
        }
        for name, found in results.items()
    }


def network(ratio, rate=1000.0):
    return {"real_images_per_s": rate, "synthetic_images_per_s": rate / ratio, "ratio": ratio, "data_wait": 0.01}


WHOLE = phases(
    loaders={
        "float16": rows(imgdata_dali=[1200.0, 1300.0], dali=[1000.0, 1000.0], torchvision=[400.0])
        | {"decoding alone": {"images_per_s": 1250.0, "rounds": [1250.0, 1250.0]}},
        "uint8": rows(imgdata_dali=[900.0], dali=[1000.0]),
        "cpu threads": {"1": {"images_per_s": 100.0}, "16": {"images_per_s": 1500.0}},
        "python": {"imgdata, dali": {"python_us_per_image": 17.5}},
    },
    end_to_end={
        "networks": {
            "resnet50, 256": network(0.98),
            "resnet18, 256": network(0.94),
            "resnet9, 1024": network(0.96, 140_000.0),
            "resnet9, 1024, compiled": network(0.9, 160_000.0),
        }
    },
    faults={"memory": {"last_to_first": 1.001}, "out of memory": {"loader": {"raised": "DeviceMemoryError"}}},
)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("loader_float16", {"value": 1.25, "beside": "dali"}),
        ("loader_uint8", {"value": 0.9, "beside": "dali"}),
        ("decoding", {"value": 1.0}),
        ("python_us", {"value": 17.5}),
        ("threads", {"value": 15.0}),
        ("memory", {"value": 1.001}),
        ("resnet50", {"value": 0.98}),
        ("resnet18", {"value": 0.94}),
        ("resnet9_1024", {"value": 0.96}),
        ("resnet9_512", {"why": "networks, resnet9, 512, ratio: it was not reached"}),
        ("resident", {"value": 160_000.0, "beside": "compiled"}),
    ],
)
def test_figures_follow_from_the_phases(name, found):
    assert figures.figures(WHOLE)[name] == found


def test_a_figure_that_is_missing_says_why():
    assert set(figures.figures({})["decoding"]) == {"why"}
    assert figures.figures({})["memory"] == {"why": "the phase faults was not run"}
    ended = phases(loaders={"float16": rows(imgdata_dali=[1.0])})
    ended["loaders"]["not_measured"]["float16, dali"] = "DALI is not installed"
    assert figures.figures(ended)["loader_float16"] == {"why": "float16, dali: DALI is not installed"}
    ended["loaders"]["problems"]["pictures"] = "the disk is full"
    assert figures.figures(ended)["python_us"] == {"why": "pictures: the disk is full"}
    ended["loaders"]["problems"][""] = "took more than 150 s, and was ended"
    assert figures.figures(ended)["python_us"] == {"why": "took more than 150 s, and was ended"}


def test_every_target_of_a_gpu_has_a_figure_by_its_name():
    made = figures.figures(WHOLE)
    for name in made:
        results = {"gpu-a": {"date": "2026-01-01", "figures": {name: {"value": 7.0}}}}
        assert [target.figure(results) for target in GPU_TARGETS].count(7.0) == 1, name
    assert len(made) == len(GPU_TARGETS)


def a_report(**changes):
    return {
        "command": "python -m benchmarks.gpu",
        "date": "2026-01-01",
        "commit": "abc",
        "machine": {"cpu": "a", "cores": 16, "gpu": "NVIDIA A"},
        "versions": {"torch": "2"},
        "card": "NVIDIA A",
        "device": "cuda",
        "phases": WHOLE,
        "figures": figures.figures(WHOLE),
    } | changes


def test_the_command_says_of_each_target_whether_it_was_met():
    said = {line.split("  ")[0]: line for line in page.verdicts(a_report()).splitlines()}
    verdicts = {name.partition(":")[0]: line for name, line in said.items()}
    assert " met " in verdicts["GPU, float16"]
    assert " missed " in verdicts["GPU, uint8"]
    assert "not measured  networks, resnet9, 512" in verdicts["resnet9, resident, batches of 512 on a GPU"]


def test_the_page_has_a_section_for_each_card_and_names_what_failed():
    broken = json.loads(json.dumps(a_report(card="NVIDIA B")))
    broken["phases"]["loaders"]["problems"] = {"float16, imgdata, cpu": "it broke"}
    text = page.markdown({"gpu-a": a_report(), "gpu-b": broken, "loaders": {}})
    assert text.index("## NVIDIA A") < text.index("## NVIDIA B")
    assert "| dali | 1,000 |" in text
    assert "| resnet50, 256 | 1,000 | 1,020 | 0.980 | 1.0% |" in text
    assert "| faults: out of memory, loader | raised DeviceMemoryError |" in text
    assert "- loaders, failed: float16, imgdata, cpu: it broke" in text


def test_without_a_recorded_run_the_page_lists_the_targets_as_not_measured():
    table = [line for line in page.markdown({}).splitlines() if line.startswith("|")][2:]
    assert len(table) == len(GPU_TARGETS)
    assert all(line.endswith("| not measured |") for line in table)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-80gb-hbm3"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("Tesla T4", "t4"),
        ("../x", "x"),
        ("", "unknown"),
    ],
)
def test_results_are_named_after_the_card(name, part):
    assert report.final_place(name) == RESULTS / f"gpu-{card.short(name) or part}.json"
    assert card.short(name) == part


@pytest.mark.parametrize(
    ("words", "card_before", "kept"),
    [
        (["--phase", "faults"], "NVIDIA A", True),
        ([], "NVIDIA A", False),
        (["--phase", "faults"], "NVIDIA B", False),
    ],
)
def test_one_phase_that_runs_again_leaves_the_others_as_they_were(tmp_path, words, card_before, kept):
    place = tmp_path / "gpu.json"
    place.write_text(json.dumps(a_report(card=card_before)))
    begun = report.begin(place, "NVIDIA A", "cuda", words)
    assert ("loaders" in begun["phases"]) is kept
    report.add(begun, "faults", phases(faults={"memory": {"last_to_first": 2.0}})["faults"])
    assert begun["figures"]["memory"] == {"value": 2.0}
    assert ("value" in begun["figures"]["decoding"]) is kept


# --- pictures


def test_the_jpegs_are_of_several_kinds():
    image = next(pictures.crops(1, (64, 48), 0))
    kinds = set()
    for number in range(24):
        with Image.open(io.BytesIO(pictures.jpeg(number, image))) as opened:
            kinds.add((opened.mode, "progressive" in opened.info, JpegImagePlugin.get_sampling(opened)))
    assert kinds == {
        ("RGB", False, 2),
        ("RGB", False, 1),
        ("RGB", False, 0),
        ("RGB", True, 2),
        ("L", False, -1),
    }


def test_where_no_package_ships_photographs_noise_takes_their_place(monkeypatch):
    def no_photographs(*_):
        raise ModuleNotFoundError("sklearn ships photographs that this needs: pip install sklearn")

    monkeypatch.setattr(pictures.photos, "photo_crops", no_photographs)
    monkeypatch.setattr(pictures.photos, "photographs", no_photographs)
    first, second = pictures.crops(2, (50, 40), 0)
    assert first.size == (50, 40)
    assert first.tobytes() != second.tobytes()
    assert pictures.source().startswith("smooth noise (sklearn ships")


def test_a_picture_without_tables_is_read_by_no_decoder():
    data = pictures.without_tables(pictures.jpeg(0, next(pictures.crops(1, (64, 48), 0))))
    with pytest.raises(OSError, match="broken data stream"), Image.open(io.BytesIO(data)) as opened:
        opened.load()
