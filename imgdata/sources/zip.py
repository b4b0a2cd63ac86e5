"""Class folders in ZIP archives -> Listing; stored images are read where they lie, deflated ones are unpacked.

photos.zip: photos/train/cat/1.jpg ...     photos/train.zip, photos/val.zip: cat/1.jpg ...
"""

import lzma
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgdata.errors import ImageError, SourceError
from imgdata.sample import SampleRef
from imgdata.sources.classes import some, with_sorted_classes
from imgdata.sources.folder_names import is_hidden, split_of_folder
from imgdata.sources.listing import ONE_CLASS, Listing, ListingBuilder, title_of
from imgdata.sources.options import SourceOptions
from imgdata.sources.plausible import check_classes
from imgdata.sources.readers import MAX_IMAGE_BYTES, RangeReader
from imgdata.sources.splits import in_usual_order, split_in_path
from imgdata.sources.walk import extension, is_image, visible
from imgdata.sources.zip_members import LOCAL_HEADER
from imgdata.storage.atomic import FilePool
from imgdata.storage.reading import require_regular

NAME = "zip"

_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_ENCRYPTED = 1
_MAX_WRAPPERS = 8


class _Member(NamedTuple):
    number: int
    """Position in the archive's list."""
    parts: list[str]
    """Parts of its path, without folders around all."""
    info: zipfile.ZipInfo


@dataclass
class ZipReader:
    """Reader of the members of ZIP archives by their number; each process opens each archive once."""

    archives: tuple[Path, ...]
    _open: dict[tuple[int, int], tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __getstate__(self) -> dict[str, Any]:
        """Return the paths alone: open archives stay in their process."""
        return {"archives": self.archives, "_open": {}}

    def file(self, ref: SampleRef) -> Path:
        """Return the path of the archive that holds `ref`."""
        return self.archives[ref.container]

    def read(self, ref: SampleRef) -> bytes:
        """Return the unpacked member.

        Raises `ImageError` for a member that is damaged or too large, `SourceError` when the archive is damaged or
        has changed, `OSError`.
        """
        path = self.archives[ref.container]
        # After a fork a shared descriptor would move under the other process.
        key = (os.getpid(), ref.container)
        if key not in self._open:
            archive = _opened(path)
            self._open[key] = archive, archive.infolist()
        archive, members = self._open[key]
        if ref.offset >= len(members) or members[ref.offset].file_size != ref.size:
            raise SourceError(f"{path}: {ref.name} is not as it was listed; the archive has changed")
        if ref.size > MAX_IMAGE_BYTES:
            raise ImageError("too-large", f"{ref.size} bytes, the limit is {MAX_IMAGE_BYTES}")
        try:
            return archive.read(members[ref.offset])
        except _DAMAGE as error:
            raise ImageError("corrupt", f"damaged in {path.name}: {error}") from error
        except OSError as error:
            if error.errno is not None:
                raise
            # That of bzip2, and no failure of the system.
            raise ImageError("corrupt", f"damaged in {path.name}: {error}") from error


def header_places(path: Path) -> NDArray[np.int64]:
    """Return where each member of an archive begins, with a header of its own; see `zip_members`.

    Raises `SourceError`, also for an archive with a member that is packed by a rare method.
    """
    with _opened(path) as archive:
        members = archive.infolist()
    rare = next((info for info in members if info.compress_type not in _METHODS[:2]), None)
    if rare is not None:
        raise SourceError(
            f"{path}: {rare.filename} is packed by method {rare.compress_type}, which is read from files of this "
            "machine alone; copy the archive first"
        )
    return np.array([info.header_offset for info in members], np.int64)


def recognise(path: Path) -> str | None:
    """Return a phrase when `path` is a ZIP archive of images, or holds some; reads the list of the first archive.

    Raises `SourceError` when that one is damaged.
    """
    files = _files(path)
    if not files:
        return None
    with _opened(files[0]) as archive:
        images = any(is_image(info.filename) for info in archive.infolist())
    return f"images in ZIP archives ({some([file.name for file in files])})" if images else None


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """Return the images of all archives, split by split (train, val, test, others), sorted by path.

    Raises `SourceError` for damaged or encrypted archives, and when images lie outside of class folders.
    """
    files = _files(path)
    if not files:
        raise SourceError(f"{path}: no .zip there")
    several = len(files) > 1
    splits = [split_in_path(file.stem) if several else None for file in files]
    if several and not all(splits):
        unnamed = some([file.name for file, split in zip(files, splits, strict=True) if not split])
        raise SourceError(f"{path}: several archives, and {unnamed} named like no split; give one at a time")
    builder = ListingBuilder(options.exclude)
    found: list[tuple[str, int, _Member, str]] = []
    given = several
    for container, file in enumerate(files):
        members = _images(file, builder, whole=not several)
        tops = {member.parts[0] for member in members if len(member.parts) > 1}
        inside = bool(tops) and not several and all(map(split_of_folder, tops))
        given = given or inside
        prefix = f"{file.stem}/" if several else ""
        for member in members:
            split = split_of_folder(member.parts[0]) if inside else splits[container]
            found.append((split or "train", container, member._replace(parts=member.parts[inside:]), prefix))
    stored = all(member.info.compress_type == zipfile.ZIP_STORED for _, _, member, _ in found)
    order = in_usual_order(split for split, _, _, _ in found)
    found.sort(key=lambda one: (order.index(one[0]), one[1], one[2].info.filename))
    pool = FilePool(files)
    codes: dict[str, int] = {}
    for split, container, member, prefix in found:
        name = prefix + member.info.filename
        class_id = "/".join(member.parts[:-1])
        label = -1
        if class_id and options.label_from != "none":
            label = codes.setdefault(class_id, len(codes))
        if builder.excluded(name):
            continue
        if label < 0 and options.label_from != "none":
            raise SourceError(
                f"{files[container]}: no labels: {member.info.filename} lies in no class folder; unpack the archive "
                "first and name a table with --table, leave it out with --exclude, or take the images without labels "
                "with --label-from none"
            )
        builder.add(
            split=split,
            name=name,
            key=os.path.splitext("/".join(member.parts))[0],
            label=label,
            size=member.info.file_size,
            container=container,
            offset=_start(pool, container, member.info) if stored else member.number,
        )
    beside = len(visible(path).files) + len(visible(path).folders) - len(files) if path.is_dir() else 0
    if beside:
        builder.see(beside)
        builder.skip("other entries beside the archives", beside)
    listing = builder.build(
        title=title_of(path),
        kind=NAME,
        reader=RangeReader(files) if stored else ZipReader(tuple(files)),
        classes=(),
        given_splits=given,
        warnings=[f"{ONE_CLASS} ({some(list(codes))})"] if len(codes) == 1 else [],
    )
    listing = with_sorted_classes(listing, list(codes), order=options.class_order)
    return check_classes(listing, path, named=options.kind is not None)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if extension(path.name) == ".zip" else []
    return [path / name for name in visible(path).files if extension(name) == ".zip"] if path.is_dir() else []


def _opened(path: Path) -> zipfile.ZipFile:
    """Return the archive at `path`. Raises `SourceError`, and `OSError`."""
    require_regular(path)
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise SourceError(
            f"{path}: no ZIP archive, or cut short ({error}); get it again, or unpack it first with another tool"
        ) from error


def _images(file: Path, builder: ListingBuilder, *, whole: bool) -> list[_Member]:
    """Return the images in an archive, `whole` or of one split; what else is in it is counted. Raises `SourceError`."""
    found: list[_Member] = []
    seen: set[str] = set()
    with _opened(file) as archive:
        for number, info in enumerate(archive.infolist()):
            if info.is_dir():
                continue
            builder.see()
            parts = [part for part in info.filename.split("/") if part not in ("", ".", "..")]
            if not parts or any(map(is_hidden, parts)):
                builder.skip("hidden files")
            elif not is_image(parts[-1]):
                builder.skip(f"not images ({extension(parts[-1]) or 'no extension'})")
            elif info.flag_bits & _ENCRYPTED:
                raise SourceError(f"{file}: {info.filename} is encrypted; unpack the archive first")
            elif info.compress_type not in _METHODS:
                raise SourceError(
                    f"{file}: {info.filename} is packed by method {info.compress_type}, which Python can't unpack; "
                    "unpack the archive first with another tool"
                )
            elif info.filename in seen:
                raise SourceError(f"{file}: holds {info.filename} twice; pack it anew")
            else:
                seen.add(info.filename)
                found.append(_Member(number, parts, info))
    for _ in range(_MAX_WRAPPERS):
        tops = {member.parts[0] for member in found}
        is_split = whole and any(map(split_of_folder, tops))
        if len(tops) != 1 or is_split or any(len(member.parts) < 3 for member in found):
            break
        found = [member._replace(parts=member.parts[1:]) for member in found]
    return found


def _start(pool: FilePool, container: int, info: zipfile.ZipInfo) -> int:
    """Return the first byte of a stored member, after its own header. Raises `SourceError` for a damaged header."""
    head = pool.read(container, info.header_offset, LOCAL_HEADER.size)
    if len(head) < LOCAL_HEADER.size or not head.startswith(b"PK\3\4"):
        raise SourceError(f"{pool.paths[container]}: damaged at {info.filename}; get the archive again")
    _, name, extra = LOCAL_HEADER.unpack(head)
    return info.header_offset + LOCAL_HEADER.size + int(name) + int(extra)
