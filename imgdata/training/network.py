"""Decided settings -> the network, on its device, ready for one process or several."""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from imgdata.backends.options import DType
from imgdata.errors import OptionError
from imgdata.models import create_model
from imgdata.models.catalogue import OWN, load_timm
from imgdata.training.defaults import DecidedOptions
from imgdata.training.distributed import Processes
from imgdata.training.options import Precision
from imgdata.training.own import build_own, check_logits, is_own, load_own_weights


def make_network(
    options: DecidedOptions, num_classes: int, size: int, ranks: Processes, own: nn.Module | None = None
) -> nn.Module:
    """Return the network with its first weights, the same in every process; `own` is a user's module.

    Raises `OptionError`, `MissingExtraError`.
    """
    device = ranks.device
    torch.manual_seed(options.seed)
    model = (
        _own_network(options, num_classes, size, own)
        if is_own(options.model)
        else _named_network(options, num_classes, size)
    )
    # All batches of an epoch have one shape: the fastest kernels are worth a search.
    torch.backends.cudnn.benchmark = device.type == "cuda"
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    if options.sync_batchnorm and ranks.world_size > 1:
        model = synchronised(model, options.model, device)
    return model.to(device=device).to(memory_format=layout)


def _named_network(options: DecidedOptions, num_classes: int, size: int) -> nn.Module:
    return create_model(
        options.model,
        num_classes=num_classes,
        size=size,
        weights=None if options.weights is None else Path(options.weights),
        pretrained=options.pretrained,
        dropout=options.dropout,
        drop_path=options.drop_path,
    )


def _own_network(options: DecidedOptions, num_classes: int, size: int, own: nn.Module | None) -> nn.Module:
    for name in ("dropout", "drop_path", "pretrained"):
        if getattr(options, name):
            raise OptionError(f"{name} must be left out for a network of your own, which has it where its code says so")
    model = build_own(options.model, num_classes) if own is None else own
    check_logits(model, num_classes, size)
    if options.weights is not None:
        load_own_weights(model, Path(options.weights))
    return model.train()


class Spread(NamedTuple):
    """The network as training calls it."""

    called: nn.Module
    """The network: compiled where that was asked for, and with gradients averaged over the ranks."""
    exchange: DistributedDataParallel | None
    """The part of `called` that averages gradients; None for one process. A compiled network hides it."""


def spread(model: nn.Module, options: DecidedOptions, ranks: Processes) -> Spread:
    """Return the network as training calls it."""
    exchange = None
    if ranks.world_size > 1:
        devices = [ranks.device] if ranks.device.type == "cuda" else None
        model = exchange = DistributedDataParallel(model, device_ids=devices)
        # Of 1x1 convolutions with channels last: strides of a side of 1 differ, which costs nothing.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return Spread(torch.compile(model) if options.compile else model, exchange)  # type: ignore[arg-type]


def half_type(amp: Precision, device: torch.device) -> torch.dtype | None:
    """Return the 16-bit type of the arithmetic, or None. Raises `OptionError`."""
    if amp == "none" or (amp == "auto" and device.type != "cuda"):
        return None
    if amp == "fp16" and device.type != "cuda":
        raise OptionError("amp must be auto, none or bf16 on the CPU, got 'fp16': gradients need a GPU for it")
    if amp == "auto":
        # Older GPUs emulate it, which is slow.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    return torch.bfloat16 if amp == "bf16" else torch.float16


def image_type(amp: Precision, device: torch.device) -> DType:
    """Return the type of the images that a loader makes for training: 16 bits where a GPU computes in 16 bits."""
    return "float16" if device.type == "cuda" and half_type(amp, device) else "float32"


def autocast(half: torch.dtype | None, device: torch.device) -> AbstractContextManager[object]:
    """Compute in `half` inside the block, where it isn't None."""
    return nullcontext() if half is None else torch.autocast(device.type, half)


@contextmanager
def exact_products(device: torch.device, half: torch.dtype | None = None) -> Iterator[None]:
    """Multiply float32 as such inside the block, unless 16 bits were asked for; restore the settings afterwards.

    By default GPUs shorten the factors of a convolution to 10 bits (TF32): logits differ by about 1e-3 from those of
    the processor.
    """
    if device.type != "cuda" or half is not None:
        yield
        return
    backends: Any = torch.backends
    # One switch for each library since PyTorch 2.9, and the older ones, which must agree with them where they are read.
    switches = (
        [backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul] if hasattr(backends.cudnn, "conv") else []
    )
    before = [switch.fp32_precision for switch in switches]
    try:
        convolutions, products = backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:
        # The program has used the newer switches: the older ones can't be read, and so nothing reads them.
        convolutions, products = False, "highest"
    if convolutions:
        backends.cudnn.allow_tf32 = False
    if products != "highest":
        torch.set_float32_matmul_precision("highest")
    for switch in switches:
        switch.fp32_precision = "ieee"
    try:
        yield
    finally:
        if convolutions:
            backends.cudnn.allow_tf32 = True
        if products != "highest":
            torch.set_float32_matmul_precision(products)
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


def synchronised(model: nn.Module, name: str, device: torch.device) -> nn.Module:
    """Return `model` with batch norms whose statistics are those of all ranks."""
    if device.type != "cuda":
        raise OptionError("sync_batchnorm needs GPUs, got the CPU; leave it out")
    if name in OWN or is_own(name):
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-any-return, no-untyped-call]
    # timm's batch norms have an activation inside, which PyTorch's function would lose.
    converted: nn.Module = load_timm().layers.convert_sync_batchnorm(model)
    return converted
