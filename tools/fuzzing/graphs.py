"""Random valid graphs: operators that fit, fragments in many spellings, and graphs of the rules' cases side by side."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper

from fuzzing.case import Case
from fuzzing.fragments import FRAGMENTS, gelu, swish
from fuzzing.operators import OPERATORS, unary
from fuzzing.seeds import Pool
from fuzzing.sketch import LARGEST, Sketch, Wire

FLOATS = (TensorProto.FLOAT,) * 6 + (TensorProto.FLOAT16, TensorProto.FLOAT16, TensorProto.DOUBLE)


def random_graph(rng: Random, pool: Pool) -> Case:
    """A valid model of a random kind."""
    if rng.random() < 0.3:
        return _side_by_side(rng, pool)
    sketch = Sketch(rng, rng.choice((11, 13, 14, 17, 17, 18, 20, 20, 21, 23)), rng.choice(FLOATS))
    size = rng.choice((4, 8, 8, 16))
    shapes = (("B", 4, size), ("B", 5, size), ("B", 2, 4, size), ("B", size), (2, 4, size), (size,), ("B", "B", size))
    for shape in rng.choices(shapes, k=rng.choice((1, 2, 2, 3))):
        sketch.input(sketch.kind, shape)
    steps = rng.choice((3, 6, 10, 16, 25))
    done = []
    while len(done) < steps:
        step = rng.choice(STEPS)
        try:
            step(sketch)
        except (IndexError, ValueError):
            continue  # nothing that it fits, or it would be too large
        done.append(step.__name__.strip("_"))
        if math.prod(sketch.wires[-1].shape) > LARGEST:
            break
    return Case(_written(sketch), "+".join(done), foreign=False)


def _written(sketch: Sketch) -> bytes:
    """The model; its outputs are the last value, what nobody reads, and some inner values."""
    rng = sketch.rng
    read = {name for node in sketch.nodes for name in node.input}
    made = {name for node in sketch.nodes for name in node.output}
    free = [wire for wire in sketch.wires if wire.name in made and wire.name not in read]
    inner = [wire for wire in sketch.wires if wire.name in made and wire.name in read]
    chosen = free + rng.sample(inner, min(len(inner), rng.choice((0, 0, 0, 1, 2))))
    if rng.random() < 0.1:
        rng.shuffle(chosen)
    outputs = [helper.make_tensor_value_info(wire.name, wire.kind, None) for wire in chosen]
    graph = helper.make_graph(sketch.nodes, "g", sketch.inputs, outputs, sketch.weights)
    version = 8 if sketch.opset < 20 else 10
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", sketch.opset)], ir_version=version)
    return bytes(model.SerializeToString())


# ---- control flow ----------------------------------------------------------------------------------------------------


def _if(s: Sketch) -> None:
    """Both branches read the same value of outside; one of them may read another."""
    x = s.pick()
    y = s.pick(lambda wire: wire.shape == x.shape)
    condition = s.reduced("ReduceSum", x, range(-x.rank, 0), keep=False) if x.rank else x
    test = s.op("Greater", condition, s.constant(np.array(0.0)), shape=(), dtype=TensorProto.BOOL)
    if s.rng.random() < 0.2:
        test = s.constant(np.array(s.rng.random() < 0.5), TensorProto.BOOL)
    bodies = [_branch(s, x), _branch(s, y)]
    s.op("If", test, shape=x.shape, dtype=x.kind, then_branch=bodies[0], else_branch=bodies[1])


def _branch(s: Sketch, x: Wire) -> GraphProto:
    inner = Sketch(s.rng, s.opset, s.kind, wires=[x], count=s.count)
    for _ in range(s.rng.choice((1, 2, 3))):
        s.rng.choice((gelu, swish, unary, _with_same))(inner)
    s.count = inner.count
    last = inner.wires[-1]
    if last.shape != x.shape:
        raise ValueError("it would stretch")
    output = helper.make_tensor_value_info(last.name, last.kind, None)
    return helper.make_graph(inner.nodes, "branch", [], [output], inner.weights)


def _with_same(s: Sketch) -> None:
    x = s.pick()
    s.swapped(s.rng.choice(("Add", "Mul")), x, s.number(s.rng.choice((0.0, 1.0, 0.5))))


def _loop(s: Sketch) -> None:
    """A few turns over a value that is carried, which reads another from outside."""
    x = s.pick()
    y = s.pick(lambda wire: wire.shape == x.shape)
    carried = Wire(s.name(), x.kind, x.shape)
    inner = Sketch(s.rng, s.opset, s.kind, wires=[y, carried], count=s.count)
    s.rng.choice((gelu, swish, _with_same))(inner)
    last = inner.like("Add", inner.wires[-1], carried)
    scaled = inner.like("Mul", last, inner.number(0.5))
    s.count = inner.count
    number, on, go = s.name(), s.name(), s.name()
    inner.nodes.append(helper.make_node("Identity", [on], [go]))
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        inner.nodes,
        "body",
        [info(number, TensorProto.INT64, []), info(on, TensorProto.BOOL, []), info(carried.name, x.kind, None)],
        [info(go, TensorProto.BOOL, []), info(scaled.name, x.kind, None)],
        inner.weights,
    )
    if scaled.shape != x.shape:
        raise ValueError("it would stretch")
    trips = s.constant(np.int64(s.rng.choice((0, 1, 2, 3))), TensorProto.INT64)
    s.op("Loop", trips, None, x, shape=x.shape, dtype=x.kind, body=body)


STEPS = (*OPERATORS, *FRAGMENTS, _if, _loop)


# ---- cases of rules --------------------------------------------------------------------------------------------------


def _side_by_side(rng: Random, pool: Pool) -> Case:
    """Graphs of several cases of rules as one model, which share inputs of one type."""
    model = ModelProto()
    origin = []
    shared: dict[bytes, str] = {}
    for number in range(rng.choice((1, 2, 2, 3, 4))):
        seed = pool.draw(rng, "rules")
        other = ModelProto.FromString(seed.model)
        if number and not _fits(model, other):
            continue
        origin.append(seed.name)
        _rename(other.graph, f"p{number}_", {})
        _share(model, other.graph, shared, rng)
        if not number:
            model.CopyFrom(other)
            continue
        for name in ("node", "initializer", "input", "output", "value_info"):
            getattr(model.graph, name).extend(getattr(other.graph, name))
    if rng.random() < 0.3:
        _expose(model.graph, rng)
    return Case(model.SerializeToString(), "+".join(origin), foreign=False)


def _fits(model: ModelProto, other: ModelProto) -> bool:
    imports = [{(one.domain, one.version) for one in proto.opset_import} for proto in (model, other)]
    return imports[0] == imports[1] and not other.functions and not model.functions


def _share(model: ModelProto, graph: GraphProto, shared: dict[bytes, str], rng: Random) -> None:
    """Inputs of a type that another graph has as well become that input, in half of all cases."""
    names: dict[str, str] = {}
    kept = []
    defaults = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        kind = value.type.SerializeToString()
        if value.name not in defaults and kind in shared and shared[kind] not in names.values() and rng.random() < 0.5:
            names[value.name] = shared[kind]
            continue
        if value.name not in defaults:
            shared.setdefault(kind, value.name)
        kept.append(value)
    values = list(kept)
    del graph.input[:]
    graph.input.extend(values)
    _rename(graph, "", names)


def _rename(graph: GraphProto, prefix: str, names: dict[str, str]) -> None:
    """Renames values: by `names`, and with a `prefix`; sizes keep their names, which several graphs may share."""

    def new(name: str) -> str:
        return names.get(name, prefix + name) if name else ""

    for value in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        value.name = new(value.name)
    for node in graph.node:
        node.input[:] = map(new, node.input)
        node.output[:] = map(new, node.output)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename(attribute.g, prefix, names)


def _expose(graph: GraphProto, rng: Random) -> None:
    """An inner value is an output too."""
    known = {value.name: value for value in graph.value_info}
    outputs = {value.name for value in graph.output}
    free = sorted(name for name in known.keys() - outputs)
    if free:
        graph.output.append(known[rng.choice(free)])
