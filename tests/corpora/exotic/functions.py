"""Functions: nested, overloaded, with attributes, in odd domains, never called."""

from __future__ import annotations

import onnx
from onnx import AttributeProto, TensorProto, helper

from corpora.exotic.base import Theme, info, text

exotic = Theme("functions")


@exotic()
def nested() -> onnx.ModelProto:
    """Functions that call functions that call functions."""
    return text(
        """g (float[N] x) => (float[N] y) { y = f.A(x) }
        <domain: "f", opset_import: ["" : 20, "f" : 1]> A (x) => (y) { t = f.B(x) y = f.B(t) }
        <domain: "f", opset_import: ["" : 20, "f" : 1]> B (x) => (y) { t = f.C(x) y = Add(t, x) }
        <domain: "f", opset_import: ["" : 20]> C (x) => (y) { y = Relu(x) }""",
        f=1,
    )


@exotic()
def overloaded() -> onnx.ModelProto:
    """Two functions of one name, told apart by their overload."""
    model = text(
        """g (float[N] x) => (float[N] y) { t = f.A(x) y = f.A(t) }
        <domain: "f", opset_import: ["" : 20]> A (x) => (y) { y = Neg(x) }
        <domain: "f", opset_import: ["" : 20]> A (x) => (y) { y = Abs(x) }""",
        f=1,
    )
    for overload, function, node in zip(("one", "two"), model.functions, model.graph.node, strict=True):
        function.overload = node.overload = overload
    return model


@exotic()
def attribute_reference() -> onnx.ModelProto:
    """An attribute of a node in the body is the function's own."""
    return text(
        """g (float[2, 3] x) => (float[3, 2] y) { y = f.Turn<order = [1, 0], by = 0.5>(x) }
        <domain: "f", opset_import: ["" : 20]> Turn <order, by> (x) => (y)
        { t = Transpose<perm: ints = @order>(x) y = LeakyRelu<alpha: float = @by>(t) }""",
        f=1,
    )


@exotic()
def attribute_reference_left_out() -> onnx.ModelProto:
    """A call that leaves out an attribute: the node in the body has its schema's default."""
    return text(
        """g (float[2, 3] x) => (float[2, 3] y) { y = f.Leak(x) }
        <domain: "f", opset_import: ["" : 20]> Leak <by> (x) => (y) { y = LeakyRelu<alpha: float = @by>(x) }""",
        f=1,
    )


@exotic()
def attribute_default() -> onnx.ModelProto:
    """Attributes with defaults; one call gives one of them, one gives none."""
    model = text(
        """g (float[N] x) => (float[N] y) { t = f.Leak(x) y = f.Leak<by = 0.125>(t) }
        <domain: "f", opset_import: ["" : 20]> Leak (x) => (y) { y = LeakyRelu<alpha: float = @by>(x) }""",
        f=1,
    )
    model.functions[0].attribute_proto.append(helper.make_attribute("by", 0.75))
    return model


@exotic()
def attribute_passed_on() -> onnx.ModelProto:
    """A function hands its attribute to the function it calls."""
    return text(
        """g (float[N] x) => (float[N] y) { y = f.Outer<a = 0.25>(x) }
        <domain: "f", opset_import: ["" : 20, "f" : 1]> Outer <a> (x) => (y) { y = f.Inner<b: float = @a>(x) }
        <domain: "f", opset_import: ["" : 20]> Inner <b> (x) => (y) { y = Elu<alpha: float = @b>(x) }""",
        f=1,
    )


@exotic()
def attribute_in_a_branch() -> onnx.ModelProto:
    """A function's attribute read inside an If of its body."""
    return text(
        """g (float[N] x, bool b) => (float[N] y) { y = f.Pick<a = 0.25>(x, b) }
        <domain: "f", opset_import: ["" : 20]> Pick <a> (x, b) => (y) {
            y = If(b) <then_branch = t () => (p) { p = Elu<alpha: float = @a>(x) },
                       else_branch = e () => (q) { q = Neg(x) }> }""",
        f=1,
    )


@exotic(runs=False)
def shadows_a_standard_operator() -> onnx.ModelProto:
    """A function called as an operator of the standard domain, in that domain."""
    return text(
        """g (float[N] x) => (float[N] y) { y = Softsign(x) }
        <domain: "", opset_import: ["" : 20]> Softsign (x) => (y) { y = Neg(x) }"""
    )


@exotic()
def shadows_in_another_domain() -> onnx.ModelProto:
    """A function called Relu in a domain of its own, beside the standard Relu."""
    return text(
        """g (float[N] x) => (float[N] y) { t = f.Relu(x) y = Relu(t) }
        <domain: "f", opset_import: ["" : 20]> Relu (x) => (y) { y = Neg(x) }""",
        f=1,
    )


@exotic()
def own_opset() -> onnx.ModelProto:
    """A body that imports an older opset than the model; what it uses is the same in both."""
    return text(
        """g (float[N] x) => (float[N] y) { y = f.A(x) }
        <domain: "f", opset_import: ["" : 17]> A (x) => (y) { t = Relu(x) y = Add(t, x) }""",
        f=1,
    )


@exotic()
def never_called() -> onnx.ModelProto:
    """A function that nobody calls."""
    return text(
        """g (float[N] x) => (float[N] y) { y = Relu(x) }
        <domain: "f", opset_import: ["" : 20]> Spare (x) => (y) { y = Neg(x) }""",
        f=1,
    )


@exotic()
def fully_described() -> onnx.ModelProto:
    """A function with documentation, metadata, value_info, and an attribute that nobody reads."""
    model = text(
        """g (float[N] x) => (float[N] y) { y = f.A(x) }
        <domain: "f", opset_import: ["" : 20]> A <unread> (x) => (y) { t = Relu(x) y = Add(t, x) }""",
        f=1,
    )
    function = model.functions[0]
    function.doc_string = "adds what is positive"
    function.metadata_props.add(key="pure", value="yes")
    function.value_info.append(info("t", ["N"]))
    function.node[0].doc_string = "the positive part"
    function.node[0].metadata_props.add(key="namespace", value="a.b")
    return model


@exotic()
def omitted_input() -> onnx.ModelProto:
    """A call that leaves out a middle and a last input of the function."""
    return text(
        """g (float[N] x, float z) => (float[N] y) { y = f.Limit(x, , z) }
        <domain: "f", opset_import: ["" : 20]> Limit (x, low, high, unread) => (y) { y = Clip(x, low, high) }""",
        f=1,
    )


@exotic()
def omitted_output() -> onnx.ModelProto:
    """A call that leaves out the first of the function's outputs."""
    model = text(
        """g (float[N] x) => (float[N] y) { u, y = f.Two(x) }
        <domain: "f", opset_import: ["" : 20]> Two (x) => (a, b) { a = Neg(x) b = Abs(x) }""",
        f=1,
    )
    model.graph.node[0].output[0] = ""
    return model


@exotic()
def one_input_twice() -> onnx.ModelProto:
    """One value in both inputs of a function, whose output is one of its inputs."""
    return text(
        """g (float[N] x) => (float[N] y, float[N] z) { y, z = f.Pass(x, x) }
        <domain: "f", opset_import: ["" : 20]> Pass (a, b) => (s, t) { s = Identity(a) t = Add(a, b) }""",
        f=1,
    )


@exotic()
def same_names_inside_and_outside() -> onnx.ModelProto:
    """The values of a body are called as those of the model, and of another body."""
    return text(
        """g (float[N] x) => (float[N] y) { t = f.A(x) u = f.B(t) y = f.A(u) }
        <domain: "f", opset_import: ["" : 20]> A (y) => (x) { t = Neg(y) x = Abs(t) }
        <domain: "f", opset_import: ["" : 20]> B (t) => (u) { y = Exp(t) x = Neg(y) u = Relu(x) }""",
        f=1,
    )


@exotic()
def called_inside_a_loop() -> onnx.ModelProto:
    """A function called in the body of a Loop, on a value that the body captures."""
    return text(
        """g (float[2] x, float[2] z) => (float[2] y) {
            n = Constant<value: tensor = int64 {3}>()
            c = Constant<value: tensor = bool {1}>()
            y = Loop(n, c, x) <body = b (int64 i, bool go, float[2] s) => (bool on, float[2] next)
                { on = Identity(go) next = f.Step(s, z) }> }
        <domain: "f", opset_import: ["" : 20]> Step (a, b) => (c) { t = Mul(a, b) c = Tanh(t) }""",
        f=1,
    )


@exotic()
def control_flow_inside() -> onnx.ModelProto:
    """A function whose body has an If whose branches capture inputs of the function."""
    return text(
        """g (float[N] x, bool b) => (float[N] y) { y = f.Pick(x, b) }
        <domain: "f", opset_import: ["" : 20]> Pick (x, b) => (y) {
            h = Neg(x)
            y = If(b) <then_branch = t () => (p) { p = Add(h, x) }, else_branch = e () => (q) { q = Mul(h, x) }> }""",
        f=1,
    )


@exotic()
def metadata_of_the_call() -> onnx.ModelProto:
    """A call with a name, documentation and metadata, as the dynamo exporter writes them."""
    model = text(
        """g (float[N] x) => (float[N] y) { y = pkg.onnxscript.Act(x) }
        <domain: "pkg.onnxscript", opset_import: ["" : 20]> Act (x) => (y) { t = Sigmoid(x) y = Mul(x, t) }""",
        pkg_onnxscript=1,
    )
    node = model.graph.node[0]
    node.name, node.doc_string = "node_act_1", "silu"
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'layer']")
    return model


@exotic()
def tensor_attribute() -> onnx.ModelProto:
    """A tensor handed to a Constant of the body."""
    model = text(
        """g (float[2] x) => (float[2] y) { y = f.Shift(x) }
        <domain: "f", opset_import: ["" : 20]> Shift <by> (x) => (y) { c = Constant() y = Add(x, c) }""",
        f=1,
    )
    value = helper.make_tensor("", TensorProto.FLOAT, [2], [1.5, -2.5])
    model.graph.node[0].attribute.append(helper.make_attribute("by", value))
    reference = AttributeProto(name="value", type=AttributeProto.TENSOR, ref_attr_name="by")
    model.functions[0].node[0].attribute.append(reference)
    return model
