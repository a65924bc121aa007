"""The page as a whole: what it is made of, and writing it."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

from graphopt import __version__
from graphopt.report.html.markup import join
from graphopt.report.html.sections import colophon, decisions, errors, figures, header, search, unfused
from graphopt.report.html.sites import sites
from graphopt.report.schema import Report, finite
from graphopt.report.whole import write_whole

_SECTIONS: Final = (header, errors, figures, decisions, unfused, search, sites, colophon)


def page(report: Report) -> str:
    """The page of a report of `quantize --json`. It loads nothing and runs no script but its own, known by its hash."""
    shown = finite(report)
    script = _file("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(_file("page.html")).substitute(
        version=escape(__version__),
        digest=f"sha256-{digest}",
        title=escape(f"{Path(str(report['model'])).name}: graphopt quantize"),
        style=_file("style.css"),
        body=join(*(section(shown) for section in _SECTIONS)),
        script=script,
    )


def write(report: Report, path: str) -> None:
    """Writes the page of a report. Raises: UsageError GO014 when the file cannot be written."""
    write_whole(path, page(report))


@cache
def _file(name: str) -> str:
    return (files(__package__) / name).read_text("utf-8")
