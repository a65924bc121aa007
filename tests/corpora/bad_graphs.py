"""Bad files whose graphs, attributes, functions or versions are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import AttributeProto, FunctionProto, NodeProto, TensorProto, helper

from .bad_parts import BRANCHES, CALL, GOOD, HEAD, Case, Make, changed, of_text, parsed, save

_LEAKY = f"{HEAD} g (float[N] x) => (float[N] y) {{ y = LeakyRelu <alpha = 0.5> (x) }}"
_VERSION = ('opset_import: ["" : 20]', 'opset_import: ["far" : 1]')


def _head(old: str, new: str, text: str = GOOD) -> Make:
    assert old in text
    return of_text(text.replace(old, new))


def _attribute(change: Callable[[AttributeProto], object]) -> Make:
    return changed(lambda model: change(model.graph.node[0].attribute[0]), _LEAKY)


def _version(domain: str, version: int) -> Make:
    return changed(lambda model: model.opset_import.add(domain=domain, version=version))


def _node(**fields: object) -> Callable[[onnx.ModelProto], object]:
    return lambda model: model.graph.node.append(NodeProto(**fields))  # type: ignore[arg-type]


def _input(index: int, slot: int, name: str) -> Make:
    return changed(lambda model: model.graph.node[index].input.__setitem__(slot, name))


def _again(part: str) -> Make:
    return changed(lambda model: getattr(model.graph, part).append(getattr(model.graph, part)[0]))


def _nameless(part: str) -> Make:
    def change(model: onnx.ModelProto) -> None:
        protos = getattr(model.graph, part)
        protos.append(protos[0])
        protos[-1].name = ""

    return changed(change)


def _circle(length: int) -> Make:
    """Functions that call each other, the last one the first."""

    def make(folder: Path) -> None:
        model = parsed(CALL)
        model.functions[0].node[0].CopyFrom(helper.make_node(f"F{length - 1}", ["a"], ["b"], domain="my"))
        for index in range(1, length):
            function = model.functions.add()
            function.CopyFrom(model.functions[0])
            function.name = f"F{index}"
            function.node[0].op_type = f"F{index - 1}" if index > 1 else "F"
        save(model, folder)

    return make


def _another_and_itself(model: onnx.ModelProto) -> None:
    other = model.functions.add()
    other.CopyFrom(model.functions[0])
    other.name = "Other"
    model.functions[0].node.append(helper.make_node("Other", ["a"], ["c"], domain="my"))
    model.functions[0].node.append(helper.make_node("F", ["a"], ["d"], domain="my"))


def _through_a_branch(model: onnx.ModelProto) -> None:
    function = model.functions[0]
    inner = helper.make_graph(
        [helper.make_node("F", ["a"], ["t"], domain="my")],
        "inner",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )
    del function.node[:]
    function.node.append(helper.make_node("ReduceMax", ["a"], ["m"], keepdims=0))
    function.node.append(helper.make_node("Cast", ["m"], ["c"], to=TensorProto.BOOL))
    function.node.append(helper.make_node("If", ["c"], ["b"], then_branch=inner, else_branch=inner))


def _long_cycle(model: onnx.ModelProto) -> None:
    count = 20_000
    for index in range(count):
        model.graph.node.append(helper.make_node("Neg", [f"v{(index - 1) % count}"], [f"v{index}"]))


def _type(part: str) -> Make:
    def change(model: onnx.ModelProto) -> None:
        infos = getattr(model.graph, part)
        if not infos:
            infos.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, ["N"]))
        infos[0].type.tensor_type.elem_type = 99

    return changed(change)


_CYCLE = ("GO045", "the graph has a cycle")
_NOTHING = ("GO044", "nothing produces")
_TWICE = ("GO042", "two values called")
_NAMELESS = ("GO134", "has no name")
_ITSELF = ("GO133", "calls itself")

_GRAPHS: dict[str, tuple[Make, tuple[str, str]]] = {
    "a node that reads itself": (_input(0, 0, "a"), _CYCLE),
    "a node that reads a later one that reads it": (_input(0, 0, "y"), _CYCLE),
    "a cycle of 20,000 nodes": (changed(_long_cycle), _CYCLE),
    "a branch that reads its own holder": (_head("Neg(x)", "Neg(y)", BRANCHES), _CYCLE),
    "an input that nothing produces": (_input(0, 0, "lost"), _NOTHING),
    "an input in a branch that nothing produces": (_head("Neg(x)", "Neg(lost)", BRANCHES), _NOTHING),
    "an input in a function that nothing produces": (_head("Neg(a)", "Neg(lost)", CALL), _NOTHING),
    "a function that reads the graph that calls it": (_head("Neg(a)", "Neg(x)", CALL), _NOTHING),
    "a branch's value read outside": (
        changed(_node(op_type="Neg", input=["t"], output=["z"]), BRANCHES),
        _NOTHING,
    ),
    "an output that nothing produces": (changed(lambda m: setattr(m.graph.output[0], "name", "lost")), _NOTHING),
    "an output without a name": (_nameless("output"), _NOTHING),
    "a function's output that nothing produces": (
        changed(lambda m: m.functions[0].output.__setitem__(0, "lost"), CALL),
        _NOTHING,
    ),
    "two nodes that write one name": (changed(_node(op_type="Neg", input=["x"], output=["a"])), _TWICE),
    "a node that writes one name twice": (
        changed(_node(op_type="Split", input=["x"], output=["p", "p"])),
        ("GO042", "two outputs of one name"),
    ),
    "a node that writes an input": (changed(_node(op_type="Neg", input=["x"], output=["x"])), _TWICE),
    "a node that writes an initializer": (changed(_node(op_type="Neg", input=["x"], output=["w"])), _TWICE),
    "two nodes of a function that write one name": (
        changed(lambda m: m.functions[0].node.append(helper.make_node("Abs", ["a"], ["b"])), CALL),
        _TWICE,
    ),
    "two inputs of one name": (_again("input"), _TWICE),
    "two initializers of one name": (_again("initializer"), ("GO042", "two initializers called 'w'")),
    "two functions of one name": (
        changed(lambda m: m.functions.append(m.functions[0]), CALL),
        ("GO042", "two functions called 'F'"),
    ),
    "an input without a name": (_nameless("input"), _NAMELESS),
    "an initializer without a name": (_nameless("initializer"), _NAMELESS),
    "a node without an operator": (
        changed(_node(input=["x"], output=["z"])),
        ("GO134", "a node has no operator"),
    ),
    "an empty node": (changed(_node()), ("GO134", "a node has no operator")),
    "an input of an unknown type": (_type("input"), ("GO034", "unknown element type 99")),
    "an output of an unknown type": (_type("output"), ("GO034", "unknown element type 99")),
    "a value of an unknown type": (_type("value_info"), ("GO034", "unknown element type 99")),
    "a domain that is not imported": (_head("Relu(a)", "far.away.Relu(a)"), ("GO043", "'far.away' has no opset")),
    "the standard domain not imported": (_head(*_VERSION), ("GO043", "'ai.onnx' has no opset import")),
    "graphopt's own domain": (
        _head("Relu(a)", "ir.Relu(a)", GOOD.replace("]>", ', "ir" : 1]>')),
        ("GO043", "is graphopt's own"),
    ),
    "a function that calls itself": (
        changed(lambda m: m.functions[0].node.append(helper.make_node("F", ["a"], ["c"], domain="my")), CALL),
        _ITSELF,
    ),
    "a function that calls another and itself": (changed(_another_and_itself, CALL), _ITSELF),
    "a function that calls itself in a branch": (changed(_through_a_branch, CALL), _ITSELF),
    "two functions that call each other": (_circle(2), _ITSELF),
    "a circle of 3,000 functions": (_circle(3000), _ITSELF),
    "functions in a circle that nobody calls": (
        changed(
            lambda m: m.functions.append(
                FunctionProto(
                    domain="my",
                    name="Alone",
                    input=["a"],
                    output=["b"],
                    node=[helper.make_node("Alone", ["a"], ["b"], domain="my")],
                    opset_import=m.opset_import,
                )
            ),
            CALL,
        ),
        _ITSELF,
    ),
    "opset 0": (changed(lambda m: setattr(m.opset_import[0], "version", 0)), ("GO040", "has no opset 0")),
    "opset -1": (changed(lambda m: setattr(m.opset_import[0], "version", -1)), ("GO040", "has no opset -1")),
    "opset 1,000": (changed(lambda m: setattr(m.opset_import[0], "version", 1000)), ("GO041", "opset 1000 is newer")),
    "opset 2^63 - 1": (
        changed(lambda m: setattr(m.opset_import[0], "version", (1 << 63) - 1)),
        ("GO041", "is newer than any"),
    ),
    "opset -1 of another domain": (_version("far", -1), ("GO040", "'far' has no opset -1")),
    "opset 0 after another": (_version("ai.onnx", 0), ("GO040", "has no opset 0")),
    "IR version -1": (changed(lambda m: setattr(m, "ir_version", -1)), ("GO040", "no version -1 of the IR")),
    "IR version 99": (changed(lambda m: setattr(m, "ir_version", 99)), ("GO041", "version 99 of the IR is newer")),
    "IR version 2^62": (changed(lambda m: setattr(m, "ir_version", 1 << 62)), ("GO041", "of the IR is newer")),
    "neither IR version nor opset": (
        changed(lambda m: (m.ClearField("ir_version"), m.ClearField("opset_import"))),
        ("GO023", "no graph in it"),
    ),
}


def _twice(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(model.graph.node[0].attribute[0])


_ATTRIBUTES: dict[str, tuple[Make, str]] = {
    "without a type": (_attribute(lambda a: a.ClearField("type")), "has no type"),
    "without a name": (_attribute(lambda a: a.ClearField("name")), "has no name"),
    "of another type": (_attribute(lambda a: setattr(a, "type", AttributeProto.INT)), "to be INT, and holds FLOAT"),
    "of a list's type": (_attribute(lambda a: setattr(a, "type", AttributeProto.FLOATS)), "to be FLOATS, and holds"),
    "with two values": (_attribute(lambda a: setattr(a, "i", 3)), "holds FLOAT and INT"),
    "with a value and a list": (_attribute(lambda a: a.ints.append(3)), "holds FLOAT and INTS"),
    "that is there twice": (changed(_twice, _LEAKY), "two attributes are called 'alpha'"),
    "that is a graph and says number": (
        changed(lambda m: setattr(m.graph.node[0].attribute[0], "type", AttributeProto.INT), BRANCHES),
        "to be INT, and holds GRAPH",
    ),
    "of a function, without a type": (
        changed(lambda m: m.functions[0].attribute_proto.add(name="k", i=1), CALL),
        "has no type",
    ),
}

GRAPHS: dict[str, Case] = {
    **{name: (make, *says) for name, (make, says) in _GRAPHS.items()},
    **{f"an attribute {name}": (make, "GO131", words) for name, (make, words) in _ATTRIBUTES.items()},
}
