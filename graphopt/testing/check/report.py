"""What a check found: figures, and counterexamples as cases ready to paste."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Report:
    """Figures of one check.

    `fired` distinct instances that the rule rewrote, `unproven` those of them whose numbers say nothing (they do not
    run, or are not finite), `declined` those that the rule refused with a reason of its own, by reason; `mutants`
    distinct mutants, `equal` those of them that were rewritten, `not_run` those of these whose numbers say nothing;
    `compared` all pairs whose numbers were compared; `exempt` the generator that is left out, and why.
    """

    rule: str
    fired: int = 0
    declined: Counter[str] = field(default_factory=Counter)
    unproven: int = 0
    mutants: int = 0
    equal: int = 0
    compared: int = 0
    not_run: int = 0
    seconds: float = 0.0
    exempt: tuple[str, str] | None = None

    def __str__(self) -> str:
        text = (
            f"{self.rule}: {self.fired} instances, {self.unproven} unproven, {self.declined.total()} declined;"
            f" {self.mutants} mutants, {self.equal} rewritten, {self.not_run} of which do not run;"
            f" {self.compared} compared; {self.seconds:.2f} s"
        )
        return f"{text}; without '{self.exempt[0]}': {self.exempt[1]}" if self.exempt else text


class Wrong(AssertionError):
    """A counterexample: what is wrong, in words, and the case."""


def case(name: str, text: str, ending: str) -> str:
    """One case of a case file."""
    return f"[case {name}]\n{text.rstrip()}\n{ending.rstrip()}"
