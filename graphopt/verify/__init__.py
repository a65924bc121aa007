"""Verification: whether a rewritten model computes what the original does, and what says so.

Structure first, then regions between cut points, then whole models. `check` is for a candidate that was made from the
original by rewriting, `compare` for any two models, `blame` and `find_guilty` say which rewrite is wrong.
"""

from graphopt.verify.checker import Checker, check
from graphopt.verify.cuts import Region, regions
from graphopt.verify.endtoend import compare
from graphopt.verify.guilt import blame, find_guilty, key_of
from graphopt.verify.results import (
    Comparison,
    Counts,
    FedInput,
    Options,
    ProviderResult,
    Verdict,
    Verification,
)

__all__ = [
    "Checker",
    "Comparison",
    "Counts",
    "FedInput",
    "Options",
    "ProviderResult",
    "Region",
    "Verdict",
    "Verification",
    "blame",
    "check",
    "compare",
    "find_guilty",
    "key_of",
    "regions",
]
