"""`--backend`: the name of a kind of backend, as the library's registry has them."""

from typing import Any

import click


class BackendType(click.ParamType[str]):
    """A backend's name, or `auto`. The registry is imported only where a name is checked or help is printed."""

    name = "backend"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return all names, for the help."""
        return "|".join(_names())

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name. Fails where no kind has it."""
        if value not in _names():
            self.fail(f"{value!r} is not one of {', '.join(map(repr, _names()))}.", param, ctx)
        return str(value)


def _names() -> tuple[str, ...]:
    from imgdata.backends.registry import backend_names

    return backend_names()
