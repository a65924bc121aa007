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
        # Weights of attention are larger than the result: they stay as they are where they can.
        order = of_a if _is_arranged(of_a, of_b, summed) else result
        batch = [label for label in order if label in of_a and label in of_b and label not in summed]
        left = [label for label in order if label in of_a and label not in of_b]
        right = "".join(label for label in result if label not in of_a)
        # Rows are one label where there are batches, so that heads stay apart; else all but those that come first.
        first = len(left) - 1 if batch else _in_front(left, of_a, result)
        leading = [label for label in order if label in batch or label in left[:first]]
        rows = "".join(left[max(first, 0) :])
        shared = [label if label in of_b else "" for label in _after(leading, batch)]
        y = op.MatMul(
            _arranged(op, a, of_a, read, (*leading, rows, summed)),
            _arranged(op, b, of_b, read, (*shared, summed, right)),
        )
        found = "".join(leading) + rows + right
        y = op.reshape(y, tuple(read.sizes[label] for label in found)) if len(rows) != 1 or len(right) != 1 else y
        return _transposed(op, y, found, result)


def _is_arranged(of_a: str, of_b: str, summed: str) -> bool:
    """Whether `a` has its batches in front, then labels of its own, and last what is summed."""
    before = of_a.removesuffix(summed)
    own = "".join(label for label in before if label not in of_b)
    return len(before) + len(summed) == len(of_a) and 0 < len(own) < len(before) and before.endswith(own)


def _in_front(left: list[str], of_a: str, result: str) -> int:
    """How many labels of `a` a product broadcasts over: they come first there and in the result, and leave one."""
    count = 0
    while count < len(left) - 1 and of_a[count] == result[count] == left[count]:
        count += 1
    return count


def _after(leading: list[str], batch: list[str]) -> list[str]:
    """The labels from the first that both operands have."""
    return leading[leading.index(batch[0]) :] if batch else []


def _arranged(op: Builder, x: Value, labels: str, read: Equation, roles: tuple[str, ...]) -> Value:
    """`x` with one dimension for each role, which is a string of labels; none is a dimension of size 1."""
    x = _transposed(op, x, labels, "".join(roles))
    if any(len(role) > 1 for role in roles):
        return op.reshape(x, tuple(dims.product(read.sizes[label] for label in role) for role in roles))
    ones = [axis for axis, role in enumerate(roles) if not role]
    return op.Unsqueeze(x, axes=ones) if ones else x


def _transposed(op: Builder, x: Value, labels: str, wanted: str) -> Value:
    """`x` with its dimensions in the order that is wanted."""
    return x if labels == wanted else op.Transpose(x, perm=[labels.index(label) for label in wanted])
