"""What inference says of single operators: of every form of their operands, and of nodes that are malformed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graphopt.ir import Model, Node, Tensor, Value, dims, dtypes, model_from_proto
from graphopt.ir.dims import Size
from graphopt.ir.infer import _TABLE, infer, infer_node
from graphopt.ir.inference import fallback
from graphopt.ir.schema import signature

B, S, T, P = (dims.symbol(name) for name in "BSTP")
Shape = tuple[Size, ...]
MS = "com.microsoft"

NO: Any = object()


def node_of(
    op: str, *shapes: Any, outputs: int = 4, domain: str = "", version: int | None = None, **attrs: Any
) -> Node:
    """A node with operands of these shapes: None where that is not known, NO for an empty slot."""
    graph = Model.empty(23).graph
    graph.import_domain(MS)
    values = [
        None if shape is NO else graph.add_input(f"x{slot}", dtypes.FLOAT, shape) for slot, shape in enumerate(shapes)
    ]
    node = graph.add_op(op, values, attrs, domain=domain, version=version, outputs=outputs)
    infer_node(node)
    return node


def shown(value: Value) -> tuple[Any, ...] | None:
    """Its shape, None for each dimension that nobody knows."""
    if value.shape is None:
        return None
    return tuple(None if str(size).startswith("?") else size for size in value.shape)


def shapes_of(node: Node, count: int) -> list[tuple[Any, ...] | None]:
    return [shown(value) for value in node.outputs[:count]]


# ---- attention ----------------------------------------------------------------------------------------------------

Q, K, V = (B, 4, S, 8), (B, 2, T, 8), (B, 2, T, 16)
CACHE = (B, 2, P, 8)


@pytest.mark.parametrize(
    ("operands", "attrs", "wanted"),
    [
        ((Q, K, V), {}, [(B, 4, S, 16), K, V, (B, 4, S, T)]),
        (
            (Q, K, V, NO, CACHE, (B, 2, P, 16)),
            {},
            [(B, 4, S, 16), (B, 2, dims.add(P, T), 8), (B, 2, dims.add(P, T), 16), (B, 4, S, dims.add(P, T))],
        ),
        (
            ((B, S, 32), (B, T, 16), (B, T, 32)),
            {"q_num_heads": 4, "kv_num_heads": 2},
            [(B, S, 64), (B, 2, T, 8), (B, 2, T, 16), (B, 4, S, T)],
        ),
        ((None, K, V), {}, [None, K, V, (None, None, None, T)]),
        ((Q, K, V, NO, None, None), {}, [(B, 4, S, 16), (B, 2, None, 8), (B, 2, None, 16), (B, 4, S, None)]),
    ],
)
def test_attention(operands: tuple[Shape | None, ...], attrs: dict[str, int], wanted: list[Any]) -> None:
    assert shapes_of(node_of("Attention", *operands, **attrs), 4) == wanted


@pytest.mark.parametrize(
    ("operands", "wanted"),
    [
        (((B, S, 32), (B, T, 32), (B, T, 64)), [(B, S, 64), (B, 4, T, 8), (B, 4, T, 16), (B, 4, S, T)]),
        (((B, S, 4, 3, 8),), [(B, S, 32), (B, 4, S, 8), (B, 4, S, 8)]),
        (((B, S, 32), (B, T, 4, 2, 8)), [(B, S, 32), (B, 4, T, 8), (B, 4, T, 8), (B, 4, S, T)]),
        (((B, S, 32), (B, 4, T, 8), (B, 4, T, 16)), [(B, S, 64), (B, 4, T, 8), (B, 4, T, 16), (B, 4, S, T)]),
        (((B, S, 32), None, None), [(B, S, None), (None,) * 4, (None,) * 4, (B, 4, S, None)]),
        ((None, (B, T, 32), (B, T, 32)), [(None,) * 3]),
        (
            ((B, S, 32), (B, S, 32), (B, S, 32), NO, NO, NO, (B, 4, P, 8), (B, 4, P, 8)),
            [(B, S, 32), (B, 4, dims.add(P, S), 8), (B, 4, dims.add(P, S), 8), (B, 4, S, dims.add(P, S))],
        ),
    ],
)
def test_multi_head_attention(operands: tuple[Shape | None, ...], wanted: list[Any]) -> None:
    node = node_of("MultiHeadAttention", *operands, domain=MS, num_heads=4)
    assert shapes_of(node, len(wanted)) == wanted


@pytest.mark.parametrize(
    ("operands", "attrs", "wanted"),
    [
        (((B, S, 32), (32, 96)), {}, [(B, S, 32), (2, B, 4, S, 8)]),
        (((B, S, 32), (32, 128)), {"qkv_hidden_sizes": [32, 32, 64]}, [(B, S, 64), (2, B, 4, S, 16)]),
        (((B, S, 32), (32, 96), NO, NO, (2, B, 4, P, 8)), {}, [(B, S, 32), (2, B, 4, dims.add(P, S), 8)]),
        (((B, S, 32), (32, 96), NO, NO, None), {}, [(B, S, 32), (2, B, 4, None, 8)]),
        (((B, S, 32), None), {}, [(B, S, None), (2, B, 4, S, None)]),
        ((None, (32, 96)), {}, [(None,) * 3]),
    ],
)
def test_packed_attention(operands: tuple[Shape | None, ...], attrs: dict[str, Any], wanted: list[Any]) -> None:
    node = node_of("Attention", *operands, domain=MS, num_heads=4, **attrs)
    assert shapes_of(node, len(wanted)) == wanted


def test_embeddings_and_their_normalization() -> None:
    node = node_of("EmbedLayerNormalization", (B, S), NO, (100, 32), domain=MS)
    assert shapes_of(node, 3) == [(B, S, 32), (B,), (B, S, 32)]
    assert [value.dtype for value in node.outputs[:3]] == [dtypes.FLOAT, dtypes.INT32, dtypes.FLOAT]
    assert shapes_of(node_of("EmbedLayerNormalization", None, NO, (100, 32), domain=MS), 2) == [(None,) * 3, (None,)]


# ---- products -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "operands", "attrs", "wanted"),
    [
        ("MatMulInteger", ((B, S, 8), (8, 4)), {}, (B, S, 4)),
        ("QLinearMatMul", ((B, S, 8), NO, NO, (8, 4)), {}, (B, S, 4)),
        ("Gemm", ((S, 8), (8, 4)), {}, (S, 4)),
        ("Gemm", ((8, S), (4, 8)), {"transA": 1, "transB": 1}, (S, 4)),
        ("Gemm", (None, (8, 4)), {}, (None, 4)),
        ("MatMul", ((8,), (B, 8, 4)), {}, (B, 4)),
        ("MatMul", ((B, S, 8), (8,)), {}, (B, S)),
        ("MatMul", ((8,), (8,)), {}, ()),
        ("MatMul", ((2, S, 8), None), {}, None),
        ("Einsum", ((B, S, 8), (8, 4)), {"equation": "bsk, kn -> nsb"}, (4, S, B)),
        ("Einsum", ((3, 8), (8, 4)), {"equation": "ik,kj"}, (3, 4)),
        ("Einsum", ((3, 3),), {"equation": "ii->i"}, (3,)),
        ("Einsum", ((B, S, 8), None), {"equation": "bsk,kn->nsb"}, (None, S, B)),
        ("Einsum", ((B, S, 8), None), {"equation": "bsk,kn"}, None),
    ],
)
def test_products(op: str, operands: tuple[Shape | None, ...], attrs: dict[str, Any], wanted: Any) -> None:
    assert shown(node_of(op, *operands, **attrs).output) == wanted


@pytest.mark.parametrize(
    ("op", "operands", "attrs", "wanted"),
    [
        ("FusedMatMul", ((B, 8, S), (B, 4, 8)), {"transA": 1, "transB": 1}, (B, S, 4)),
        ("FusedMatMul", ((S, B, 8), (B, 8, 4)), {"transBatchA": 1}, (B, S, 4)),
        ("FusedMatMul", ((8,), (8, 4)), {"transA": 1}, (4,)),
        ("MatMulNBits", ((B, S, 8),), {"N": 4}, (B, S, 4)),
        ("MatMulNBits", (None,), {"N": 4}, None),
        ("MatMulIntegerToFloat", ((B, S, 8), (8, 4), (1,)), {}, (B, S, 4)),
        ("SkipLayerNormalization", ((B, S, 8), (B, S, 8)), {}, (B, S, 8)),
    ],
)
def test_contrib_products(op: str, operands: tuple[Shape | None, ...], attrs: dict[str, Any], wanted: Any) -> None:
    assert shown(node_of(op, *operands, domain=MS, **attrs).output) == wanted


# ---- elements that are followed -----------------------------------------------------------------------------------


def followed(op: str, *contents: tuple[Size, ...] | int, dtype: int = dtypes.INT64, **attrs: Any) -> Any:
    """The elements of what `op` makes of vectors with these elements (a number: of a scalar)."""
    graph = Model.empty(20).graph
    values = []
    for slot, content in enumerate(contents):
        value = graph.add_input(f"x{slot}", dtype, () if isinstance(content, int) else (len(content),))
        graph.set_content(value, (content,) if isinstance(content, int) else content)
        values.append(value)
    node = graph.add_op(op, values, attrs)
    infer_node(node)
    return node.output.content


@pytest.mark.parametrize(
    ("op", "operands", "wanted"),
    [
        ("Abs", ((-3, S),), (3, S)),
        ("Abs", ((dims.sub(S, 1),),), None),
        ("Neg", ((3, S),), (-3, dims.mul(S, -1))),
        ("Mod", ((7, dims.mul(S, 4)), (4, 4)), (3, 0)),
        ("Mod", ((S,), (4,)), (dims.sub(S, dims.mul(dims.floordiv(S, 4), 4)),)),
        ("Mod", ((7,), (0,)), None),
        ("Max", ((3, S), (5, dims.add(S, 1))), (5, dims.add(S, 1))),
        ("Max", ((dims.add(S, 1),), (S,)), (dims.add(S, 1),)),
        ("Max", ((S,), (T,)), None),
        ("Min", ((3, S), (5, dims.add(S, 1))), (3, S)),
        ("And", ((0, 1, 1), (1, 0, 1)), (0, 0, 1)),
        ("Or", ((0, 1, 0), (1, 0, 0)), (1, 1, 0)),
        ("Xor", ((0, 1, 0), (1, 1, 0)), (1, 0, 0)),
        ("Not", ((0, 1),), (1, 0)),
        ("LessOrEqual", ((S, 3), (S, 2)), (1, 0)),
        ("GreaterOrEqual", ((S, 3), (S, 4)), (1, 0)),
        ("Greater", ((dims.add(S, 1), 3), (S, 3)), (1, 0)),
        ("Where", ((1, 0), (S, 7), (T, 8)), (S, 8)),
        ("Where", ((T,), (S,), (S,)), (S,)),
        ("Where", ((T,), (S,), (B,)), None),
        ("Gather", ((S, 7, T), (2, -1)), (T, T)),
        ("Gather", ((S, 7, T), (3,)), None),
        ("Gather", ((S, 7, T), 1), (7,)),
        ("Add", ((1, 2, 3), (1, 2)), None),
        ("Range", (2, 9, 3), (2, 5, 8)),
        ("Range", (3, 0, -1), (3, 2, 1)),
        ("Range", (0, 3, 0), None),
        ("ReduceProd", ((S, 4),), (dims.mul(S, 4),)),
        ("ReduceSum", ((S, 4),), (dims.add(S, 4),)),
        ("ReduceMax", ((3, 4),), None),
        ("Tile", ((S, 4), (2,)), (S, 4, S, 4)),
        ("Tile", ((S, 4), (40,)), None),
    ],
)
def test_elements(op: str, operands: tuple[Any, ...], wanted: Any) -> None:
    assert followed(op, *operands) == wanted


@pytest.mark.parametrize(
    ("dtype", "to", "content", "wanted"),
    [
        (dtypes.INT64, dtypes.INT32, (S, -5), (S, -5)),
        (dtypes.INT64, dtypes.INT32, (1 << 31,), None),
        (dtypes.INT64, dtypes.INT32, ((1 << 31) - 1, -(1 << 31)), ((1 << 31) - 1, -(1 << 31))),
        (dtypes.INT64, dtypes.NUMBERS["uint8"], (255,), (255,)),
        (dtypes.INT64, dtypes.NUMBERS["uint8"], (256,), None),
        (dtypes.INT64, dtypes.NUMBERS["uint8"], (-1,), None),
        (dtypes.INT64, dtypes.NUMBERS["int8"], (S,), None),
        (dtypes.INT64, dtypes.BOOL, (0, 7, -1), (0, 1, 1)),
        (dtypes.INT64, dtypes.BOOL, (S,), None),
        (dtypes.INT64, dtypes.FLOAT, (1,), None),
    ],
)
def test_elements_after_a_cast(dtype: int, to: int, content: tuple[Size, ...], wanted: Any) -> None:
    assert followed("Cast", content, dtype=dtype, to=to) == wanted


def test_a_cast_before_opset_6_names_its_type() -> None:
    node = node_of("Cast", (S,), version=1, to="FLOAT16")
    assert (node.output.dtype, node.output.shape) == (dtypes.FLOAT16, (S,))


@pytest.mark.parametrize(("op", "dtype"), [("Mul", dtypes.FLOAT), ("Equal", dtypes.BOOL), ("Pow", dtypes.FLOAT)])
def test_before_opset_7_the_first_operand_says_the_shape(op: str, dtype: int) -> None:
    node = node_of(op, (2, 3), (5, 2, 3), version=6, broadcast=1)
    assert (node.output.dtype, node.output.shape) == (dtype, (2, 3))


@pytest.mark.parametrize(
    ("numbers", "count"),
    [((0.0, 1.0, 0.25), 4), ((1.0, 0.0, 0.5), 0), ((0.0, 1.0, 0.0), None), ((0.0, np.inf, 1.0), None)],
)
def test_a_range_of_fractions(numbers: tuple[float, ...], count: int | None) -> None:
    graph = Model.empty(20).graph
    node = graph.add_op("Range", [graph.add_constant(np.float32(number)) for number in numbers])
    infer_node(node)
    assert shown(node.output) == (count,)


def test_a_range_of_a_size() -> None:
    graph = Model.empty(20).graph
    start, limit, delta = (graph.add_input(name, dtypes.INT64, ()) for name in "abc")
    for value, size in ((start, 0), (limit, S)):
        graph.set_content(value, (size,))
    for step, wanted in ((1, S), (3, dims.floordiv(dims.add(S, 2), 3)), (-1, dims.symbol("max(-1*S,0)")), (-2, None)):
        graph.set_content(delta, (step,))
        node = graph.add_op("Range", [start, limit, delta])
        infer_node(node)
        assert shown(node.output) == (wanted,)


# ---- pieces -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "operands", "attrs", "wanted"),
    [
        ("Gather", (None, (S,)), {}, None),
        ("Gather", ((B, 7), (S, 3)), {"axis": -1}, (B, S, 3)),
        ("GatherElements", ((B, 7), (S, 3)), {}, (S, 3)),
        ("GatherND", ((B, S, 7), (T, 2)), {}, (T, 7)),
        ("GatherND", ((B, S, 7), (B, T, 1)), {"batch_dims": 1}, (B, T, 7)),
        ("GatherND", ((B, S, 7), (T, S)), {}, None),
        ("ArgMax", ((B, S, 7),), {"axis": 1}, (B, 1, 7)),
        ("ArgMin", ((B, S, 7),), {"axis": -1, "keepdims": 0}, (B, S)),
        ("ArgMax", (None,), {}, None),
        ("NonZero", ((B, S),), {}, (2, None)),
        ("Flatten", ((B, S, 7),), {"axis": 2}, (dims.mul(B, S), 7)),
        ("Flatten", ((B, S, 7),), {"axis": -1}, (dims.mul(B, S), 7)),
        ("Flatten", (None,), {}, (None, None)),
        ("Transpose", (None,), {"perm": [1, 0]}, (None, None)),
        ("Transpose", ((B, S, 7),), {}, (7, S, B)),
        ("Concat", ((B, S), (B, T)), {"axis": -1}, (B, dims.add(S, T))),
        ("Concat", ((B, S), None), {"axis": 1}, (B, None)),
        ("Concat", (None, None), {"axis": 1}, None),
        ("BatchNormalization", ((B, 3, S), (3,), (3,), (3,), (3,)), {}, (B, 3, S)),
        ("RMSNormalization", ((B, S, 8), (8,)), {}, (B, S, 8)),
    ],
)
def test_shapes(op: str, operands: tuple[Shape | None, ...], attrs: dict[str, Any], wanted: Any) -> None:
    assert shown(node_of(op, *operands, outputs=1, **attrs).output) == wanted


@pytest.mark.parametrize(
    ("op", "attrs", "wanted"),
    [
        ("Squeeze", {"axes": [0, -1]}, (S,)),
        ("Unsqueeze", {"axes": [0, -1]}, (1, 1, S, 1, 1)),
        ("Reshape", {"shape": [0, -1]}, (1, S)),
        ("Pad", {"pads": [0, 1, 0, 0, 2, 0]}, (1, dims.add(S, 3), 1)),
        ("Pad", {"pads": [0, -1, 0, 0, -2, 0]}, (1, dims.symbol("max(-3 + S,0)"), 1)),
        ("Slice", {"starts": [1], "ends": [-1], "axes": [1]}, (1, dims.symbol("max(-2 + S,0)"), 1)),
        ("TopK", {"k": 3, "axis": 1}, (1, 3, 1)),
        ("Split", {"split": [1], "axis": 2}, (1, S, 1)),
    ],
)
def test_what_old_opsets_write_as_attributes(op: str, attrs: dict[str, Any], wanted: Shape) -> None:
    assert node_of(op, (1, S, 1), version=1, outputs=1, **attrs).output.shape == wanted


# ---- scopes -------------------------------------------------------------------------------------------------------


def scan(shape: list[Any], *, scanned: int = 1, axes: list[Any] | None = None, out: int = 0) -> Model:
    value = helper.make_tensor_value_info
    infos = [value("a", TensorProto.FLOAT, None)], [value("b", TensorProto.FLOAT, None)]
    body = helper.make_graph([helper.make_node("Exp", ["a"], ["b"])], "body", *infos)
    attrs = {"num_scan_inputs": scanned, "scan_output_axes": [out], **({"scan_input_axes": axes} if axes else {})}
    node = helper.make_node("Scan", ["x"], ["y"], body=body, **attrs)
    inputs, outputs = [value("x", TensorProto.FLOAT, shape)], [value("y", TensorProto.FLOAT, None)]
    proto = helper.make_model(
        helper.make_graph([node], "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 20)]
    )
    model = model_from_proto(proto)
    infer(model)
    return model


def test_what_a_scan_collects() -> None:
    assert scan([3, 4, 5]).graph.outputs[0].shape == (3, 4, 5)
    assert scan([3, 4, 5], axes=[1]).graph.outputs[0].shape == (4, 3, 5)
    assert scan([3, 4, 5], axes=[1], out=-1).graph.outputs[0].shape == (3, 5, 4)


@pytest.mark.parametrize(
    ("shape", "scanned", "axes"), [([], 1, None), ([3], 1, [5]), ([3], 5, None), ([3], -1, None), ([3], 1, ["a"])]
)
def test_a_malformed_scan_tells_nothing(shape: list[Any], scanned: int, axes: list[Any] | None) -> None:
    assert scan(shape, scanned=scanned, axes=axes).graph.outputs[0].dtype in (0, dtypes.FLOAT)


WRONG: tuple[Any, ...] = (
    *(-1, 7, 1.5, "x", b"\xff", [], [-9, 3], [1.5], ["x"], [0, 0]),
    *(Tensor.of([1.0]), Tensor.of(np.array(["x"], object)), onnx.TypeProto()),
)


@pytest.mark.parametrize("domain", sorted({domain for domain, _ in _TABLE}))
def test_a_malformed_node_raises_nothing(domain: str) -> None:
    """Any operator, with any of its attributes of any type, and operands of a shape that it does not expect."""
    tried = 0
    for op in sorted(op for place, op in _TABLE if place == domain):
        known = (signature(domain, op, version) for version in (1, 5, 11, 20))
        for name in sorted({name for one in known if one is not None for name in one.attributes}):
            for value in WRONG:
                for shape in ((), (S, 4)):
                    graph = Model.empty(20).graph
                    values = [graph.add_input(f"x{slot}", dtypes.FLOAT, shape) for slot in range(2)]
                    infer_node(graph.add_op(op, values, {name: value}, domain=domain, version=1, outputs=2))
                    tried += 1
    assert tried or domain == "ir"


# ---- what onnx says of the rest -----------------------------------------------------------------------------------


def test_an_operator_that_only_onnx_knows() -> None:
    node = node_of("MaxPool", (B, 3, 8, 8), outputs=1, kernel_shape=[2, 2], strides=[2, 2])
    assert (node.output.dtype, node.output.shape) == (dtypes.FLOAT, (B, 3, 4, 4))
    node = node_of("FusedConv", (B, 3, 8, 8), (5, 3, 3, 3), outputs=1, domain=MS)
    assert node.output.shape == (B, 5, 6, 6)


def test_elements_are_told_to_onnx() -> None:
    graph = Model.empty(20).graph
    x = graph.add_input("x", dtypes.FLOAT, (1, 1, 4, 4))
    sizes = graph.add_input("sizes", dtypes.INT64, (4,))
    graph.set_content(sizes, (1, 1, 8, 12))
    node = graph.add_op("Resize", [x, None, None, sizes])
    infer_node(node)
    assert node.output.shape == (1, 1, 8, 12)


def test_why_onnx_refuses_a_node() -> None:
    assert "size 4 not in range" in fallback.refusal(node_of("Compress", (B, S), (S,), axis=1))
    assert "axis" in fallback.refusal(node_of("Compress", (B, S), (S,), outputs=1, axis=5))
    assert fallback.refusal(node_of("MaxPool", (B, 3, 8, 8), outputs=1, kernel_shape=[2, 2])) == ""
    assert fallback.refusal(node_of("NoSuchOperator", (B,))) == ""
    assert fallback.refusal(node_of("MaxPool", (B, 3, 8, 8), outputs=1, kernel_shape=object())) == ""


def test_a_shape_of_another_rank_takes_nothing_from_what_was_known() -> None:
    graph = Model.empty(20).graph
    x = graph.add_input("x", dtypes.FLOAT, (S, 4))
    node = graph.add_op("NonZero", [x])
    graph.set_type(node.output, dtypes.INT64, (2, T, 7))
    infer_node(node)
    assert shown(node.output) == (2, None)
    graph.set_type(node.output, dtypes.INT64, (2, T))
    infer_node(node)
    assert node.output.shape == (2, T), "where the rank is the same, names that were known stay"


@pytest.mark.parametrize(("rank", "followed"), [(1024, True), (1025, False)])
def test_shapes_of_very_many_axes_are_not_followed(rank: int, followed: bool) -> None:
    shape = node_of("Neg", (1,) * rank, outputs=1).output.shape
    assert shape == ((1,) * rank if followed else None)
