"""Manifest -> `croissant.json`: the dataset's files and columns in the Croissant 1.0 format of MLCommons."""

import re
from typing import Any

from imgdata.dataset.manifest import IndexParts, Manifest, SplitEntry, json_bytes
from imgdata.tables import counted

CROISSANT = "croissant.json"

# The context that the standard prescribes, word for word.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

_IMAGE_TYPES = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "tif": "image/tiff", "ppm": "image/x-portable-pixmap"}
_INDEX_COLUMNS = {"label": "sc:Integer", "width": "sc:Integer", "height": "sc:Integer", "source": "sc:Text"}
_DESCRIPTIONS = {
    "label": "Class index; -1 for none.",
    "width": "Pixels across, as stored.",
    "height": "Pixels down, as stored.",
    "source": "Name in the raw dataset.",
}


def croissant(manifest: Manifest) -> bytes:
    """Return the file, which names every tar and index with its sha256 and has one record set per split.

    Every shard of `manifest` has to have its sha256: Croissant wants sha256 or md5 of each file.

    A record is a row of the index joined with its image by the key.
    """
    distribution: list[dict[str, Any]] = []
    for split in manifest.splits:
        distribution += _distribution(manifest, split)
    return json_bytes(
        {
            "@context": _CONTEXT,
            "@type": "sc:Dataset",
            "name": manifest.name,
            "description": f"{counted(manifest.samples, 'image')} in {counted(len(manifest.classes), 'class')}, "
            "as WebDataset tar shards.",
            "conformsTo": "http://mlcommons.org/croissant/1.0",
            "distribution": distribution,
            "recordSet": [
                *([_classes(manifest)] if manifest.classes else []),
                *(_records(manifest, split) for split in manifest.splits),
            ],
        }
    )


def _distribution(manifest: Manifest, split: SplitEntry) -> list[dict[str, Any]]:
    tars = [
        {
            "@type": "cr:FileObject",
            "@id": shard.file,
            "name": shard.file,
            "contentUrl": shard.file,
            "contentSize": f"{shard.bytes} B",
            "encodingFormat": "application/x-tar",
            "sha256": shard.digest,
        }
        for shard in split.shards
    ]
    index = [_parquet(split.index, split.index_sha256)] if split.parts is None else _parquet_set(split, split.parts)
    extensions = manifest.image_extension.split(";")
    types = list(dict.fromkeys(_IMAGE_TYPES.get(ext, f"image/{ext.rsplit('.', 1)[-1]}") for ext in extensions))
    patterns = [pattern for ext in extensions for pattern in _patterns(ext, manifest)]
    images = {
        "@type": "cr:FileSet",
        "@id": _image_set(split),
        "name": _image_set(split),
        "containedIn": [{"@id": shard.file} for shard in split.shards],
        "encodingFormat": types[0] if len(types) == 1 else types,
        "includes": patterns if len(patterns) > 1 else patterns[0],
    }
    return [*tars, *index, images]


def _parquet(name: str, sha256: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "encodingFormat": "application/x-parquet",
        "sha256": sha256,
    }


def _parquet_set(split: SplitEntry, parts: IndexParts) -> list[dict[str, Any]]:
    """Return the parts of an index, and the set of them, which has the index's name."""
    files = [_parquet(part.file, part.sha256) for part in parts.parts]
    whole = {
        "@type": "cr:FileSet",
        "@id": split.index,
        "name": split.index,
        "containedIn": [{"@id": part.file} for part in parts.parts],
        "encodingFormat": "application/x-parquet",
        "includes": f"{split.index.removesuffix('.index.parquet')}.index-*.parquet",
    }
    return [*files, whole]


def _index_source(split: SplitEntry) -> dict[str, Any]:
    kind = "fileObject" if split.parts is None else "fileSet"
    return {kind: {"@id": split.index}}


def _patterns(extension: str, manifest: Manifest) -> list[str]:
    """Return the patterns of the pictures' names: further images have a dot and their name before the extension.

    Readers pass over Croissant's `excludes`, so the patterns say where there is no dot.
    """
    longest = max((len(member.name) for member in manifest.members), default=0)
    if not longest:
        return [f"*.{extension}"]
    short = [f"{'[!.]' * count}.{extension}" for count in range(1, longest + 1)]
    return [*short, f"*{'[!.]' * (longest + 1)}.{extension}"]


def _image_set(split: SplitEntry) -> str:
    return f"{split.name}-images"


def _classes(manifest: Manifest) -> dict[str, Any]:
    rows = [
        {"classes/index": number, "classes/id": name.id, "classes/name": name.name}
        for number, name in enumerate(manifest.classes)
    ]
    fields = [("index", "sc:Integer", "Class index."), ("id", "sc:Text", "Id."), ("name", "sc:Text", "Readable name.")]
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "description": "Class index, id in the raw dataset and readable name.",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/index"},
        "field": [_field(f"classes/{name}", name, kind, text) for name, kind, text in fields],
        **({"data": rows} if rows else {}),
    }


def _records(manifest: Manifest, split: SplitEntry) -> dict[str, Any]:
    extensions = "|".join(re.escape(ext) for ext in manifest.image_extension.split(";"))
    key = {
        **_field(f"{split.name}/key", "key", "sc:Text", "Key in the shards."),
        "source": {
            "fileSet": {"@id": _image_set(split)},
            "extract": {"fileProperty": "fullpath"},
            "transform": {"regex": rf"^(.*?)(?:\.(?:{extensions}))?$"},
        },
        "references": {**_index_source(split), "extract": {"column": "key"}},
    }
    image = {
        **_field(f"{split.name}/image", "image", "sc:ImageObject", "The image."),
        "source": {"fileSet": {"@id": _image_set(split)}, "extract": {"fileProperty": "content"}},
    }
    columns = [
        {
            **_field(f"{split.name}/{name}", name, kind, _DESCRIPTIONS[name]),
            "source": {**_index_source(split), "extract": {"column": name}},
        }
        for name, kind in _INDEX_COLUMNS.items()
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": split.name,
        "name": split.name,
        "description": f"{counted(split.samples, 'sample')} of split {split.name}.",
        "field": [key, image, *columns],
    }


def _field(identifier: str, name: str, kind: str, description: str) -> dict[str, Any]:
    return {"@type": "cr:Field", "@id": identifier, "name": name, "description": description, "dataType": kind}
