"""What a command prints where: results on stdout, progress and logs on stderr, JSON where it was asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any

import click

from graphopt.errors import GraphoptError, UsageError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from graphopt.pipeline import Progress

_PATIENCE = 1.0
"""Seconds of work before a progress bar shows."""
_HEAD = 128
"""Bytes that tell a report of ours from other files."""
_REPORT = b'"schema": "graphopt/'
_PAGE = b'name="generator" content="graphopt '


@dataclass(frozen=True)
class Screen:
    """The streams of one command. `json` is a path, `-` for stdout, or None; `config` the file whose settings hold."""

    json: str | None
    quiet: bool
    verbose: bool
    color: bool
    config: Path | None = None

    def __post_init__(self) -> None:
        if self.json is not None and self.json != "-":
            _refuse_to_write(self.json, _REPORT)

    @property
    def files(self) -> list[Path]:
        """The files that the report goes to."""
        return [Path(self.json)] if self.json not in (None, "-") else []

    def refuse_report_at(self, path: Path | None, what: str = "the model") -> None:
        """Raises UsageError GO014 where the report would overwrite `path`, which the command writes as well."""
        if path is not None and self.json is not None and _same(Path(self.json), path):
            raise UsageError("GO014", f"the report would overwrite {what}", self.json)

    def refuse_page_at(self, page: str | None, model: Path | None) -> None:
        """Raises UsageError GO014 where the HTML report cannot be written to `page`, or would overwrite a file that is
        none, the JSON report, or `model`, which the command writes as well."""
        if page is None:
            return
        _refuse_to_write(page, _PAGE)
        self.refuse_report_at(Path(page), "the page")
        if model is not None and _same(model, Path(page)):
            raise UsageError("GO014", "the report would overwrite the model", page)

    def show(self, report: dict[str, Any], text: Callable[[], RenderableType]) -> None:
        """Writes the JSON `report` if it was asked for; prints `text()` unless stdout is taken or to be quiet."""
        if self.json is not None:
            from graphopt.report.schema import write

            if self.json != "-":
                # The command may have written a file there meanwhile: weights, a case.
                _refuse_to_write(self.json, _REPORT)
            write(report | {"config": str(self.config) if self.config is not None else None}, self.json)
        if self.json != "-" and not self.quiet:
            from graphopt.report.shown import Shown

            self._console(stderr=False).print(Shown(text()))
            if self.verbose and self.config is not None:
                click.echo(f"settings of {self.config}", err=True)

    def fail(self, *errors: GraphoptError) -> int:
        """Prints the errors that came with a result; returns the exit code of the first, 0 where there is none."""
        for error in errors:
            click.echo(str(error), err=True)
        return errors[0].exit_code if errors else 0

    @contextmanager
    def progress(self) -> Iterator[Progress | None]:
        """A function to call with (what, done, total); it draws a bar on a terminal after a second of work."""
        if self.quiet or not sys.stderr.isatty():
            yield None
            return
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        # Stages differ too much in length for an estimate of what is left.
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        bar = Bar(*columns, console=self._console(stderr=True), transient=True)
        task = bar.add_task("")
        begin = Timer(_PATIENCE, bar.start)
        begin.start()
        try:
            yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
        finally:
            begin.cancel()
            begin.join()
            bar.stop()

    def _console(self, *, stderr: bool) -> Console:
        from rich.console import Console

        # Names of values may look like rich's markup.
        plain = None if self.color else True
        return Console(stderr=stderr, no_color=plain, highlight=False, markup=False, emoji=False)


def _refuse_to_write(report: str, mark: bytes) -> None:
    """Raises UsageError GO014 for a folder, a path in none, and a file that does not begin with `mark` as our reports
    do."""
    path = Path(report)
    try:
        with suppress(FileNotFoundError):
            path.stat()
    except OSError as error:
        raise UsageError("GO014", f"the report cannot be written: {error.strerror}", report) from error
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError("GO014", "the report cannot be written: no such folder", report)
    if path.is_file() and not _may_be_report(path, mark):
        raise UsageError("GO014", "the report would overwrite a file that is no report", report)


def _same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one place, be there a file or not."""
    return os.path.realpath(one) == os.path.realpath(other)


def _may_be_report(path: Path, mark: bytes) -> bool:
    """Whether a file is empty, has `mark` near its begin, or cannot be read, which writing it will tell."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return True
    return not head or mark in head
