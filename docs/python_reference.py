"""The public names of `imgdata`, as the code defines and describes them -> one page of reference."""

import re
from pathlib import Path
from typing import Any

import griffe

import imgdata

_ROOT = Path(__file__).resolve().parent.parent
SECTIONS = {
    "Make datasets": ("shards", "sources", "images", "cluster"),
    "Read datasets": ("dataset", "loose", "sample", "storage", "tar"),
    "Load batches": ("loader", "backends", "order"),
    "Recipes": ("recipes", "augment"),
    "Views": ("views",),
    "Train": ("training", "models"),
    "Use a trained network": ("inference",),
    "Audit": ("auditing",),
    "Look": ("web",),
    "Measure": ("measure",),
    "Errors": ("errors",),
}
"""Titles of the page -> the packages whose public names are listed below them."""
_NAMESPACES = ("recipes", "views")
_ERRORS_BASE = "ImgdataError"


def python_reference(_: str = "") -> str:
    """Return the whole reference as markdown: a section for each task, in it every public name."""
    package = griffe.load("imgdata", search_paths=[str(_ROOT)])
    names = [(name, _place(name)) for name in imgdata.__all__ if name not in ("__version__", *_NAMESPACES)]
    for namespace in _NAMESPACES:
        module = getattr(imgdata, namespace)
        public = getattr(module, "__all__", None) or [
            name for name, value in vars(module).items() if getattr(value, "__module__", "").startswith("imgdata.")
        ]
        names += [
            (f"{namespace}.{name}", _place_in(namespace, getattr(module, name), name))
            for name in public
            if name not in imgdata.__all__
        ]
    parts = []
    for title, packages in SECTIONS.items():
        inside = [(name, place) for name, place in names if place.split(".")[0] in packages]
        names = [entry for entry in names if entry not in inside]
        # A function first, then what it takes and gives.
        inside.sort(key=lambda entry: (entry[0].count("."), entry[0].rpartition(".")[2][0].isupper(), entry[0]))
        parts += [f"## {title}", *(_entry(name, _found(package, place)) for name, place in inside)]
    assert not names, f"no section for {names}: add their package to SECTIONS in docs/python_reference.py"
    return "\n\n".join(parts)


def _place(name: str) -> str:
    return f"{imgdata._PLACES[name]}.{name}" if name in imgdata._PLACES else f"errors.{name}"


def _place_in(namespace: str, value: Any, name: str) -> str:
    """Return where a public name is defined; a module below the namespace may have the same name."""
    defined = getattr(value, "__module__", None)
    return f"{defined.removeprefix('imgdata.')}.{name}" if defined else f"{namespace}.{name}"


def _found(package: griffe.Object, place: str) -> Any:
    found = package[place]
    return found.final_target if found.is_alias else found


def _entry(name: str, found: Any) -> str:
    heading = f"### imgdata.{name}"
    if found.is_function:
        return f"{heading}\n\n{_code(_signature(name, found))}\n\n{_text(found)}"
    if found.is_attribute:
        return f"{heading}\n\n{_text(found)}\n\nIts value: `{found.value}`"
    if found.is_class and _is_error(found):
        return f"{heading}\n\n{_text(found)}"
    return "\n\n".join([heading, *_class(name, found)])


def _class(name: str, found: Any) -> list[str]:
    """Return the parts of a class: how it is made, its text, its fields, its methods."""
    parts = []
    init = found.members.get("__init__")
    fields = [
        member
        for member in found.members.values()
        if (member.is_attribute and not member.name.startswith("_") and "class-attribute" in member.labels)
        or (member.is_attribute and "property" in member.labels and not member.name.startswith("_"))
        or (member.is_attribute and member.docstring and not member.name.startswith("_"))
    ]
    if init is not None and "dataclass" not in found.labels:
        parts.append(_code(_signature(name, init)))
    parts.append(_text(found))
    if init is not None and init.docstring:
        parts.append(_text(init))
    rows = [_field(member) for member in dict.fromkeys(fields)]
    if rows:
        parts.append("\n".join(["| field | type | default | |", "|---|---|---|---|", *rows]))
    for member in found.members.values():
        shown = member.name in ("__getitem__", "__iter__", "__len__") or not member.name.startswith("_")
        if member.is_function and shown and member.docstring:
            parts.append(f"**`{_short(member)}`**: {_inline(member)}")
    return [part for part in parts if part]


def _field(member: Any) -> str:
    default = "" if member.value is None or "property" in member.labels else f"`{_plain(str(member.value))}`"
    kind = f"`{_plain(str(member.annotation))}`" if member.annotation is not None else ""
    return f"| `{member.name}` | {kind} | {default} | {_inline(member)} |".replace("``", "")


def _plain(text: str) -> str:
    """Return a type or value so that a table's cell can hold it."""
    text = re.sub(r"\s+", " ", text)
    return re.sub(r"^field\(default_factory=(\w+)\)$", r"\1()", text).replace("|", "\\|")


def _short(member: Any) -> str:
    parameters = [parameter.name for parameter in member.parameters if parameter.name != "self"]
    special = {"__getitem__": "[...]", "__iter__": "iteration", "__len__": "len(...)"}
    return special.get(member.name) or f".{member.name}({', '.join(parameters)})"


def _signature(name: str, function: Any) -> str:
    """Return a call with types, one parameter a line where it is long."""
    called = f"imgdata.{name}"
    parameters, keyword_only = [], False
    for parameter in function.parameters:
        if parameter.name in ("self", "cls"):
            continue
        kind = str(parameter.kind.value)
        if kind == "keyword-only" and not keyword_only:
            parameters.append("*")
            keyword_only = True
        stars = {"variadic positional": "*", "variadic keyword": "**"}.get(kind, "")
        keyword_only = keyword_only or stars == "*"
        text = stars + parameter.name
        text += f": {parameter.annotation}" if parameter.annotation is not None else ""
        text += f" = {parameter.default}" if parameter.default is not None and not stars else ""
        parameters.append(text)
    returned = "" if function.name == "__init__" or function.returns is None else f" -> {function.returns}"
    line = f"{called}({', '.join(parameters)}){returned}"
    if len(line) <= 100:
        return line
    return "\n".join([f"{called}(", *(f"    {parameter}," for parameter in parameters), f"){returned}"])


def _code(text: str) -> str:
    return f"```text\n{text}\n```"


def _text(found: Any) -> str:
    """Return a docstring as markdown; its lists of arguments become lists."""
    if not found.docstring:
        return ""
    parts = []
    for section in found.docstring.parse("google", warnings=False):
        if section.kind.value == "text":
            parts.append(section.value)
        elif section.kind.value in ("parameters", "raises", "other parameters"):
            rows = [
                f"- `{getattr(item, 'name', None) or item.annotation}`: {_line(item.description)}"
                for item in section.value
            ]
            parts.append("\n".join([f"{'Raises' if section.kind.value == 'raises' else 'Arguments'}:", "", *rows]))
        elif section.kind.value in ("returns", "yields"):
            parts.append("Returns: " + _line(" ".join(item.description for item in section.value)))
    return "\n\n".join(parts)


def _inline(found: Any) -> str:
    return _line(found.docstring.value).replace("|", "\\|") if found.docstring else ""


def _line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _is_error(found: Any) -> bool:
    return found.name == _ERRORS_BASE or any(str(base).endswith(("Error", "Warning")) for base in found.bases)
