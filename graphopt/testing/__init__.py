"""Testing rules: what a rule makes of a graph, what it leaves alone, and that the numbers stay.

`assert_fuses`, `assert_unchanged` and `assert_equivalent` are for a test beside the rule, `assert_keeps` for a case
that a verification kept. Case files say the same of many spellings:

    rule: GeluErf                          the rule a file is about; after a comma, rules that run beside it

    [case half_last]                       a graph in the text form (graphopt.ir.text) ...
    (x: float32[B, 64]) -> (y) {
      y = Mul(Mul(x, Add(Erf(Div(x, 1.4142135)), 1.0)), 0.5)
    }
    [out]                                  ... and what becomes of it: statements, or a whole graph
    y = Gelu(x)

    [case half_first]                      another spelling of the same
    (x: float32[B, 64]) -> (y) {
      y = Mul(Mul(x, 0.5), Add(Erf(Div(x, 1.4142135)), 1.0))
    }
    [out of half_last]

    [case another_divisor]                 a graph that the rule must leave alone; optionally, part of its reason
    (x: float32[B, 64]) -> (y) {
      y = Mul(Mul(x, Add(Erf(Div(x, 1.5)), 1.0)), 0.5)
    }
    [unchanged] 1.5

Graphs are compared in the form `to_text(names=False)`, with `data()` for any numbers; before and after are run on
random inputs. Lines of `key: value`, under `rule:` for the file or under `[case]` for one case, say how:

    target: ort-cpu          the target that the rules see (none: one that has every kernel)
    opset: 17                of graphs without an opset line (20)
    keep-opset: yes          the opset must stay as it is
    assume: no-empty-rows    what the user promises of the inputs
    plan: static smooth      what is quantized, and how (graphopt.testing.plans); the numbers may differ by its rounding
    dim N: 16                the size of a dimension (else several are run)
    feed ids: 0..31          the range of an input (else floats are normal, integers 0 or 1)
    no-run: why              the graph cannot be run

Every name below is imported where it is first used: pytest loads the plug-in of this package wherever it runs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphopt.testing.assertions import assert_equivalent, assert_fuses, assert_keeps, assert_unchanged
    from graphopt.testing.cases import Case, parse_cases, update_cases
    from graphopt.testing.check import check_rule
    from graphopt.testing.run import Outcome, run_case

__all__ = [
    "Case",
    "Outcome",
    "assert_equivalent",
    "assert_fuses",
    "assert_keeps",
    "assert_unchanged",
    "check_rule",
    "parse_cases",
    "run_case",
    "update_cases",
]

_HOME = {
    **dict.fromkeys(["assert_equivalent", "assert_fuses", "assert_keeps", "assert_unchanged"], "assertions"),
    **dict.fromkeys(["Case", "parse_cases", "update_cases"], "cases"),
    "check_rule": "check",
    **dict.fromkeys(["Outcome", "run_case"], "run"),
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'graphopt.testing' has no attribute {name!r}")
    return getattr(import_module(f"graphopt.testing.{_HOME[name]}"), name)
