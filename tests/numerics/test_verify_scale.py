"""A graph of fifty thousand nodes: what its verification finds, and how large the sessions are that it takes."""

from __future__ import annotations

import numpy as np
from onnx import helper, numpy_helper

from graphopt.ir import Model, model_from_proto
from graphopt.verify import check
from graphopt.verify.chunks import MOST_NODES

LAYERS = 12_500
EVERY = 25
"""One layer in so many is written otherwise in the candidate."""
WRONG = 9_350


def layers(rewritten: bool) -> Model:
    """Four nodes a layer, or five in some: a linear layer, its activation, and the model's input again."""
    nodes = []
    for layer in range(LAYERS):
        p, q, g, h = (f"{name}{layer}" for name in "pqgh")
        nodes.append(helper.make_node("MatMul", [f"h{layer - 1}" if layer else "x", "w"], [p]))
        nodes.append(helper.make_node("Tanh", [p], [q]))
        if rewritten and layer % EVERY == 0:
            factor = "wrong" if layer == WRONG else "half"
            nodes.append(helper.make_node("Mul", [q, factor], [f"{g} again"]))
            nodes.append(helper.make_node("Identity", [f"{g} again"], [g]))
        else:
            nodes.append(helper.make_node("Div", [q, "two"], [g]))
        nodes.append(helper.make_node("Add", [g, "x"], [h]))
    weights = [numpy_helper.from_array(np.random.default_rng(0).normal(0, 0.3, (8, 8)).astype(np.float32), "w")]
    numbers = {"two": 2.0, "half": 0.5, "wrong": 0.501}
    weights += [numpy_helper.from_array(np.float32(number), name) for name, number in numbers.items()]
    ports = [helper.make_tensor_value_info(name, 1, ["N", 8]) for name in ("x", f"h{LAYERS - 1}")]
    graph = helper.make_graph(nodes, "layers", ports[:1], ports[1:], weights)
    return model_from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def test_one_mistake_in_fifty_thousand_nodes(sessions: list[list[str]]) -> None:
    found = check(layers(rewritten=False), layers(rewritten=True))
    assert [region.output for region in found.failing] == [f"g{WRONG}"]
    assert (found.verdict, found.counts.run) == ("unequal", LAYERS // EVERY)
    assert len(sessions) > LAYERS * 4 // MOST_NODES
    # On top of the nodes there may be some that measure or copy.
    assert max(map(len, sessions)) <= MOST_NODES * 1.1
