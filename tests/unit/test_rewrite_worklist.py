"""Which roots wait, in which order, and what lies around a change: distances count nodes, copies are no distance."""

from __future__ import annotations

import pytest

from graphopt.ir import Graph, Model, Node
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.rewrite.worklist import FAR, Change, Worklist, captures_of, neighbourhood


def model_of(text: str) -> Model:
    model = parse(text)
    infer(model)
    return model


def line() -> Graph:
    return model_of("(x: float32[4]) -> (d) { a = Exp(x) b = Neg(Identity(a)) c = Exp(b) d = Neg(c) }").graph


def node(graph: Graph, name: str) -> Node:
    return graph.names[name].node


def names(found: list[Node]) -> list[str]:
    return [one.outputs[0].name for one in found]


def popped(queue: Worklist) -> list[tuple[str, int]]:
    found = []
    while (waiting := queue.pop()) is not None:
        found.append((waiting[0].output.name, waiting[1]))
    return found


REACH = {("", "Exp"): 2, ("", "Neg"): 0}


def test_roots_come_in_the_order_of_the_graph_each_once() -> None:
    graph = line()
    queue = Worklist(graph, REACH)
    queue.extend((node(graph, name), 0) for name in "dcab")
    queue.extend((node(graph, name), 0) for name in "ba")
    assert popped(queue) == [("a", 0), ("b", 0), ("c", 0), ("d", 0)]
    assert queue.pop() is None


def test_the_nearest_change_counts() -> None:
    graph = line()
    queue = Worklist(graph, REACH)
    for distance in (2, 1, 2):
        queue.extend([(node(graph, "a"), distance)])
    assert popped(queue) == [("a", 1)]
    queue.extend([(node(graph, "a"), 2)])
    assert popped(queue) == [("a", 2)]


@pytest.mark.parametrize(
    ("name", "distance", "waits"),
    [("a", 2, True), ("a", 3, False), ("a", FAR, True), ("b", 0, True), ("b", 1, False), ("b", FAR, True)],
)
def test_what_changed_too_far_away_concerns_no_root(name: str, distance: int, waits: bool) -> None:
    graph = line()
    queue = Worklist(graph, REACH)
    queue.extend([(node(graph, name), distance)])
    assert popped(queue) == ([(name, distance)] if waits else [])


def test_what_no_rule_has_for_its_root_does_not_wait() -> None:
    graph = line()
    queue = Worklist(graph, {("", "Exp"): 2})
    queue.extend((one, 0) for one in graph.ops())
    assert popped(queue) == [("a", 0), ("c", 0)]


def test_what_was_removed_meanwhile_is_left_out() -> None:
    graph = line()
    spare = graph.add_op("Exp", [graph.names["x"]], before=node(graph, "a"))
    queue = Worklist(graph, REACH)
    queue.extend([(spare, 0), (node(graph, "a"), 0)])
    graph.remove(spare)
    assert popped(queue) == [("a", 0)]


# ---- around a change ------------------------------------------------------------------------------------------------

DIAMOND = """(x: float32[4]) -> (e, f) {
  a = Exp(x)
  i = Identity(a)
  b = Neg(i)
  c = Abs(a)
  d = Add(b, c)
  e = Relu(d)
  f = Tanh(e)
}"""


def around(change: list[str], reach: int, readers: list[str] | None = None) -> dict[str, int]:
    graph = model_of(DIAMOND).graph
    made = [node(graph, name) for name in change]
    found = list(neighbourhood(graph, Change(made, [node(graph, name) for name in readers or []]), reach))
    named = [(one.outputs[0].name, distance) for one, distance in found if one is not graph.output]
    assert len(dict(named)) == len(named), "each node once"
    return dict(named)


@pytest.mark.parametrize(
    ("reach", "wanted"),
    [
        (0, {"a": 0, "i": 0}),
        (1, {"a": 0, "i": 0, "b": 1, "c": 1}),
        (2, {"a": 0, "i": 0, "b": 1, "c": 1, "d": 2}),
        (4, {"a": 0, "i": 0, "b": 1, "c": 1, "d": 2, "e": 3, "f": 4}),
    ],
)
def test_what_depends_on_a_change(reach: int, wanted: dict[str, int]) -> None:
    assert around(["a"], reach) == wanted


def test_readers_are_one_away() -> None:
    assert around([], 0, ["d"]) == {}
    assert around([], 2, ["d"]) == {"d": 1, "e": 2}
    assert around(["c"], 1, ["e"]) == {"c": 0, "d": 1, "e": 1}


def test_what_is_no_more_in_the_graph_is_around_nothing() -> None:
    graph = model_of(DIAMOND).graph
    spare = graph.add_op("Neg", [graph.names["a"]])
    graph.remove(spare)
    assert list(neighbourhood(graph, Change([spare]), 3)) == []


NESTED = """(x: float32[4], b: bool[]) -> (z) {
  a = Exp(x)
  i = Identity(a)
  c = Neg(i)
  d = Abs(c)
  z = If(b, then_branch=() -> (t) {
    t = If(b, then_branch=() -> (u) { u = Add(a, d) }, else_branch=() -> (v) { v = Sin(c) })
  }, else_branch=() -> (w) { w = Cos(i) })
}"""


@pytest.mark.parametrize(
    ("changed", "reach", "seen"),
    [
        ("a", 0, ["a", "a", "i"]),
        ("a", 1, ["a", "a", "c", "c", "i"]),
        ("a", 2, ["a", "a", "c", "c", "d", "d", "i"]),
        ("c", 0, ["c", "c"]),
        ("d", 5, ["d", "d"]),
        ("z", 5, []),
    ],
)
def test_what_subgraphs_see_of_a_change(changed: str, reach: int, seen: list[str]) -> None:
    """However deep they are: a capture of a capture is as far away as what is captured."""
    model = model_of(NESTED)
    found = captures_of([node(model.graph, changed)], reach)
    assert sorted(names(found)) == seen
    assert len(set(found)) == len(found)
    assert all(one.op == "Capture" for one in found)
    assert [one.rank for one in found] == sorted(one.rank for one in found)
