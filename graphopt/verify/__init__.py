"""Verification: whether a rewritten model computes what the original does, and what says so.

Structure first, then regions between cut points, then whole models. `check` is for a candidate that was made from the
original by rewriting, `compare` for any two models, `blame` and `find_guilty` say which rewrite is wrong.
"""

from graphopt.verify.checker import Checker, check
from graphopt.verify.cuts import Region, regions
from graphopt.verify.endtoend import compare
from graphopt.verify.failures.guilt import NOBODY, Blamed, Search, blame, find_guilty, key_of, rulings
from graphopt.verify.results import (
    Comparison,
    Counts,
    Crashed,
    FedInput,
    Layer,
    Options,
    Parting,
    ProviderResult,
    Verdict,
    Verification,
)
from graphopt.verify.runs import check_options

__all__ = [
    "NOBODY",
    "Blamed",
    "Checker",
    "Comparison",
    "Counts",
    "Crashed",
    "FedInput",
    "Layer",
    "Options",
    "Parting",
    "ProviderResult",
    "Region",
    "Search",
    "Verdict",
    "Verification",
    "blame",
    "check",
    "check_options",
    "compare",
    "find_guilty",
    "key_of",
    "regions",
    "rulings",
]
