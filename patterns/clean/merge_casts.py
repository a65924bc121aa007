from graphopt.ir import Value, dtypes
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule

_WIDER = {
    "bool": "int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 bfloat16 float32 float64",
    "int8": "int16 int32 int64 float16 bfloat16 float32 float64",
    "uint8": "int16 int32 int64 uint16 uint32 uint64 float16 bfloat16 float32 float64",
    "int16": "int32 int64 float32 float64",
    "uint16": "int32 int64 uint32 uint64 float32 float64",
    "int32": "int64 float64",
    "uint32": "int64 uint64 float64",
    "float16": "float32 float64",
    "bfloat16": "float32 float64",
    "float32": "float64",
}


class MergeCasts(Rule):
    """Two Casts, the first of which loses nothing, are the second.

    Why: half-precision exports go up to float32 and back around every operation.
    Before: Cast(Cast(x, to=S), to=T)
    After: Cast(x, to=T)
    Safety: every number of x's type is one of S. float32 to bfloat16 and back is not.
    """

    stage = "clean"
    keeps_inner = True

    def pattern(self, op: Ops, x: Value, between: Attr, to: Attr) -> Expr:
        return op.Cast(op.Cast(x, to=between), to=to)

    def where(self, x: Value, between: int) -> Reason:
        source, target = dtypes.NAMES.get(x.dtype, ""), dtypes.NAMES[between]
        return target in _WIDER.get(source, "").split() or f"{target} does not hold every {source or 'number'}"

    def rewrite(self, op: Builder, x: Value, to: int) -> Value:
        return op.Cast(x, to=to)
