"""Operators that work element by element, with broadcasting."""

from __future__ import annotations

import functools
from collections.abc import Callable

import onnx

from graphopt.ir import dims, dtypes
from graphopt.ir.dims import Size
from graphopt.ir.inference import contents, sizes
from graphopt.ir.inference.contents import combine, truth
from graphopt.ir.inference.outs import Inference, Out, Outs, Table, operand, same, shape_of
from graphopt.ir.inference.sizes import Part
from graphopt.ir.node import Node
from graphopt.ir.operands import known_content

# Older operators broadcast the second input into the first only.
_NUMPY_BROADCASTING = 7

_Combine = Callable[[Size, Size], Part]


def identity(node: Node) -> Outs:
    value = operand(node, 0)
    return [Out(value.dtype, value.shape, known_content(value))]


def cast(node: Node) -> Outs:
    value = operand(node, 0)
    dtype = node.attr("to", 0)
    if not isinstance(dtype, int):  # a name, before opset 6
        dtype = onnx.TensorProto.DataType.Value(dtype)
    return [Out(dtype, value.shape, contents.cast(known_content(value), dtype))]


def cast_like(node: Node) -> Outs:
    value, dtype = operand(node, 0), operand(node, 1).dtype
    return [Out(dtype, value.shape, contents.cast(known_content(value), dtype))]


def test(node: Node) -> Outs:
    """IsNaN, IsInf"""
    return [Out(dtypes.BOOL, operand(node, 0).shape)]


def unary(function: Callable[[Size], Part]) -> Inference:
    """Elements are followed through `function`."""

    def infer(node: Node) -> Outs:
        value = operand(node, 0)
        return [Out(value.dtype, value.shape, combine(function, known_content(value)))]

    return infer


def broadcast(node: Node) -> Outs:
    """The first input's element type, all inputs' broadcast shape."""
    if node.version < _NUMPY_BROADCASTING:
        return same(node)
    shape = sizes.broadcast(*(shape_of(node, slot) for slot in range(node.arity)))
    return [Out(operand(node, 0).dtype, shape)]


def followed(function: _Combine, dtype: int = 0) -> Inference:
    """`broadcast`, with elements followed through `function`; `dtype` of the output if it is not the input's."""

    def infer(node: Node) -> Outs:
        if node.version < _NUMPY_BROADCASTING:
            return [Out(dtype or operand(node, 0).dtype, operand(node, 0).shape)]
        inputs = [operand(node, slot) for slot in range(node.arity)]
        shape = sizes.broadcast(*(value.shape for value in inputs))
        found = known_content(inputs[0])
        for value in inputs[1:]:
            if found is None:
                break
            found = combine(function, found, known_content(value))
        return [Out(dtype or inputs[0].dtype, shape, found)]

    return infer


def compared(function: Callable[[Size, Size], bool | None]) -> Inference:
    """A comparison: boolean, decided where all sizes agree on the answer."""
    return followed(lambda a, b: truth(function(a, b)), dtypes.BOOL)


def mod(node: Node) -> Outs:
    return (followed(_remainder) if node.attr("fmod", 0) == 0 else broadcast)(node)


def where(node: Node) -> Outs:
    condition, yes, no = (operand(node, slot) for slot in range(3))
    content = combine(_choose, known_content(condition), known_content(yes), known_content(no))
    return [Out(yes.dtype or no.dtype, sizes.broadcast(condition.shape, yes.shape, no.shape), content)]


def dropout(node: Node) -> Outs:
    value = operand(node, 0)
    # Before opset 10 the mask has the type of the data.
    return [Out(value.dtype, value.shape), Out(dtypes.BOOL if node.version >= 10 else value.dtype, value.shape)]


def quantize(node: Node) -> Outs:
    dtype = node.attr("output_dtype", 0)
    zero_point = node.input(2)
    if zero_point is not None:
        dtype = zero_point.dtype
    return [Out(dtype or dtypes.NUMBERS["uint8"], operand(node, 0).shape)]


def dequantize(node: Node) -> Outs:
    return [Out(node.attr("output_dtype", 0) or operand(node, 1).dtype, operand(node, 0).shape)]


def _remainder(a: Size, b: Size) -> Part:
    if isinstance(a, int) and isinstance(b, int) and b:
        return a % b
    if b != 0 and dims.divide(a, b) is not None:
        return 0
    whole = sizes.quotient(a, b) if sizes.nonnegative(a) and sizes.positive(b) else None
    return None if whole is None else dims.sub(a, dims.mul(b, whole))


def _choose(condition: Size, yes: Size, no: Size) -> Part:
    if yes == no:
        return yes
    return (yes if condition else no) if isinstance(condition, int) else None


def _less_or_equal(a: Size, b: Size) -> bool | None:
    answer = sizes.less(b, a)
    return None if answer is None else not answer


def _maximum(a: Size, b: Size) -> Part:
    smaller = sizes.less(a, b)
    return None if smaller is None else b if smaller else a


def _both(a: Size, b: Size) -> Part:
    return 0 if a == 0 or b == 0 else 1


def _either(a: Size, b: Size) -> Part:
    return 1 if a == 1 or b == 1 else 0


def _absolute(a: Size) -> Part:
    return a if sizes.nonnegative(a) else abs(a) if isinstance(a, int) else None


_SAME = (
    "Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Clip Cos Cosh CumProd CumSum Elu Erf Exp Floor Gelu "
    "HardSigmoid HardSwish Hardmax LeakyRelu Log LogSoftmax LpNormalization MeanVarianceNormalization Mish PRelu "
    "Reciprocal Relu ReverseSequence Round Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Swish "
    "Tan Tanh ThresholdedRelu Trilu GroupNormalization InstanceNormalization LRN ScatterElements ScatterND Scatter "
    "TensorScatter RotaryEmbedding"
)
_CONTRIB_SAME = "BiasGelu FastGelu Gelu QuickGelu RotaryEmbedding"
_BROADCAST = "BitShift BitwiseAnd BitwiseOr BitwiseXor Mean Pow Sum"

TABLE: Table = {
    **{("", op): same for op in _SAME.split()},
    **{("com.microsoft", op): same for op in _CONTRIB_SAME.split()},
    **{("", op): broadcast for op in _BROADCAST.split()},
    ("", "Abs"): unary(_absolute),
    ("", "Add"): followed(dims.add),
    ("", "And"): followed(_both),
    ("", "Cast"): cast,
    ("", "CastLike"): cast_like,
    ("", "DequantizeLinear"): dequantize,
    ("com.microsoft", "DequantizeLinear"): dequantize,
    ("", "Div"): followed(sizes.quotient),
    ("", "Dropout"): dropout,
    ("", "Equal"): compared(sizes.equal),
    ("", "Greater"): compared(lambda a, b: sizes.less(b, a)),
    ("", "GreaterOrEqual"): compared(lambda a, b: _less_or_equal(b, a)),
    ("", "Identity"): identity,
    ("", "IsInf"): test,
    ("", "IsNaN"): test,
    ("", "Less"): compared(sizes.less),
    ("", "LessOrEqual"): compared(_less_or_equal),
    ("", "Max"): followed(_maximum),
    ("", "Min"): followed(sizes.minimum),
    ("", "Mod"): mod,
    ("", "Mul"): followed(dims.mul),
    ("", "Neg"): unary(functools.partial(dims.mul, -1)),
    ("", "Not"): unary(contents.opposite),
    ("", "Or"): followed(_either),
    ("", "QuantizeLinear"): quantize,
    ("com.microsoft", "QuantizeLinear"): quantize,
    ("", "Sub"): followed(dims.sub),
    ("", "Where"): where,
    ("", "Xor"): followed(lambda a, b: truth(a != b), dtypes.BOOL),
}
