"""What `fuse` gives back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from graphopt.errors import GraphoptError
from graphopt.ir import Model
from graphopt.ir.save import Saved
from graphopt.pipeline.meanings import count_meanings
from graphopt.rewrite import Trace
from graphopt.verify import Layer, Verdict, Verification


@dataclass(frozen=True)
class Rewrite:
    """One site: the rule, the value it replaced, the values that the nodes it matched wrote.

    `verdict` is that of the regions that the site touched, and `layer` what says so. A site that was `rolled_back`
    changed what the model computes, and is not in it.
    """

    rule: str
    root: str
    nodes: tuple[str, ...]
    verdict: Verdict
    layer: Layer
    rolled_back: bool = False


@dataclass(frozen=True)
class Conviction:
    """A site that was found guilty of a difference at the value `region`, and the `reason` in figures.

    It took `replays` rewrites of the model and runs of `runs` regions; none where the rule was known to be guilty at
    another site. `case` is the folder in which it was kept, `nodes` how many nodes the model in it has, `test` a test
    to paste, which fails; empty where nothing was kept.
    """

    rule: str
    root: str
    region: str
    reason: str
    replays: int
    runs: int
    case: str = ""
    nodes: int = 0
    test: str = ""


@dataclass(frozen=True)
class Result:
    """A fused model and what is known of it.

    `verdict` says what the check found, `errors` what stands against the model and, after that, the rules that
    failed, which stands against none. `output` is the file it was written to, if it was, and `saved` says what else
    belongs to it. `trace` holds what the rules did, `blamed` the sites that were found guilty and taken back,
    `verification` the figures of the check, `seconds` wall times by stage, `assume` the promises about inputs that were
    given.
    """

    model: Model
    source: str
    output: Path | None
    target: str
    verdict: Verdict
    ops_before: Counter[str]
    ops_after: Counter[str]
    rewrites: tuple[Rewrite, ...]
    blamed: tuple[Conviction, ...]
    trace: Trace
    verification: Verification | None
    seconds: dict[str, float]
    assume: tuple[str, ...]
    errors: tuple[GraphoptError, ...]
    saved: Saved | None = None

    @property
    def error(self) -> GraphoptError | None:
        """The first of the errors: what the exit code is about."""
        return next(iter(self.errors), None)

    @property
    def fused(self) -> dict[str, int]:
        """How often each meaning (`Attention`, `Gelu`, ...) stands in the model."""
        return count_meanings(self.ops_after)

    @property
    def rolled_back(self) -> tuple[Rewrite, ...]:
        """The sites that were taken back."""
        return tuple(one for one in self.rewrites if one.rolled_back)

    @property
    def exit_code(self) -> int:
        """That of the command line."""
        return self.error.exit_code if self.error is not None else 0
