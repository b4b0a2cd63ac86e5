"""`make fuzz`: Pillow's own test images, and photographs, are the corpus; libFuzzer with two sanitizers."""

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import PIL
from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NATIVE = ROOT / "imgdata" / "native"
LIBRARIES = ("-ljpeg", "-lpthread", "-lm")


def main() -> None:
    """Build, gather the corpus, run; ends with the fuzzer's own exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "fuzz", help="for the corpus and what is found")
    arguments = parser.parse_args()
    clang = os.environ.get("CLANG") or next(
        filter(shutil.which, ("clang", *(f"clang-{n}" for n in range(30, 10, -1)))), ""
    )
    if not clang:
        sys.exit("make fuzz needs clang with libFuzzer: apt-get install clang, or set CLANG")
    folder: Path = arguments.folder
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    program = build(clang, folder / "crop_jpeg")
    print(f"Corpus: {gather(corpus, folder)} files")
    options = [f"-max_total_time={arguments.seconds}", "-timeout=10", "-rss_limit_mb=3000", "-print_final_stats=1"]
    options += ["-max_len=200000", f"-artifact_prefix={folder}/found-", "-close_fd_mask=0"]
    sys.exit(subprocess.run([program, *options, corpus], check=False).returncode)


def build(clang: str, program: Path) -> Path:
    """The fuzzer, under AddressSanitizer (with its search for leaks) and UndefinedBehaviorSanitizer."""
    sources = [path for path in sorted(NATIVE.glob("*.c")) if not needs_python(path)]
    flags = ["-std=c11", "-O1", "-g", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined"]
    # clang has no name of its own for it, and memory is given out piece by piece then.
    flags.append("-D__SANITIZE_ADDRESS__")
    subprocess.run(
        [clang, *flags, HERE / "crop_jpeg.c", *sources, "-Wl,--wrap=aligned_alloc", *LIBRARIES, "-o", program],
        check=True,
    )
    return program


def needs_python(source: Path) -> bool:
    """Whether a source includes Python's header, itself or by one of ours: what is left takes bytes and numbers."""
    text = source.read_text()
    headers = (NATIVE / name for name in re.findall(r'#include "(\w+\.h)"', text))
    return any("<Python.h>" in one for one in (text, *(header.read_text() for header in headers)))


def gather(corpus: Path, folder: Path) -> int:
    """JPEGs up to 100 KB, each with a few crops behind it; files that an earlier run found stay."""
    if not any(corpus.iterdir()):
        for number, data in enumerate(images(folder)):
            for crop in range(3):
                tail = bytes((37 * number + 101 * crop + 53 * i) % 256 for i in range(15)) + bytes([crop | 16])
                (corpus / f"{number:03d}-{crop}").write_bytes(data + tail)
    return sum(1 for _ in corpus.iterdir())


def images(folder: Path) -> list[bytes]:
    """Of Pillow's source archive, the version that is installed here, and of scikit-learn."""
    from importlib.util import find_spec

    command = [
        sys.executable,
        "-m",
        "pip",
        "--quiet",
        "download",
        "--no-deps",
        "--no-binary",
        "pillow",
        "--dest",
        folder,
    ]
    subprocess.run([*command, f"pillow=={PIL.__version__}"], check=True)
    found = []
    with tarfile.open(next(folder.glob("pillow-*.tar.gz"))) as archive:
        for member in archive:
            if "/Tests/images/" in member.name and member.name.endswith((".jpg", ".jpeg")) and member.size < 100_000:
                file = archive.extractfile(member)
                assert file is not None
                found.append(file.read())
    spec = find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    found += [path.read_bytes() for path in (Path(spec.origin).parent / "datasets" / "images").glob("*.jpg")]
    # Long ones, whose resizes take in the most samples.
    for size in ((30_000, 20), (20, 30_000)):
        file = io.BytesIO()
        Image.linear_gradient("L").resize(size).convert("RGB").save(file, "JPEG", quality=30)
        found.append(file.getvalue())
    return found


if __name__ == "__main__":
    main()
