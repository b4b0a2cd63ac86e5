"""Where a phase runs -> how much it does: figures on a GPU, or nothing but a proof that its code runs."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much the phases do."""

    pictures: int
    """Different pictures, 500x375 and the like."""
    times: int
    """How often an epoch has each of them: it lasts longer than a measurement, so that its end does not count."""
    picture_scale: float
    """Side of the pictures in units of ImageNet's."""
    outlier: tuple[int, int]
    """Width and height of the one picture that is much larger."""
    small_pictures: int
    small_times: int
    """Different pictures of 32 x 32, and how often an epoch has each of them."""
    side: int
    """Side of what the loaders make."""
    batch: int
    seconds: float
    """Measured time of a loader in a round."""
    start_s: float
    """Seconds that a process may take until it measures, by which the rest of a phase is planned."""
    apart: bool
    """Measure each loader, and each network, in a process of its own."""
    networks: tuple[tuple[str, str, int], ...]
    """Name, backend and batch size of the networks that are trained on large pictures."""
    small_batches: tuple[int, ...]
    """Batch sizes of `resnet9`, on small pictures that stay on the device."""
    loader_rounds: int
    """Most rounds in which loaders are measured, where there is time."""
    rounds: int
    steps: int
    """Rounds of `end_to_end`, and steps of each."""
    few_epochs: int
    """Epochs over which memory is watched."""
    test_files: int | None
    """Files of tests that are run; None for all."""
    few: int
    """Samples of an epoch whose faults are looked at."""


FULL = Sizes(
    pictures=1024,
    times=64,
    picture_scale=1.0,
    outlier=(7000, 5000),
    small_pictures=2_000,
    small_times=25,
    side=224,
    batch=256,
    seconds=1.5,
    start_s=5.0,
    apart=True,
    networks=(("resnet50", "dali", 256), ("resnet18", "dali", 256)),
    small_batches=(1024, 512),
    loader_rounds=3,
    rounds=2,
    steps=40,
    few_epochs=10,
    test_files=None,
    few=1024,
)
TINY = Sizes(
    pictures=24,
    times=2,
    picture_scale=0.2,
    outlier=(700, 500),
    small_pictures=80,
    small_times=2,
    side=32,
    batch=8,
    seconds=0.05,
    start_s=0.1,
    apart=False,
    networks=(("cnn", "dali", 4),),
    small_batches=(2,),
    loader_rounds=2,
    rounds=1,
    steps=1,
    few_epochs=3,
    test_files=1,
    few=24,
)


def sizes_for(device: str) -> Sizes:
    """Return how much is done there."""
    return TINY if device == "cpu" else FULL
