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
    """One site: the rule, the value it replaced, the values its nodes wrote; `unequal` if it was rolled back."""

    rule: str
    root: str
    nodes: tuple[str, ...]
    verdict: Verdict


@dataclass(frozen=True)
class Result:
    """A fused model and what is known of it.

    `model` is the rewritten model, `output` the file it was written to (None: not written), `verdict` says what was
    found when it was checked and `reason` why it is not equal. `seconds` are wall times by stage.
    """

    model: Model
    source: str
    output: Path | None
    target: str
    verdict: Verdict
    reason: str
    ops_before: Counter[str]
    ops_after: Counter[str]
    rewrites: tuple[Rewrite, ...]
    trace: Trace
    verification: Verification | None
    assumed: tuple[str, ...]
    seconds: dict[str, float]
    error: GraphoptError | None

    @property
    def fused(self) -> dict[str, int]:
        """How often each meaning (`Attention`, `Gelu`, ...) stands in the model."""
        return count_meanings(self.ops_after)

    @property
    def rolled_back(self) -> tuple[Rewrite, ...]:
        """The sites that changed what the model computes, and are not in it any more."""
        return tuple(rewrite for rewrite in self.rewrites if rewrite.verdict == "unequal")

    @property
    def exit_code(self) -> int:
        """That of the command line."""
        return self.error.exit_code if self.error is not None else 0
