"""The place of a process among others: its GPU, its process group, and how often gradients are exchanged."""

import json
import subprocess
import sys
import warnings
from contextlib import contextmanager

import pytest
import torch
from torch import distributed

from imgdata.errors import TrainingError
from imgdata.training.defaults import Facts, resolve
from imgdata.training.distributed import Processes, processes
from imgdata.training.network import spread
from imgdata.training.options import TrainOptions
from support.digit_runs import ENVIRONMENT
from support.patience import PATIENCE_S


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs that are acted, the first one current: the current ones, in order."""
    current = [0]

    @contextmanager
    def on(device):
        before = current[-1]
        current.append(torch.device(device).index)
        yield
        current.append(before)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "device", on)
    return current


@pytest.fixture
def group(monkeypatch):
    """What is asked of torch.distributed by the second of two ranks."""
    calls = []
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        distributed, "init_process_group", lambda backend, **options: calls.append((backend, *options.values()))
    )
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: calls.append("destroyed"))
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    return calls


def test_one_process_makes_its_gpu_the_current_one_while_it_lasts(gpus):
    with processes("cuda:1") as ranks:
        assert (ranks.device, ranks.world_size) == (torch.device("cuda:1"), 1)
        assert torch.cuda.current_device() == 1
    assert torch.cuda.current_device() == 0


def test_each_rank_has_the_gpu_of_its_local_rank(gpus, group):
    with processes("auto") as ranks:
        assert (ranks.device, torch.cuda.current_device()) == (torch.device("cuda:1"), 1)
    assert group == [("nccl", torch.device("cuda:1")), "destroyed"]


def test_nccl_is_not_waited_for_where_an_error_is_on_its_way(gpus, group):
    with pytest.raises(TrainingError, match="out of memory"), processes("cuda"):
        raise TrainingError("out of memory")
    assert group == [("nccl", torch.device("cuda:1"))]


def test_a_group_on_the_processor_ends_with_an_error_too(group):
    with pytest.raises(TrainingError, match="out of memory"), processes("cpu"):
        raise TrainingError("out of memory")
    assert group == [("gloo",), "destroyed"]


def test_a_hint_of_ddps_about_strides_is_not_passed_on():
    """Weights of 1x1 convolutions have several strides that mean the same; with channels last DDP and cuDNN differ."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        options = resolve(TrainOptions(model="cnn"), Facts(samples=5000, classes=10, side=16, gpu=False, ranks=2))
        ranks = Processes(rank=0, world_size=2, device=torch.device("cpu"))
        spread(torch.nn.Linear(2, 2), options, ranks)
    finally:
        distributed.destroy_process_group()
    warnings.warn("Grad strides do not match bucket view strides. This may indicate ...", stacklevel=1)
    with pytest.raises(UserWarning, match="another"):
        warnings.warn("another", stacklevel=1)


EXCHANGES = """
import json, sys
import torch
from torch import distributed
from imgdata.models import create_model
from imgdata.training.defaults import Facts, resolve
from imgdata.training.distributed import Processes
from imgdata.training.learner import Learner
from imgdata.training.options import TrainOptions

rank, store = int(sys.argv[1]), distributed.FileStore(sys.argv[2], 2)
distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
ranks = Processes(rank=rank, world_size=2, device=torch.device("cpu"))
compiled = torch.compile
torch.compile = lambda network: compiled(network, backend="aot_eager")
found = {}
for compile in (False, True):
    given = TrainOptions(model="cnn", batch_size=64, accumulate=4, compile=compile, dropout=0.0)
    options = resolve(given, Facts(samples=5000, classes=10, side=16, gpu=False, ranks=2))
    torch.manual_seed(0)
    network = create_model("cnn", num_classes=10, size=16)
    learner, exchanges = Learner(network, options, ranks), 0

    def count(state, bucket):
        global exchanges
        exchanges += 1
        summed = distributed.all_reduce(bucket.buffer(), async_op=True).get_future()
        return summed.then(lambda done: done.value()[0] / 2)

    learner._exchange.register_comm_hook(None, count)
    learner.begin_epoch()
    torch.manual_seed(1 + rank)
    for number in range(3):
        learner.step(torch.rand(32, 3, 16, 16), torch.randint(10, (32,)), number=number, lr=0.01)
    sums = [float(parameter.detach().double().sum()) for parameter in network.parameters()]
    found["compiled" if compile else "plain"] = {"exchanges": exchanges, "sums": sums}
print(json.dumps(found))
distributed.barrier()
"""


@pytest.mark.slow
def test_gradients_are_exchanged_once_a_step_compiled_or_not(tmp_path):
    """Each part of a step (`accumulate`) but the last keeps its gradients to itself; a network has one bucket here."""
    commands = [[sys.executable, "-c", EXCHANGES, str(rank), str(tmp_path / "store")] for rank in range(2)]
    started = [subprocess.Popen(one, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) for one in commands]
    found = [json.loads(one.communicate(timeout=PATIENCE_S)[0]) for one in started]
    for rank in found:
        assert {name: one["exchanges"] for name, one in rank.items()} == {"plain": 3, "compiled": 3}
        assert rank["compiled"]["sums"] == pytest.approx(rank["plain"]["sums"], abs=1e-4)
    assert found[0] == found[1], "ranks that have exchanged all gradients have the same weights"
