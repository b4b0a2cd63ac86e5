"""Emojis of two makers, split by emoji -> `resnet9` trained on them: `python -m benchmarks.emoji --save`.

Which category an emoji is of has to be seen from others: no emoji is in both splits, by any designer. Variants in other
tones of skin are left out. Figures go to `benchmarks/results/emoji.json`.
"""

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.photos import encoded
from benchmarks.pipeline_data import npm_package
from benchmarks.raw_files import write_file
from benchmarks.report import machine, save

MAKERS = ("google", "twitter")
VAL_SHARE = 0.2
SETTINGS = ("--model", "resnet9", "--size", "32", "--label-smoothing", "0.1", "--curve", "onecycle", "--lr", "0.004")


def write_emoji_categories(root: Path, download: Path) -> Path:
    """`root/<split>/<category>/<maker>-<codes>.png`, on white. Raises `UnavailableError`."""
    for maker in MAKERS:
        with tarfile.open(npm_package(f"emoji-datasource-{maker}@16.0.0", download)) as tar:
            table = json.load(_open(tar, "package/emoji.json"))
            # The same for both makers: a fifth of all emojis, in the order of their codes.
            codes = sorted(one["unified"] for one in table)
            order = np.random.Generator(np.random.Philox(key=[0, 2])).permutation(len(codes))
            val = {codes[number] for number in order[: round(VAL_SHARE * len(codes))]}
            for one in table:
                if not one[f"has_img_{maker}"] or one["category"] == "Component":
                    continue
                picture = Image.open(_open(tar, f"package/img/{maker}/64/{one['image']}")).convert("RGBA")
                flat = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
                split = "val" if one["unified"] in val else "train"
                folder = root / split / one["category"].lower().replace(" & ", "-")
                write_file(folder / f"{maker}-{one['image']}", encoded(flat, "PNG"))
    return root


def record(work: Path, download: Path, epochs: int, seed: int) -> dict[str, Any]:
    """Make the data, shard it, train on it; the commands and what came out."""
    write_emoji_categories(work / "raw", download)
    commands = [
        ("shard", "raw", "out"),
        ("train", "out", "--out", "run", *SETTINGS, "--epochs", str(epochs), "--seed", str(seed)),
    ]
    for command in commands:
        program = [sys.executable, "-m", "imgdata_cli.main", *command, "--json", "--quiet"]
        found = json.loads(subprocess.run(program, cwd=work, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return {**machine(), "commands": [f"imgdata {' '.join(command)}" for command in commands], "summary": found}


def _open(tar: tarfile.TarFile, name: str) -> Any:
    file = tar.extractfile(name)
    assert file is not None, name
    return file


def main() -> None:
    """Print the figures, and keep them with `--save`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--download", type=Path, default=Path("build/downloads"), help="where packages are kept")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        found = record(Path(work), options.download.resolve(), options.epochs, options.seed)
    print(json.dumps(found, indent=2))
    if options.save:
        save("emoji", found)


if __name__ == "__main__":
    main()
