"""Single mistakes in a model, drawn at random: one node does something else than it did."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper

_BOTH_WAYS: Final = (
    *(("Add", "Sub"), ("Mul", "Div"), ("Min", "Max"), ("And", "Or"), ("Sin", "Cos"), ("Erf", "Tanh")),
    *(("Greater", "GreaterOrEqual"), ("Less", "LessOrEqual"), ("ReduceMean", "ReduceSum"), ("ReduceMax", "ReduceMin")),
)
_ONE_WAY: Final = (
    *(("Sigmoid", "HardSigmoid"), ("Relu", "Abs"), ("Exp", "Softplus"), ("Sqrt", "Abs"), ("Neg", "Abs")),
    *(("Gelu", "Relu"), ("Floor", "Round"), ("Softmax", "LogSoftmax"), ("MaxPool", "AveragePool"), ("Not", "Identity")),
)
_NEIGHBOURS: Final = dict([*_BOTH_WAYS, *(pair[::-1] for pair in _BOTH_WAYS), *_ONE_WAY])
_COMMUTATIVE: Final = ("Add", "Mul", "And", "Or", "Equal", "Min", "Max")


def operator(model: ModelProto, node: NodeProto, rng: random.Random) -> bool:
    """A neighbour of the operator."""
    before = node.op_type
    node.op_type = _NEIGHBOURS.get(before, before)
    return bool(node.op_type != before)


def attribute(model: ModelProto, node: NodeProto, rng: random.Random) -> bool:
    """Another number in an attribute, or two of its numbers exchanged."""
    found = [one for one in node.attribute if one.type in _OTHER and one.name not in ("to", "dtype")]
    if not found:
        return False
    one = rng.choice(found)
    before = one.SerializeToString()
    _OTHER[one.type](one, rng)
    return bool(one.SerializeToString() != before)


def _float(one: AttributeProto, rng: random.Random) -> None:
    one.f *= rng.choice([0.0, 1.02, 10.0])


def _integer(one: AttributeProto, rng: random.Random) -> None:
    one.i = 1 - one.i if one.i in (0, 1) else one.i + rng.choice([-1, 1])


def _integers(one: AttributeProto, rng: random.Random) -> None:
    if len(one.ints) > 1:
        a, b = rng.sample(range(len(one.ints)), 2)
        one.ints[a], one.ints[b] = one.ints[b], one.ints[a]


_OTHER: Final = {AttributeProto.FLOAT: _float, AttributeProto.INT: _integer, AttributeProto.INTS: _integers}


def exchanged(model: ModelProto, node: NodeProto, rng: random.Random) -> bool:
    """Two operands in each other's place."""
    slots = [slot for slot, name in enumerate(node.input) if name]
    if len(slots) < 2 or node.op_type in _COMMUTATIVE:
        return False
    a, b = rng.sample(slots, 2)
    node.input[a], node.input[b] = node.input[b], node.input[a]
    return bool(node.input[a] != node.input[b])


def rewired(model: ModelProto, node: NodeProto, rng: random.Random) -> bool:
    """Another value of the same type and shape read."""
    types = {one.name: one.type.SerializeToString() for one in (*model.graph.value_info, *model.graph.input)}
    place = next(i for i, one in enumerate(model.graph.node) if one is node)
    before = [one.name for one in model.graph.input]
    before += [name for one in model.graph.node[:place] for name in one.output]
    operands = [(slot, name) for slot, name in enumerate(node.input) if name in types]
    choices = [(i, new) for i, old in operands for new in before if new != old and types.get(new) == types[old]]
    if choices:
        slot, node.input[slot] = rng.choice(choices)
    return bool(choices)


def dropped(model: ModelProto, node: NodeProto, rng: random.Random) -> bool:
    """The last operand left out."""
    if len(node.input) < 2:
        return False
    node.input.pop()
    return True


def passed(model: ModelProto, node: NodeProto, rng: random.Random) -> bool:
    """The node passed by: one of its operands in place of its result."""
    operands = [name for name in node.input if name]
    if len(node.output) != 1 or not operands or node.op_type == "Identity":
        return False
    node.CopyFrom(onnx.helper.make_node("Identity", [rng.choice(operands)], list(node.output), node.name))
    return True


def constant(model: ModelProto, node: NodeProto, rng: random.Random) -> bool:
    """Other numbers in a constant that is read: all a little off, or one element alone."""
    found = [tensor for tensor in _constants(model) if tensor.name in node.input]
    numbers = numpy_helper.to_array(tensor := rng.choice(found)).copy() if found else np.zeros(0)
    if numbers.size == 0 or numbers.dtype.kind not in "fiub":
        return False
    is_one = numbers.size > 1 and rng.random() < 0.7
    here = tuple(rng.randrange(size) for size in numbers.shape) if is_one else ...
    with np.errstate(over="ignore"):
        numbers[here] = _near(numbers[here], rng)
    tensor.CopyFrom(numpy_helper.from_array(numbers, tensor.name))
    return True


def _near(number: Any, rng: random.Random) -> Any:
    if number.dtype.kind == "b":
        return ~number
    if number.dtype.kind in "iu":
        return number + number.dtype.type(1)
    return number * number.dtype.type(rng.choice([1.05, -1.0, 0.5, 10.0]))


def _constants(model: ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for one in node.attribute:
            if node.op_type == "Constant" and one.name == "value":
                one.t.name = node.output[0]
                yield one.t


CHANGES: Final[tuple[Callable[[ModelProto, NodeProto, random.Random], bool], ...]] = (
    *(operator, attribute, exchanged, rewired, dropped, passed, constant),
)


@dataclass(frozen=True)
class Mutant:
    """A model with one mistake; `near` are the names of the node, of its neighbours, and of what they read and give."""

    kind: str
    node: str
    near: frozenset[str]
    proto: ModelProto


def mutants(model: ModelProto, rng: random.Random) -> Iterator[Mutant]:
    """Mutants without end, each kind in turn, each at a random node where it can be."""
    while True:
        for change in CHANGES:
            proto = ModelProto()
            proto.CopyFrom(model)
            node = rng.choice(proto.graph.node)
            label, names = f"{node.op_type} '{node.name or node.output[0]}'", {node.name, *node.input, *node.output}
            if change(proto, node, rng):
                names |= set(node.input)
                beside = [one for one in model.graph.node if names & {*one.input, *one.output}]
                names |= {name for one in beside for name in (one.name, *one.output)}
                yield Mutant(change.__name__, label, frozenset(names - {""}), proto)
