"""How tasks on a Ray cluster are started, tried again and given up, on a Ray that does what the test says."""

import socket
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

import imgdata
from imgdata import OptionError, RayOptions, ShardError, ShardOptions
from imgdata import cluster as ray_engine
from imgdata.cluster import RayEngine
from imgdata.errors import ImageError, MissingExtraError
from imgdata.shards.engines.ray import Written, write_by_ray
from support.rawdata import class_folders


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        self.cause = cause


@dataclass
class FakeRay:
    """A cluster of `cpus` whose tasks end as `outcomes` say: number of the shard -> one outcome for each try."""

    outcomes: dict
    cpus: int = 2
    started: list = field(default_factory=list)
    cancelled: list = field(default_factory=list)
    most: int = 0

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def is_initialized(self):
        return True

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": self.cpus, "memory": 4e9}}, {"Alive": False, "Resources": {}}]

    def remote(self, function):
        def start(number):
            self.started.append(number)
            return (number, self.started.count(number) - 1)

        return SimpleNamespace(options=lambda **settings: SimpleNamespace(remote=start))

    def outcome(self, task):
        number, attempt = task
        outcomes = self.outcomes.get(number, ["done"])
        return outcomes[min(attempt, len(outcomes) - 1)]

    def wait(self, tasks, num_returns, timeout):
        self.most = max(self.most, len(tasks))
        ended = [task for task in tasks if self.outcome(task) != "hangs"]
        return ended[:num_returns], []

    def get(self, task):
        outcome = self.outcome(task)
        if isinstance(outcome, Exception):
            raise outcome
        return 0.1, Written(samples=task[0], bytes=100, rejects=0)

    def cancel(self, task, force):
        assert force
        self.cancelled.append(task)


def run(ray, count, monkeypatch, **options):
    monkeypatch.setattr(ray_engine, "_imported", lambda: ray)
    told = []
    with RayEngine(RayOptions(**options), told=told.append) as engine:
        written = write_by_ray(engine, "folder", "id", range(count), [f"{n}.tar" for n in range(count)])
        numbers = [one.samples for one in written]
    return sorted(numbers), told


def test_a_bounded_number_of_tasks_is_in_flight(monkeypatch):
    ray = FakeRay({}, cpus=4)
    assert run(ray, 1000, monkeypatch)[0] == list(range(1000))
    assert ray.most == 10


def test_a_shard_whose_machine_died_is_tried_again(monkeypatch):
    ray = FakeRay({2: [RayError(), RayError(), "done"]})
    numbers, told = run(ray, 5, monkeypatch)
    assert numbers == [0, 1, 2, 3, 4]
    assert ray.started.count(2) == 3
    assert told == ["2.tar: its process or machine died (RayError); it is tried again"] * 2


def test_a_shard_whose_tries_are_used_up_ends_the_run(monkeypatch):
    ray = FakeRay({2: [RayError()] * 3, 4: ["hangs"]})
    with pytest.raises(ShardError, match=r"2\.tar: its process or machine died 3 times .*; the same command resumes"):
        run(ray, 5, monkeypatch, retries=2)
    assert ray.cancelled == [(4, 0)]


def test_a_straggler_is_started_a_second_time_and_the_first_to_end_counts(monkeypatch):
    monkeypatch.setattr(ray_engine, "STRAGGLER_S", 0.0)
    monkeypatch.setattr(ray_engine, "STRAGGLER_FACTOR", 0.0)
    ray = FakeRay({1: ["hangs", "done"]})
    numbers, told = run(ray, 5, monkeypatch)
    assert numbers == [0, 1, 2, 3, 4]
    assert (1, 0) in ray.cancelled
    assert "1.tar: takes long, and is started a second time" in told


def test_a_straggler_that_dies_leaves_its_second_try_alone(monkeypatch):
    monkeypatch.setattr(ray_engine, "STRAGGLER_S", 0.0)
    monkeypatch.setattr(ray_engine, "STRAGGLER_FACTOR", 0.0)
    seen = []

    class Dies(FakeRay):
        def outcome(self, task):
            if task == (1, 0):
                return RayError() if self.started.count(1) == 2 else "hangs"
            return "hangs" if task == (1, 1) and (1, 0) not in seen else "done"

        def get(self, task):
            seen.append(task)
            return super().get(task)

    ray = Dies({})
    numbers, told = run(ray, 3, monkeypatch)
    assert numbers == [0, 1, 2]
    assert not [text for text in told if "tried again" in text]


def test_a_cluster_on_which_nothing_moves_is_one_clear_message(monkeypatch):
    monkeypatch.setattr(ray_engine, "STALLED_S", 0.0)
    with pytest.raises(ShardError, match="no task ended in 0 minutes; `ray status` says what"):
        run(FakeRay({0: ["hangs"]}), 1, monkeypatch)


def test_the_error_of_an_image_is_that_of_a_run_on_this_machine(monkeypatch):
    with pytest.raises(ImageError, match=r"train/a/1\.jpg: cut short"):
        run(FakeRay({1: [RayTaskError(ImageError("corrupt", "train/a/1.jpg: cut short"))]}), 2, monkeypatch)


def test_an_error_of_a_machine_without_imgdata_says_so(monkeypatch):
    error = RayTaskError(ModuleNotFoundError("No module named 'imgdata'"))
    with pytest.raises(ShardError, match=r"0\.tar: ModuleNotFoundError: .*; is the same imgdata installed"):
        run(FakeRay({0: [error]}), 2, monkeypatch)


@pytest.mark.parametrize(("options", "what"), [({"task_cpus": 3}, "3 processors"), ({"task_memory": 5e9}, "5.0 GB")])
def test_tasks_that_fit_on_no_machine_are_refused(monkeypatch, options, what):
    with pytest.raises(OptionError, match=f"no machine of the cluster has .*{what}.* for a task"):
        run(FakeRay({}), 1, monkeypatch, **options)


def test_an_address_where_nothing_answers_is_refused_before_anything_is_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_engine, "_imported", lambda: FakeRay({}))
    with socket.socket() as taken:
        # Taken, and nobody listens.
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for options in (RayOptions(address=address), RayOptions(address=f"ray://{address}")):
            with pytest.raises(ShardError, match=f"no Ray cluster at .*{address}: Connection refused; start one with"):
                imgdata.shard("synthetic:samples=2", tmp_path / "out", engine=options)
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ShardError, match="no Ray cluster"):
            imgdata.shard("synthetic:samples=2", tmp_path / "out", engine="ray")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [{"task_cpus": 0}, {"task_memory": 0}, {"retries": -1}])
def test_options_without_a_meaning_are_refused(options):
    with pytest.raises(OptionError, match=f"{next(iter(options))} must be"):
        RayOptions(**options)


def test_without_ray_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    raw = class_folders(tmp_path / "pets", {"train": 2})
    with pytest.raises(MissingExtraError, match=r"engine 'ray' needs Ray: pip install 'imgdata\[ray\]'"):
        imgdata.shard(raw, tmp_path / "out", engine="ray")
    assert not (tmp_path / "out").exists()


def test_python_objects_and_unknown_engines_are_refused(tmp_path):
    with pytest.raises(OptionError, match="engine 'ray' reads files that all machines have"):
        imgdata.shard([(b"", 0)], tmp_path / "out", engine="ray")
    with pytest.raises(OptionError, match="engine must be local, ray or RayOptions, got 'spark'"):
        imgdata.shard(tmp_path, tmp_path / "out", ShardOptions(), engine="spark")
