"""Names, attributes, texts -> HTML: what is not HTML already is text, whatever is in it."""

import html
from collections.abc import Iterable

_VOID = frozenset(("img", "input", "link", "meta"))


class Html(str):
    """HTML; any other string is text, and is escaped where it is put into an element."""

    __slots__ = ()


Content = Html | str | int | None | Iterable["Content"]


def element(name: str, /, *content: Content, **attributes: str | float | None) -> Html:
    """Return an element; `class_` is `class`, `_` in names of attributes is `-`, and None leaves one out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_clean(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>" + ("" if name in _VOID else f"{joined(content)}</{name}>"))


def joined(content: Content) -> Html:
    """Return the contents one behind the other; texts are escaped."""
    if isinstance(content, Html):
        return content
    if content is None:
        return Html("")
    if isinstance(content, str | int):
        return Html(html.escape(_clean(str(content)), quote=False))
    return Html("".join(map(joined, content)))


def _clean(text: str) -> str:
    """Return the text without what no page may hold: control characters and halves of letters."""
    return "".join(
        letter if letter >= " " and not "\x7f" <= letter <= "\x9f" and not "\ud800" <= letter <= "\udfff" else "\ufffd"
        for letter in text.replace("\n", " ").replace("\t", " ")
    )
