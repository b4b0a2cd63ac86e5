"""Which cores a process may use, and which device a name means."""

import os
import warnings
from dataclasses import replace

import pytest
import torch

import imgdata
from imgdata.backends.options import LoaderOptions
from imgdata.devices import choose_device, cores_per_rank, own_cores
from imgdata.recipes import CenterCrop, Recipe


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 2, 3}, raising=False)
    assert own_cores() == [2, 3, 5]
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert own_cores() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 16),
        ({"LOCAL_WORLD_SIZE": "4"}, 4),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "3"}, 5),
        ({"LOCAL_WORLD_SIZE": "64"}, 1),
        ({"LOCAL_WORLD_SIZE": "0"}, 16),
        ({"LOCAL_WORLD_SIZE": "x"}, 16),
    ],
)
def test_ranks_on_one_machine_share_its_cores(monkeypatch, environment, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    for name in ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cores_per_rank() == expected


def test_a_device_has_one_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    named = {
        "cpu": "cpu",
        "cpu:0": "cpu",
        torch.device("cpu"): "cpu",
        torch.device("cpu", 0): "cpu",
        "auto": "cuda:1",
        "cuda": "cuda:1",
        "cuda:3": "cuda:3",
        torch.device("cuda", 3): "cuda:3",
    }
    assert {device: choose_device(device) for device in named} == named
    assert choose_device("cuda", by_rank=True) == choose_device("auto", by_rank=True) == "cuda:2"
    assert choose_device("cuda:0", by_rank=True) == "cuda:0"


@pytest.mark.parametrize(
    ("device", "rank", "gpus", "current", "warns"),
    [
        ("cuda", "1", 2, 0, True),
        ("auto", "3", 8, 0, True),
        ("cuda", "0", 2, 0, False),  # The first rank's.
        ("cuda", None, 2, 0, False),  # Not started by torchrun.
        ("cuda", "1", 2, 1, False),  # `torch.cuda.set_device` was called.
        ("cuda", "1", 1, 0, False),  # CUDA_VISIBLE_DEVICES shows each rank its own.
        ("cuda:0", "1", 2, 0, False),  # Asked for.
        ("cpu", "1", 2, 0, False),
    ],
)
def test_a_rank_that_would_share_the_first_gpu_is_warned(monkeypatch, device, rank, gpus, current, warns):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        options = LoaderOptions(batch_size=4, recipe=Recipe(CenterCrop(size=8)), device=device)
        if gpus > int(rank or 0):
            # Training asks for the rank's own GPU.
            choose_device(device, by_rank=True)
    assert len(told) == warns
    if warns:
        assert f"device='cuda:{rank}', or call torch.cuda.set_device({rank})" in str(told[0].message)
        # Settings that are made from these have the GPU's number.
        assert replace(options).device == "cuda:0"


@pytest.mark.parametrize("name", ["tpu", "cpu:1", "cuda:", "cuda:x", "", "CUDA", None])
def test_what_is_no_device_is_refused(name):
    with pytest.raises(imgdata.OptionError, match=r"must be auto, cpu, cuda, cuda:0, cuda:1, \.\.\., or mps, got"):
        choose_device(name)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(imgdata.OptionError, match="device must be cpu where PyTorch finds no GPU, got 'cuda'"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(imgdata.OptionError, match=r"must be cuda:0 to cuda:1 here, got cuda:7$"):
        choose_device("cuda:7")
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(imgdata.OptionError, match="got cuda:3; start as many processes as there are GPUs"):
        choose_device("cuda", by_rank=True)
