"""HTML and SVG as values: what is no markup yet is escaped, so a name from a model cannot become any."""

from __future__ import annotations

import re
from html import escape

_VOID = frozenset({"circle", "col", "input", "line", "path", "rect"})
"""Elements that hold nothing."""


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def element(name: str, *children: object, **attributes: object) -> Markup:
    """`<name …>children</name>`. Children are markup, or text that is escaped. Of attributes, `True` stands without a
    value, `None` and `False` not at all; `_` in their names is `-`, and one at the end is dropped (`class_`)."""
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{written}>" if name in ("col", "input") else f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*parts: object) -> Markup:
    """Parts one after another; what is no markup is escaped, None is left out."""
    return Markup(
        "".join(part if isinstance(part, Markup) else escape(str(part)) for part in parts if part is not None)
    )


def breakable(name: str) -> Markup:
    """A name of a graph, whose scopes may stand on lines of their own."""
    return Markup(re.sub(r"(?<=\w)/(?=\w)", "/<wbr>", escape(name)))


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
