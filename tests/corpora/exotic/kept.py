"""What a tool must leave of a model, told by two files without running them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx


def differences(before: onnx.ModelProto, after: onnx.ModelProto) -> list[str]:
    """What `before` says and `after` does not: in words, nothing where all is there.

    Nodes may go, functions may be put in place of their calls, and what was said of values that are gone goes with
    them. Inputs, outputs, documentation, metadata, training, devices, and what is said of values that are left stay.
    """
    return list(_differences(before, after))


def _differences(before: onnx.ModelProto, after: onnx.ModelProto) -> Iterator[str]:
    yield from _ports("input", _fed(before), _fed(after))
    yield from _ports("output", list(before.graph.output), list(after.graph.output))
    for part, one, other in (("model", before, after), ("graph", before.graph, after.graph)):
        if one.doc_string != other.doc_string:
            yield f"documentation of the {part}"
        if missing := _pairs(one.metadata_props) - _pairs(other.metadata_props):
            yield f"metadata of the {part}: {sorted(missing)}"
    if _written(before.training_info) != _written(after.training_info):
        yield "training_info"
    yield from _training(before, after)
    if _written(before.configuration) != _written(after.configuration):
        yield "device configurations"
    there = _names(after.graph)
    for entry in before.graph.quantization_annotation:
        if entry.tensor_name in there and entry not in after.graph.quantization_annotation:
            yield f"the annotation of '{entry.tensor_name}'"
    yield from _nodes(before.graph, after.graph)


def _fed(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs of a model; one that is an initializer may be fed from IR 4 on."""
    given = {tensor.name for tensor in model.graph.initializer} if model.ir_version < 4 else set()
    return [value for value in model.graph.input if value.name not in given]


def _ports(kind: str, before: list[onnx.ValueInfoProto], after: list[onnx.ValueInfoProto]) -> Iterator[str]:
    names, left = [value.name for value in before], [value.name for value in after]
    if names != left:
        yield f"{kind}s {names}, now {left}"
        return
    for one, other in zip(before, after, strict=True):
        if not _fits(one.type, other.type):
            yield f"the type of the {kind} '{one.name}'"
        if one.doc_string != other.doc_string or _pairs(one.metadata_props) - _pairs(other.metadata_props):
            yield f"documentation of the {kind} '{one.name}'"


def _fits(declared: onnx.TypeProto, other: onnx.TypeProto) -> bool:
    """Whether `other` is the type that was declared, or says more of its sizes."""
    if declared.WhichOneof("value") != "tensor_type" or other.WhichOneof("value") != "tensor_type":
        return bool(declared == other)
    one, two = declared.tensor_type, other.tensor_type
    if one.elem_type != two.elem_type or declared.denotation != other.denotation:
        return False
    if not one.HasField("shape"):
        return True
    sizes = zip(one.shape.dim, two.shape.dim, strict=False)
    return (
        two.HasField("shape")
        and len(one.shape.dim) == len(two.shape.dim)
        and all(a == b or (not a.HasField("dim_value") and b.HasField("dim_value")) or _nameless(a) for a, b in sizes)
    )


def _nameless(dim: onnx.TensorShapeProto.Dimension) -> bool:
    return not dim.HasField("dim_value") and not dim.dim_param


def _training(before: onnx.ModelProto, after: onnx.ModelProto) -> Iterator[str]:
    """What training names, and finds no more."""
    held = _constants(after.graph)
    known = _names(after.graph)
    functions = {(function.domain, function.name) for function in after.functions}
    for training in before.training_info:
        for binding in (*training.initialization_binding, *training.update_binding):
            if binding.key not in held:
                yield f"the weight '{binding.key}' that training updates"
        made = _names(training.algorithm)
        for node in training.algorithm.node:
            lost = [name for name in node.input if name and name not in known | made]
            yield from (f"'{name}', which training reads" for name in lost if name in _names(before.graph))
            called = (node.domain, node.op_type)
            if called in {(f.domain, f.name) for f in before.functions} - functions:
                yield f"the function {node.op_type}, which training calls"
    if before.training_info and _opsets(before) != {d: v for d, v in _opsets(after).items() if d in _opsets(before)}:
        yield "the opset that training is written in"
    weights = {t.name: t for t in before.graph.initializer}
    for tensor in after.graph.initializer:
        if before.training_info and tensor.name in weights and weights[tensor.name].dims != tensor.dims:
            yield f"the shape of the weight '{tensor.name}'"


def _opsets(model: onnx.ModelProto) -> dict[str, int]:
    return {entry.domain: entry.version for entry in model.opset_import}


def _nodes(before: onnx.GraphProto, after: onnx.GraphProto) -> Iterator[str]:
    """What was said of nodes that are still there: the same operator on the same operands, writing the same names."""
    left = {_signature(node): node for node in after.node}
    for node in before.node:
        other = left.get(_signature(node))
        if other is None:
            continue
        if node.name not in ("", other.name) or node.doc_string != other.doc_string:
            yield f"name or documentation of the node that writes {list(node.output)}"
        if _pairs(node.metadata_props) - _pairs(other.metadata_props):
            yield f"metadata of the node that writes {list(node.output)}"
        if _written(node.device_configurations) != _written(other.device_configurations):
            yield f"devices of the node that writes {list(node.output)}"


def _signature(node: onnx.NodeProto) -> tuple[object, ...]:
    return (node.op_type, node.domain.replace("ai.onnx", ""), tuple(node.input), tuple(node.output))


def _constants(graph: onnx.GraphProto) -> set[str]:
    return {tensor.name for tensor in graph.initializer} | {s.values.name for s in graph.sparse_initializer}


def _names(graph: onnx.GraphProto) -> set[str]:
    """The values of a graph, but for those of its subgraphs."""
    names = {value.name for value in graph.input} | _constants(graph)
    for node in graph.node:
        names.update(node.output)
    return names


def _pairs(entries: onnx.ModelProto) -> set[tuple[str, str]]:
    return {(entry.key, entry.value) for entry in entries}


def _written(messages: onnx.ModelProto) -> list[bytes]:
    return [message.SerializeToString(deterministic=True) for message in messages]
