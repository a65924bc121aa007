"""What `fuse` gives back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from graphopt.errors import GraphoptError
from graphopt.ir import Model
from graphopt.pipeline.meanings import count_meanings
from graphopt.rewrite import Trace
from graphopt.verify import Verdict, Verification


@dataclass(frozen=True)
class Rewrite:
    """One site: the rule, the value it replaced, the values that the nodes it matched wrote.

    A site whose verdict is `unequal` changed what the model computes; if the model's is another, it was rolled back.
    """

    rule: str
    root: str
    nodes: tuple[str, ...]
    verdict: Verdict


@dataclass(frozen=True)
class Result:
    """A fused model and what is known of it.

    `verdict` says what the check found, `errors` what stands against the model and, after that, the rules that failed,
    which stands against none. `output` is the file it was written to, if it was. `trace` holds what the rules did,
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
    trace: Trace
    verification: Verification | None
    seconds: dict[str, float]
    assume: tuple[str, ...]
    errors: tuple[GraphoptError, ...]

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
        return tuple(one for one in self.rewrites if one.verdict == "unequal" != self.verdict)

    @property
    def exit_code(self) -> int:
        """That of the command line."""
        return self.error.exit_code if self.error is not None else 0
