"""The border of a graph, and names: outputs that are inputs, empty names, sizes that nobody knows."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from corpora.exotic.base import Made, Theme, array, built, info, renamed, text, weights

exotic = Theme("interface")


@exotic()
def output_is_an_input() -> onnx.ModelProto:
    """An output that is an input, without a node between."""
    return text("g (float[2] x, float[2] z) => (float[2] x, float[2] y) { y = Add(x, z) }")


@exotic()
def output_is_an_initializer() -> onnx.ModelProto:
    """An output that is a constant."""
    return text("g (float[2] x) => (float[2] w, float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }")


@exotic()
def output_is_a_constant_node() -> onnx.ModelProto:
    """An output that a Constant gives, read inside as well."""
    return text("g (float[2] x) => (float c, float[2] y) { c = Constant<value_float = 2.5>() y = Add(x, c) }")


@exotic()
def output_twice() -> onnx.ModelProto:
    """One value at two outputs of the graph."""
    return text("g (float[2] x) => (float[2] y, float[2] y) { h = Neg(x) y = Abs(h) }")


@exotic()
def input_to_output_by_identity() -> onnx.ModelProto:
    """Identities from input to output, one after another, and one that has two readers."""
    return text(
        """g (float[2] x) => (float[2] y, float[2] z, float[2] w) {
            a = Identity(x) b = Identity(a) y = Identity(b) z = Identity(b) w = Identity(z) }"""
    )


@exotic()
def inner_value_at_an_output() -> onnx.ModelProto:
    """What a fusion would swallow is an output."""
    return text(
        """g (float[2, 4] x) => (float[2, 4] y, float[2, 4] h, float[2, 4] e) <float[4] b = {1, 2, 3, 4},
            float r = {1.4142135}, float one = {1}, float half = {0.5}> {
            h = Add(x, b) d = Div(h, r) e = Erf(d) a = Add(e, one) m = Mul(h, a) y = Mul(m, half) }"""
    )


@exotic()
def no_inputs() -> onnx.ModelProto:
    """A graph without inputs: all of it is constant."""
    return text("g () => (float[2] y) <float[2] a = {1, 2}> { h = Exp(a) y = Neg(h) }")


@exotic()
def no_nodes() -> onnx.ModelProto:
    """A graph without nodes: a constant at its output."""
    return text("g () => (float[2] a) <float[2] a = {1, 2}> { }")


@exotic(checked=False)
def unused_input() -> onnx.ModelProto:
    """Inputs that nobody reads, one of unknown rank, one a sequence; unused initializers."""
    return text(
        """g (float[N] x, float[] spare, seq(int64[K]) s) => (float[N] y) <float[3] unread = {1, 2, 3}> {
            y = Neg(x) }"""
    )


@exotic()
def unread_nodes() -> onnx.ModelProto:
    """Nodes whose outputs nobody reads, in a chain."""
    return text("g (float[N] x) => (float[N] y) { a = Exp(x) b = Log(a) c, d = Split<num_outputs = 2>(b) y = Neg(x) }")


@exotic()
def overridable_initializer() -> onnx.ModelProto:
    """An input with a default, which a caller may replace: it is no constant."""
    return text("g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 0}> { h = Neg(w) y = Mul(x, h) }")


@exotic()
def overridable_shape() -> onnx.ModelProto:
    """The target shape of a Reshape is an input with a default."""
    return text("""g (float[2, 3] x, int64[2] s) => (float[P, Q] y) <int64[2] s = {3, 2}> { y = Reshape(x, s) }""")


@exotic()
def initializer_is_an_input() -> onnx.ModelProto:
    """Before IR 4 initializers had to be inputs as well: they are constants."""
    return text(
        """g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { h = Neg(w) y = Mul(x, h) }""",
        opset=8,
        ir=3,
    )


@exotic()
def unknown_dimensions() -> onnx.ModelProto:
    """Dimensions with names, without names, and with names that are expressions."""
    model = text("g (float[N, M] x, float[N, M] z) => (float[N, K] y) { y = Concat<axis = 1>(x, z) }")
    model.graph.input[1].type.tensor_type.shape.dim[1].Clear()
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "M + unk__1*2"
    return model


@exotic(checked=False)
def unknown_rank() -> Made:
    """An input and an output whose rank nobody knows."""
    model = text("g (float[] x) => (float[] y) { h = Neg(x) y = Abs(h) }")
    return Made(model, feeds={"x": np.array([[1.0, -2.0]], np.float32)})


@exotic(checked=False)
def rank_is_not_zero() -> Made:
    """A type without a shape beside a scalar: no shape is not an empty one."""
    model = text("g (float x, float[2] z) => (float y, float[2] w) { y = Neg(x) h = Abs(z) w = Neg(h) }")
    model.graph.input[1].type.tensor_type.ClearField("shape")
    return Made(model, feeds={"x": np.array(1.5, np.float32), "z": np.array([1.0, -2.0], np.float32)})


@exotic()
def zero_size_input() -> onnx.ModelProto:
    """A dimension of 0 at the input."""
    return text(
        "g (float[0, 3] x) => (float[0, 3] y, float[3] s) <int64[1] a = {0}> { y = Relu(x) "
        "s = ReduceSum<keepdims = 0>(x, a) }"
    )


@exotic(checked=False)
def outputs_without_types_inside() -> onnx.ModelProto:
    """An output whose declared shape says less than is known, and one that says another name."""
    model = text("g (float[2, 3] x) => (float[A, B] y, float[] z) { y = Neg(x) z = Abs(x) }")
    return model


@exotic()
def omitted_inputs() -> onnx.ModelProto:
    """Inputs left out in the middle, and at the end by empty names."""
    model = text(
        """g (float[1, 1, 4, 4] x, float[N] v, float hi) => (float[1, 1, 8, 8] y, float[N] c)
        <float[4] scales = {1, 1, 2, 2}> {
            y = Resize<mode = "nearest">(x, , scales, ) c = Clip(v, , hi) }"""
    )
    return model


@exotic()
def trailing_empty_names() -> onnx.ModelProto:
    """Optional inputs and outputs written as empty names at the end."""
    model = text("g (float[N] x) => (float[N] y) { y = Clip(x) }")
    model.graph.node[0].input.extend(["", ""])
    return model


@exotic()
def omitted_outputs() -> onnx.ModelProto:
    """Outputs left out before one that is read."""
    model = text(
        "g (float[2, 3, 4] x, float[1, 20, 4] w, float[1, 20, 5] r) => (float[1, 3, 5] h)"
        "{ o, h = LSTM<hidden_size = 5>(x, w, r) }"
    )
    model.graph.node[0].output[0] = ""
    return model


@exotic(loads=False)
def duplicate_node_names() -> onnx.ModelProto:
    """Nodes of one name, nodes without, and one named as a value."""
    model = text("g (float[2] x) => (float[2] y) { a = Neg(x) b = Exp(a) c = Neg(b) y = Abs(c) }")
    for node, name in zip(model.graph.node, ("n", "n", "", "a"), strict=True):
        node.name = name
    return model


@exotic()
def odd_names() -> onnx.ModelProto:
    """Names with spaces, slashes, colons, signs of other scripts, quotes and line ends."""
    model = text(
        "g (float[2] x, float[2] z) => (float[2] y) <float[2] w = {1, 2}> { a = Add(x, w) b = Mul(a, z) y = Sub(b, a) }"
    )
    return renamed(
        model,
        {"x": "in put/0:0", "z": "入力☃", "w": "w\"'\\n\n", "a": " ", "b": "../b", "y": "out\tput;[?]{}"},
    )


@exotic()
def long_names() -> onnx.ModelProto:
    """Names of ten thousand characters, equal but for the last."""
    model = text("g (float[2] x) => (float[2] y) { a = Exp(x) b = Neg(x) y = Sub(a, b) }")
    return renamed(model, {name: "n" * 10_000 + name for name in "xaby"})


@exotic()
def names_like_ours() -> onnx.ModelProto:
    """Names that a tool would give to what it makes."""
    model = text("g (float[2] x) => (float[2] y) <float two = {2}> { a = Mul(x, two) b = Mul(a, two) y = Neg(b) }")
    return renamed(model, {"a": "graphopt_0", "b": "y_1", "two": "Mul_0_output_0"})


@exotic()
def blank_graph_name() -> onnx.ModelProto:
    """A graph called ''."""
    model = text("g (float[2] x) => (float[2] y) { y = Neg(x) }")
    model.graph.name = " "
    return model


@exotic(checked=False)
def no_graph_name() -> onnx.ModelProto:
    """A graph without a name, which onnx's checker wants and onnxruntime does not."""
    model = text("g (float[2] x) => (float[2] y) { h = Neg(x) y = Exp(h) }")
    model.graph.ClearField("name")
    return model


@exotic(checked=False)
def unsorted() -> onnx.ModelProto:
    """Nodes in no topological order: onnxruntime sorts them."""
    model = text(
        """g (float[2] x, bool b) => (float[2] y) {
            h = Neg(x)
            y = If(b) <then_branch = t () => (float[2] p) { k = Exp(h) p = Abs(k) },
                       else_branch = e () => (float[2] q) { q = Identity(h) }> }"""
    )
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


@exotic(checked=False)
def spelt_out_domain() -> onnx.ModelProto:
    """The standard domain is called ai.onnx, in the import and in some nodes."""
    model = text("g (float[2] x) => (float[2] y) { h = Neg(x) k = Exp(h) y = Abs(k) }")
    model.opset_import[0].domain = "ai.onnx"
    model.graph.node[1].domain = "ai.onnx"
    return model


@exotic()
def spelt_out_import() -> onnx.ModelProto:
    """The standard domain is imported as ai.onnx, and is nameless in the nodes."""
    model = text("g (float[2] x) => (float[2] y) { h = Neg(x) k = Exp(h) y = Abs(k) }")
    model.opset_import[0].domain = "ai.onnx"
    return model


@exotic()
def import_twice() -> onnx.ModelProto:
    """The standard domain imported twice under its two names, in one version."""
    model = text("g (float[2] x) => (float[2] y) { h = Neg(x) y = Exp(h) }")
    model.opset_import.add(domain="ai.onnx", version=20)
    return model


@exotic()
def import_in_two_versions() -> onnx.ModelProto:
    """The standard domain imported twice, in two versions: the last counts, in onnxruntime as well."""
    model = text("g (float[2] x) => (float[2] y) { h = Neg(x) y = Exp(h) }")
    model.opset_import.add(domain="ai.onnx", version=17)
    return model


@exotic()
def unused_imports() -> onnx.ModelProto:
    """Imports of domains that nobody uses."""
    return text("g (float[2] x) => (float[2] y) { h = Neg(x) y = Exp(h) }", ai_onnx_ml=3, com_microsoft=1, own_thing=42)


@exotic()
def variadic_many() -> onnx.ModelProto:
    """Operators with a hundred operands, some of them the same value."""
    names = [f"x{index % 7}" for index in range(100)]
    nodes = [
        helper.make_node("Concat", names, ["c"], axis=0),
        helper.make_node("Sum", names, ["s"]),
        helper.make_node("Max", names[:50], ["m"]),
    ]
    outputs = [info("c", [200]), info("s", [2]), info("m", [2])]
    return built(nodes, [info(f"x{index}", [2]) for index in range(7)], outputs)


@exotic()
def many_outputs() -> onnx.ModelProto:
    """A Split into a hundred parts of which two are read."""
    parts = [f"p{index}" for index in range(100)]
    nodes = [
        helper.make_node("Split", ["x"], parts, num_outputs=100),
        helper.make_node("Add", ["p3", "p97"], ["y"]),
    ]
    return built(nodes, [info("x", [200])], [info("y", [2])])


@exotic()
def microsoft_operators() -> onnx.ModelProto:
    """Contrib operators between standard ones."""
    model = text(
        """g (float[2, 4] x) => (float[2, 4] y) {
            h = MatMul(x, w) g = com.microsoft.BiasGelu(h, b)
            f = com.microsoft.FusedMatMul<alpha = 0.5, transB = 1>(g, w)
            y = com.microsoft.QuickGelu<alpha = 1.0>(f) }""",
        com_microsoft=1,
    )
    model.graph.initializer.extend([weights("w", 4, 4), weights("b", 4, seed=1)])
    return model


@exotic(checked=False)
def microsoft_without_import() -> onnx.ModelProto:
    """A contrib operator whose domain is not imported, as onnxruntime allows."""
    return text("g (float[2, 4] x) => (float[2, 4] y) { h = Neg(x) y = com.microsoft.Gelu(h) }")


@exotic()
def same_work_twice() -> onnx.ModelProto:
    """Equal nodes at two outputs: both names must be written."""
    return text("g (float[2] x) => (float[2] y, float[2] z) { a = Exp(x) b = Exp(x) y = Neg(a) z = Neg(b) }")


@exotic()
def bool_and_integer_border() -> onnx.ModelProto:
    """Inputs and outputs of every width of integer."""
    kinds = ("INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64", "BOOL", "DOUBLE", "FLOAT16")
    nodes, inputs, outputs = [], [], []
    for kind in kinds:
        code = TensorProto.DataType.Value(kind)
        nodes.append(helper.make_node("Identity", [f"x_{kind}"], [f"y_{kind}"]))
        inputs.append(info(f"x_{kind}", ["N"], code))
        outputs.append(info(f"y_{kind}", ["N"], code))
    return built(nodes, inputs, outputs)


@exotic()
def constant_shared_by_scopes() -> onnx.ModelProto:
    """An initializer with readers in the graph and in two levels below."""
    model = text(
        """g (float[2] x, bool b) => (float[2] y) {
            h = Mul(x, w)
            y = If(b) <then_branch = t () => (float[2] p) {
                           p = If(b) <then_branch = t2 () => (float[2] q) { q = Add(h, w) },
                                      else_branch = e2 () => (float[2] q) { q = Sub(h, w) }> },
                       else_branch = e () => (float[2] r) { r = Identity(w) }> }"""
    )
    model.graph.initializer.append(array("w", [3, 4]))
    return model
