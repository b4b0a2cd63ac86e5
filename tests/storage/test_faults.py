"""Calls of the system, clocks and requests to stores fail where a seed says: the same result or one error, no loss."""

import subprocess
import sys

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from support.faults import DISK, ONCE, SHORT, STAYS, Planned, Site, draw, preloaded
from support.faulty_runs import Runner
from support.faulty_work import ALL, ON_S3
from support.remote_servers import s3_environment

QUICK = {"shard", "export", "a loader of a folder", "a loader of a store"}
SLOWEST = {"a run"}
"""Seconds for each seed: `python -m benchmarks.reliability` does it."""
SEEDS = settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])


@pytest.fixture(scope="module")
def started():
    """A function that starts the program, once for each set of variables."""
    runners = {}

    def start(**environment):
        key = tuple(environment.items())
        if key not in runners:
            runners[key] = Runner(**environment)
        return runners[key]

    if sys.platform != "linux":
        pytest.skip("calls of the system are caught on Linux")
    try:
        preloaded()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no C compiler: {error}")
    yield start
    for runner in runners.values():
        runner.close()


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
        for name in ALL
        if name not in SLOWEST | {ON_S3}
    ],
)
@SEEDS
@given(seed=st.integers(0, 10**6))
def test_faults_end_in_the_same_result_or_in_one_error_and_the_next_run_ends_the_work(started, work, seed):
    said = started().run(work, seed)
    assert said["outcome"] in ("same", "error"), said


@pytest.mark.slow
@SEEDS
@given(seed=st.integers(0, 10**6))
def test_faults_of_the_disk_and_of_a_store_while_shards_are_uploaded(started, seed):
    said = started(**s3_environment()).run(ON_S3, seed)
    assert said["outcome"] in ("same", "error"), said


@pytest.mark.parametrize("name", ["pets-val.index.parquet.tmp", "pets-val-000000.tar.*.tmp"])
def test_what_libraries_do_below_python_fails_as_planned(started, name):
    # By PyArrow, and by the extension.
    site = Site("write", f"out/.imgdata/{name}")
    planned = [Planned(site=site, number=1, what="ENOSPC", how_long=DISK)]
    said = started().run("shard", 0, planned)
    assert said["made"] == said["schedule"] == [f"ENOSPC at {site.call} {site.path} #1, {DISK}"]
    assert "no space left" in said["text"]
    assert said["outcome"] == "error"


def test_a_tar_whose_headers_come_in_halves_is_no_damaged_one(started):
    site = Site("read", "out/pets-train-000000.tar")
    said = started().run("verify", 0, [Planned(site=site, number=1, what=SHORT, how_long=STAYS)])
    assert (len(said["made"]), said["outcome"]) == (1, "same"), said


def test_a_seed_draws_the_same_faults_from_the_same_sites():
    sites = {Site("read", "a"): 9, Site("write", "b"): 1, Site("GET", "/x"): 2, Site("monotonic", "clock"): 4}
    drawn = {seed: draw(seed, sites) for seed in range(200)}
    assert drawn == {seed: draw(seed, dict(reversed(sites.items()))) for seed in range(200)}
    assert {one.site for planned in drawn.values() for one in planned} == set(sites)
    assert all(1 <= one.number <= sites[one.site] for planned in drawn.values() for one in planned)
    assert str(Planned(site=Site("read", "a"), number=2, what="EIO", how_long=ONCE)) == "EIO at read a #2, once"
