"""`graphopt fuse`: recover, fuse, lower; verify; write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from graphopt.cli.beside import beside
from graphopt.cli.options import checking, deciding, only, screen, writing
from graphopt.cli.screen import Screen
from graphopt.cli.signals import stoppable


@click.command(short_help="Recover, fuse, lower; verify; write.")
@click.argument("model")
@click.option("-o", "--output", metavar="PATH", help="Where to write; default: MODEL's stem with .fused.onnx.")
@only
@deciding
@writing
@checking
@screen
def fuse(screen: Screen, model: str, output: str | None, dims: tuple[tuple[str, int], ...], **options: Any) -> int:
    """Rewrite MODEL to what its target runs fastest, check that nothing changed but speed, and write it."""
    from graphopt import pipeline
    from graphopt.report import schema, terminal

    target = Path(output) if output is not None else beside(model, ".fused.onnx")
    screen.refuse_report_at(target)
    with stoppable(target):
        with screen.progress() as progress:
            result = pipeline.fuse(model, target, dims=dict(dims), progress=progress, **options)
        screen.show(schema.fusion(result), lambda: terminal.fusion(result, verbose=screen.verbose))
    return screen.fail(*result.errors)
