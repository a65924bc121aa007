"""Graph's mutations keep every invariant, refuse exactly the cycles, and can all be taken back."""

from __future__ import annotations

from collections.abc import Callable

import networkx as nx
import onnx
import onnx.parser
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from graphopt.ir import CycleError, Graph, Model, Node, Value, load, model_to_proto, validate
from graphopt.ir.infer import infer

PROTO = onnx.parser.parse_model("""
<ir_version: 10, opset_import: ["" : 20]>
main (float[N] x, float[N] z, bool flag) => (float[N] y, float[N] u) <float[1] w = {2}> {
    a = Add(x, w)
    b = Mul(a, x)
    c = If(flag) <
        then_branch = first () => (float[N] t) {
            p = Add(a, w)
            q = If(flag) <
                then_branch = inner () => (float[N] s) { s = Sub(p, b) },
                else_branch = other () => (float[N] r) { r = Mul(a, a) }
            >
            t = Relu(q)
        },
        else_branch = second () => (float[N] e) { e = Neg(b) }
    >
    d = Add(c, b)
    y = Tanh(d)
    u = Sub(d, z)
}
""")

Step = tuple[str, int, int, int, int]
KINDS = ("add", "constant", "connect", "attr", "op", "rename", "replace", "remove", "capture", "operand", "type")
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), *[st.integers(0, 1000)] * 4), max_size=25)
# A failure is made smaller, but not explained: that takes minutes.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)


def pick(items: list, number: int):  # type: ignore[no-untyped-def, type-arg]
    return items[number % len(items)]


def values(graph: Graph) -> list[Value]:
    found = [v for node in graph for v in node.outputs if v.name]
    return sorted(found, key=lambda v: v.node.rank)


def reaches(graph: Graph, start: Node, end: Node) -> bool:
    """Whether `end` depends on `start`, by the inputs alone: the edges of the graph itself are under test."""
    plain = nx.DiGraph()
    plain.add_nodes_from(graph)
    plain.add_edges_from((producer, node) for node in graph for producer in node.producers())
    return bool(nx.has_path(plain, start, end))


def expect_cycle(wanted: bool, change: Callable[[], object]) -> None:
    try:
        change()
    except CycleError:
        assert wanted, "refused an edge that makes no cycle"
    else:
        assert not wanted, "let a cycle in"


def apply(model: Model, step: Step) -> None:
    """One mutation; which one, and on what, is said by numbers, so that hypothesis can make it smaller."""
    kind, where, *numbers = step
    graph: Graph = pick(list(model.scopes()), where)
    a, b, c = numbers
    ops = list(graph.ops())
    if kind == "add":
        known = values(graph)
        operands = [pick(known, n) for n in (a, b) if known]
        before = pick(ops, c) if ops and c % 2 else None
        graph.add_op("Sum", operands, {"k": c}, outputs=1 + c % 2, before=before)
    elif kind == "constant":
        graph.add_constant([float(a)])
    elif kind == "capture" and graph.holder is not None:
        outer = values(graph.holder.graph)
        if outer:
            value = pick(outer, a)
            expect_cycle(reaches(graph.holder.graph, graph.holder, value.node), lambda: graph.capture(value))
    elif ops and kind == "attr":
        graph.set_attr(pick(ops, a), "k", b if b % 3 else None)
    elif ops and kind == "op":
        graph.set_op(pick(ops, a), "Max", "", 20)
    elif ops and kind == "rename":
        inner = [v for v in values(graph) if v.node.slot < 0 and v.node.op != "Input" and not graph.is_output(v)]
        if inner:
            graph.rename(pick(inner, a), model.ledger.fresh("renamed"))
    elif ops and kind == "type":
        graph.set_type(pick(ops, a).output, 1, (a, b))
    elif ops and kind in ("connect", "operand"):
        connect(graph, pick(ops, a), b, c, new_slot=kind == "operand")
    elif ops and kind == "replace":
        olds = [v for v in values(graph) if v.node.slot < 0]
        old, new = pick(olds, a), pick(values(graph), b)
        if old is not new:
            wanted = any(n is not new.node and reaches(graph, n, new.node) for n, _ in graph.consumers(old))
            take = bool(c % 2) and not new.node.is_source and not old.node.is_source
            expect_cycle(wanted, lambda: graph.replace(old, new, take_name=take))
    elif ops and kind == "remove":
        free = [n for n in graph if n is not graph.output and n.op != "Input" and not any(v.uses for v in n.outputs)]
        if free:
            graph.remove(pick(sorted(free, key=lambda n: n.rank), a))


def connect(graph: Graph, node: Node, slot: int, number: int, *, new_slot: bool) -> None:
    value = pick(values(graph), number)
    if new_slot and node.arity == len(node.inputs):
        expect_cycle(reaches(graph, node, value.node), lambda: graph.add_operand(node, value))
    elif node.arity:
        target = None if number % 5 == 0 else value
        wanted = target is not None and reaches(graph, node, value.node) and node.inputs[slot % node.arity] is not value
        expect_cycle(wanted, lambda: graph.set_input(node, slot % node.arity, target))


def written(model: Model) -> bytes:
    return model_to_proto(model).SerializeToString(deterministic=True)


@settings(max_examples=200, deadline=None, phases=PHASES)
@given(STEPS)
def test_mutations_keep_the_invariants_and_are_taken_back(steps: list[Step]) -> None:
    model = load(PROTO)
    before = written(model)
    with model.ledger.transaction() as transaction:
        for step in steps:
            apply(model, step)
            validate(model)
        onnx.ModelProto.FromString(written(model))
        transaction.rollback()
    validate(model)
    assert written(model) == before


@settings(max_examples=50, deadline=None, phases=PHASES)
@given(STEPS, STEPS)
def test_a_second_transaction_takes_back_only_itself(kept: list[Step], undone: list[Step]) -> None:
    model = load(PROTO)
    for step in kept:
        with model.ledger.transaction():
            apply(model, step)
    between = written(model)
    with model.ledger.transaction() as transaction:
        for step in undone:
            apply(model, step)
        transaction.rollback()
    validate(model)
    assert written(model) == between
    assert onnx.ModelProto.FromString(between).graph.output == PROTO.graph.output


def known(model: Model) -> dict[str, object]:
    """What inference knows of every value in every scope."""
    found = [value for graph in model.scopes() for value in values(graph)]
    return {value.name: (value.dtype, value.shape, value.content) for value in found}


@settings(max_examples=200, deadline=None, phases=PHASES)
@given(STEPS, STEPS)
def test_inference_looks_again_at_all_that_changed(kept: list[Step], undone: list[Step]) -> None:
    model = load(PROTO)
    infer(model)
    for step in kept:
        apply(model, step)
    with model.ledger.transaction() as transaction:
        for step in undone:
            apply(model, step)
        infer(model)
        transaction.rollback()
    infer(model)
    again = known(model)
    model.ledger.inferred = -1
    infer(model)
    assert known(model) == again


def test_a_capture_that_goes_frees_its_slot_once_no_other_subgraph_reads_it() -> None:
    model = load(PROTO)
    outer = model.graph.names["z"]
    holder = next(node for node in model.graph.ops() if node.op == "If")
    (first,), (second,) = (holder.graphs or {}).values()
    captures = [graph.capture(outer).node for graph in (first, second)]
    assert captures[0].slot == captures[1].slot
    uses = outer.uses
    first.remove(captures[0])
    assert outer.uses == uses
    second.remove(captures[1])
    assert outer.uses == uses - 1
    validate(model)


def test_a_graph_output_may_replace_what_it_reads() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[N] x) => (float[N] a, float[N] y)'
        "{ a = Relu(x) y = Neg(a) z = Abs(a) }"
    )
    model = load(proto)
    names = model.graph.names
    model.graph.replace(names["a"], names["y"])
    validate(model)
    written = [(node.op_type, list(node.input)) for node in model_to_proto(model).graph.node]
    assert written == [("Relu", ["x"]), ("Neg", ["a_replaced"]), ("Identity", ["y"]), ("Abs", ["a"])]


def test_consumers_come_in_the_order_of_the_graph() -> None:
    model = load(PROTO)
    graph = model.graph
    (x, *_) = graph.inputs
    first = next(graph.ops())
    late, early = graph.add_op("Abs", [x.output]), graph.add_op("Neg", [x.output], before=first)
    readers = [reader for reader, _ in graph.consumers(x.output)]
    assert readers[0] is early
    assert readers[-1] is late
    assert [reader.rank for reader in readers] == sorted(reader.rank for reader in readers)


def test_sources_come_oldest_first() -> None:
    model = load(PROTO)
    made = [model.graph.add_constant(float(number)).node for number in range(3)]
    before = model.graph.sources("Constant")
    with model.ledger.transaction() as transaction:
        model.graph.remove(made[0])
        transaction.rollback()
    assert model.graph.sources("Constant") == before
    assert before[-3:] == made


def test_what_is_changed_before_an_exception_is_taken_back() -> None:
    model = load(PROTO)
    before, mark = written(model), model.ledger.mark()

    def fails() -> None:
        with model.ledger.transaction():
            model.graph.add_op("Relu", [model.graph.inputs[0].output], outputs=["made"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert written(model) == before
    assert "made" not in model.graph.names
    assert model.ledger.mark() == mark, "nothing has changed"


def look(model: Model) -> object:
    """What the file does not show."""
    graph = model.graph
    slots = [len(node.inputs) for node in graph.ops()]
    return [node.output.name for node in graph.inputs], slots, [(v.content, v.info) for v in values(graph)]


CHANGES: dict[str, Callable[[Graph], object]] = {
    "a new input": lambda graph: graph.add_input("another", 1, (2,)),
    "an input that goes": lambda graph: graph.remove(graph.names["spare"].node),
    "a new operand": lambda graph: graph.add_operand(next(graph.ops()), graph.inputs[0].output),
    "known elements": lambda graph: graph.set_content(graph.inputs[0].output, (1, 2)),
    "another output": lambda graph: graph.replace(graph.names["y"], graph.names["b"]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_a_change_changes_is_taken_back(change: Callable[[Graph], object]) -> None:
    model = load(PROTO)
    model.graph.add_input("spare", 1, (2,))
    model.graph.add_input("last", 1, (2,))
    before = look(model)
    with model.ledger.transaction() as transaction:
        change(model.graph)
        assert look(model) != before
        transaction.rollback()
    assert look(model) == before


def test_a_new_value_is_not_called_what_the_file_speaks_of() -> None:
    """A file may say a type of what is not in it; that is kept, and would be a lie of a value of that name."""
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[2] x) => (float[2] y) { y = Abs(x) }'
    )
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("neg", onnx.TensorProto.INT64, [7]))
    graph = load(proto).graph
    assert graph.add_op("Neg", [graph.names["x"]], outputs=["neg"]).output.name != "neg"
