from graphopt.ir import Value, dims
from graphopt.patterns.clean.einsum import Equation, read_equation
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule


class EinsumProduct(Rule):
    """An Einsum that is one batched product of matrices.

    Why: the product is what every later rule knows, and the runtime makes it of an Einsum anyway.
    Before: Einsum(a, b, "bihd,bjhd->bhij")
    After: MatMul(Transpose(a, [0, 2, 1, 3]), Transpose(b, [0, 2, 3, 1])); several labels of one role are one dimension
    Safety: every label is of two operands, or of one operand and the result; no diagonals, no broadcast labels.
    """

    stage = "clean"

    def pattern(self, op: Ops, a: Value, b: Value, equation: Attr) -> Expr:
        return op.Einsum(a, b, equation=equation)

    def where(self, a: Value, b: Value, equation: str) -> Reason:
        read = read_equation(equation, [a.shape, b.shape])
        if isinstance(read, str):
            return read
        summed, terms = read.summed(), read.operands
        if not summed:
            return "nothing is summed"
        return all(label in terms[0] and label in terms[1] for label in summed) or "one operand is summed alone"

    def rewrite(self, op: Builder, a: Value, b: Value, equation: str) -> Value:
        read = read_equation(equation, [a.shape, b.shape])
        assert isinstance(read, Equation)
        (of_a, of_b), result, summed = read.operands, read.result, read.summed()
        if result[-1:] in of_a and result[-1:] not in of_b:
            # The result ends in what comes from the right.
            a, of_a, b, of_b = b, of_b, a, of_a
        batch = "".join(label for label in result if label in of_a and label in of_b)
        left = "".join(label for label in result if label not in of_b)
        right = "".join(label for label in result if label not in of_a)
        outer = _in_front(left, of_a, result)
        left = left[len(outer) :]
        y = op.MatMul(
            _arranged(op, a, of_a, read, (*outer, *batch, left, summed)),
            _arranged(op, b, of_b, read, (*batch, summed, right)),
        )
        order = outer + batch + left + right
        y = op.reshape(y, tuple(read.sizes[label] for label in order)) if len(left) != 1 or len(right) != 1 else y
        return _transposed(op, y, order, result)


def _in_front(left: str, of_a: str, result: str) -> str:
    """The labels that a product broadcasts over: they come first in `a` and in the result, and leave one for rows."""
    count = 0
    while count < len(left) - 1 and of_a[count] == result[count] == left[count]:
        count += 1
    return left[:count]


def _arranged(op: Builder, x: Value, labels: str, read: Equation, roles: tuple[str, ...]) -> Value:
    """`x` with one dimension for each role, which is a string of labels."""
    x = _transposed(op, x, labels, "".join(roles))
    if all(len(role) == 1 for role in roles):
        return x
    return op.reshape(x, tuple(dims.product(read.sizes[label] for label in role) for role in roles))


def _transposed(op: Builder, x: Value, labels: str, wanted: str) -> Value:
    """`x` with its dimensions in the order that is wanted."""
    return x if labels == wanted else op.Transpose(x, perm=[labels.index(label) for label in wanted])
