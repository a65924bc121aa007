from graphopt.ir import Value
from graphopt.rewrite import Expr, Ops, Reason, Rule


class RemoveIdentity(Rule):
    """Identity is its operand.

    Why: exporters share parameters and name outputs through Identity nodes, which hide what stands behind them.
    Before: Identity(x)
    After: x
    Safety: an Identity stays where it alone gives a graph output its name.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Identity(x)

    def where(self, x: Value, root: Value) -> Reason:
        return not root.node.graph.needs_identity(root, x) or "it gives a graph output its name"

    def rewrite(self, x: Value) -> Value:
        return x
