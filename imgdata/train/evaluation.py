"""A network, a loader of evaluation -> scores, exact over any number of ranks."""

from collections.abc import Callable

import torch
from torch import nn

from imgdata.loader.loader import Loader
from imgdata.train.distributed import Processes
from imgdata.train.network import autocast
from imgdata.train.scores import Scores, Tally


@torch.no_grad()
def evaluate_network(
    model: nn.Module,
    loader: Loader,
    ranks: Processes,
    *,
    half: torch.dtype | None = None,
    flip_test: bool = False,
    progress: Callable[[int, int], None] = lambda done, batches: None,
) -> Scores:
    """The scores of `model` on all samples of `loader`, whose recipe has nothing random; every rank must call it.

    Each rank sees its part once, and the sums over the ranks are the scores; padding and images that can't be decoded
    don't count. With `flip_test` logits are the mean of those of each picture and its mirror image.
    """
    model.eval()
    tally = Tally(len(loader.classes), ranks.device)
    for number, batch in enumerate(loader, 1):
        with autocast(half, ranks.device):
            logits_NC = model(batch.images)
            if flip_test:
                logits_NC = (logits_NC + model(batch.images.flip(-1))) / 2
        tally.add(logits_NC, batch.labels, batch.valid)
        progress(number, len(loader))
    return tally.scores(len(loader.view), ranks)
