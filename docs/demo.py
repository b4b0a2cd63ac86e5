"""`make demo`: photographs in four usual layouts -> verified shards, epochs, a trained network; all below `demo/`."""

import csv
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import data  # noqa: E402 - found through the line above

DEMO = Path("demo")
EPOCHS = 6
CLASSES = ("flower", "astronaut", "cat")
CONSOLE = Console(highlight=False)


def main() -> None:
    """Build the raw data, then do what a user would do, and show each command."""
    shutil.rmtree(DEMO, ignore_errors=True)
    CONSOLE.rule("[bold]Raw data from photographs that installed packages ship")
    sources = build(DEMO / "raw")
    for name, what in sources.items():
        CONSOLE.print(f"  demo/raw/{name:23} {what}")

    step("ImageNet as downloaded: tars inside a tar, read in place, with the devkit")
    imgdata("shard", "demo/raw/imagenet", "demo/imagenet", "--shard-samples", "100")
    imgdata("verify", "demo/imagenet", "--deep")
    imgdata("inspect", "demo/imagenet")

    step("CIFAR-10 as downloaded")
    imgdata("shard", "demo/raw/cifar-10-python.tar.gz", "demo/cifar10")
    imgdata("verify", "demo/cifar10", "--deep")

    step("A folder of photographs with a table of labels, made smaller on the way")
    imgdata("shard", "demo/raw/photos", "demo/photos", "--resize", "160", "--json-members")

    step("Class folders with damaged files in them, cut into train and val")
    imgdata("shard", "demo/raw/folders", "demo/folders", "--split", "train=0.8,val=0.2", "--on-bad", "repair")
    imgdata("verify", "demo/folders", "--deep")
    imgdata("inspect", "demo/folders", "--sheet", "demo/sheet.png")
    imgdata("export", "demo/folders", "demo/folders-again")

    step("Epochs for training, beside torchvision's DataLoader on the same files")
    imgdata("export", "demo/imagenet", "demo/imagenet-folders", "--split", "train")
    compare_epochs()

    step("A small network learns the class folders, and says what it sees")
    CONSOLE.print("\nEasy: all pictures of a class are parts of one photograph.")
    imgdata("train", "demo/folders", "--model", "cnn", "--epochs", "8", "--out", "demo/run")
    imgdata("evaluate", "demo/run", "demo/folders")
    pictures = [f"demo/raw/folders/{name}/{name}_30.jpg" for name in CLASSES]
    imgdata("predict", "demo/run", *pictures, "--top", "3", "--explain", "demo/heat")

    CONSOLE.rule("[bold]Done")
    for name in ("imagenet", "cifar10", "photos", "folders"):
        files = sorted((DEMO / name).iterdir())
        size = sum(path.stat().st_size for path in files)
        CONSOLE.print(f"  demo/{name:10} {len(files):3} files, {size / 1e6:6.1f} MB")
    CONSOLE.print("  demo/run   curves.png, confusion.png, metrics.csv, and the network in best.pt")
    CONSOLE.print("\nPictures to look at: demo/sheet.png, demo/run/curves.png, heat maps in demo/heat")
    CONSOLE.print("Look around:         .venv/bin/imgdata inspect demo/imagenet")
    CONSOLE.print("Continue with:       docs/tutorial.md")


def compare_epochs() -> None:
    """Random crops of 224 x 224 pixels, flipped and normalised, in as many threads or processes as there are cores."""
    import torch
    from torchvision import datasets
    from torchvision.transforms import v2

    from imgdata import Loader, recipes

    recipe, cores = recipes.imagenet_train(224), len(os.sched_getaffinity(0))
    operators = [
        v2.ToImage(),
        v2.RandomResizedCrop(224),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True),
    ]
    operators.append(v2.Normalize(recipes.IMAGENET_MEAN, recipes.IMAGENET_STD))
    files = datasets.ImageFolder("demo/imagenet-folders/train", v2.Compose(operators))
    workers = {"num_workers": cores, "persistent_workers": True}
    with Loader("demo/imagenet", split="train", batch_size=50, recipe=recipe, threads=cores) as loader:
        CONSOLE.print(f"\n{loader}\n", markup=False)
        ours = images_per_second(loader, epochs=EPOCHS)
    # One long epoch instead of several: its workers would stop at the end of each.
    often = torch.utils.data.ConcatDataset([files] * EPOCHS)
    theirs = images_per_second(
        torch.utils.data.DataLoader(often, 50, shuffle=True, drop_last=True, **workers), epochs=1
    )
    for name, rate in (("imgdata.Loader", ours), ("torchvision DataLoader", theirs)):
        CONSOLE.print(f"  {name:22}  [cyan]{'█' * round(30 * rate / max(ours, theirs)):30}[/] {rate:6,.0f} images/s")
    CONSOLE.print(f"  [bold]{ours / theirs:.2f} times as many, on {cores} cores[/]\n")


def images_per_second(loader: Iterable[Any], epochs: int) -> float:
    """Over some epochs after a first one, in which files are read and workers started."""
    deque(loader, maxlen=0)
    start, images = time.perf_counter(), 0
    for _ in range(epochs):
        images += sum(len(labels) for _, labels in loader)
    return images / (time.perf_counter() - start)


def build(raw: Path) -> dict[str, str]:
    """Write the raw datasets below `raw`; returns what each is."""
    data.write_imagenet_official(raw / "imagenet", data.imagenet(classes=10, per_class=50, val=100, size=(500, 375)))
    data.write_cifar10_python(raw / "cifar-10-python.tar.gz", data.cifar10(train=2000, test=400))
    photos = raw / "photos"
    photos.mkdir()
    with open(photos / "labels.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "label"])
        for path, label in data.labelled_photographs("imagenet"):
            shutil.copy(path, photos)
            table.writerow([path.name, label])
    data.write_class_folders(raw / "folders", {"": 40}, classes=CLASSES, size=(320, 240))
    spoil(raw / "folders" / "cat")
    return {
        "imagenet/": "600 photographs in the official tars",
        "cifar-10-python.tar.gz": "2,400 images of 32x32, 10 classes",
        "photos/": "20 photographs and labels.csv",
        "folders/": "one is cut short, one a web page, one CMYK",
    }


def spoil(folder: Path) -> None:
    """Make three files what one meets in the wild."""
    from PIL import Image

    files = sorted(folder.iterdir())
    files[0].write_bytes(files[0].read_bytes()[:5000])
    files[1].write_bytes(b"<!DOCTYPE html><html><body>Not found</body></html>")
    with Image.open(files[2]) as image:
        image.convert("CMYK").save(files[2])


def step(title: str) -> None:
    """Print a heading."""
    CONSOLE.print()
    CONSOLE.rule(f"[bold]{title}")


def imgdata(*arguments: str) -> None:
    """Show the command, then run it."""
    CONSOLE.print(f"\n[bold cyan]$ imgdata {' '.join(arguments)}[/]", soft_wrap=True)
    sys.stdout.flush()
    subprocess.run([sys.executable, "-m", "imgdata_cli.main", *arguments], check=True)


if __name__ == "__main__":
    main()
