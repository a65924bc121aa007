from graphopt.ir import Value
from graphopt.patterns.clean.einsum import Equation, read_equation
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule


class EinsumOuter(Rule):
    """An Einsum that sums nothing: a product element by element.

    Why: rules know products; an outer product is how tables of angles are made.
    Before: Einsum(a, b, "i,j->ij")
    After: Unsqueeze(a, [1]) · Unsqueeze(b, [0])
    Safety: every label stands in the result; no diagonals, no broadcast labels.
    """

    stage = "clean"

    def pattern(self, op: Ops, a: Value, b: Value, equation: Attr) -> Expr:
        return op.Einsum(a, b, equation=equation)

    def where(self, a: Value, b: Value, equation: str) -> Reason:
        read = read_equation(equation, [a.shape, b.shape])
        if isinstance(read, str):
            return read
        return not read.summed() or "something is summed"

    def rewrite(self, op: Builder, a: Value, b: Value, equation: str) -> Value:
        read = read_equation(equation, [a.shape, b.shape])
        assert isinstance(read, Equation)
        return op.Mul(*(_spread(op, x, term, read.result) for x, term in zip((a, b), read.operands, strict=True)))


def _spread(op: Builder, x: Value, labels: str, result: str) -> Value:
    """`x` with a dimension for each label of the result, 1 for those it does not have."""
    own = [label for label in result if label in labels]
    if own != list(labels):
        x = op.Transpose(x, perm=[labels.index(label) for label in own])
    missing = [axis for axis, label in enumerate(result) if label not in labels]
    return op.Unsqueeze(x, axes=missing) if missing else x
