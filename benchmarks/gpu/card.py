"""This machine -> the GPU that PyTorch can use, as JSON, or what is missing: `python -m benchmarks.gpu.card`.

In a process of its own: a context on the GPU would take memory during all that follows.
"""

import json
import os
import re


def main() -> None:
    """Print it."""
    print(json.dumps(find()))


def find() -> dict[str, str]:
    """Return `name`, or `missing`."""
    if "CUDA_VISIBLE_DEVICES" in os.environ and not os.environ["CUDA_VISIBLE_DEVICES"].strip():
        return {"missing": "CUDA_VISIBLE_DEVICES is empty, which hides every GPU; unset it"}
    try:
        import torch
    except ImportError as error:
        return {"missing": f"PyTorch can't be imported ({error}); install torch"}
    if torch.version.cuda is None:
        return {"missing": f"this PyTorch ({torch.__version__}) was built without CUDA; install one with it"}
    if not torch.cuda.is_available():
        return {"missing": "PyTorch finds no NVIDIA GPU and driver; run it on a machine that has them"}
    return {"name": torch.cuda.get_device_name(0)}


def short(name: str) -> str:
    """Return a card's name as a part of a file's: `NVIDIA H100 80GB HBM3` is `h100-80gb-hbm3`."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    return "-".join(word for word in words if word not in ("nvidia", "geforce", "tesla")) or "unknown"


if __name__ == "__main__":
    main()
