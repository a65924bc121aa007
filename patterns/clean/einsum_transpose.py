from graphopt.ir import Value
from graphopt.patterns.clean.einsum import Equation, read_equation
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule


class EinsumTranspose(Rule):
    """An Einsum of one operand that only moves its dimensions.

    Why: rules know what a transpose is, and it meets others.
    Before: Einsum(x, "ijbn->bnij")
    After: Transpose(x, [2, 3, 0, 1])
    Safety: every label stands in the result; no diagonals.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, equation: Attr) -> Expr:
        return op.Einsum(x, equation=equation)

    def where(self, x: Value, equation: str) -> Reason:
        read = read_equation(equation, [x.shape])
        if isinstance(read, str):
            return read
        return not read.summed() or "something is summed"

    def rewrite(self, op: Builder, x: Value, equation: str) -> Value:
        read = read_equation(equation, [x.shape])
        assert isinstance(read, Equation)
        return op.Transpose(x, perm=[read.operands[0].index(label) for label in read.result])
