"""Options that say how a raw dataset is read, where its layout leaves a choice: as arguments, as `SourceOptions`."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import target_option

if TYPE_CHECKING:
    from imgdata.sources.options import SourceOptions

Command = Callable[..., Any]

_OPTIONS = (
    click.option(
        "--source", "kind", help="Which layout SOURCE has, when several fit: cifar, imagenet, folder, table, ..."
    ),
    click.option(
        "--labels",
        type=click.Choice(["fine", "coarse"]),
        default="fine",
        show_default=True,
        help="Labels of CIFAR-100.",
    ),
    click.option(
        "--devkit",
        type=click.Path(path_type=Path, exists=True),
        help="ImageNet's devkit or LOC_val_solution.csv, when not inside SOURCE.",
    ),
    click.option(
        "--table", type=click.Path(path_type=Path), help="CSV, TSV, JSON-lines or Parquet file of paths and labels."
    ),
    click.option("--path-column", help="Column of the image paths."),
    click.option("--label-column", help="Column of the labels; '' for images without labels."),
    target_option(
        "the label column holds: one class, any number of classes, a share of each, or numbers; boxes: of COCO and "
        "VOC.",
        more=["boxes"],
    ),
    click.option("--label-separator", metavar="TEXT", help="Between the classes of a text.  [| ; or ,]"),
    click.option(
        "--masks",
        type=click.Path(path_type=Path),
        help="Folder of masks that are called as the images, in a tree as theirs.",
    ),
    click.option("--mask-column", help="Column of the masks: paths in a table, else encoded images."),
    click.option("--split-column", help="Column of the splits."),
    click.option("--image-column", help="Column (Parquet, Arrow, MDS) or feature (TFRecord) of the images."),
    click.option(
        "--split-names",
        metavar="FOLDER=SPLIT,...",
        help="Folders that are splits, such as train2017=train,val2017=val; the others are classes. '' for no splits.",
    ),
    click.option(
        "--class-order",
        type=click.Choice(["auto", "number", "text"]),
        default="auto",
        show_default=True,
        help="Which class is 0, 1, ...: auto is by number where all are numbers, as text elsewhere.",
    ),
    click.option("--image-ext", multiple=True, help="Extension of the image in existing tars; may be repeated."),
    click.option(
        "--label-from",
        default="auto",
        show_default=True,
        help="Labels of existing tars: cls, txt, json:FIELD, folder; none: images without labels.",
    ),
)
_DEFAULTS: dict[str, Any] = {
    "kind": None,
    "labels": "fine",
    "devkit": None,
    "table": None,
    "path_column": None,
    "label_column": None,
    "target": None,
    "label_separator": None,
    "masks": None,
    "mask_column": None,
    "split_column": None,
    "image_column": None,
    "split_names": None,
    "class_order": "auto",
    "image_ext": (),
    "label_from": "auto",
}
"""Arguments of the options above, which are fields of `SourceOptions`, where nothing is said."""


def source_options(function: Command) -> Command:
    """Add the options to the arguments of a command; `taken` makes `SourceOptions` of them."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def taken(options: dict[str, Any]) -> "SourceOptions":
    """Take the options out of a command's arguments. Raises `OptionError`."""
    from imgdata.sources.options import SourceOptions

    values = {name: options.pop(name) for name in _DEFAULTS}
    return SourceOptions(**{**values, "split_names": _split_names(values["split_names"])})


def raw_options(function: Command) -> Command:
    """Let a command with the argument `dataset` take the options too, for raw images; its help doesn't list them.

    What opens the dataset by its path reads it as they say.
    """

    @wraps(function)
    def reading(**values: Any) -> Any:
        if all(values[name] == default for name, default in _DEFAULTS.items()):
            # Readers of shards don't wait for the import of sources.
            return function(**{name: value for name, value in values.items() if name not in _DEFAULTS})
        read = taken(values).to_dict()
        from imgdata.errors import OptionError
        from imgdata.loose.asked import reading_as

        dataset, first = values.get("dataset"), next(iter(read)).replace("_", "-").replace("kind", "source")
        if dataset is None:
            raise OptionError(f"--{first} says how raw images are read; name their folder or file")
        if (Path(dataset) / "dataset.json").exists():
            raise OptionError(f"--{first} is for raw images, and {dataset} is sharded already; leave it out")
        with reading_as(dataset, read):
            return function(**values)

    return _hidden(source_options)(reading)


def _hidden(add: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return what adds options as `add` does, but hides them in the help."""

    def added(function: Command) -> Command:
        before = len(getattr(function, "__click_params__", []))
        function = add(function)
        for option in function.__click_params__[before:]:  # type: ignore[attr-defined]
            option.hidden = True
        return function

    return added


def _split_names(text: str | None) -> dict[str, str] | None:
    """Return the folders of `--split-names` with their splits. Raises `OptionError`."""
    from imgdata.errors import OptionError

    if text is None:
        return None
    pairs = [part.strip() for part in text.split(",") if part.strip()]
    wrong = next((part for part in pairs if not all(part.rpartition("=")[::2])), None)
    if wrong is not None:
        raise OptionError(f"split-names must be FOLDER=SPLIT with commas between, got {wrong!r}")
    return {part.rpartition("=")[0]: part.rpartition("=")[2] for part in pairs}
