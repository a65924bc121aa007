"""The work as Python functions: load, fuse, verify, inspect, save."""

from graphopt.ir import load, save
from graphopt.pipeline.demonstration import Demo, demo
from graphopt.pipeline.fusion import fuse
from graphopt.pipeline.inspection import Inspection, Port, inspect
from graphopt.pipeline.meanings import MEANINGS, count_meanings, count_ops
from graphopt.pipeline.optimize import Progress
from graphopt.pipeline.result import Result, Rewrite
from graphopt.pipeline.rulebook import page
from graphopt.pipeline.verification import error_of, verify
from graphopt.rewrite import all_rules

__all__ = [
    "MEANINGS",
    "Demo",
    "Inspection",
    "Port",
    "Progress",
    "Result",
    "Rewrite",
    "all_rules",
    "count_meanings",
    "count_ops",
    "demo",
    "error_of",
    "fuse",
    "inspect",
    "load",
    "page",
    "save",
    "verify",
]
