"""From the IR to ONNX protos and files. What was not changed is written as it was read."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto

from graphopt.errors import ModelError, UsageError
from graphopt.ir import attributes, dims
from graphopt.ir.dims import Shape
from graphopt.ir.graph import Graph
from graphopt.ir.model import Model
from graphopt.ir.node import Node, Value
from graphopt.ir.tensor import Tensor

External = Literal["never", "auto", "always"]

# protobuf cannot hold more than 2 GiB; the rest of a model is small beside its weights.
_PROTO_LIMIT = 2_000_000_000
_ALIGNMENT = 4096
_SMALL_TENSOR = 1024


def model_to_proto(model: Model) -> onnx.ModelProto:
    """The ModelProto of `model`; external tensors keep their entries."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    _write_opsets(proto.opset_import, model.opsets)
    _write_graph(model.graph, proto.graph)
    for function in model.functions.values():
        written = proto.functions.add()
        written.CopyFrom(function.proto)
        del written.node[:]
        _write_opsets(written.opset_import, dict(function.graph.opsets))
        # A function body has no initializers: its constants are nodes.
        for node in function.graph.sources("Constant"):
            assert node.data is not None
            value = node.data.to_proto(node.output.name)
            written.node.append(onnx.helper.make_node("Constant", [], [node.output.name], value=value))
        _write_nodes(function.graph, written.node.add)
    return proto


def _write_opsets(entries: Iterable[onnx.OperatorSetIdProto], opsets: dict[str, int]) -> None:
    left = dict(opsets)
    for entry in entries:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        entry.version = left.pop(domain, entry.version)
    for domain, version in left.items():
        entries.add(domain=domain, version=version)  # type: ignore[attr-defined]


def type_proto(dtype: int, shape: Shape | None) -> onnx.TypeProto:
    """The tensor type of a value; unknown dimensions are written as unknown."""
    sizes = None
    if shape is not None:
        sizes = [s if isinstance(s, int) else (None if "?" in str(s) else str(s)) for s in shape]
    return onnx.helper.make_tensor_type_proto(dtype, sizes)


def value_info(value: Value, name: str | None = None) -> onnx.ValueInfoProto:
    """What the file said of `value`, else what is known of it."""
    if value.info is not None and name in (None, value.info.name):
        return value.info
    return onnx.helper.make_value_info(name or value.name, type_proto(value.dtype, value.shape))


def written_name(value: Value | None) -> str:
    """The name `value` has in a file: a capture is called what it captures."""
    while value is not None and value.node.op == "Capture" and value.node.is_source:
        graph = value.node.graph
        slot = next(slot for slot, node in graph.captures.items() if node is value.node)
        assert graph.holder is not None
        value = graph.holder.inputs[slot]
    return value.name if value is not None else ""


def _write_graph(graph: Graph, proto: onnx.GraphProto) -> None:
    stack = [(graph, proto)]
    while stack:
        scope, written = stack.pop()
        stack.extend(_write_scope(scope, written))


def _write_scope(graph: Graph, proto: onnx.GraphProto) -> list[tuple[Graph, onnx.GraphProto]]:
    """Writes one scope; returns its subgraphs with the protos that wait for them."""
    original: onnx.GraphProto | None = graph.proto
    lost: set[str] = set()
    if original is not None:
        proto.name, proto.doc_string = original.name, original.doc_string
        if not original.HasField("name"):
            proto.ClearField("name")
        if not original.HasField("doc_string"):
            proto.ClearField("doc_string")
        proto.metadata_props.MergeFrom(original.metadata_props)
        lost = _names_of(original) - graph.names.keys()
        proto.value_info.extend(info for info in original.value_info if info.name not in lost)
        proto.quantization_annotation.extend(q for q in original.quantization_annotation if q.tensor_name not in lost)
        proto.sparse_initializer.extend(s for s in original.sparse_initializer if s.values.name in graph.names)
    else:
        proto.name = "graph"
    proto.input.extend(value_info(node.output) for node in graph.inputs)
    declared = list(original.output) if original is not None else []
    for slot, value in enumerate(graph.outputs):
        name = written_name(value)
        same = slot < len(declared) and declared[slot].name == name
        proto.output.append(declared[slot] if same else value_info(value, name))
    for node in sorted([*graph.sources("Constant"), *graph.sources("Input")], key=lambda n: n.rank):
        if node.data is not None:
            proto.initializer.append(node.data.to_proto(node.output.name))
    return _write_nodes(graph, proto.node.add)


def _names_of(proto: onnx.GraphProto) -> set[str]:
    names = {info.name for info in proto.input}
    names.update(tensor.name for tensor in proto.initializer)
    names.update(sparse.values.name for sparse in proto.sparse_initializer)
    for node in proto.node:
        names.update(node.output)
    return names


def _write_nodes(graph: Graph, new: Callable[[], onnx.NodeProto]) -> list[tuple[Graph, onnx.GraphProto]]:
    waiting: list[tuple[Graph, onnx.GraphProto]] = []
    for node in graph.ops():
        waiting.extend(_write_node(node, new()))
    return waiting


def _write_node(node: Node, proto: onnx.NodeProto) -> list[tuple[Graph, onnx.GraphProto]]:
    inputs = [written_name(value) for value in node.inputs[: node.arity]]
    outputs = [value.name for value in node.outputs]
    if node.proto is not None:
        proto.CopyFrom(node.proto)
    if list(proto.input) != inputs:
        proto.input[:] = inputs
    if list(proto.output) != outputs:
        proto.output[:] = outputs
    if node.proto is None or proto.op_type != node.op:
        proto.op_type = node.op
    if node.domain != ("" if proto.domain == "ai.onnx" else proto.domain):
        proto.domain = node.domain
    if node.name != proto.name:
        proto.name = node.name
    if node.edits:
        kept = [a for a in proto.attribute if a.name not in node.edits]
        edited = [attributes.encode(name, value) for name, value in node.edits.items() if value is not None]
        attrs = [*kept, *edited]
        del proto.attribute[:]
        proto.attribute.extend(attrs)
    return _subgraphs(node, proto)


def _subgraphs(node: Node, proto: onnx.NodeProto) -> list[tuple[Graph, onnx.GraphProto]]:
    waiting: list[tuple[Graph, onnx.GraphProto]] = []
    for name, graphs in (node.graphs or {}).items():
        attribute = next((a for a in proto.attribute if a.name == name), None) or proto.attribute.add(name=name)
        if len(graphs) == 1 and attribute.type != AttributeProto.GRAPHS:
            attribute.type = AttributeProto.GRAPH
            attribute.g.Clear()
            waiting.append((graphs[0], attribute.g))
        else:
            attribute.type = AttributeProto.GRAPHS
            del attribute.graphs[:]
            waiting.extend((graph, attribute.graphs.add()) for graph in graphs)
    return waiting


# ---- files ---------------------------------------------------------------------------------------------------------


def save(
    model: Model, path: str | os.PathLike[str], *, external: External = "auto", in_place: bool = False
) -> list[Path]:
    """Writes `model`; returns the files written, the model last.

    The file appears whole or not at all. Weights that lie beside `path` in external files stay there; others that
    are external, and new ones where `external` says so or protobuf's 2 GB would not hold them, go to `<path>.data`.
    Raises: UsageError GO011 when `path` is the input or holds the input's weights, without `in_place`; ModelError
    GO032 when the folder cannot be written.
    """
    target = Path(path)
    check_output(model, target, in_place=in_place)
    proto = model_to_proto(model)
    moved = _moved_tensors(model, proto, target, external)
    files: list[tuple[Path, Callable[[BinaryIO], object]]] = []
    if moved:
        side = _side(target)
        files.append((side, lambda file: _write_tensors(file, moved, model.base, side.name)))
    files.append((target, lambda file: file.write(proto.SerializeToString())))
    try:
        _publish(files)
    except OSError as error:
        raise ModelError("GO032", f"cannot write: {error.strerror}", str(target)) from error
    return [path for path, _ in files]


def check_output(model: Model, path: str | os.PathLike[str], *, in_place: bool = False) -> None:
    """Raises what `save` would raise before it writes, so that a long run can ask at its beginning.

    UsageError GO011 when `path` (or the data file beside it) is the input or holds its weights, without `in_place`;
    ModelError GO032 when there cannot be a file.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        # On every system the one sure test, and the file never has a name.
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise ModelError("GO032", f"cannot write: {error.strerror}", str(target)) from error
    if in_place or model.path is None:
        return
    hint = "choose another output, or allow it with --in-place"
    outputs = {target.resolve(), _side(target).resolve()}
    if model.path.resolve() in outputs:
        raise UsageError("GO011", "the output is the input", str(target), hint)
    if outputs & {t.location()[0].resolve() for t in _tensors(model) if t.external is not None}:
        raise UsageError("GO011", "the output is the file the input's weights live in", str(target), hint)


def _side(target: Path) -> Path:
    return target.with_name(target.name + ".data")


def _tensors(model: Model) -> Iterable[Tensor]:
    for graph in model.scopes():
        for node in [*graph.sources("Constant"), *graph.sources("Input")]:
            if node.data is not None:
                yield node.data


def _moved_tensors(model: Model, proto: onnx.ModelProto, target: Path, external: External) -> list[TensorProto]:
    """The tensors that are to be written to the side file; with `never` all are taken into the proto instead."""
    tensors = [tensor for graph in _protos(proto.graph) for tensor in graph.initializer]
    outside = [t for t in tensors if t.data_location == TensorProto.EXTERNAL]
    if external == "never":
        for tensor in outside:
            tensor.raw_data = bytes(_raw(tensor, model.base))
            del tensor.external_data[:]
            tensor.ClearField("data_location")
        return []
    inside = [t for t in tensors if t.data_location != TensorProto.EXTERNAL and len(t.raw_data) >= _SMALL_TENSOR]
    moved = inside if external == "always" or outside or proto.ByteSize() > _PROTO_LIMIT else []
    foreign = model.base is None or model.base.resolve() != target.resolve().parent
    # A side file is written whole: what is kept and lies in it already moves along.
    if foreign or (moved and _side(target).resolve() in {_file(tensor, model.base) for tensor in outside}):
        moved = [*outside, *moved]
    return moved


def _file(tensor: TensorProto, base: Path | None) -> Path:
    return Tensor(tensor, base=base).location()[0].resolve()


def _raw(tensor: TensorProto, base: Path | None) -> bytes | memoryview:
    """The bytes of a tensor; external ones are mapped, not read."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return tensor.raw_data
    path, offset, length = Tensor(tensor, base=base).location()
    return np.memmap(path, np.uint8, "r", offset, (length,)).data if length else b""


def _write_tensors(file: BinaryIO, tensors: list[TensorProto], base: Path | None, location: str) -> None:
    offset = 0
    for tensor in tensors:
        raw = _raw(tensor, base)
        padding = -offset % _ALIGNMENT
        file.write(b"\0" * padding)
        file.write(raw)
        offset += padding
        length = len(raw)
        tensor.ClearField("raw_data")
        del tensor.external_data[:]
        for key, entry in (("location", location), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=entry)
        tensor.data_location = TensorProto.EXTERNAL
        offset += length


def _protos(proto: onnx.GraphProto) -> Iterable[onnx.GraphProto]:
    stack = [proto]
    while stack:
        graph = stack.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.GRAPH:
                    stack.append(attribute.g)
                stack.extend(attribute.graphs)


def _publish(files: Iterable[tuple[Path, Callable[[BinaryIO], object]]]) -> None:
    """Writes each file under a temporary name in its folder, then renames all: a reader sees the old or the new."""
    written: list[tuple[str, Path]] = []
    try:
        for target, write in files:
            handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            written.append((temporary, target))
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
        for temporary, target in written:
            os.replace(temporary, target)
    except BaseException:
        for temporary, _ in written:
            Path(temporary).unlink(missing_ok=True)
        raise


__all__ = ["check_output", "dims", "model_to_proto", "save", "type_proto", "value_info", "written_name"]
