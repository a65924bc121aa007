"""The work as Python functions: load, fuse, quantize, verify, inspect, bench, save."""

from graphopt.ir import load, save
from graphopt.pipeline.benchmark import Bench, Series, bench
from graphopt.pipeline.demonstration import Demo, demo
from graphopt.pipeline.explanation import Explanation, NodeReport, RuleReport, explain
from graphopt.pipeline.finding import Found, find
from graphopt.pipeline.fusion import fuse
from graphopt.pipeline.inspection import Inspection, Port, inspect
from graphopt.pipeline.meanings import count_meanings
from graphopt.pipeline.optimize import Progress
from graphopt.pipeline.quantization import quantize
from graphopt.pipeline.quantized import Quantized
from graphopt.pipeline.result import Result, Rewrite
from graphopt.pipeline.rulebook import page, parts
from graphopt.pipeline.verification import error_of, undecided, verify
from graphopt.rewrite import find_rules

__all__ = [
    "Bench",
    "Demo",
    "Explanation",
    "Found",
    "Inspection",
    "NodeReport",
    "Port",
    "Progress",
    "Quantized",
    "Result",
    "Rewrite",
    "RuleReport",
    "Series",
    "bench",
    "count_meanings",
    "demo",
    "error_of",
    "explain",
    "find",
    "find_rules",
    "fuse",
    "inspect",
    "load",
    "page",
    "parts",
    "quantize",
    "save",
    "undecided",
    "verify",
]
