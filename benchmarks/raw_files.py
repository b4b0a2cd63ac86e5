"""Names and bytes -> files, folders and tars with reproducible bytes."""

import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def write_set(path: Path, folder: str, files: Mapping[str, bytes]) -> Path:
    """`files` into the folder `path`, or as `folder/...` into the archive `path`."""
    if path.name.endswith((".tar.gz", ".tgz")):
        write_file(
            path, gzip.compress(tar_bytes({f"{folder}/{name}": data for name, data in files.items()}), 1, mtime=0)
        )
    elif path.suffix == ".tar":
        write_file(path, tar_bytes({f"{folder}/{name}": data for name, data in files.items()}))
    else:
        for name, data in files.items():
            write_file(path / name, data)
    return path


def tar_bytes(files: Mapping[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return archive.getvalue()


def write_lines(path: Path, lines: Sequence[str]) -> None:
    write_file(path, "".join(f"{line}\n" for line in lines).encode())


def write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
