"""`graphopt demo`: the whole of graphopt on a transformer that needs no download."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import click

from graphopt.cli.options import screen
from graphopt.cli.screen import Screen
from graphopt.errors import UsageError


@click.command(short_help="Build a transformer, fuse it, verify it, show the gain.")
@click.option("--keep", metavar="DIR", help="Write the two models to a folder, and keep them.")
@screen
def demo(screen: Screen, keep: str | None) -> int:
    """Build a transformer the size of BERT-base as an exporter writes it, fuse it, verify it, and time both."""
    from graphopt import pipeline
    from graphopt.bench import BertConfig
    from graphopt.report import timing, timing_schema

    with _folder(keep) if keep is not None else _scratch() as folder:
        with screen.progress() as progress:
            done = pipeline.demo(folder, BertConfig(), progress=progress)
        screen.show(timing_schema.demo(done), lambda: timing.demo(done, verbose=screen.verbose))
    return screen.fail(*done.fusion.errors)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder that goes with this process: the Runner's child sees to that."""
    from graphopt.runtime import Runner

    with Runner() as runner:
        yield runner.folder


def _folder(path: str) -> AbstractContextManager[Path]:
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError("GO028", f"not a folder to write to: {error.strerror}", path) from error
    return nullcontext(Path(path))
