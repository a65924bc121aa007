"""What is not a pattern: functions, known branches, constant folding, shape chains, dead code, common subexpressions.

A pass is a function of a model that changes it in place, in every scope, and returns the number of changes.
"""

from graphopt.passes.choose_branches import choose_branches
from graphopt.passes.fold_constants import fold_constants
from graphopt.passes.inline_functions import inline_functions
from graphopt.passes.merge_common import merge_common
from graphopt.passes.remove_dead import remove_dead
from graphopt.passes.simplify_shapes import simplify_shapes

__all__ = [
    "choose_branches",
    "fold_constants",
    "inline_functions",
    "merge_common",
    "remove_dead",
    "simplify_shapes",
]
