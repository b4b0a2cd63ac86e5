"""Text of a view <-> its steps: `fraction=0.9,part=first,seed=0 | where width>=64 & class in cat,dog | balance`.

view       step { "|" step }
step       NAME [ "=" value { "," value } ] { "," OPTION "=" value }
where      "where" condition { "&" condition }
condition  COLUMN ( ">=" ">" "<=" "<" "==" "!=" ) value  or  COLUMN [ "not" ] ( "in" "like" ) value { "," value }
value      anything without , | & = < > ! ", or any text in double quotes, where "" means one quote
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from imgdata.errors import OptionError
from imgdata.storage.reading import read_file


class _Form(NamedTuple):
    """The values and options that a step takes."""

    values: tuple[int, float]
    """Fewest and most values."""
    options: tuple[str, ...]


_FORMS: Mapping[str, _Form] = {
    "fraction": _Form((1, 1), ("part", "seed")),
    "count": _Form((1, 1), ("part", "seed")),
    "fold": _Form((1, 1), ("part", "seed")),
    "per_class": _Form((1, 1), ("seed",)),
    "exclude": _Form((0, float("inf")), ("file",)),
    "relabel": _Form((1, 1), ("classes",)),
    "where": _Form((1, 1), ()),
    "balance": _Form((0, float("inf")), ("weights", "length", "seed")),
}
STEP_NAMES = tuple(_FORMS)
_CONDITION = re.compile(r"(\w+)\s*(>=|<=|==|!=|>|<|\bnot\s+in\b|\bin\b|\bnot\s+like\b|\blike\b)\s*(.+)", re.DOTALL)
_PLAIN = re.compile(r"[^\s,|&=<>!\"](?:[^,|&=<>!\"]*[^\s,|&=<>!\"])?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step of a view, as it was written."""

    name: str
    """One of `STEP_NAMES`."""
    values: tuple[str, ...] = ()
    """Values after the name; for `where` the conditions as one text."""
    options: Mapping[str, str]
    data: bytes | None = None
    """Contents of the file that the step names; None when it names none, or the file was not read yet."""

    @property
    def file(self) -> str | None:
        """The file that the step names, as written."""
        if self.name == "relabel":
            return self.values[0]
        return self.options.get({"exclude": "file", "balance": "weights"}.get(self.name, ""))

    def with_file(self, name: str) -> "Step":
        """Return the same step with its file named `name`."""
        if self.name == "relabel":
            return replace(self, values=(name,))
        option = {"exclude": "file", "balance": "weights"}[self.name]
        return replace(self, options={**self.options, option: name})

    def __str__(self) -> str:
        if self.name == "where":
            return f"where {self.values[0]}"
        values = ",".join(map(quoted, self.values))
        options = "".join(f",{name}={quoted(value)}" for name, value in self.options.items())
        return self.name + (f"={values}" if values else "") + options


class Condition(NamedTuple):
    """One comparison of a column."""

    column: str
    operator: str
    """One of `>=`, `>`, `<=`, `<`, `==`, `!=`, `in`, `not in`, `like`, `not like`."""
    values: tuple[str, ...]
    """One value; one or more for `in` and `like`."""

    def __str__(self) -> str:
        between = f" {self.operator} " if self.operator[-1].isalpha() else self.operator
        return f"{self.column}{between}{','.join(map(quoted, self.values))}"


def parse_view(text: str) -> tuple[Step, ...]:
    """Return the steps of `text`; none for an empty one. `view_text` is the inverse. Raises `OptionError`."""
    if not text.strip():
        return ()
    return tuple(_parse_step(part.strip()) for part in _cut(text, "|"))


def view_text(steps: Iterable[Step]) -> str:
    """Return the text of `steps`, which `parse_view` reads."""
    return " | ".join(map(str, steps))


def parse_conditions(text: str) -> tuple[Condition, ...]:
    """Return the conditions of a text such as `width>=64 & class in cat,dog`. Raises `OptionError`."""
    return tuple(_parse_condition(part.strip()) for part in _cut(text, "&"))


_MAX_BYTES = 1 << 30


def quoted(value: str) -> str:
    """Return `value` as it must be written: in quotes where it could be read as something else."""
    return value if _PLAIN.fullmatch(value) else '"' + value.replace('"', '""') + '"'


def read_files(steps: Iterable[Step], folder: Path) -> tuple[Step, ...]:
    """Return the steps with the contents of the files that they name, relative to `folder`. Raises `OptionError`."""
    return tuple(step if step.file is None else replace(step, data=_read(folder / step.file, step)) for step in steps)


def _read(path: Path, step: Step) -> bytes:
    try:
        return read_file(path, _MAX_BYTES)
    except OSError as error:
        raise OptionError(f"{path}: can't be read for {str(step)!r}: {error.strerror or error}") from error


def _parse_step(text: str) -> Step:
    found = re.match(r"\w+", text)
    name = found[0] if found else ""
    form = _FORMS.get(name)
    if form is None:
        raise OptionError(f"view: a step must be one of {', '.join(STEP_NAMES)}, got {text!r}")
    rest = text[len(name) :].strip()
    if name == "where":
        conditions = " & ".join(map(str, parse_conditions(rest)))
        return Step(name=name, values=(conditions,), options={})
    if rest and rest[0] not in "=,":
        raise OptionError(f"view: {name} must be followed by = or a comma, got {text!r}")
    values: list[str] = []
    options: dict[str, str] = {}
    for item in _cut(rest[1:], ",") if rest else ():
        key, equals, value = item.partition("=")
        if item.strip().startswith('"') or not equals:
            values.append(_unquoted(item, text))
        elif key.strip() not in form.options or key.strip() in options:
            allowed = ", ".join(form.options)
            raise OptionError(f"view: options of {name} must be {allowed}, each once, got {key.strip()!r} in {text!r}")
        else:
            options[key.strip()] = _unquoted(value, text)
    if not form.values[0] <= len(values) <= form.values[1]:
        raise OptionError(f"view: {name} must have one value, such as {name}=VALUE, got {text!r}")
    return Step(name=name, values=tuple(values), options=options)


def _parse_condition(text: str) -> Condition:
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise OptionError(f"where: a condition must be like width>=64, format==jpeg or class in cat,dog, got {text!r}")
    operator = " ".join(found[2].split())
    values = tuple(_unquoted(part, text) for part in _cut(found[3], ","))
    if len(values) > 1 and not operator[-1].isalpha():
        raise OptionError(f"where: {operator} must have one value, got {text!r}; several values need `in`")
    return Condition(found[1], operator, values)


def _unquoted(text: str, whole: str) -> str:
    text = text.strip()
    if re.fullmatch(r'"(?:[^"]|"")*"', text, re.DOTALL):
        return text[1:-1].replace('""', '"')
    if not _PLAIN.fullmatch(text):
        what = "empty" if not text else f"{text!r}; write it in double quotes"
        raise OptionError(f"view: a value in {whole!r} must not be {what}")
    return text


def _cut(text: str, separator: str) -> list[str]:
    """Cut `text` at each `separator` that isn't inside quotes."""
    parts = [""]
    inside = False
    for character in text:
        inside ^= character == '"'
        if character == separator and not inside:
            parts.append("")
        else:
            parts[-1] += character
    if inside:
        raise OptionError(f'view: a quote " must be closed, got {text!r}')
    return parts
