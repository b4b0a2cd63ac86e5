"""One rank under torchrun -> a sum over all ranks, and a run of the trainer in that process group, as JSON.

`python -m torch.distributed.run --standalone --nproc-per-node 1 -m benchmarks.gpu.one_rank SETTINGS`.
"""

import json
import os
import sys
from typing import Any

import torch
from torch import distributed

from benchmarks.gpu.running import Settings
from benchmarks.gpu.training import train


def main(settings: Settings) -> dict[str, Any]:
    """Return the figures of the run."""
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if settings.on_gpu else torch.device("cpu")
    if settings.on_gpu:
        torch.cuda.set_device(device)
        distributed.init_process_group("nccl", device_id=device)
    else:
        distributed.init_process_group("gloo")
    total = torch.ones(1, device=device)
    distributed.all_reduce(total)
    layer = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(8, 4).to(device))
    layer(torch.ones(2, 8, device=device)).sum().backward()
    found = train(settings, settings.folder / "runs" / "one-rank", overwrite=True)
    figures = {"backend": distributed.get_backend(), "sum": total.item(), **found}
    distributed.destroy_process_group()
    return figures


if __name__ == "__main__":
    print(json.dumps(main(Settings.from_json(sys.argv[1]))), flush=True)
