"""The registry of backend kinds: what `auto` takes, what is refused, and that all of imgdata knows a kind by it."""

import subprocess
import sys

import pytest
from click.testing import CliRunner
from imgdata_cli.main import cli

import imgdata
from imgdata.backends import registry
from imgdata.backends.options import LoaderOptions
from imgdata.measure.bench.job import OURS, Job
from imgdata.measure.bench.notes import notes
from imgdata.measure.bench.options import BenchOptions
from imgdata.measure.bench.ours import decide, make_loader
from imgdata.measure.doctor.inputs import DoctorOptions, make_case
from imgdata.measure.doctor.pipeline import list_stages
from imgdata.measure.doctor.stages import draw_sample, time_stages
from imgdata.measure.doctor.tune import tune
from imgdata.measure.machine.disk import time_disk
from imgdata.measure.parity.cases import recipe_cases
from imgdata.measure.parity.parity import available, parity
from imgdata.measure.parity.pictures import load_pictures
from imgdata.measure.timing import Rate
from imgdata.training.options import TrainOptions
from support.bench_jobs import measured
from support.fakebackend.backend import FakeBackend
from support.fakebackend.kind import FakeKind
from support.loaders import RECIPE, TRAIN, assert_same, take

SMALL = {**TRAIN, "dtype": "uint8"}


@pytest.fixture
def fake(monkeypatch):
    """The fourth backend: a folder, and this line."""
    monkeypatch.setattr(registry, "KINDS", (FakeKind(), *registry.KINDS))
    monkeypatch.setattr(FakeBackend, "started", 0)


def job(images, **options):
    settings = LoaderOptions(batch_size=8, recipe=RECIPE, threads=2, **options)
    return Job(loader=OURS, dataset=str(images), split="train", options=settings, rank=0, world_size=1, seconds=0.1)


# --- a fourth backend ------------------------------------------------------------------------------------------------


def test_the_loader_makes_batches_by_it(images, fake):
    with imgdata.Loader(images, backend="fake", **SMALL) as loader, imgdata.Loader(images, **SMALL) as other:
        assert loader.backend == "fake"
        assert "backend fake: 2 threads, counted\n" in repr(loader)
        assert_same(take(loader), take(other))
        assert FakeBackend.started == len(loader)


def test_the_loader_says_what_it_refuses_and_which_names_there_are(images, fake):
    with pytest.raises(imgdata.OptionError, match="backend 'fake' makes uint8 batches alone"):
        imgdata.Loader(images, backend="fake", **{**SMALL, "dtype": "float32"})
    with pytest.raises(imgdata.OptionError, match="one of auto, cpu, dali, fake, resident, got 'gpu'"):
        imgdata.Loader(images, backend="gpu", **SMALL)


def test_auto_takes_it_when_it_is_preferred(images, fake, monkeypatch):
    monkeypatch.setattr(FakeKind, "prefers", lambda self, setup: True)
    with imgdata.Loader(images, **SMALL) as loader:
        assert loader.backend == "fake"
    with imgdata.Loader(images, **{**SMALL, "dtype": "float32"}) as loader:
        assert loader.backend == "cpu"
        assert "; not fake: backend 'fake' makes uint8 batches alone" in repr(loader)


def test_bench_measures_it(images, fake):
    fakes = job(images, backend="fake", dtype="uint8")
    decided = decide(Job.from_json(fakes.to_json()))
    assert (decided.kind.name, decided.description) == ("fake", "fake: 2 threads, counted")
    assert not any("before the first batch" in line for line in notes(BenchOptions(), [[measured()]], (), {}, decided))
    with make_loader(fakes) as loader:
        next(iter(loader))
    assert FakeBackend.started


def test_parity_compares_it(images, fake):
    assert "fake" not in available()
    everyone = available(all_backends=True)
    result = parity(load_pictures([images], 4), recipe_cases(RECIPE), backends={"fake": everyone["fake"]})
    assert [row.backend for row in result.rows] == ["fake"] * len(result.rows)
    assert result.rows
    assert FakeBackend.started


def test_doctor_and_its_search_know_it(images, fake):
    case = make_case(images, DoctorOptions(backend="fake", device="cpu", dtype="uint8", batch_size=8))
    assert (case.kind.name, case.description.partition(":")[0]) == ("fake", "fake")
    sample_M = draw_sample(case.setup, case.opened.view.position_N)
    stages = list_stages(
        time_stages(case.setup, sample_M, rounds=1),
        time_disk(case.opened.split, sample_M, 1),
        width=1,
        kind=case.kind,
        memory_bytes=10**9,
        measured=Rate(images_per_s=1000.0, cpu_ms=1.0, cores=1.0, denied=0.0),
        dtype="uint8",
    )
    assert "fake loader" in [stage.name for stage in stages]
    assert "for comparison: by the cpu backend" in [stage.note for stage in stages]
    tuned = tune(case, 2.0, cores=1, decode_images_per_s=0.0)
    assert {"fake", "cpu"} <= {trial.setting.backend for trial in tuned.trials}


@pytest.mark.parametrize("command", ["bench", "doctor", "train"])
def test_the_command_line_lists_it(command, fake):
    shown = CliRunner().invoke(cli, [command, "--help"]).output
    assert "auto|cpu|dali|fake|resident" in "".join(shown.split())


@pytest.mark.parametrize("command", ["bench", "doctor"])
def test_the_command_line_takes_it_and_refuses_others(command, images, fake, monkeypatch):
    given = []
    for name in ("bench.bench", "doctor.run.doctor"):
        monkeypatch.setattr(f"imgdata.measure.{name}", lambda out, options, **more: given.append(options))
    CliRunner().invoke(cli, [command, str(images), "--backend", "fake"])
    assert given[0].backend == "fake"
    refused = CliRunner().invoke(cli, [command, str(images), "--backend", "gpu"])
    assert refused.exit_code != 0
    assert "'fake'" in refused.output


def test_a_run_may_be_trained_with_it(fake):
    assert TrainOptions(backend="fake").backend == "fake"
    with pytest.raises(imgdata.OptionError, match="backend must be one of auto, cpu, dali, fake, resident"):
        TrainOptions(backend="gpu")


# --- the kinds that there are --------------------------------------------------------------------------------------


def test_the_last_kind_takes_everything_and_is_the_reference():
    assert registry.KINDS[-1] is registry.reference_kind()
    assert registry.backend_names() == ("auto", "cpu", "dali", "resident")


def test_a_kind_imports_nothing_heavy():
    code = "import sys, imgdata.backends.registry; print([n for n in ('torch', 'nvidia.dali') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_exact_pixels_are_the_reference_s_alone(images):
    for kind in registry.KINDS[:-1]:
        with pytest.raises(imgdata.OptionError, match=f"exact needs the backend cpu, got '{kind.name}'"):
            imgdata.Loader(images, backend=kind.name, exact=True, **SMALL)
    with imgdata.Loader(images, exact=True, **SMALL) as loader:
        assert loader.backend == "cpu"
