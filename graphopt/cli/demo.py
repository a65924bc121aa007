"""`graphopt demo`: the whole of graphopt on a transformer that needs no download."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

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

    with _folder(keep) if keep is not None else TemporaryDirectory(prefix="graphopt-demo-") as folder:
        with screen.progress() as progress:
            done = pipeline.demo(Path(folder), BertConfig(), progress=progress)
        screen.show(timing_schema.demo(done), lambda: timing.demo(done, verbose=screen.verbose))
    return screen.fail(*done.fusion.errors)


def _folder(path: str) -> AbstractContextManager[str]:
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError("GO028", f"not a folder to write to: {error.strerror}", path) from error
    return nullcontext(path)
