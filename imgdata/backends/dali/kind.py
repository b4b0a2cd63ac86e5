"""What a loader needs -> whether DALI can do it, and how it will; without PyTorch, which takes a second to import."""

from imgdata.backends.dali import available
from imgdata.backends.dali.options import dali_options
from imgdata.backends.dali.pipeline import parent_used_gpu
from imgdata.backends.pillow import operators
from imgdata.backends.protocol import BackendSetup
from imgdata.backends.protocol import memory as batch_memory


def refuses(setup: BackendSetup) -> str | None:
    """Why DALI can't be used for it, with the way out; None if it can."""
    dali_options(setup.dali_options)
    formats = set(setup.split.index.words("format")) - {"unknown"}
    if formats and "jpeg" not in formats:
        return f"backend 'dali' must have JPEGs, got {', '.join(sorted(formats))}; use backend='cpu'"
    if setup.device != "cpu" and parent_used_gpu():
        return (
            f"device {setup.device!r} can't be used in a process forked from one that used a GPU; start it by "
            "multiprocessing's 'spawn'"
        )
    return available.refusal(setup.device)


def describe(setup: BackendSetup) -> str:
    """What does the work, and how; in one line."""
    options = dali_options(setup.dali_options)
    formats = setup.split.index.words("format")
    others = "" if formats == ["jpeg"] else f", Pillow for {', '.join(word for word in formats if word != 'jpeg')}"
    threads = f"{setup.threads} thread{'s' if setup.threads > 1 else ''}"
    where = "the processor" if setup.device == "cpu" else setup.device
    return f"dali: NVIDIA DALI {available.load().__version__} on {where}, {threads}, depth {options.depth}{others}"


def memory(setup: BackendSetup, epoch: int) -> int:
    """Bytes that the batches of `epoch` take together, on the device, at most; unless the caller keeps more of them.

    Not what is needed while they are made: the parts that were decoded, of `depth` batches.
    """
    # Operators work in bytes, channels last. A batch on a GPU is a copy.
    is_copy = setup.device != "cpu" or setup.dtype != "uint8" or not setup.channels_last
    if operators.works_on_pixels(setup.recipe):
        return batch_memory(setup, epoch, apart=is_copy)
    return batch_memory(setup, epoch) * (2 if setup.device != "cpu" else 1)
