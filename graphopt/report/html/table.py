"""Tables that a script sorts by what each cell is worth, and that are read without one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphopt.report.html.markup import Markup, element


@dataclass(frozen=True)
class Column:
    """A column: its title, whether it is sorted as numbers, largest first, and what its title leaves out."""

    title: str
    number: bool = False
    hint: str = ""


def table(columns: Sequence[Column], rows: Iterable[Markup], *, id_: str | None = None) -> Markup:
    """A table of rows."""
    heads = (
        element("th", column.title, scope="col", class_="number" if column.number else None, title=column.hint or None)
        for column in columns
    )
    shown = element("table", element("thead", element("tr", *heads)), element("tbody", *rows), id=id_)
    return element("div", shown, class_="scroll")


def row(*cells: Markup, group: str | None = None) -> Markup:
    """A row of cells; by `group` it is found without showing it."""
    return element("tr", *cells, data_group=group)


def cell(text: object, *, value: float | None = None, class_: str = "", title: str = "") -> Markup:
    """A cell; with `value`, a number that stands on the right and is sorted by it."""
    kind = f"{class_} number".strip() if value is not None else class_
    return element(
        "td", text, class_=kind or None, title=title or None, data_v=None if value is None else f"{value:.9g}"
    )


def data_bar(text: str, value: float | None, top: float) -> Markup:
    """A cell with a bar as long as `value` is beside `top`, which is all of it."""
    share = max(value, 0.0) / top if value is not None and top > 0 else 0.0
    number = None if value is None else f"{value:.9g}"
    return element("td", text, class_="number share", style=f"--n:{share:.3f}", data_v=number)
