"""What a caller sees of a model: names, order, types and defaults of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import TypeProto

from graphopt.errors import close_names
from graphopt.ir import Model, Node, Shape, Value, dtypes
from graphopt.verify.structure import identical


def interface_difference(original: Model, candidate: Model) -> str:
    """How the two differ for a caller: names, order and element types; defaults and sizes of inputs. Empty if not."""
    for what, before, after in (
        ("inputs", _inputs(original), _inputs(candidate)),
        ("outputs", original.graph.outputs, candidate.graph.outputs),
    ):
        difference = _name_difference([value.name for value in before], [value.name for value in after])
        if difference:
            return f"the {what} differ: {difference}"
        for old, new in zip(before, after, strict=True):
            types = _type(old), _type(new)
            if all(types) and types[0] != types[1]:
                return f"the type of '{old.name}' among the {what} differs: {types[0]} and {types[1]}"
    inputs = {node.output.name: node for node in candidate.graph.inputs}
    pairs = ((value.node, inputs[value.name]) for value in _inputs(original))
    return next((difference for pair in pairs if (difference := _input_difference(*pair))), "")


def _inputs(model: Model) -> list[Value]:
    return [node.output for node in model.graph.inputs if node.op == "Input"]


def _name_difference(before: Sequence[str], after: Sequence[str]) -> str:
    """The first name that one side lacks, with the one that may stand for it; or the first place out of order."""
    for ours, theirs, there in ((before, after, "candidate"), (after, before, "reference")):
        missing = next((name for name in ours if name not in theirs), None)
        if missing is not None:
            close = close_names(missing, [name for name in theirs if name not in ours], 0.5)
            return f"the {there} has no '{missing}'" + (f", but '{close[0]}'" if close else "")
    place = next((i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), None)
    if place is not None:
        return f"'{before[place]}' stands where the candidate has '{after[place]}'"
    return f"{len(before)} in the reference, {len(after)} in the candidate" if len(before) != len(after) else ""


def _input_difference(old: Node, new: Node) -> str:
    """How an input of the candidate differs in its default, or in a size that the original leaves open."""
    name, before, after = old.output.name, old.output.shape, new.output.shape
    if (old.data is None) != (new.data is None) or (old.data and new.data and not identical(old.data, new.data)):
        return f"the default of the input '{name}' differs"
    if after is None:
        return ""
    fixed = before is None or len(before) != len(after)
    if fixed or any(isinstance(n, int) and n != m for m, n in zip(before or (), after, strict=False)):
        return f"the input '{name}' is [{_sizes(before)}] in the reference, [{_sizes(after)}] in the candidate"
    return ""


def _sizes(shape: Shape | None) -> str:
    return "..." if shape is None else ", ".join(map(str, shape))


def _type(value: Value) -> str:
    """The declared type, without sizes; empty where none is declared or known."""
    return _name(value.info.type) if value.info is not None else dtypes.NAMES.get(value.dtype, "")


def _name(proto: TypeProto) -> str:
    match proto.WhichOneof("value"):
        case "tensor_type":
            return dtypes.NAMES.get(proto.tensor_type.elem_type, "")
        case "sparse_tensor_type":
            return f"sparse({dtypes.NAMES.get(proto.sparse_tensor_type.elem_type, '')})"
        case "sequence_type":
            return f"sequence({_name(proto.sequence_type.elem_type)})"
        case "optional_type":
            return f"optional({_name(proto.optional_type.elem_type)})"
        case "map_type":
            key = dtypes.NAMES.get(proto.map_type.key_type, "")
            return f"map({key}, {_name(proto.map_type.value_type)})"
    return ""
