"""How the network is called: products of float32 as such where figures shall not depend on the device, compiled."""

from contextlib import suppress

import pytest
import torch

from imgdata.models import create_model
from imgdata.training.defaults import Facts, resolve
from imgdata.training.distributed import Processes
from imgdata.training.network import exact_products, spread
from imgdata.training.options import TrainOptions

CUDA = torch.device("cuda:0")


def products():
    """How GPUs multiply float32 in convolutions, recurrent layers and matrices."""
    backends = torch.backends
    return [one.fp32_precision for one in (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)]


@pytest.fixture
def switches():
    """Restore PyTorch's switches after the test."""
    owners = [torch.backends, torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul]
    before, matmul = [one.fp32_precision for one in owners], torch.get_float32_matmul_precision()
    yield
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision(matmul)
    for one, value in zip(owners, before, strict=True):
        one.fp32_precision = value


def leave():
    """Change no switch."""


def choose_tf32():
    torch.set_float32_matmul_precision("high")


def choose_medium():
    torch.set_float32_matmul_precision("medium")


def refuse_tf32():
    torch.backends.cudnn.allow_tf32 = False


def choose_by_new_switches():
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    torch.backends.cuda.matmul.fp32_precision = "tf32"


@pytest.mark.parametrize("chosen", [leave, choose_tf32, choose_medium, refuse_tf32, choose_by_new_switches])
def test_float32_is_multiplied_as_such_and_all_switches_are_as_before_afterwards(switches, chosen):
    chosen()
    before = products()
    # PyTorch refuses to read the older switches where they don't agree with the newer ones.
    if readable := chosen is not choose_by_new_switches:
        matmul = torch.get_float32_matmul_precision()
    with suppress(ZeroDivisionError), exact_products(CUDA):
        assert products() == ["ieee"] * 3
        if readable:
            assert not torch.backends.cudnn.allow_tf32
            assert not torch.backends.cuda.matmul.allow_tf32
        raise ZeroDivisionError
    assert products() == before
    if readable:
        assert torch.get_float32_matmul_precision() == matmul
        assert torch.backends.cudnn.allow_tf32 == (chosen is not refuse_tf32)
        assert torch.backends.cuda.matmul.allow_tf32 == (matmul != "highest")


@pytest.mark.parametrize(("device", "half"), [(torch.device("cpu"), None), (CUDA, torch.bfloat16)])
def test_where_16_bits_were_asked_for_or_nothing_shortens_no_switch_is_touched(device, half):
    before = products()
    with exact_products(device, half):
        assert products() == before


def test_growing_pictures_compile_the_network_twice_and_not_for_each_size(monkeypatch):
    compiled, compile_ = [], torch.compile

    def count(graph, _):
        compiled.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", lambda network: compile_(network, backend=count))
    options = resolve(TrainOptions(model="resnet9", compile=True), Facts(samples=5000, classes=10, side=32, gpu=False))
    ranks = Processes(rank=0, world_size=1, device=torch.device("cpu"))
    network, exchange = spread(create_model("resnet9", num_classes=10, size=32), options, ranks)
    assert exchange is None
    found = []
    for side in (32, 48, 64, 96):
        assert network(torch.rand(2, 3, side, side)).shape == (2, 10)
        found.append(len(compiled))
    assert found == [1, 2, 2, 2]
