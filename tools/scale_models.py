"""Large graphs of several shapes, each made of a number: how many nodes it has, or branches, readers, functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from graphopt.bench.bert import BertConfig, bert

DEEPEST = 31
"""So many Ifs inside each other, whose outputs have shapes, are the most that protobuf reads back."""

_LAYER = 109
HEADS, HIDDEN = 2, 8
_OPSET = 20
_OWN = "scale"

Shape = Callable[[int], ModelProto]


def bert_like(nodes: int) -> ModelProto:
    """A BERT as exporters write it: tiny, and with as many layers as it takes."""
    layers = max(1, round(nodes / _LAYER))
    return bert(BertConfig(layers, HIDDEN, HEADS, intermediate=16, vocabulary=32, positions=32))


def blocks(nodes: int) -> ModelProto:
    """Residual blocks in a row, four nodes and two constants each."""
    body, weights, last = [], [], "input"
    for index in range(nodes // 4):
        name = f"/encoder/layer.{index}"
        weight, bias = f"encoder.layer.{index}.weight", f"encoder.layer.{index}.bias"
        weights += [
            helper.make_tensor(weight, TensorProto.FLOAT, [2, 2], [1.0, 2.0, 3.0, 4.0]),
            helper.make_tensor(bias, TensorProto.FLOAT, [2], [1.0, 2.0]),
        ]
        steps: list[tuple[str, list[str], dict[str, Any]]] = [
            ("MatMul", [last, weight], {}),
            ("Add", [f"{name}/MatMul_output_0", bias], {}),
            ("Softmax", [f"{name}/Add_output_0"], {"axis": -1}),
            ("Sub", [f"{name}/Softmax_output_0", last], {}),
        ]
        for op, inputs, attributes in steps:
            body.append(helper.make_node(op, inputs, [f"{name}/{op}_output_0"], f"{name}/{op}", **attributes))
        last = f"{name}/Sub_output_0"
    return _model([_rows("input")], body, [_rows(last)], weights)


def chain(nodes: int) -> ModelProto:
    """One node after the other."""
    body = [_node(("Sin", "Cos")[index % 2], [_step(index)], _step(index + 1)) for index in range(nodes)]
    return _model([_rows(_step(0))], body, [_rows(_step(nodes))])


def concat(ways: int) -> ModelProto:
    """One node with many inputs, each made by a node of its own."""
    parts, factors = _products("x", ways)
    joined = _node("Concat", [part.output[0] for part in parts], "y", axis=1)
    return _model([_rows("x")], [*parts, joined], [_rows("y", 2 * ways)], factors)


def readers(uses: int) -> ModelProto:
    """One value that every node of a chain reads."""
    body = [_node("Tanh", ["x"], "h"), _node("Neg", ["h"], _step(0))]
    body += [_node("Sub", ["h", _step(index)], _step(index + 1)) for index in range(uses - 1)]
    return _model([_rows("x")], body, [_rows(_step(uses - 1))])


def outputs(number: int) -> ModelProto:
    """Many graph outputs, each made by a node of its own."""
    parts, factors = _products("x", number)
    return _model([_rows("x")], parts, [_rows(part.output[0]) for part in parts], factors)


def captures(number: int) -> ModelProto:
    """An If, one branch of which reads many values from outside."""
    parts, factors = _products("x", number)
    total = helper.make_graph([_node("Sum", [part.output[0] for part in parts], "total")], "then", [], [_rows("total")])
    choice = _node("If", ["condition"], "y", then_branch=total, else_branch=_alone("Identity", "x", "same"))
    return _model([_condition(), _rows("x")], [*parts, choice], [_rows("y")], factors)


def branches(number: int) -> ModelProto:
    """Ifs in a row, each of which reads what the one before made."""
    body = []
    for index in range(number):
        then, other = (_alone(op, _step(index), f"{op} {index}") for op in ("Sin", "Cos"))
        body.append(_node("If", ["condition"], _step(index + 1), then_branch=then, else_branch=other))
    return _model([_condition(), _rows(_step(0))], body, [_rows(_step(number))])


def identities(number: int) -> ModelProto:
    """A chain of nodes that do nothing: one value takes the place of the other."""
    body = [_node("Identity", [_step(index)], _step(index + 1)) for index in range(number)]
    return _model([_rows(_step(0))], [*body, _node("Sin", [_step(number)], "y")], [_rows("y")])


def equals(number: int) -> ModelProto:
    """Nodes that compute the same, into one with many inputs."""
    parts = [_node("Sin", ["x"], f"part{index}") for index in range(number)]
    return _model([_rows("x")], [*parts, _node("Sum", [part.output[0] for part in parts], "y")], [_rows("y")])


def numbers(number: int) -> ModelProto:
    """A chain of nodes that no input reaches."""
    body = [_node("Add", [f"sum{index}", "one"], f"sum{index + 1}") for index in range(number)]
    start = [helper.make_tensor(name, TensorProto.FLOAT, [], [1.0]) for name in ("sum0", "one")]
    return _model([_rows("x")], [*body, _node("Add", ["x", f"sum{number}"], "y")], [_rows("y")], start)


def gelus(number: int) -> ModelProto:
    """Rewrites side by side on one value, into one node with many inputs."""
    parts, factors = _products("x", number)
    body = []
    for index, part in enumerate(parts):
        h, names = part.output[0], [f"{step} {index}" for step in ("divided", "erf", "plus", "times", "gelu")]
        steps = (("Div", h, "root"), ("Erf", names[0]), ("Add", names[1], "one"), ("Mul", h, names[2]))
        body += [_node(op, inputs, made) for (op, *inputs), made in zip(steps, names, strict=False)]
        body.append(_node("Mul", [names[3], "half"], names[4]))
    scalars = {"root": 2**0.5, "one": 1.0, "half": 0.5}
    weights = [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in scalars.items()]
    joined = _node("Concat", [f"gelu {index}" for index in range(number)], "y", axis=1)
    return _model([_rows("x")], [*parts, *body, joined], [_rows("y", 2 * number)], [*factors, *weights])


def nested(depth: int) -> ModelProto:
    """Ifs inside each other."""
    inner = _alone("Sin", "x", "deepest")
    for level in range(depth):
        other = _alone("Cos", "x", f"other {level}")
        choice = _node("If", ["condition"], f"chosen {level}", then_branch=inner, else_branch=other)
        inner = helper.make_graph([choice], f"level {level}", [], [_rows(f"chosen {level}")])
    return _model([_condition(), _rows("x")], list(inner.node), list(inner.output))


def functions(number: int) -> ModelProto:
    """Functions each of which calls the one before."""
    imports = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_OWN, 1)]
    first = helper.make_function(_OWN, "F0", ["x"], ["y"], [_node("Sin", ["x"], "y")], imports)
    rest = [
        helper.make_function(
            _OWN, f"F{index}", ["x"], ["y"], [_node("Cos", ["x"], "h"), _call(index - 1, "h")], imports
        )
        for index in range(1, number)
    ]
    model = _model([_rows("x")], [_call(number - 1, "x")], [_rows("y")])
    model.functions.extend([first, *rest])
    model.opset_import.add(domain=_OWN, version=1)
    return model


def _call(index: int, given: str) -> NodeProto:
    return helper.make_node(f"F{index}", [given], ["y"], domain=_OWN)


def _products(given: str, number: int) -> tuple[list[NodeProto], list[TensorProto]]:
    """A value times so many numbers, of which no two are equal."""
    parts = [_node("Mul", [given, f"factor{index}"], f"part{index}") for index in range(number)]
    factors = [
        helper.make_tensor(f"factor{index}", TensorProto.FLOAT, [], [(index + 1) / number]) for index in range(number)
    ]
    return parts, factors


def _alone(op: str, given: str, made: str) -> GraphProto:
    return helper.make_graph([_node(op, [given], made)], made, [], [_rows(made)])


def _node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs, [output], **attributes)


def _step(index: int) -> str:
    return f"step {index}"


def _rows(name: str, width: int = 2) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])


def _condition() -> ValueInfoProto:
    return helper.make_tensor_value_info("condition", TensorProto.BOOL, [])


def _model(
    inputs: Sequence[ValueInfoProto],
    nodes: Sequence[NodeProto],
    made: Sequence[ValueInfoProto],
    weights: Sequence[TensorProto] = (),
) -> ModelProto:
    graph = helper.make_graph(nodes, "scale", inputs, made, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)


LINEAR: dict[str, Shape] = {
    "blocks": blocks,
    "BERT": bert_like,
    "chain": chain,
    "concat": concat,
    "readers": readers,
    "outputs": outputs,
    "captures": captures,
    "branches": branches,
    "equals": equals,
    "identities": identities,
    "numbers": numbers,
    "gelus": gelus,
    "functions": functions,
}
"""Shapes whose cost grows with the number, no faster."""

WIDE: dict[str, tuple[Shape, int]] = {
    "5,000-way Concat": (concat, 5_000),
    "a value used 50,000 times": (readers, 50_000),
    "20,000 graph outputs": (outputs, 20_000),
    "chain of 20,000 nodes": (chain, 20_000),
    "If that captures 20,000 values": (captures, 20_000),
    f"{DEEPEST} Ifs inside each other": (nested, DEEPEST),
    "1,000 functions in a chain": (functions, 1_000),
}
