"""Runs become figures, tables, plots and verdicts, and nothing of them is made up."""

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import imgdata
from benchmarks import delay_proxy, growth_index, large, large_forms, large_index, plots, remote, tables, targets
from benchmarks.compare import figures, ratios
from benchmarks.compare import main as compare
from benchmarks.recorded import at, least, quotient, recorded, total
from benchmarks.report import RESULTS, ROOT
from benchmarks.synthetic_index import CLASSES, PICTURES, plant
from benchmarks.targets import TARGETS, Target
from imgdata.views import view as views

MACHINE = {"machine": {"cpu": "a", "cores": 2}, "date": "2026-01-01", "commit": "abc"}


def stages(*rows):
    """A report of pytest-benchmark: (group, name, images/s, seconds)."""
    return {
        **MACHINE,
        "benchmarks": [
            {
                "group": group,
                "name": "test_it",
                "fullname": "benchmarks/bench_decode.py::test_it",
                "extra_info": {"name": name, "images": 8, "images_per_s": rate, "cpu_ms_per_image": 0.5},
                "stats": {"median": seconds},
            }
            for group, name, rate, seconds in rows
        ],
    }


def written(path, report):
    path.write_text(json.dumps(report))
    return str(path)


# --- comparing two runs


def test_two_runs_of_stages_are_compared_figure_by_figure(tmp_path):
    before, after = stages(("crops", "imgdata", 100.0, 0.2)), stages(("crops", "imgdata", 150.0, 0.1))
    found = ratios(figures(before), figures(after))
    assert found == {"crops: imgdata": {"images_per_s": 1.5, "cpu_ms_per_image": 1.0, "median_s": 0.5}}
    paths = [written(tmp_path / "a.json", before), written(tmp_path / "b.json", after)]
    assert "1.5" in CliRunner().invoke(compare, paths, catch_exceptions=False).output


@pytest.mark.parametrize("name", sorted(path.stem for path in RESULTS.glob("*.json")))
def test_every_recorded_file_compared_with_itself_is_the_same(name):
    rows = figures(recorded()[name])
    assert rows
    assert {value for row in ratios(rows, rows).values() for value in row.values()} <= {1.0}


def test_settings_and_versions_are_not_compared():
    report = {**MACHINE, "versions": {"numpy": 2}, "images": 5, "results": {"ours": {"images_per_s": 3.0, "ok": True}}}
    assert figures(report) == {"results: ours": {"images_per_s": 3.0}}


def test_runs_with_nothing_in_common_are_refused(tmp_path):
    first = written(tmp_path / "a.json", stages(("crops", "imgdata", 1.0, 1.0)))
    second = written(tmp_path / "b.json", stages(("order", "imgdata", 1.0, 1.0)))
    result = CliRunner().invoke(compare, [first, second])
    assert result.exit_code == 1
    assert "must have measured something in common" in result.output


def test_runs_of_different_machines_are_told_apart(tmp_path):
    report = stages(("crops", "imgdata", 1.0, 1.0))
    first = written(tmp_path / "a.json", report)
    second = written(tmp_path / "b.json", {**report, "machine": {"cpu": "b", "cores": 2}})
    assert "different machines" in CliRunner().invoke(compare, [first, second]).output


# --- targets


@pytest.mark.parametrize(
    ("goal", "at_least", "found", "row"),
    [
        (0.8, True, 0.8, ("≥ 0.8x", "0.8x", "yes")),
        (0.8, True, 0.799, ("≥ 0.8x", "0.799x", "**no**")),
        (0.65, False, 0.65, ("≤ 0.65x", "0.65x", "yes")),
        (0.65, False, 0.66, ("≤ 0.65x", "0.66x", "**no**")),
        (14, True, None, ("≥ 14x", "not measured: few cores", "")),
    ],
)
def test_a_target_is_met_missed_or_not_measured(goal, at_least, found, row):
    target = Target(
        stage="loader", what="it", goal=goal, at_least=at_least, figure=lambda _: found, unmeasured="few cores"
    )
    assert target.row({}) == ("loader", "it", *row)


def test_without_results_no_target_has_a_figure():
    assert {target.figure({}) for target in TARGETS} == {None}
    assert f"0 of {len(TARGETS)} are met, 0 missed, {len(TARGETS)} not measured." in targets.markdown({})


def test_targets_of_a_gpu_say_that_there_is_none():
    rows = [target.row({}) for target in TARGETS if "GPU" in target.what]
    assert len(rows) >= 6
    assert {row[3] for row in rows} == {"not measured: no GPU"}


def test_the_recorded_loaders_are_judged_by_the_best_peer_that_antialiases():
    rows = recorded()["loaders"]["results"]["uint8_2"]
    target = next(target for target in TARGETS if "uint8, 2 threads: CPU time of the best" in target.what)
    peers = [row["our_cpu_against_it"] for name, row in rows.items() if row["antialias"] and name != "imgdata"]
    assert target.figure(recorded()) == max(peers)


@given(st.floats(0.01, 1e6), st.floats(0.01, 1e6))
def test_figures_are_found_and_combined(first, second):
    results = {"file": {"a": {"x": first}, "b": {"x": second}}}
    a, b = at("file", "a", "x"), at("file", "b", "x")
    assert (a(results), at("file", "c", "x")(results), at("other", "a")(results)) == (first, None, None)
    assert total(a, b)(results) == first + second
    assert quotient(a, b)(results) == first / second
    assert least(a, b)(results) == min(first, second)
    for combined in (total, quotient, least):
        assert combined(a, at("nowhere"))(results) is None


# --- tables and plots


def test_others_are_compared_with_ours_in_the_table_of_a_stage():
    text = tables.stages(stages(("crops", "imgdata, uint8", 300.0, 0.002), ("crops", "Pillow", 100.0, 0.5)))
    assert text.splitlines()[:3] == [
        "### Decoding",
        "",
        "| crops | time | images/s | CPU/image | ours / its rate |",
    ]
    assert text.splitlines()[4:] == [
        "| imgdata, uint8 | 2 ms | 300 | 500 us |  |",
        "| Pillow | 500 ms | 100 | 500 us | 3 |",
    ]


def test_a_stage_that_is_ours_alone_is_compared_with_nothing():
    assert "ours" not in tables.stages(stages(("crops", "imgdata", 300.0, 0.002)))


def test_a_series_has_a_column_for_each_loader_and_its_picture():
    rows = [{"threads": 1, "imgdata": {"images_per_s": 1500.0}, "torchvision v2": {"images_per_s": 900.5}}]
    lines = tables.growth({"threads": {"rows": rows}}, "threads").splitlines()
    assert lines[0] == "![Figures by threads](images/benchmarks/threads.png)"
    assert lines[2] == "| threads | imgdata: images/s | torchvision v2: images/s |"
    assert lines[4] == "| 1 | 1,500 | 900 |"


def test_every_recorded_series_is_drawn_and_shown(tmp_path):
    result = CliRunner().invoke(plots.main, ["--out", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0
    pages = "".join((ROOT / "docs" / page).read_text() for page in ("benchmarks.md", "large.md"))
    for name in recorded()["growth"]:
        assert f"<!-- growth {name} -->" in pages
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 600
            # Not a blank sheet: axes, labels and at least one line.
            assert len(picture.convert("RGB").getcolors(1 << 16)) > 20
    assert set(plots.DRAWINGS) == set(recorded()["growth"])


@pytest.mark.parametrize(
    ("value", "text"), [(0.005, "0.005"), (2, "2"), (1500, "1,500"), (20_000, "20k"), (10_000_000, "10M")]
)
def test_axes_are_labelled_with_short_numbers(value, text):
    assert plots._short(value) == text


# --- what is measured


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """3,000 samples in 7 tars."""
    folder = tmp_path_factory.mktemp("planted")
    plant(folder, 3000, shards=7, size=(64, 48))
    return folder


def test_a_planted_dataset_has_the_samples_and_tars_asked_for(planted):
    split = imgdata.open(planted / "shards")["train"]
    index = split.index
    assert len(split) == 3000
    assert len(index.words("shard")) == 7
    assert np.bincount(index.shard_N).tolist() == [429, 429, 428, 429, 428, 429, 428]
    assert set(index.label_N.tolist()) == set(range(CLASSES))
    assert split[5].key == "5"
    # The same picture under another row and another tar.
    assert split[5].image == split[5 + 40 * PICTURES].image


@pytest.mark.parametrize("world_size", [1, 3, 8])
def test_ranks_are_planned_and_share_out_each_batch(planted, world_size):
    found = growth_index.measure(planted, world_size)
    assert {"open_ms", "global_order_ms", "plan_batch_ms"} <= set(found)
    assert all(value >= 0 for value in found.values())


def test_a_large_index_is_planned_by_ranks_from_all_over_the_world(tmp_path, monkeypatch):
    monkeypatch.setattr(large_index, "PART_ROWS", 20_000)
    # Measuring changes it, in a process of its own.
    monkeypatch.setattr(views, "MAX_WHOLE", views.MAX_WHOLE)
    data = large_index.plant(tmp_path / "large", 50_000)
    found = large.measure(data, 64)
    assert found["steps_of_epoch"] == 50_000 // (64 * 256)
    assert all(value >= 0 for value in found.values())


def test_rows_are_read_from_every_form_of_an_index(tmp_path):
    for form in large_forms.write_forms(tmp_path, 3000).values():
        found = large_forms.measure(form, 3000, 2)
        assert found["bytes_per_row"] > 5
        assert found["warm_ms"] > 0


def test_ranks_that_overlap_end_the_measurement(planted, monkeypatch):
    from imgdata.order.epoch_order import Order

    whole = Order.batch_at
    monkeypatch.setattr(
        Order, "batch_at", lambda self, epoch, offset, rank, world: whole(self, epoch, offset, 0, world)
    )
    with pytest.raises(RuntimeError, match="ranks must share out the global batch, each sample once"):
        growth_index.measure(planted, 2)


def pytest_apart(*arguments):
    """Run pytest in a process of its own, which knows nothing of the one that it is a part of."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True)


@pytest.mark.slow
def test_a_suite_records_what_a_stage_costs(tmp_path):
    report = tmp_path / "stages.json"
    suite = ("benchmarks/bench_limits.py", "--benchmark-only", "--rounds", "2", "--images", "256")
    done = pytest_apart(*suite, f"--benchmark-json={report}")
    assert done.returncode == 0, done.stdout
    assert "needs a CUDA device" in done.stdout
    found = json.loads(report.read_text())
    assert {"command", "commit", "date", "machine", "versions", "benchmarks"} <= set(found)
    assert set(found["machine_info"]) == {"cpu", "cores"}
    copy = next(one for one in found["benchmarks"] if one["extra_info"]["name"].startswith("memory, copy"))
    costs = copy["extra_info"]
    assert costs["mb_per_s"] == pytest.approx(256 / copy["stats"]["median"], rel=1e-3)
    assert costs["images_per_s"] == pytest.approx(costs["images"] / copy["stats"]["median"], rel=1e-3)
    # Two arrays of 256 MB each.
    assert costs["peak_rss_mb"] > 500
    assert 0 < costs["cpu_ms_per_image"] < 1


@pytest.mark.slow
def test_all_suites_can_be_collected():
    done = pytest_apart("benchmarks", "--collect-only")
    assert done.returncode == 0, done.stdout
    # Each has its place in the tables of the documentation.
    assert set(re.findall(r"bench_(\w+)\.py::", done.stdout)) == set(tables._SUITES)


# --- peers


def test_peers_are_pinned_exactly_with_all_that_they_need():
    def pins(name):
        lines = (ROOT / "benchmarks" / name).read_text().splitlines()
        return dict(line.split("==") for line in lines if line and not line.startswith("#"))

    def normal(name):
        return re.sub(r"[-_.]+", "-", name).lower()

    wanted, whole = pins("peers.txt"), {normal(name): pin for name, pin in pins("peers-constraints.txt").items()}
    assert {name: whole[normal(name)] for name in wanted} == wanted


def test_results_name_no_place_of_a_machine():
    found = {path.name: re.findall(r'"/[a-z]+/[^"]*"', path.read_text()) for path in Path(RESULTS).glob("*.json")}
    assert {name: places for name, places in found.items() if places} == {}


# --- loaders that read from an object store


def a_run(first, second):
    return {
        "first_images_per_s": first,
        "first_cpu_ms": 1.0,
        "first_batch_s": 0.25,
        "second_images_per_s": second,
        "second_cpu_ms": 0.5,
    }


def test_rates_from_a_store_are_compared_round_by_round():
    rows = remote.figures_of(
        {
            "imgdata": [a_run(200.0, 400.0), a_run(100.0, 200.0), a_run(2.0, 4.0)],
            "LitData": [a_run(100.0, 200.0), a_run(50.0, 100.0), a_run(1.0, 2.0)],
            remote.LOCAL: [a_run(400.0, 400.0), a_run(200.0, 200.0), a_run(4.0, 4.0)],
        }
    )
    assert rows["LitData"]["our_first_against_it"] == rows["LitData"]["our_second_against_it"] == 2
    assert rows[remote.LOCAL]["our_second_against_it"] == 1
    lines = tables.remote(rows).splitlines()
    assert lines[2] == "| imgdata | 100 | 1.00 | 0.25 s | 200 | 0.50 |  |  |"
    assert lines[3] == "| LitData | 50 | 1.00 | 0.25 s | 100 | 0.50 | 2.00 | 2.00 |"
    found = [target.figure({"remote": {"results": rows}}) for target in targets._REMOTE]
    assert found == [2, 1]
    assert [target.figure({}) for target in targets._REMOTE] == [None, None]


def test_a_line_between_loader_and_server_carries_what_it_may():
    async def seconds(num_bytes):
        line, clock = delay_proxy.Line(1e6), asyncio.get_running_loop().time
        begun = clock()
        await asyncio.gather(*(line.carry(num_bytes) for _ in range(4)))
        return clock() - begun

    assert asyncio.run(seconds(10_000)) >= 0.04
    assert asyncio.run(delay_proxy.Line(0.0).carry(10**12)) is None
