"""Constants whose bits matter: NaN payloads, signed zeros, denormals, large integers, sparse and typed fields."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from corpora.exotic.base import Theme, array, built, info, tensor, text

exotic = Theme("bits")


def _passed(constant: TensorProto, *, through: str = "Identity") -> onnx.ModelProto:
    """A model that gives a constant, and reads an input."""
    nodes = [helper.make_node(through, [constant.name], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    outputs = [info("y", list(constant.dims), constant.data_type), info("z", [2])]
    return built(nodes, [info("x", [2])], outputs, [constant])


@exotic()
def nan_payloads() -> onnx.ModelProto:
    """NaNs that are not numpy's: quiet and signalling, with payloads and signs."""
    bits = np.array([0x7FC00001, 0xFFC12345, 0x7F800001, 0x7FFFFFFF], np.uint32)
    return _passed(tensor("c", TensorProto.FLOAT, [4], bits.tobytes()))


@exotic()
def nan_payloads_float16() -> onnx.ModelProto:
    """NaN payloads of half floats in int32_data."""
    constant = TensorProto(name="c", data_type=TensorProto.FLOAT16, dims=[3], int32_data=[0x7E01, 0xFE55, 0x7D01])
    return _passed(constant)


@exotic()
def nan_payloads_double() -> onnx.ModelProto:
    """NaN payloads of doubles."""
    bits = np.array([0x7FF8000000000001, 0xFFF8DEADBEEF0000], np.uint64)
    return _passed(tensor("c", TensorProto.DOUBLE, [2], bits.tobytes()))


@exotic()
def signed_zeros() -> onnx.ModelProto:
    """−0.0 as a constant, and beside an addition of 0 that turns −0.0 into 0.0."""
    return text(
        """g (float[2] x) => (float[2] c, float[2] y, float[2] z) <float[2] m = {-0.0, 0.0}, float zero = {0}> {
            c = Identity(m) p = Mul(x, m) y = Add(p, zero) z = Mul(x, zero) }"""
    )


@exotic()
def infinities() -> onnx.ModelProto:
    """Infinite and NaN constants in arithmetic that keeps them."""
    model = text(
        "g (float[3] x) => (float[3] y, float[3] z) { a = Add(x, c) y = Max(a, x) m = Mul(x, c) z = Sub(m, m) }"
    )
    model.graph.initializer.append(array("c", [np.inf, -np.inf, np.nan]))
    return model


@exotic()
def division_by_zero() -> onnx.ModelProto:
    """Constants that give infinity and NaN when folded."""
    return text(
        """g (float[2] x) => (float[2] y) <float[2] a = {1, 0}, float[2] b = {0, 0}> {
            c = Div(a, b) d = Log(c) y = Add(x, d) }"""
    )


@exotic()
def denormals() -> onnx.ModelProto:
    """The smallest floats there are, passed and doubled."""
    model = text("g (float[2] x) => (float[2] y, float[2] z) { y = Add(c, c) z = Add(x, y) }")
    model.graph.initializer.append(tensor("c", TensorProto.FLOAT, [2], np.array([1, 0x80000001], np.uint32).tobytes()))
    return model


@exotic()
def large_integers() -> onnx.ModelProto:
    """Integers past 2**53, which doubles cannot hold, in arithmetic."""
    model = text(
        """g (int64[2] x) => (int64[2] y, int64[2] z, bool[2] b) {
            s = Add(c, one) y = Add(x, s) z = Sub(s, c) b = Equal(s, c) }"""
    )
    model.graph.initializer.append(array("c", [2**53, -(2**63) + 2], np.int64))
    model.graph.initializer.append(array("one", 1, np.int64))
    return model


@exotic()
def unsigned_extremes() -> onnx.ModelProto:
    """The largest uint64 in uint64_data, and sums that wrap around."""
    constant = TensorProto(name="c", data_type=TensorProto.UINT64, dims=[2], uint64_data=[2**64 - 1, 2**63])
    model = text("g (uint64[2] x) => (uint64[2] y, uint64[2] z) { y = Add(c, x) z = Add(c, c) }")
    model.graph.initializer.append(constant)
    return model


@exotic()
def integer_division() -> onnx.ModelProto:
    """Integer division and modulus of negative constants, which round towards zero or down."""
    return text(
        """g (int64[4] x) => (int64[4] q, int64[4] r, int64[4] f)
        <int64[4] a = {7, -7, 7, -7}, int64[4] b = {2, 2, -2, -2}> {
            d = Div(a, b) q = Add(x, d) m = Mod(a, b) r = Add(x, m) n = Mod<fmod = 1>(a, b) f = Add(x, n) }"""
    )


@exotic()
def looks_big_endian() -> onnx.ModelProto:
    """Raw data that makes sense in either byte order."""
    return _passed(tensor("c", TensorProto.INT32, [3], bytes([0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0])))


def _typed(name: str, dtype: int, field: str, values: list[float]) -> TensorProto:
    made = TensorProto(name=name, data_type=dtype, dims=[2])
    getattr(made, field).extend(values)
    return made


@exotic()
def typed_fields() -> onnx.ModelProto:
    """Each element type in its own field instead of raw bytes, small types in int32_data."""
    kinds: dict[str, tuple[int, str, list[float]]] = {
        "f": (TensorProto.FLOAT, "float_data", [1.5, -0.0]),
        "d": (TensorProto.DOUBLE, "double_data", [1e300, 5e-324]),
        "l": (TensorProto.INT64, "int64_data", [2**62, -1]),
        "i": (TensorProto.INT32, "int32_data", [-(2**31), 7]),
        "h": (TensorProto.INT16, "int32_data", [-32768, 7]),
        "b": (TensorProto.INT8, "int32_data", [-128, 7]),
        "B": (TensorProto.UINT8, "int32_data", [255, 7]),
        "H": (TensorProto.UINT16, "int32_data", [65535, 7]),
        "t": (TensorProto.BOOL, "int32_data", [1, 0]),
        "e": (TensorProto.FLOAT16, "int32_data", [0x3C00, 0x8000]),
        "I": (TensorProto.UINT32, "uint64_data", [2**32 - 1, 7]),
    }
    made = [_typed(name, *kind) for name, kind in kinds.items()]
    nodes = [helper.make_node("Identity", [n], [f"{n}_out"]) for n in kinds]
    nodes.append(helper.make_node("Add", ["x", "f"], ["y"]))
    outputs = [info(f"{n}_out", [2], kinds[n][0]) for n in kinds]
    return built(nodes, [info("x", [2])], [*outputs, info("y", [2])], made)


@exotic()
def sparse_initializer() -> onnx.ModelProto:
    """A weight given by its places that are not 0, with linear indices."""
    model = text("g (float[1, 4] x) => (float[1, 3] y) { y = MatMul(x, w) }")
    values = helper.make_tensor("w", TensorProto.FLOAT, [3], [1.5, -2.0, 3.0])
    indices = numpy_helper.from_array(np.array([0, 5, 11]), "w_indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 3]))
    return model


@exotic()
def sparse_coordinates() -> onnx.ModelProto:
    """A sparse weight whose indices are coordinates."""
    model = text("g (float[1, 4] x) => (float[1, 3] y) { y = MatMul(x, w) }")
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.5, -2.0])
    indices = numpy_helper.from_array(np.array([[0, 1], [3, 2]]), "w_indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 3]))
    return model


@exotic()
def sparse_constant() -> onnx.ModelProto:
    """A Constant with a sparse value."""
    values = helper.make_tensor("", TensorProto.FLOAT, [2], [1.5, -2.0])
    indices = numpy_helper.from_array(np.array([1, 4]))
    node = helper.make_node("Constant", [], ["w"], sparse_value=helper.make_sparse_tensor(values, indices, [2, 3]))
    add = helper.make_node("Add", ["x", "w"], ["y"])
    return built([node, add], [info("x", [2, 3])], [info("y", [2, 3])])


@exotic()
def sparse_at_the_outputs() -> onnx.ModelProto:
    """Sparse constants at outputs, each behind what changes nothing: an Identity, a Reshape, a call in a branch."""
    model = text(
        """g (float[4] x, bool c) => (float[4] y, float[4] z, float[4] u) <int64[1] four = {4}> {
            a = Neg(x) y = Identity(a) b = Neg(x) z = Reshape(b, four)
            u = If(c) <then_branch = t () => (p) { p = f.Sparse(x) }, else_branch = e () => (q) { q = Abs(x) }> }
        <domain: "f", opset_import: ["" : 20]> Sparse (x) => (s) { s = Neg(x) }""",
        f=1,
    )
    values, indices = helper.make_tensor("", TensorProto.FLOAT, [1], [9.0]), numpy_helper.from_array(np.array([2]))
    sparse = helper.make_sparse_tensor(values, indices, [4])
    for node in (model.graph.node[0], model.graph.node[2], model.functions[0].node[0]):
        node.CopyFrom(helper.make_node("Constant", [], node.output, sparse_value=sparse))
    return model


@exotic()
def every_constant_field() -> onnx.ModelProto:
    """Constant nodes with each of their attributes for numbers."""
    return text(
        """g (float[2] x) => (float[2] y, int64[3] k) {
            a = Constant<value_float = 0.1>() b = Constant<value_floats = [1.0, -0.0]>()
            c = Constant<value_int = 9007199254740993>() d = Constant<value_ints = [1, 2, 3]>()
            e = Mul(x, a) y = Add(e, b) k = Add(c, d) }"""
    )


@exotic()
def zero_size_tensors() -> onnx.ModelProto:
    """Initializers without elements, with and without a data field."""
    model = text("g (float[2, 3] x) => (float[2, 3] y, float[0, 4] z) { y = Concat<axis = 0>(x, a) z = Identity(b) }")
    model.graph.initializer.append(TensorProto(name="a", data_type=TensorProto.FLOAT, dims=[0, 3], raw_data=b""))
    model.graph.initializer.append(TensorProto(name="b", data_type=TensorProto.FLOAT, dims=[0, 4]))
    return model


@exotic()
def scalar_and_one_element() -> onnx.ModelProto:
    """A scalar and a tensor of shape [1] with the same number: one of them raises the rank."""
    return text(
        """g (float x) => (float y, float[1] z) <float a = {2}, float[1] b = {2}> { y = Mul(x, a) z = Mul(x, b) }"""
    )


@exotic()
def constants_alike() -> onnx.ModelProto:
    """Constants equal in value but not in bits, or in bits but not in type: none may be merged."""
    model = text(
        """g (float[2] x) => (float[2] p, float[2] q, float[2] i, int32[2] j) {
            p = Div(x, a) q = Div(x, b) i = Identity(c) j = Identity(d) }"""
    )
    model.graph.initializer.extend([array("a", [0.0, 0.0]), array("b", [-0.0, 0.0]), array("c", [1e-45, 0.0])])
    model.graph.initializer.append(array("d", [1, 0], np.int32))
    return model


@exotic()
def cast_edges() -> onnx.ModelProto:
    """Casts of constants at the edge of what the new type holds."""
    return text(
        """g (float[2] x) => (float16[3] h, int32[2] i, bool[3] b, float[2] y)
        <float[3] a = {65519, 1e-8, -65520}, float[2] c = {-1.75, 2.5}, float[3] d = {0.4, -0.0, 3}> {
            h = Cast<to = 10>(a) i = Cast<to = 6>(c) b = Cast<to = 9>(d) y = Neg(x) }"""
    )


@exotic()
def strings_of_bytes() -> onnx.ModelProto:
    """A string constant that is no UTF-8: bytes are kept."""
    constant = TensorProto(name="c", data_type=TensorProto.STRING, dims=[2], string_data=[b"\xff\xfe", b"a\x00b"])
    nodes = [helper.make_node("Shape", ["c"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    return built(nodes, [info("x", [2])], [info("y", [1], TensorProto.INT64), info("z", [2])], [constant])
