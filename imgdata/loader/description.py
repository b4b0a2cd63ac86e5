"""The parts of a loader -> what `print(loader)` shows."""

from collections.abc import Sequence

from imgdata.backends.options import LoaderOptions
from imgdata.loader.batches import Lane
from imgdata.loader.buckets import Buckets
from imgdata.loader.planner import Planner


def loader_text(
    options: LoaderOptions,
    planner: Planner,
    buckets: Buckets | None,
    lanes: Sequence[Lane],
    *,
    epoch: int,
    bad: str,
) -> str:
    """Return a few lines on a loader; `bad` sums up its bad images, and is empty without any."""
    order, engine = planner.order, lanes[0].engine
    memory = sum(lane.engine.memory(epoch) for lane in lanes) / 1e6
    count = len(options.of_views)
    views = f"{count} views of each, " if count > 1 else ""
    layout = "channels last" if options.channels_last else "channels first"
    shuffle = f"window of {order.window_shards} shards" if order.shuffle == "window" else order.shuffle
    lines = [
        f"<Loader {planner.view!r}",
        f"  {len(order)} batches of {options.batch_size}, rank {planner.rank} of {planner.world_size}, "
        f"last one {'left out' if order.drop_last else 'filled up'} when incomplete",
        f"  order: {shuffle}, seed {order.seed}, epoch {epoch}",
        *([] if buckets is None else [f"  shapes: {len(buckets.sizes)} buckets, loader.buckets"]),
        f"  backend {engine.description}",
        f"  images: {views}{options.dtype}, {layout}, on {options.device}; buffers {memory:.1f} MB",
        *([] if engine.joint is None else [f"  moved with them: {', '.join(engine.joint.kinds)}"]),
        *([] if (cache := engine.setup.split.cache) is None else [f"  cache: {cache!r}"]),
        f"  bad images: {bad or 'none yet'} (on_bad={options.on_bad!r})>",
    ]
    return "\n".join(lines)
