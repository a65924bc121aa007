"""Mutations that move nodes into branches, loops and functions, notes about, and weights out of the model."""

from __future__ import annotations

from random import Random

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fuzzing.places import NAMES, fresh_name, graph_of, names_in


def branch(proto: ModelProto, rng: Random) -> None:
    """A node moves into both branches of an If, with captures; the condition is a constant, or an input."""
    index = rng.randrange(len(proto.graph.node))
    node = proto.graph.node[index]
    condition = fresh_name(proto, rng)
    branches = []
    for side in ("t", "e"):
        inner = NodeProto()
        inner.CopyFrom(node)
        inner.output[:] = [name + side if name else "" for name in node.output]
        outputs = [helper.make_empty_tensor_value_info(name) for name in inner.output if name]
        branches.append(helper.make_graph([inner], side, [], outputs))
    made = helper.make_node(
        "If", [condition], [name for name in node.output if name], then_branch=branches[0], else_branch=branches[1]
    )
    node.CopyFrom(made)
    if rng.random() < 0.5:
        proto.graph.input.append(helper.make_tensor_value_info(condition, TensorProto.BOOL, []))
    else:
        proto.graph.initializer.append(numpy_helper.from_array(np.array(rng.random() < 0.5), condition))


def call(proto: ModelProto, rng: Random) -> None:
    """A run of nodes becomes a function, and a call of it."""
    nodes = proto.graph.node
    begin = rng.randrange(len(nodes))
    taken = [nodes.pop(begin) for _ in range(min(rng.choice((1, 2, 3, 5)), len(nodes) - begin))]
    written = [name for node in taken for name in node.output if name]
    read = [name for node in taken for name in node.input if name]
    inputs = list(dict.fromkeys(name for name in read if name not in written))
    name = "F" + fresh_name(proto, rng)
    domain = rng.choice(("test.fns", "test.fns", "com.microsoft", ""))
    function = helper.make_function(domain, name, inputs, written, taken, proto.opset_import)
    proto.functions.append(function)
    if all(entry.domain != domain for entry in proto.opset_import):
        proto.opset_import.add(domain=domain, version=1)
    nodes.insert(begin, helper.make_node(name, inputs, written, domain=domain))


def call_itself(proto: ModelProto, rng: Random) -> None:
    function = rng.choice(proto.functions)
    node = rng.choice(function.node)
    node.op_type, node.domain = function.name, function.domain


def repeat(proto: ModelProto, rng: Random) -> None:
    """A node moves into a Loop that runs it once or more."""
    index = rng.randrange(len(proto.graph.node))
    node = proto.graph.node[index]
    trips, name = fresh_name(proto, rng), fresh_name(proto, rng)
    inner = NodeProto()
    inner.CopyFrom(node)
    inner.output[:] = [name + str(slot) for slot in range(len(node.output))]
    condition = helper.make_node("Identity", [name + "c"], [name + "d"])
    body = helper.make_graph(
        [condition, inner],
        name,
        [
            helper.make_tensor_value_info(name + "i", TensorProto.INT64, []),
            helper.make_tensor_value_info(name + "c", TensorProto.BOOL, []),
        ],
        [
            helper.make_tensor_value_info(name + "d", TensorProto.BOOL, []),
            *(helper.make_empty_tensor_value_info(output) for output in inner.output),
        ],
    )
    stacked = [output and output + "_stacked" for output in node.output]
    heads = [
        helper.make_node("Squeeze", [one, name + "a"], [out]) for one, out in zip(stacked, node.output, strict=True)
    ]
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0]), name + "a"))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(rng.choice((1, 1, 2, 0))), trips))
    node.CopyFrom(helper.make_node("Loop", [trips, ""], stacked, body=body))
    for offset, head in enumerate(heads, 1):
        proto.graph.node.insert(index + offset, head)


def annotate(proto: ModelProto, rng: Random) -> None:
    """What no kernel reads: doc strings, metadata, quantization annotations, sparse initializers, training info."""
    graph = graph_of(proto, rng)
    choice = rng.randrange(6)
    if choice == 0:
        graph.doc_string = rng.choice(NAMES)
        rng.choice(graph.node).doc_string = "\x1b[31m"
    elif choice == 1:
        proto.metadata_props.add(key=rng.choice(NAMES), value=rng.choice(NAMES))
        rng.choice(graph.node).metadata_props.add(key="k", value="v")
    elif choice == 2:
        graph.quantization_annotation.add(tensor_name=rng.choice(names_in(graph)))
    elif choice == 3:
        sparse = graph.sparse_initializer.add()
        sparse.values.CopyFrom(numpy_helper.from_array(np.array([1.0], np.float32), fresh_name(proto, rng)))
        sparse.indices.CopyFrom(numpy_helper.from_array(np.array([rng.choice((0, 2, 9, -1))]), "i"))
        sparse.dims[:] = [rng.choice((3, 0, 1 << 40))]
    elif choice == 4:
        training = proto.training_info.add()
        training.algorithm.CopyFrom(proto.graph)
    else:
        proto.graph.name = rng.choice(NAMES)
        proto.producer_name = rng.choice(NAMES)


def move_data_out(proto: ModelProto, files: dict[str, bytes], rng: Random) -> None:
    """Weights into a file beside the model; some of the entries then say something else."""
    data = b""
    for tensor in proto.graph.initializer:
        if not tensor.raw_data or rng.random() < 0.2:
            continue
        entries = {"location": "w.bin", "offset": str(len(data)), "length": str(len(tensor.raw_data))}
        data += tensor.raw_data + bytes(rng.choice((0, 0, 64)))
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        if rng.random() < 0.3:
            key = rng.choice(list(entries))
            odd = (
                "../outside.bin",
                "/etc/passwd",
                "sub/../w.bin",
                "./w.bin",
                "",
                "nowhere.bin",
                "model.onnx",
                "w.bin/",
            )
            numbers = ("-1", "0", "", "1e3", "99999999", "0x10", " 8 ", "9" * 30, "٣")
            entries[key] = rng.choice(odd if key == "location" else numbers)
            if rng.random() < 0.2:
                del entries[key]
            if rng.random() < 0.2:
                entries["checksum"] = "x"
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
    files["w.bin"] = data[: -rng.choice((0, 1, 100))] if rng.random() < 0.1 else data
