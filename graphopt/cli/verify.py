"""`graphopt verify`: numerical equivalence of two models."""

from __future__ import annotations

from typing import Any

import click

from graphopt.cli.options import checking, screen
from graphopt.cli.screen import Screen
from graphopt.errors import GraphoptError, InconclusiveError, RuntimeCrash


@click.command(short_help="Check that two models compute the same.")
@click.argument("reference")
@click.argument("candidate")
@checking
@screen
def verify(screen: Screen, reference: str, candidate: str, dims: tuple[tuple[str, int], ...], **options: Any) -> int:
    """Check that CANDIDATE computes what REFERENCE computes, on inputs that respect what they mean."""
    from graphopt import pipeline
    from graphopt.report import schema
    from graphopt.report.verification import verification

    error: GraphoptError | None
    try:
        found = pipeline.verify(reference, candidate, dims=dict(dims), **options)
        error = pipeline.error_of(found)
    except (InconclusiveError, RuntimeCrash) as raised:
        found, error = pipeline.undecided(raised), raised
    report = schema.verification(found, reference, candidate, error)
    screen.show(report, lambda: verification(found, verbose=screen.verbose))
    return screen.fail(error) if error is not None else 0
