"""Decided settings -> the network, on its device, ready for one process or several."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

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


def spread(model: nn.Module, options: DecidedOptions, ranks: Processes) -> nn.Module:
    """Return what is called in training: the network, compiled and with gradients averaged over the ranks if asked."""
    if ranks.world_size > 1:
        devices = [ranks.device] if ranks.device.type == "cuda" else None
        model = DistributedDataParallel(model, device_ids=devices)
    return torch.compile(model) if options.compile else model  # type: ignore[return-value]


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


def autocast(half: torch.dtype | None, device: torch.device) -> AbstractContextManager[object]:
    """Compute in `half` inside the block, where it isn't None."""
    return nullcontext() if half is None else torch.autocast(device.type, half)


def synchronised(model: nn.Module, name: str, device: torch.device) -> nn.Module:
    """Return `model` with batch norms whose statistics are those of all ranks."""
    if device.type != "cuda":
        raise OptionError("sync_batchnorm needs GPUs, got the CPU; leave it out")
    if name in OWN or is_own(name):
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-any-return, no-untyped-call]
    # timm's batch norms have an activation inside, which PyTorch's function would lose.
    converted: nn.Module = load_timm().layers.convert_sync_batchnorm(model)
    return converted
