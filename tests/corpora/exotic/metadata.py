"""What a model says beside its numbers: documentation, metadata, annotations, devices, training."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from corpora.exotic.base import Theme, array, info, text

exotic = Theme("metadata")

_PLAIN = "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { h = Mul(x, w) n = Neg(h) y = Relu(n) }"


def varint(field: int, value: int) -> bytes:
    """A field of protobuf that holds a number, with a number that the schema has no name for."""
    return _number(field << 3) + _number(value)


def _number(value: int) -> bytes:
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _trained(model: onnx.ModelProto, step: onnx.NodeProto, shape: list[int]) -> onnx.ModelProto:
    """With a training algorithm that is one node: it makes `w_new`, which takes the place of `w`."""
    training = model.training_info.add()
    training.algorithm.name = "step"
    training.algorithm.node.append(step)
    training.algorithm.output.append(info("w_new", shape))
    training.update_binding.add(key="w", value="w_new")
    return model


@exotic()
def documented() -> onnx.ModelProto:
    """Documentation wherever there may be some."""
    model = text(_PLAIN)
    graph = model.graph
    model.doc_string, graph.doc_string = "a model", "a graph"
    for place in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        place.doc_string = f"of {place.name or 'a node'}\nsecond line ☃"
    graph.value_info.append(info("h", [2]))
    graph.value_info[0].doc_string = "a product"
    return model


@exotic()
def metadata_everywhere() -> onnx.ModelProto:
    """Pairs of key and value on the model, the graph, nodes, values and tensors."""
    model = text(_PLAIN)
    graph = model.graph
    graph.value_info.append(info("h", [2]))
    places = (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for number, place in enumerate(places):
        place.metadata_props.add(key="number", value=str(number))
        place.metadata_props.add(key="", value="")
    return model


@exotic(checked=False)
def metadata_twice() -> onnx.ModelProto:
    """A key that stands twice."""
    model = text(_PLAIN)
    model.metadata_props.add(key="a", value="1")
    model.metadata_props.add(key="a", value="2")
    return model


@exotic()
def producer() -> onnx.ModelProto:
    """Who made it, in which version, of which domain."""
    model = text(_PLAIN)
    model.producer_name, model.producer_version, model.domain = "someone", "1.2-β", "org.example"
    model.model_version = 2**62
    return model


@exotic()
def quantization_annotation() -> onnx.ModelProto:
    """Scales and zero points of values inside, of an input and of an output."""
    model = text(_PLAIN)
    model.graph.initializer.extend([array("scale", 0.5), array("zero", 0.0)])
    for name in ("x", "h", "y", "w"):
        annotation = model.graph.quantization_annotation.add(tensor_name=name)
        annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scale")
        annotation.quant_parameter_tensor_names.add(key="ZERO_POINT_TENSOR", value="zero")
    return model


@exotic()
def training_info() -> onnx.ModelProto:
    """A training algorithm that updates weights of the graph; what it names must be there afterwards."""
    model = text(
        """g (float[2] x) => (float[2] y) <float[2] w = {1, 2}, float[2] b = {0, 0}, float one = {1}> {
            h = Mul(x, w) s = Mul(h, one) y = Add(s, b) }""",
        opset=20,
    )
    training = model.training_info.add()
    training.initialization.name, training.algorithm.name = "start", "step"
    training.initialization.node.append(helper.make_node("RandomNormal", [], ["w0"], shape=[2]))
    training.initialization.output.append(info("w0", [2]))
    training.algorithm.node.append(helper.make_node("Sub", ["w", "x"], ["w_new"]))
    training.algorithm.node.append(helper.make_node("Sub", ["b", "x"], ["b_new"]))
    training.algorithm.output.extend([info("w_new", [2]), info("b_new", [2])])
    training.initialization_binding.add(key="w", value="w0")
    training.update_binding.add(key="w", value="w_new")
    training.update_binding.add(key="b", value="b_new")
    return model


@exotic()
def training_of_a_constant_product() -> onnx.ModelProto:
    """Weights that training updates stand in constant arithmetic: folding it would cut them off."""
    model = text(
        """g (float[2, 2] x) => (float[2, 2] y) <float[2, 2] w = {1, 2, 3, 4}, float two = {2}> {
            t = Transpose<perm = [1, 0]>(w) s = Mul(t, two) y = MatMul(x, s) }"""
    )
    return _trained(model, helper.make_node("Neg", ["w"], ["w_new"]), [2, 2])


@exotic()
def training_reads_a_function() -> onnx.ModelProto:
    """A function that only the training algorithm calls."""
    model = text(
        """g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Mul(x, w) }
        <domain: "f", opset_import: ["" : 20]> Step (a) => (b) { b = Neg(a) }""",
        f=1,
    )
    return _trained(model, helper.make_node("Step", ["w"], ["w_new"], domain="f"), [2])


@exotic()
def training_shares_a_function() -> onnx.ModelProto:
    """A function that the graph and the training algorithm call: in place of its call, it is still needed."""
    model = text(
        """g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { h = f.Step(x) y = Mul(h, w) }
        <domain: "f", opset_import: ["" : 20]> Step (a) => (b) { b = Neg(a) }""",
        f=1,
    )
    return _trained(model, helper.make_node("Step", ["w"], ["w_new"], domain="f"), [2])


@exotic()
def training_in_an_old_opset() -> onnx.ModelProto:
    """A training algorithm written in opset 11, while the graph has what a newer one would write better."""
    model = text(
        """g (float[2, 4] x) => (float[2, 4] y) <float[4] w = {1, 2, 3, 4}, float r = {1.4142135}, float one = {1},
            float half = {0.5}> {
            b = Add(x, w) d = Div(b, r) e = Erf(d) a = Add(e, one) m = Mul(b, a) y = Mul(m, half) }""",
        opset=11,
        ir=7,
    )
    training = model.training_info.add()
    training.algorithm.name = "step"
    training.algorithm.node.append(helper.make_node("ReduceSum", ["x"], ["w_new"], axes=[0], keepdims=0))
    training.algorithm.output.append(info("w_new", [4]))
    training.update_binding.add(key="w", value="w_new")
    return model


@exotic()
def training_reads_an_inner_value() -> onnx.ModelProto:
    """A training algorithm that reads a value inside the graph."""
    model = text(
        """g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { h = Neg(x) k = Neg(h) m = Mul(k, w) y = Relu(m) }"""
    )
    training = model.training_info.add()
    training.algorithm.name = "step"
    training.algorithm.node.append(helper.make_node("Mul", ["k", "h"], ["w_new"]))
    training.algorithm.output.append(info("w_new", [2]))
    training.update_binding.add(key="w", value="w_new")
    return model


@exotic()
def devices() -> onnx.ModelProto:
    """Device configurations of the model and of nodes, with a sharding of a value."""
    model = text(_PLAIN, opset=23, ir=11)
    model.configuration.add(name="two", num_devices=2, device=["card0", "card1"])
    placed = model.graph.node[0].device_configurations.add(configuration_id="two", pipeline_stage=1)
    spec = placed.sharding_spec.add(tensor_name="x", device=[0, 1])
    spec.sharded_dim.add(axis=0).simple_sharding.add(dim_value=2, num_shards=2)
    return model


@exotic()
def unknown_fields() -> onnx.ModelProto:
    """Fields with numbers that no schema has yet, on every kind of message."""
    model = text(_PLAIN)
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, model.opset_import[0]):
        part.MergeFromString(varint(5000, 7))
    return model


@exotic()
def unknown_attributes() -> onnx.ModelProto:
    """A node of a domain without a schema, with an attribute of every kind."""
    model = text("g (float[2] x) => (float[2] y) { y = own.Keep(x) }", own=1)
    function = text(
        'g (float x) => (float y) { y = own.Keep(x) } <domain: "own", opset_import: ["" : 20]> '
        "Keep <f, i, s, fs, is, ss, t, tp> (x) => (y) { y = Neg(x) }",
        own=1,
    ).functions[0]
    model.functions.append(function)
    values = {
        "f": 0.1,
        "i": 2**62,
        "s": b"\xff\x00",
        "fs": [0.1, -0.0],
        "is": [1, -(2**63)],
        "ss": ["a", "ü"],
        "t": helper.make_tensor("", TensorProto.FLOAT, [1], [1.0]),
        "tp": helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", None]),
    }
    model.graph.node[0].attribute.extend(helper.make_attribute(name, value) for name, value in values.items())
    return model


@exotic(loads=False)
def domain_without_schema() -> onnx.ModelProto:
    """Operators that nobody here knows, with subgraphs and several outputs, between standard ones."""
    return text(
        """g (float[N] x, bool b) => (float[A] y, float[N] z) <float zero = {0}> {
            h = Neg(x) k = Neg(h)
            p, , q = org.example.Split<body = s (float[N] i) => (float[N] o) { o = Mul(i, h) }>(k, , b)
            y = org.example.Join(q, p) z = Abs(x) }""",
        org_example=7,
    )


@exotic()
def value_info_of_nothing() -> onnx.ModelProto:
    """value_info for names that are not there, and for one that is, with less than is known."""
    model = text(_PLAIN)
    model.graph.value_info.extend([info("ghost", [3]), info("h", None), info("spirit", ["K"], TensorProto.INT64)])
    return model


@exotic()
def value_info_with_denotation() -> onnx.ModelProto:
    """Types with denotations, of tensor and dimensions."""
    model = text("g (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y) { h = Neg(x) y = Relu(h) }")
    kind = model.graph.input[0].type
    kind.denotation = "IMAGE"
    for dim, what in zip(kind.tensor_type.shape.dim, ("DATA_BATCH", "DATA_CHANNEL", "", ""), strict=True):
        dim.denotation = what
    return model


@exotic()
def unread_metadata_names() -> onnx.ModelProto:
    """Metadata keys of ours and of others, which are kept as they are."""
    model = text(_PLAIN)
    for key in ("graphopt", "onnx.infer", "pkg.torch.onnx.original", "ü ☃/", "k" * 500):
        model.metadata_props.add(key=key, value=f"value of {key}")
    return model
