"""The work as Python functions: load, fuse, verify, inspect, save."""

from graphopt.ir import load, save
from graphopt.pipeline.inspection import Inspection, Port, inspect
from graphopt.pipeline.optimize import Progress
from graphopt.pipeline.rulebook import all_rules, page

__all__ = ["Inspection", "Port", "Progress", "all_rules", "inspect", "load", "page", "save"]
