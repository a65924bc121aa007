"""What is not a pattern: functions, known branches, constant folding, shape chains, dead code, common subexpressions.

A pass is a function of a model that changes it in place, in every scope, and returns the number of changes;
`hold_trained` is a context in which they run.
"""

from graphopt.passes.choose_branches import choose_branches
from graphopt.passes.fold_constants import fold_constants
from graphopt.passes.hold_trained import hold_trained
from graphopt.passes.inline_functions import inline_functions
from graphopt.passes.merge_common import merge_common
from graphopt.passes.remove_dead import remove_dead
from graphopt.passes.simplify_shapes import simplify_shapes
from graphopt.passes.spell_constants import spell_constants

__all__ = [
    "choose_branches",
    "fold_constants",
    "hold_trained",
    "inline_functions",
    "merge_common",
    "remove_dead",
    "simplify_shapes",
    "spell_constants",
]
