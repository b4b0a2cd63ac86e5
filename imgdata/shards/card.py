"""Manifest -> `README.md`: the dataset card that hubs show and that says how to load the shards."""

import json
import re
import shlex

from imgdata.dataset.columns import columns_file
from imgdata.dataset.manifest import Manifest, ShardRecord, SplitEntry
from imgdata.tables import counted

CARD = "README.md"

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_MORE_SIZES = ((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))
_CLASSES_SHOWN = 20
_MARKUP = re.compile(r"[\\\[\]|<>]|://|www\.")
_AS_TEXT = {"<": "&lt;", ">": "&gt;", "://": "&#58;//", "www.": "www&#46;"}
_PLAIN_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def card(manifest: Manifest) -> bytes:
    """Return the card: YAML front matter of Hugging Face's hub, then tables and loading code in Markdown."""
    parts = [_front_matter(manifest), _overview(manifest), _loading(manifest), _files(manifest)]
    return ("\n".join(parts).rstrip() + "\n").encode()


def _front_matter(manifest: Manifest) -> str:
    size = next((name for limit, name in (*_SIZES, *_MORE_SIZES) if manifest.samples < limit), "n>1B")
    lines = [
        "---",
        f"pretty_name: {_quoted(manifest.name)}",
        "task_categories:",
        "- image-classification",
        "tags:",
        "- webdataset",
        "- imgdata",
        "size_categories:",
        f"- {size}",
        "configs:",
        "- config_name: default",
        "  data_files:",
    ]
    for split in manifest.splits:
        lines += [f"  - split: {split.name if _PLAIN_WORD.fullmatch(split.name) else _quoted(split.name)}", "    path:"]
        lines += [f"    - {_quoted(file)}" for file in _data_files(split.shards)]
    lines += _features(manifest)
    return "\n".join([*lines, "---", ""])


def _features(manifest: Manifest) -> list[str]:
    """Return the columns with the names of the classes, which a hub shows; none where a column's type isn't known."""
    if manifest.label_from != "cls" or manifest.has_json or ";" in manifest.image_extension or not manifest.classes:
        return []
    return [
        "dataset_info:",
        "  config_name: default",
        "  features:",
        "  - name: cls",
        "    dtype:",
        "      class_label:",
        "        names:",
        *(f"          '{index}': {_quoted(one.name)}" for index, one in enumerate(manifest.classes)),
        f"  - name: {manifest.image_extension}",
        "    dtype: image",
        "  - name: __key__",
        "    dtype: string",
        "  - name: __url__",
        "    dtype: string",
    ]


def _quoted(text: str) -> str:
    # Any JSON string is a YAML string.
    return json.dumps(text, ensure_ascii=False)


def _overview(manifest: Manifest) -> str:
    lines = [
        f"# {_plain(manifest.name)}",
        "",
        f"{counted(manifest.samples, 'image')} in {counted(len(manifest.classes), 'class')}, as WebDataset tar shards "
        "with an index of every sample. Images are stored as "
        f"`.{_code(manifest.image_extension).replace(';', '`, `.')}`.",
        "",
        "| split | samples | shards | size |",
        "|---|---:|---:|---:|",
    ]
    lines += [f"| {_plain(s.name)} | {s.samples:,} | {len(s.shards):,} | {_size(s.bytes)} |" for s in manifest.splits]
    if manifest.rejected:
        why = "; `rejects.jsonl` says why" if "rejects.jsonl" in manifest.files else ""
        lines += [
            "",
            f"{counted(manifest.rejected, 'image')} {'was' if manifest.rejected == 1 else 'were'} left out{why}.",
        ]
    for member in manifest.members:
        what = "a mask (a whole number for each pixel)" if member.kind == "mask" else "a further image"
        lines += ["", f"Beside its image a sample has {what}, `{member.name}`, of the same size."]
    warnings = manifest.source.get("warnings", ())
    if warnings:
        lines += ["", *(f"- Note: {_plain(warning)}" for warning in warnings)]
    if manifest.classes:
        lines += ["", "## Classes", "", "| index | id | name |", "|---:|---|---|"]
        shown = list(enumerate(manifest.classes))[:_CLASSES_SHOWN]
        lines += [f"| {i} | {_plain(c.id)} | {_plain(c.name)} |" for i, c in shown]
        if len(manifest.classes) > _CLASSES_SHOWN:
            lines += ["", f"The other {len(manifest.classes) - _CLASSES_SHOWN:,} are in `dataset.json`."]
    return "\n".join([*lines, ""])


def _plain(text: str) -> str:
    """Return `text` from elsewhere as it is shown, not as Markdown, HTML or a link."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return _MARKUP.sub(lambda found: _AS_TEXT.get(found[0], f"\\{found[0]}"), shown)


def _code(text: str) -> str:
    """Return `text` from elsewhere so that it can be put between backticks."""
    return "".join("_" if letter == "`" or not letter.isprintable() else letter for letter in text)


def _in_quotes(text: str) -> str:
    """Return `text` as it is written between the quotes of a string in Python code."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _size(num_bytes: int) -> str:
    size, unit = float(num_bytes), 0
    while size >= 1024 and unit < len(_BINARY_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {_BINARY_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_BINARY_UNITS[unit]}"


def _loading(manifest: Manifest) -> str:
    split = manifest.splits[0]
    labelled = manifest.label_from == "cls"
    member = "cls" if labelled else "json" if manifest.has_json else None
    second = f', "{member}"' if member else ""
    extension = _in_quotes(manifest.image_extension)
    name, of_split = shlex.quote(manifest.name), shlex.quote(split.name)
    alternatives = manifest.image_extension.split(";")
    patterns = _data_files(split.shards)
    parts = [
        "## Loading",
        "",
        "imgdata, any sample at once:",
        "",
        "```python",
        "import imgdata",
        "",
        'dataset = imgdata.open(".")',
        f'sample = dataset["{_in_quotes(split.name)}"][0]  # key, image (encoded bytes), label, format',
        "```",
        "",
        "webdataset:",
        "",
        "```python",
        "import webdataset as wds",
        "",
        f'samples = wds.WebDataset("{_in_quotes(_braces(split.shards))}", shardshuffle=False).decode("pil")',
        f'pairs = samples.to_tuple("{extension}"{second})',
        "```",
        "",
        "NVIDIA DALI, inside a pipeline:",
        "",
        "```python",
        "import glob",
        "",
        f"tars = {_tar_list(patterns, 'sorted(glob.glob({}))')}",
        "images, *rest = fn.readers.webdataset(",
        f'    paths=tars, index_paths=[t[:-4] + ".idx" for t in tars], ext=["{extension}"{second}]',
        ")",
        "```",
        "",
    ]
    if labelled and set(alternatives) <= {"jpg", "png", "webp"}:
        parts += [
            "timm (`train.py`):",
            "",
            "```",
            f"python train.py --dataset wds/{name} --data-dir . --train-split {of_split} "
            f"--val-split {shlex.quote(_validation_split(manifest))} --num-classes {len(manifest.classes)}",
            "```",
            "",
            "Its reader gives whole shards to its workers: a split needs as many shards as there are ranks, times two "
            "where `--workers` is two or more (`imgdata shard --shard-samples` makes more of them).",
            "",
        ]
    return "\n".join(
        [
            *parts,
            "Hugging Face datasets:",
            "",
            "```python",
            "from datasets import load_dataset",
            "",
            f'dataset = load_dataset("webdataset", data_files={{"{_in_quotes(split.name)}": {_tar_list(patterns)}}})',
            "```",
            "",
        ]
    )


def _validation_split(manifest: Manifest) -> str:
    """Name of the split to validate with: val, test, else the last one, which may be the only one."""
    names = [split.name for split in manifest.splits]
    return next((name for name in ("val", "test") if name in names), names[-1])


def _counted(shards: tuple[ShardRecord, ...]) -> tuple[str, str, str] | None:
    """Return what the names share, the first and the last number, when the names count up without a gap."""
    first, last = shards[0].file.removesuffix(".tar"), shards[-1].file.removesuffix(".tar")
    stem = first.rstrip("0123456789")
    start, end = first[len(stem) :], last[len(stem) :]
    if not start:
        return None
    names = [f"{stem}{int(start) + step:0{len(start)}d}.tar" for step in range(len(shards))]
    return (stem, start, end) if names == [shard.file for shard in shards] else None


def _braces(shards: tuple[ShardRecord, ...]) -> str:
    """Return the names as a brace pattern where they count up, else joined by `::`, as webdataset takes several."""
    counted = _counted(shards)
    if len(shards) == 1 or counted is None:
        return "::".join(shard.file for shard in shards)
    stem, start, end = counted
    return f"{stem}{{{start}..{end}}}.tar"


def _data_files(shards: tuple[ShardRecord, ...]) -> list[str]:
    counted = _counted(shards)
    # A digit first: `x-train-*` would take the shards of a split `train-extra` too.
    return [f"{counted[0]}[0-9]*.tar"] if counted else [shard.file for shard in shards]


def _tar_list(patterns: list[str], expand: str = "{}") -> str:
    return expand.format(json.dumps(patterns[0])) if len(patterns) == 1 else json.dumps(patterns)


def _files(manifest: Manifest) -> str:
    indices = ", ".join(f"`{_code(name)}`" for split in manifest.splits for name in _index_names(split))
    return "\n".join(
        [
            "## Files",
            "",
            f"- {', '.join(_names(split) for split in manifest.splits)}: the shards. Each sample has its image"
            + (", `cls` (class index in ASCII decimal)" if manifest.label_from == "cls" else "")
            + (" and `json`" if manifest.has_json else "")
            + "".join(f"; `KEY.{member.name}.*` is its {member.name}" for member in manifest.members)
            + ".",
            f"- {indices}: the index, one row per sample (shard, offset, size, label, width, height, hash, source).",
            *_columns_line(manifest),
            "- `.idx`: NVIDIA DALI's index of each shard. `_info.json`: timm. `.wids.json`: webdataset's indexed form.",
            f"- `dataset.json`: classes, splits, options and the {_hashes(manifest)}.",
            *(["- `croissant.json`: Croissant metadata."] if manifest.has_sha256 else []),
            "",
            "`imgdata verify .` checks all of it.",
            "",
        ]
    )


def _index_names(split: SplitEntry) -> list[str]:
    """Return the index's name; of an index in parts patterns of the names of its files."""
    if split.parts is None:
        return [split.index]
    names = [name for part in split.parts.parts for name in (part.file, part.places)]
    return list(dict.fromkeys(re.sub(r"-\d+(?=\.\w+$)", "-*", name) for name in names))


def _hashes(manifest: Manifest) -> str:
    if manifest.has_sha256:
        return "sha256 of every file"
    kinds = sorted({shard.hash for split in manifest.splits for shard in split.shards} - {"none"})
    return "sha256 of every file but the shards" + (f", and the {' or '.join(kinds)} of those" if kinds else "")


def _columns_line(manifest: Manifest) -> list[str]:
    """Return the line on the files of columns, where there are any."""
    files = [columns_file(split.index) for split in manifest.splits if columns_file(split.index) in manifest.files]
    if not files:
        return []
    names = ", ".join(f"`{_code(name)}`" for name in files)
    return [f"- {names}: the fields of the `json` (and `txt`) members as typed columns, one row per sample."]


def _names(split: SplitEntry) -> str:
    first, last = _code(split.shards[0].file), _code(split.shards[-1].file)
    return f"`{first}`" if first == last else f"`{first}` to `{last}`"
