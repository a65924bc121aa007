from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.lower.products import flags
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, kernel, like


class CastBeforeTranspose(Rule):
    """A Cast between a Transpose and the products that can take the Transpose.

    Why: behind the Cast the kernel reads the transposed operand as it lies.
    Before: Cast(Transpose(x)), read by products only
    After: Transpose(Cast(x))
    Safety: a Cast works element by element. It is moved where the Transpose goes away after it, and no copy is made of
    wider numbers.
    """

    stage = "lower"
    needs = kernel("com.microsoft", "FusedMatMul")
    keeps_inner = True

    def pattern(
        self, op: Ops, x: Annotated[Value, like(dtype=("float32", "float16"))], other: Value, by: Attr, to: Attr
    ) -> Expr:
        cast = op.Cast(op.Transpose(x, perm=by), to=to)
        return op.anchor(op.MatMul(cast, other) | op.MatMul(other, cast), cast)

    def where(self, x: Value, by: list[int] | None, root: Value) -> Reason:
        readers = root.node.graph.consumers(root)
        if not readers or not all(reader.op in ("MatMul", "FusedMatMul") for reader, _ in readers):
            return "it is not for products alone"
        return flags("A", by, x.rank or 0, {}) is not None or "the kernel does not read this permutation"

    def rewrite(self, op: Builder, x: Value, by: list[int] | None, to: int) -> Value:
        return op.Transpose(op.Cast(x, to=to), perm=by)
