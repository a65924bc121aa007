"""Each invariant, broken once behind the mutations' back, is found, named, and blamed on its node."""

from __future__ import annotations

from collections.abc import Callable

import onnx.parser
import pytest

from graphopt.ir import Graph, Model, Node, ValidationError, Value, load, validate, validate_site

PROTO = onnx.parser.parse_model("""
<ir_version: 10, opset_import: ["" : 20]>
main (float[N] x, bool flag) => (float[N] y, float[N] u) <float[1] w = {2}> {
    a = Add(x, w)
    b = Mul(a, x)
    c = If(flag) <
        then_branch = first () => (float[N] t) { t = Add(a, w) },
        else_branch = second () => (float[N] e) { e = Neg(b) }
    >
    y = Tanh(c)
    u = Sub(c, x)
}
""")


def value(model: Model, name: str) -> Value:
    return model.graph.names[name]


def node(model: Model, name: str) -> Node:
    return value(model, name).node


def branch(model: Model) -> Graph:
    graphs = node(model, "c").graphs
    assert graphs is not None
    return graphs["then_branch"][0]


def captured(model: Model) -> Node:
    return branch(model).sources("Capture")[0]


def swap_order(model: Model) -> None:
    a, b = node(model, "a"), node(model, "b")
    a.rank, b.rank = b.rank, a.rank


def unlist(model: Model) -> None:
    b = node(model, "b")
    assert b.previous is not None
    assert b.next is not None
    b.previous.next, b.next.previous = b.next, b.previous


def foreign_value(model: Model) -> None:
    inner = next(branch(model).ops()).output
    node(model, "b").inputs[1] = inner


def drop_output(model: Model) -> None:
    model.graph.set_input(model.graph.output, 1, value(model, "a"))


def new_domain(model: Model) -> None:
    node(model, "b").domain = "com.microsoft"
    node(model, "b").origin = -1


def two_orders(model: Model) -> None:
    """Ranks that grow along a list in which one is behind what it reads."""
    a, b, c = node(model, "a"), node(model, "b"), node(model, "c")
    a.previous, b.previous, a.next, b.next = b, None, c, a
    model.graph._first, c.previous = b, a
    a.rank, b.rank = b.rank, a.rank


def hide(model: Model) -> None:
    """An operation that no other is linked to, with links of its own."""
    spare = model.graph.add_op("Relu", [value(model, "x")], before=node(model, "b"))
    assert spare.previous is not None
    assert spare.next is not None
    spare.previous.next, spare.next.previous = spare.next, spare.previous


def recapture(model: Model) -> None:
    captures = branch(model).captures
    (slot, first), *_ = captures.items()
    captures[slot] = branch(model).add_source("Capture", "another", register=False)
    captures[slot].slot, captures[slot].output.dtype = slot, first.output.dtype


# What breaks it, the node that is blamed, words of the invariant.
BROKEN: dict[str, tuple[Callable[[Model], object], str, str]] = {
    "slot without edge": (lambda m: node(m, "b").inputs.__setitem__(1, value(m, "w")), "node 'b'", "an edge for each"),
    "edge without slot": (lambda m: node(m, "b").inputs.__setitem__(1, None), "node 'x'", "reads its node (node 'b'"),
    "edge to no slot": (
        lambda m: m.graph.add_edge(node(m, "w"), node(m, "b"), 7),
        "node 'w'",
        "whom an edge leads to reads its node (node 'b'",
    ),
    "edge to another slot of a reader": (
        lambda m: m.graph.add_edge(node(m, "a"), node(m, "b"), 7),
        "node 'b'",
        "an edge for each slot and a slot for each edge (slot 7)",
    ),
    "value of another scope": (foreign_value, "node 'b'", "no edge from another scope"),
    "counter": (lambda m: setattr(value(m, "a"), "uses", 5), "node 'a'", "uses of 'a' are counted"),
    "counter of a constant": (lambda m: setattr(value(m, "w"), "uses", 0), "node 'w'", "uses of 'w' are counted"),
    "output of another node": (
        lambda m: node(m, "b").inputs.__setitem__(0, Value(node(m, "a"), 0, "a")),
        "node 'b'",
        "an input is an output of its node",
    ),
    "arity": (lambda m: setattr(node(m, "b"), "arity", 3), "node 'b'", "the arity lies within the slots"),
    "rank": (swap_order, "node 'a'", "its ranks grow"),
    "order": (unlist, "node 'b'", "the order is linked"),
    "rank of a source": (lambda m: setattr(node(m, "w"), "rank", 7), "node 'w'", "a source stands before the order"),
    "name": (lambda m: m.graph.names.pop("a"), "node 'a'", "the table of names has 'a'"),
    "name of another": (
        lambda m: m.graph.names.__setitem__("ghost", value(m, "a")),
        "the graph's outputs",
        "a name in the table is one of a value ('ghost')",
    ),
    "graph input": (lambda m: m.graph.inputs.clear(), "node 'x'", "an Input is listed as one"),
    "graph output": (drop_output, "the graph's outputs", "graph outputs keep their names ('u')"),
    "removed graph output": (
        lambda m: m.graph.set_input(m.graph.output, 1, None),
        "the graph's outputs",
        "every graph output is there",
    ),
    "constant without data": (lambda m: setattr(node(m, "w"), "data", None), "node 'w'", "a Constant has data"),
    "type of a constant": (
        lambda m: setattr(value(m, "w"), "dtype", 7),
        "node 'w'",
        "a Constant has the type of its data",
    ),
    "attribute": (
        lambda m: m.graph.set_attr(node(m, "b"), "k", object()),
        "node 'b'",
        "the attribute 'k' can be written",
    ),
    "domain": (lambda m: setattr(node(m, "b"), "domain", "far"), "node 'b'", "the domain 'far' has an opset import"),
    "new op of a contrib domain": (new_domain, "node 'b'", "the domain 'com.microsoft' has an opset import"),
    "capture without slot": (lambda m: m.graph.set_input(node(m, "c"), 1, None), "node 'c'", "captures are paired"),
    "slot without capture": (
        lambda m: m.graph.add_slot(node(m, "c"), value(m, "x")),
        "node 'c'",
        "captures are paired with slots (slot 4)",
    ),
    "capture of another slot": (lambda m: setattr(captured(m), "slot", 9), "node 'c'", "a captured slot has its Capt"),
    "output in another place": (
        lambda m: setattr(value(m, "a"), "index", 1),
        "node 'b'",
        "an input is an output of its node (slot 0)",
    ),
    "output that knows another place": (
        lambda m: setattr(node(m, "y").output, "node", node(m, "b")),
        "the graph's outputs",
        "an edge for each slot and a slot for each edge",
    ),
    "name that was never used": (lambda m: m.ledger.names.discard("a"), "node 'a'", "'a' is a name that was used"),
    "first of the order": (lambda m: setattr(m.graph, "_first", node(m, "b")), "node 'a'", "the order begins and ends"),
    "order against the edges": (two_orders, "node 'b'", "the order is topological (after node 'a'"),
    "operation outside the order": (hide, "", "the order"),
    "source with inputs": (lambda m: setattr(node(m, "w"), "inputs", [None]), "node 'w'", "a source has no inputs"),
    "source in the order": (
        lambda m: setattr(node(m, "w"), "next", node(m, "a")),
        "node 'w'",
        "a source stands before the order",
    ),
    "capture of another node": (recapture, "", "a Capture is paired with a slot of the holder"),
    "input that is none": (
        lambda m: m.graph.inputs.append(node(m, "a")),
        "the graph's outputs",
        "a graph input is a source of its graph ('a')",
    ),
    "input of another graph": (
        lambda m: m.graph.inputs.append(captured(m)),
        "the graph's outputs",
        "a graph input is a source of its graph",
    ),
    "shape of a constant": (
        lambda m: setattr(value(m, "w"), "shape", (2,)),
        "node 'w'",
        "a Constant has the type of its data",
    ),
    "holder": (lambda m: setattr(branch(m), "holder", node(m, "y")), "node 'c'", "a subgraph knows its holder"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_invariant_is_found(case: str) -> None:
    break_it, blamed, words = BROKEN[case]
    model = load(PROTO)
    validate(model)
    break_it(model)
    with pytest.raises(ValidationError) as caught:
        validate(model)
    assert blamed in caught.value.where
    assert words in caught.value.message
    assert (caught.value.code, caught.value.exit_code) == ("GO071", 70)


def test_a_site_is_checked_with_its_neighbours() -> None:
    model = load(PROTO)
    validate_site(node for graph in model.scopes() for node in graph)
    swap_order(model)
    for name in ("a", "b", "x", "c", "w"):
        with pytest.raises(ValidationError):
            validate_site([node(model, name)])
    validate_site([node(model, "y")])


def test_a_removed_node_is_no_site() -> None:
    model = load(PROTO)
    spare = model.graph.add_op("Relu", [value(model, "a")])
    validate_site([spare])
    model.graph.remove(spare)
    with pytest.raises(ValidationError, match="a node is in its graph"):
        validate_site([spare])


def test_a_function_keeps_its_outputs() -> None:
    model = load(
        onnx.parser.parse_model(
            '<ir_version: 10, opset_import: ["" : 20, "f" : 1]> g (float[N] x) => (float[N] y) { y = f.F(x) }'
            '<domain: "f", opset_import: ["" : 20]> F (a) => (b, c) { b = Relu(a) c = Neg(b) }'
        )
    )
    validate(model)
    (function,) = model.functions.values()
    function.graph.set_input(function.graph.output, 1, function.graph.names["a"])
    with pytest.raises(ValidationError, match=r"keep their names \('c'\)"):
        validate(model)


def test_a_function_captures_nothing() -> None:
    model = load(
        onnx.parser.parse_model(
            '<ir_version: 10, opset_import: ["" : 20, "f" : 1]> g (float[N] x) => (float[N] y) { y = f.F(x) }'
            '<domain: "f", opset_import: ["" : 20]> F (a) => (b) { b = Relu(a) }'
        )
    )
    (function,) = model.functions.values()
    function.graph.captures[1] = function.graph.names["a"].node
    with pytest.raises(ValidationError, match="a function body captures nothing"):
        validate(model)


def test_a_neighbour_with_many_readers_is_not_looked_at() -> None:
    """What all read would make the checks of many sites quadratic; its own check finds what is wrong with it."""
    model = load(PROTO)
    w = value(model, "w")
    readers = [model.graph.add_op("Neg", [w]) for _ in range(80)]
    w.uses += 1
    validate_site(readers[:1])
    with pytest.raises(ValidationError, match="uses of 'w' are counted"):
        validate_site([w.node])


def test_graph_outputs_are_no_captures() -> None:
    model = load(PROTO)
    model.graph.output.arity = 1
    with pytest.raises(ValidationError, match="every graph output is there"):
        validate(model)
