"""What `imgdata doctor` makes of its figures: ceilings, bottlenecks, promised gains, the search, one line for a run."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdata.backends.registry import kind_named
from imgdata.measure.doctor.advice import Measured, advise
from imgdata.measure.doctor.pipeline import Pipeline, list_stages
from imgdata.measure.doctor.stages import StageTimes
from imgdata.measure.doctor.trials import InMemory, Resized, Rewritten
from imgdata.measure.doctor.tune import Setting, search
from imgdata.measure.doctor.wait import advice_for_run, advice_for_wait
from imgdata.measure.machine.disk import DiskRates, ReadRate
from imgdata.measure.machine.store import StoreRates
from imgdata.measure.timing import Rate

TIMES = StageTimes(
    read_ms=0.01,
    full_decode_ms=0.9,
    decode_ms=0.5,
    resize_ms=0.29,
    operators_ms=0.0,
    finish_ms=0.2,
    images=64,
    mean_bytes=100_000.0,
)
"""1 ms in all."""
FAST = ReadRate(mb_per_s=5000.0, images_per_s=50_000.0)
DISK = DiskRates(cold=FAST, cold_in_order=FAST, warm=FAST, why_not_cold=None, split_bytes=10**9)
SLOW_DISK = replace(DISK, cold=ReadRate(mb_per_s=50.0, images_per_s=500.0))


def pipeline(times=TIMES, disk=DISK, *, threads=4, cores=8.0, rate=None, memory=10**10, kind="cpu", **more):
    on_cpu = more.pop("model_on_cpu", False)
    width = min(threads, cores)
    rate = rate or Rate(images_per_s=1000 * width / times.total_ms, cpu_ms=times.total_ms, cores=width, denied=0.0)
    stages = list_stages(
        times, disk, width=width, kind=kind_named(kind), memory_bytes=memory, measured=rate, dtype="float32", **more
    )
    return Pipeline(
        stages=stages, threads=threads, cores=cores, measured=rate, model_on_cpu=on_cpu, streams=kind == "cpu"
    )


def measured(one, disk=DISK, **more):
    facts = {"kind": kind_named("cpu"), "dtype": "float32", "device": "cpu", "finish_ms": TIMES.finish_ms}
    return Measured(pipeline=one, disk=disk, **facts | more)


def promised(*arguments, **more):
    return {one.setting: round(one.predicted_images_per_s) for one in advise(measured(*arguments, **more))}


# --- ceilings -----------------------------------------------------------------------------------------

MS = st.floats(0.001, 50)


@given(st.tuples(MS, MS, MS, MS, MS), st.integers(1, 64), st.floats(0.5, 64))
def test_stages_of_the_processor_add_up(parts, threads, cores):
    read, decode, resize, operate, finish = parts
    times = replace(TIMES, read_ms=read, decode_ms=decode, resize_ms=resize, operators_ms=operate, finish_ms=finish)
    one = pipeline(times, threads=threads, cores=cores)
    assert one.cpu_ms == pytest.approx(sum(parts))
    assert one.predicted == pytest.approx(1000 * min(threads, cores) / sum(parts))
    assert one.ceiling() == (one.predicted, "cpu")
    assert one.share(one.slowest()) == pytest.approx(max(parts) / sum(parts))


@pytest.mark.parametrize(
    ("more", "ceiling", "lane", "slowest"),
    [
        ({}, 4000, "cpu", "decode"),
        ({"disk": SLOW_DISK}, 4000, "cpu", "decode"),  # it fits into memory: the first epoch alone is slow
        ({"disk": SLOW_DISK, "memory": 10**8}, 500, "disk", "read from disk"),
        ({"copy_ms": 0.5}, 2000, "copy", "copy to device"),
        ({"copy_ms": 0.1}, 4000, "cpu", "decode"),
        ({"step_ms": 2.0, "model": "net"}, 500, "device", "net"),
        ({"step_ms": 0.1, "model": "net"}, 4000, "cpu", "decode"),
        # On the same cores one comes after the other: 0.25 ms and 0.75 ms make 1.
        ({"step_ms": 0.75, "model": "net", "model_on_cpu": True}, 1000, "device", "net"),
        ({"step_ms": 0.05, "model": "net", "model_on_cpu": True}, 1000 / 0.3, "cpu", "decode"),
    ],
)
def test_the_slowest_lane_sets_the_pace(more, ceiling, lane, slowest):
    one = pipeline(**more)
    assert one.ceiling() == (pytest.approx(ceiling), lane)
    assert one.slowest().name == slowest


def test_a_backend_that_does_not_stream_is_judged_as_a_whole():
    one = pipeline(kind="resident", rate=Rate(images_per_s=90_000.0, cpu_ms=0.02, cores=2.0, denied=0.0))
    assert one.ceiling() == (90_000.0, "loader")
    assert one.slowest().name == "resident loader"
    assert [stage.name for stage in one.stages if stage.counted] == ["resident loader"]


def test_a_resize_that_costs_nothing_is_no_row():
    names = [stage.name for stage in pipeline(replace(TIMES, resize_ms=0.0)).stages]
    assert names == ["read from disk", "read", "full decode", "decode, resize", "finish"]


@pytest.mark.parametrize(
    ("cores", "denied", "taken", "alone"),
    [
        (4.0, 0.0, 0.0, 1000.0),
        (1.0, 3.0, 3.0, 4000.0),
        (2.0, 1.0, 1.0, 1500.0),
        (4.0, 6.0, 0.0, 1000.0),  # its own threads wait for each other
        (2.0, 9.0, 2.0, 2000.0),
        (0.0, 0.0, 0.0, 1000.0),  # nothing is known
    ],
)
def test_what_other_programs_took_is_told_from_own_threads(cores, denied, taken, alone):
    one = pipeline(rate=Rate(images_per_s=1000.0, cpu_ms=1.0, cores=cores, denied=denied))
    assert (one.taken, one.alone) == (taken, alone)


# --- advice -------------------------------------------------------------------------------------------

HALF = Resized(shorter_side=256, before=TIMES, after=replace(TIMES, decode_ms=0.2, resize_ms=0.09, mean_bytes=30_000.0))
RESIZE = "imgdata shard SOURCE NEW --resize 256"


def test_promises_are_in_proportion_to_the_processors_time():
    found = promised(pipeline(threads=4, cores=8.0), resized=HALF)
    assert found == {RESIZE: 8000, "threads=8": 8000, 'dtype="uint8"': 5000}
    (advice,) = [one for one in advise(measured(pipeline(), resized=HALF)) if one.setting == RESIZE]
    assert "50% of the processor's time and 30% of the disk" in advice.why


def test_crop_ready_pictures_promise_what_they_took_less():
    ready = Rewritten(before=TIMES, after=replace(TIMES, decode_ms=0.2, resize_ms=0.09, mean_bytes=98_000.0))
    found = promised(pipeline(threads=4, cores=8.0), crop_ready=ready)
    assert found["imgdata shard DATASET NEW --crop-ready"] == 8000
    (advice,) = [one for one in advise(measured(pipeline(), crop_ready=ready)) if "--crop-ready" in one.setting]
    assert "50% of the processor's time and 98% of the disk" in advice.why


def test_promises_start_from_what_was_measured():
    slower = Rate(images_per_s=3000.0, cpu_ms=1.33, cores=4.0, denied=0.0)
    assert promised(pipeline(cores=4.0, rate=slower), resized=HALF)[RESIZE] == 6000


def test_nothing_is_promised_beyond_the_network():
    assert promised(pipeline(step_ms=0.18, model="net"), resized=HALF) == {
        RESIZE: 5556,
        "threads=8": 5556,
        'dtype="uint8"': 5000,
    }
    assert promised(pipeline(step_ms=2.0, model="net"), resized=HALF) == {}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, {'dtype="uint8"': 1250}),
        ({"dtype": "uint8"}, {}),
        ({"finish_ms": 0.01}, {}),  # less than 5%
        (
            {"in_memory": InMemory(num_bytes=10**8, plan_ms=0.02, make_ms=0.08, workers=4), "dtype": "uint8"},
            {'backend="resident"': 10_000},
        ),
        ({"others": ((kind_named("dali"), 9000.0),), "dtype": "uint8"}, {'backend="dali"': 9000}),
        ({"larger_batch": (256, 1500.0), "dtype": "uint8"}, {"batch_size=256": 1500}),
        ({"larger_batch": (256, 1020.0), "dtype": "uint8"}, {}),
    ],
)
def test_only_what_helps_is_advised(facts, expected):
    assert promised(pipeline(threads=1, cores=1.0), **facts) == expected


@pytest.mark.parametrize(
    ("plan", "make", "workers", "cores", "expected"),
    [
        (0.01, 0.09, 4, 4, 40_000),  # four cores share 0.1 ms
        (0.01, 0.09, 2, 4, 22_222),  # two workers, whatever the cores
        (0.05, 0.01, 4, 16, 20_000),  # one thread plans
        (0.05, 0.01, 1, 16, 20_000),  # a GPU makes them beside it
        (0.01, 0.05, 1, 16, 20_000),
        (0.05, 0.05, 4, 1, 10_000),
    ],
)
def test_batches_from_memory_are_planned_by_one_thread(plan, make, workers, cores, expected):
    trial = InMemory(num_bytes=1, plan_ms=plan, make_ms=make, workers=workers)
    assert trial.images_per_s(cores) == pytest.approx(expected, rel=1e-3)


def test_bytes_are_no_advice_where_the_network_is_on_the_processor():
    assert promised(pipeline(cores=4.0, step_ms=0.1, model="net", model_on_cpu=True)) == {}


def test_a_slow_disk_is_read_in_order_or_less_is_read():
    # Measured when the sample was in memory: the disk alone gives 500.
    one = pipeline(disk=SLOW_DISK, memory=10**8, cores=4.0)
    assert promised(one, SLOW_DISK, resized=HALF) == {'shuffle="window"': 4000, RESIZE: 1667}


STORE = StoreRates(
    url="s3://b",
    latency_ms=20.0,
    mb_per_s=80.0,
    requests=8,
    shard_bytes=10**8,
    cache="/cache/shards",
    cache_bytes=2 * 10**9,
    free_bytes=50 * 10**9,
)
"""A store whose cache may hold two gigabytes: a window of 16 shards."""
ANEW = {"cache": "", "cache_bytes": 0}


@pytest.mark.parametrize(
    ("split_gb", "changes", "rate", "advice"),
    [
        (2, {}, None, {}),
        (30, {}, 800, {"cache=32": 4000}),
        (30, {"free_bytes": 10**9}, 800, {"IMGDATA_CACHE on a disk with 32 GB, and cache=32": 4000}),
        (30, {"cache_bytes": 10**9}, 500, {"cache=32": 4000, "window_shards=5": 800}),
        (2, ANEW, 500, {"cache=3": 4000}),
    ],
)
def test_a_store_is_read_once_if_the_cache_may_hold_the_split(split_gb, changes, rate, advice):
    disk = replace(
        SLOW_DISK,
        cold_in_order=ReadRate(mb_per_s=80.0, images_per_s=800.0),
        split_bytes=split_gb * 10**9,
        store=replace(STORE, **changes),
    )
    one = pipeline(disk=disk, cores=4.0)
    assert one.stages[0].name == "read from store"
    assert one.ceiling() == ((4000, "cpu") if rate is None else (rate, "store"))
    # Measured while the store set the pace.
    slow = replace(one, measured=Rate(images_per_s=rate or 4000.0, cpu_ms=1.0, cores=4.0, denied=0.0))
    found = promised(slow, disk, dtype="uint8")
    assert found == advice


# --- the search for settings --------------------------------------------------------------------------

START = Setting(backend="cpu", threads=2, prefetch=2, dtype="float32")
VALUES = {"backend": ("cpu", "resident"), "threads": (1, 2, 4), "prefetch": (2, 4), "dtype": ("uint8",)}


def rate_of(setting):
    """Resident is twice as fast, four threads are best, prefetch does next to nothing."""
    return 100.0 * (1 + (setting.backend == "resident")) * min(setting.threads, 4) + setting.prefetch


class Machine:
    """Trials that take what they may, of a clock that only they move."""

    def __init__(self, rate=rate_of):
        self.now, self.rate, self.calls = 0.0, rate, []

    def measure(self, setting, seconds):
        self.now += seconds
        self.calls.append(setting)
        return self.rate(setting)

    def search(self, seconds, values=VALUES):
        return search(START, values, self.measure, seconds, clock=lambda: self.now)


def test_the_search_keeps_the_best_value_of_each_setting():
    trials, best, left_out = Machine().search(60.0)
    assert best.setting == replace(START, backend="resident", threads=4)
    assert best.images_per_s == 802.0
    assert trials[0].setting == START
    assert left_out == 0


@given(st.floats(1, 200))
def test_the_search_keeps_to_its_time(seconds):
    machine = Machine()
    trials, best, left_out = machine.search(seconds)
    assert machine.now <= seconds
    assert best.images_per_s >= max(trial.images_per_s for trial in trials) / 1.03
    assert len({trial.setting for trial in trials}) == len(trials)
    assert left_out >= 0


def test_what_there_was_no_time_for_is_counted():
    many = {"threads": tuple(range(3, 40))}
    trials, _, left_out = Machine().search(10.0, many)
    assert len(trials) + left_out == 38
    assert left_out > 20


def test_noise_changes_no_setting():
    trials, best, _ = Machine(lambda setting: 100.0 + 2.0 * (setting.prefetch == 4)).search(60.0)
    assert best.setting == START == trials[0].setting


def test_a_bad_moment_at_the_start_decides_nothing():
    machine = Machine()
    machine.rate = lambda setting: 10.0 if len(machine.calls) == 1 else 100.0
    _, best, _ = machine.search(60.0)
    assert (best.setting, best.images_per_s) == (START, 100.0)


def test_an_impossible_setting_is_passed_over():
    trials, _, _ = Machine(lambda setting: None if setting.backend == "resident" else 1.0).search(60.0)
    assert all(trial.setting.backend == "cpu" for trial in trials)


# --- one line for a run -------------------------------------------------------------------------------

RUN = {
    "data": "out/",
    "model": "resnet50",
    "cores": 16.0,
    "threads": 16,
    "native_active": True,
    "picture_side": 256,
    "output_side": 224,
    "gpu": True,
}


@pytest.mark.parametrize(
    ("facts", "remedy"),
    [
        ({"native_active": False, "threads": 1}, "the compiled extension is not active"),
        ({"threads": 4}, "only 4 of 16 cores decode"),
        ({"picture_side": 1024}, "pictures of 1,024 pixels become 224: `imgdata shard SOURCE NEW --resize 256`"),
        ({"cores": 4.0, "threads": 4}, "--backend dali"),
        ({"gpu": False}, "share the cores"),
        ({"cache_hits": 0.4}, "60% of the images of the last epoch came from the object store"),
        ({"cache_hits": 0.95}, "more cores"),
        ({}, "more cores"),
    ],
)
def test_the_likeliest_remedy_is_named_with_the_command_that_measures(facts, remedy):
    line = advice_for_wait(0.231, **RUN | facts)
    assert line.startswith("the network waited for data 23% of the time: ")
    assert remedy in line
    assert line.count("\n") == 0
    assert line.endswith("`imgdata doctor out/ --model resnet50` measures what would help")


@pytest.mark.parametrize("share", [0.0, 0.0499])
def test_a_short_wait_is_no_news(share):
    assert advice_for_wait(share, **RUN) is None
    assert advice_for_run({}, share) is None


def test_a_few_seconds_of_waiting_are_not_worth_advice():
    assert advice_for_run({}, 0.5, waited_s=9.0) is None


def test_a_finished_run_has_the_facts(images):
    config = {"data": str(images), "options": {"split": "train", "model": "cnn", "threads": None}, "size": 16}
    line = advice_for_run(config | {"device": "cpu"}, 0.5)
    assert f"`imgdata doctor {images} --model cnn`" in line
    assert "pictures of 40 pixels become 16: `imgdata shard SOURCE NEW --resize 18`" in line
