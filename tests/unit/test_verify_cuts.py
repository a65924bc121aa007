"""Which values of two models are equal by structure, and what the regions are where they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphopt.ir import Model, Tensor, load
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.ir.versions import raise_opset
from graphopt.verify import Checker, Options, Region, check, checker, chunks, regions
from graphopt.verify.cuts import Comparer
from graphopt.verify.forms import form
from graphopt.verify.pair import Pair
from graphopt.verify.parts import part
from graphopt.verify.runs import Runs
from graphopt.verify.schedule import batches
from graphopt.verify.weights import Weights

BASE = """
opset 17
(x: float32[N, 64]) -> (y, z) {
  w = float32[64, 64] random(1)
  v = float32[64, 64] random(2)
  a = MatMul(x, w)
  b = Relu(a)
  y = MatMul(b, v)
  z = Softmax(y, axis=-1)
}
"""


def compared(original: str | Model, candidate: str | Model) -> tuple[dict[str, Region], int]:
    """The regions by output, and how many cut points are equal for free."""
    models = [model if isinstance(model, Model) else parse(model) for model in (original, candidate)]
    found, free = regions(*models)
    return {region.output: region for region in found}, free


def ops(region: Region) -> tuple[list[str], list[str]]:
    return [n.op for n in region.original_cone.nodes], [n.op for n in region.candidate_cone.nodes]


def test_a_model_is_equal_to_itself_without_a_run() -> None:
    assert compared(BASE, BASE) == ({}, 4)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("b = Relu(a)", "c = Relu(a)\n b = Identity(c)"),  # identities
        ("Softmax(y, axis=-1)", "Softmax(y)"),  # schema defaults
        ("v = float32[64, 64] random(2)", "u = float32[64, 64] random(2)\n v = Identity(u)"),  # names of constants
    ],
)
def test_what_changes_nothing_is_free(old: str, new: str) -> None:
    assert old in BASE
    assert compared(BASE, BASE.replace(old, new))[0] == {}


@pytest.mark.parametrize(
    ("old", "new", "output"),
    [
        ("Relu(a)", "Abs(a)", "b"),
        ("MatMul(b, v)", "MatMul(v, b)", "y"),
        ("axis=-1", "axis=0", "z"),
        ("v = float32[64, 64] random(2)", "v = float32[64, 64] random(3)", "y"),  # same name, other bits
        ("float32[64, 64] random(2)", "float32[64, 64] random(1)", "y"),  # another constant of the model
    ],
)
def test_what_changes_something_is_one_region(old: str, new: str, output: str) -> None:
    found, free = compared(BASE, BASE.replace(old, new))
    assert (list(found), free) == ([output], 3)


def test_a_region_reaches_back_to_the_nearest_cuts_in_both_models() -> None:
    found, _ = compared(BASE, BASE.replace("b = Relu(a)", "c = Relu(a)").replace("y = MatMul(b, v)", "y = Gemm(c, v)"))
    region = found["y"]
    assert ops(region) == (["Relu", "MatMul"], ["Relu", "Gemm"])
    assert region.inputs == ("a",)
    assert list(region.original_cone.constants) == ["v"]
    assert {"b", "c", "y"} <= region.names


def test_values_that_nothing_depends_on_are_not_compared() -> None:
    assert compared(BASE.replace("z = S", "d = Neg(b)\n z = S"), BASE.replace("z = S", "d = Abs(b)\n z = S"))[0] == {}


def test_a_name_that_became_a_constant_stands_for_itself_on_both_sides() -> None:
    before = "opset 17\n(x: float32[2]) -> (y) { s = Sqrt(float32[2] {4, 9})\n t = Add(x, s)\n y = Exp(t) }"
    after = "opset 17\n(x: float32[2]) -> (y) { s = float32[2] {2, 3}\n t = Add(x, s)\n y = Exp(t) }"
    found, _ = compared(before, after)
    assert list(found) == ["s"]
    assert found["s"].inputs == ()


def test_merging_common_subexpressions_is_free_and_what_it_exploits_is_known() -> None:
    text = "opset 17\n(x: float32[2]) -> (y) {{ a = Exp(x)\n {}y = Sub(a, {}) }}"
    assert compared(text.format("b = Exp(x)\n ", "b"), text.format("", "a")) == ({}, 2)
    found, _ = compared(text.format("b = Exp(x)\n c = Neg(b)\n ", "c"), text.format("c = Abs(a)\n ", "c"))
    # `b` stands for `a`, so both sides of the region start from `a`.
    assert found["c"].original_cone.boundary == found["c"].candidate_cone.boundary == ("a",)


def test_two_draws_are_two_values() -> None:
    draw = "RandomNormal(shape=[2])"
    text = "opset 17\n(x: float32[2]) -> (y) {{ {} y = Add(x, Sub(p, q)) }}"
    two = text.format(f"p = {draw}\n q = {draw}\n")
    assert compared(two, two)[0] == {}
    merged = parse(text.format(f"p = {draw}\n q = Identity(p)\n"))
    found, _ = compared(two, merged)
    assert list(found) == ["q"]


def test_versions_that_mean_the_same_are_the_same() -> None:
    text = """opset 13\n(x: float32[2, 3]) -> (y) {
      t = Transpose(x, perm=[1, 0])\n r = Reshape(t, [-1])\n i = Identity(r)\n y = Relu(i) }"""
    raised = parse(text)
    raise_opset(raised, 21)
    assert raised.opset == 21
    found, _ = compared(text, raised)
    assert set(found) <= {"r"}  # Reshape-14 has an attribute more
    old = "opset 12\n(x: float32[2, 3, 4]) -> (y) { y = Softmax(x, axis=1) }"
    assert list(compared(old, old.replace("opset 12", "opset 13"))[0]) == ["y"]


def test_subgraphs_are_compared_and_their_captures_are_inputs() -> None:
    text = """opset 17\n(x: float32[2], c: bool[]) -> (y) {{ a = Exp(x)\n
      y = If(c, then_branch=() -> (p) {{ p = {}(a) }}, else_branch=() -> (q) {{ q = Abs(a) }}) }}"""
    assert compared(text.format("Neg"), text.format("Neg"))[0] == {}
    found, _ = compared(text.format("Neg"), text.format("Relu"))
    assert ops(found["y"]) == (["If"], ["If"])
    assert set(found["y"].inputs) == {"c", "a"}


def test_a_node_with_several_outputs_is_compared_output_by_output() -> None:
    text = "opset 18\n(x: float32[4]) -> (a, b) {{ a, b = Split(x, {}, axis=0) }}"
    found, free = compared(text.format("[2, 2]"), text.format("[1, 3]"))
    assert (set(found), free) == ({"a", "b"}, 0)


def test_functions_are_compared_by_their_bodies() -> None:
    text = """opset 17, mine 1\n(x: float32[2]) -> (y) {{ y = mine.F(x) }}
      function mine.F (p) -> (q) {{ q = {}(p) }}"""
    assert compared(text.format("Exp"), text.format("Exp"))[0] == {}
    assert list(compared(text.format("Exp"), text.format("Log"))[0]) == ["y"]


def test_large_constants_are_told_apart_by_their_last_element() -> None:
    def model(last: float) -> Model:
        model = parse("opset 17\n(x: float32[4096]) -> (y) { y = Neg(x) }")
        data = np.zeros(4096, np.float32)
        data[-1] = last
        node = model.graph.names["y"].node
        new = model.graph.add_op("Add", [node.inputs[0], model.graph.add_constant(Tensor.of(data), "w")])
        model.graph.replace(node.output, new.output, take_name=True)
        return model

    assert compared(model(1), model(1))[0] == {}
    assert list(compared(model(1), model(2))[0]) == ["y"]


def test_a_long_chain_is_compared_without_recursion() -> None:
    lines = "\n".join(f"v{i + 1} = Neg(v{i})" for i in range(20_000))
    text = f"opset 17\n(v0: float32[2]) -> (v20000) {{ {lines} }}"
    changed = text.replace("v7 = Neg(v6)", "v7 = Abs(v6)")
    found, free = compared(text, changed)
    assert (list(found), free) == (["v7"], 19_999)


FUNCTIONS = """
opset 17, loc 1
(x: float32[N]) -> (y) { y = loc.Outer(x) }
function loc.Outer(a) -> (b) { b = loc.Inner(a) }
function loc.Inner(c) -> (d) { d = Abs(c) }
"""
BRANCHES = """
opset 17, loc 1
(x: float32[N], c: bool[]) -> (y) {
  y = If(c, then_branch=() -> (p) { p = loc.F(x) }, else_branch=() -> (q) { q = Neg(x) })
}
function loc.F(a) -> (b) { b = Abs(a) }
"""
VERSIONS = """
opset 12
(x: float32[2, 3, 4], c: bool[]) -> (y) {
  y = If(c, then_branch=() -> (p) { p = Softmax(x, axis=1) }, else_branch=() -> (q) { q = Neg(x) })
}
"""


@pytest.mark.parametrize(
    ("model", "old", "new"),
    [
        (FUNCTIONS, "Abs(c)", "Relu(c)"),
        (BRANCHES, "Abs(a)", "Relu(a)"),
        (VERSIONS, "opset 12", "opset 13"),  # until then Softmax took all axes from 1 on as one
    ],
)
def test_what_a_function_calls_and_a_branch_holds_counts(model: str, old: str, new: str) -> None:
    assert old in model
    assert compared(model, model) == ({}, 1)
    assert list(compared(model, model.replace(old, new))[0]) == ["y"]


def test_tensors_without_elements_are_equal_for_free() -> None:
    base = "opset 17\n(x: float32[0, 4]) -> (y: float32[0, 4]) { y = Abs(x) }"
    assert compared(base, base.replace("Abs", "Neg")) == ({}, 1)


LAYERS = 4
"""Layers of `layered`."""
WIDTH = 16


def layered(gelu: str = "Gelu(p{0})", product: str = "Mul(MatMul(h{0}, w{0}), 0.25)", layers: int = LAYERS) -> str:
    """A model of equal layers but for what their weights hold; {0} is the layer."""
    lines = []
    for layer in range(layers):
        lines.append(f"w{layer} = float32[{WIDTH}, {WIDTH}] random({layer})")
        lines.append(f"p{layer} = {product.format(layer)}")
        lines.append(f"g{layer} = {gelu.format(layer)}")
        lines.append(f"h{layer + 1} = Add(g{layer}, h{layer})")
    body = "\n".join(lines)
    return f"opset 20\n(h0: float32[N, {WIDTH}]) -> (h{layers}) {{ {body} }}"


PARTS = "Mul(Mul(p{0}, Add(Erf(Div(p{0}, 1.4142135)), 1.0)), 0.5)"


def folded(wrong: int = -1) -> Model:
    """`layered` with its scales in the matrices, but for another scale in one layer."""
    model = parse(layered(product="MatMul(h{0}, w{0})"))
    for layer, node in enumerate(model.graph.sources("Constant")):
        assert node.data is not None
        node.data = Tensor.of(np.float32(0.26 if layer == wrong else 0.25) * node.data.numpy())
    return model


def forms(original: str, candidate: str | Model) -> list[object]:
    models = parse(original), candidate if isinstance(candidate, Model) else parse(candidate)
    for model in models:
        infer(model)
    comparer = Comparer(models[0])
    return [form(region, comparer.constants.number_of) for region in comparer.regions(models[1])[0]]


def test_equal_layers_are_one_form_whatever_their_weights_hold() -> None:
    found = forms(layered(), layered(PARTS))
    assert len(found) == LAYERS
    assert len(set(found)) == 1
    for candidate in (folded(), folded(2)):
        found = forms(layered(), candidate)
        assert (len(found), len(set(found))) == (LAYERS, 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1.4142135", "1.4142133"),  # a number
        ("Erf(", "Tanh("),  # an operator
        ("Mul(Mul(p{0}, ", "Mul(Mul(h{0}, "),  # another cut point
    ],
)
def test_a_layer_that_differs_in_more_than_weights_is_another_form(old: str, new: str) -> None:
    assert old in PARTS
    changed = layered(PARTS).replace(PARTS.format(2), PARTS.replace(old, new).format(2))
    found = forms(layered(), changed)
    assert len(set(found)) == 2
    assert found.count(found[2]) == 1


def test_types_and_integers_count_in_a_form() -> None:
    text = """opset 20\n(x: {0}[4, 6], y: {1}[4, 6]) -> (a, b) {{
      a = Gather(x, int64[4] {{{2}}}, axis={4})\n b = Gather(y, int64[4] {{{3}}}, axis={4}) }}"""
    same = ("float32", "float32"), ("5, 1, 2, 0", "5, 1, 2, 0")
    for (one, other), (first, second), count in (
        (*same, 1),
        (("float32", "float16"), same[1], 2),
        (same[0], ("5, 1, 2, 0", "5, 1, 0, 2"), 2),
    ):
        models = [text.format(one, other, first, second, axis) for axis in (1, -1)]
        assert len(set(forms(*models))) == count


def test_of_equal_layers_one_runs_on_every_feed(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: dict[str, int] = {}
    plain = Pair.run

    def counted(pair: Pair, label: str, values: Any, number: int) -> Any:
        result = plain(pair, label, values, number)
        for name in result[0]:
            runs[name] = runs.get(name, 0) + 1
        return result

    monkeypatch.setattr(Pair, "run", counted)
    found = check(parse(layered()), parse(layered(PARTS)))
    assert (found.verdict, found.counts.run, found.counts.alike) == ("equal", LAYERS, LAYERS - 1)
    assert runs.pop("g0") > 4
    assert runs == {f"g{layer}": 1 for layer in range(1, LAYERS)}


@pytest.mark.parametrize("wrong", range(LAYERS))
def test_weights_that_are_wrong_in_one_layer_are_caught(wrong: int) -> None:
    found = check(parse(layered()), folded(wrong))
    assert found.verdict == "unequal"
    assert [region.output for region in found.failing] == [f"p{wrong}"]
    right = check(parse(layered()), folded())
    assert (right.verdict, right.counts.alike) == ("equal", LAYERS - 1)


def test_what_shows_in_variants_only_is_found_in_every_layer() -> None:
    # On plain feeds the variance is far above the epsilon.
    line = "LayerNormalization(p{{0}}, float32[16] random(7), epsilon={})"
    original, candidate = (layered(line.format(epsilon)) for epsilon in ("1e-12", "1e-11"))
    found = check(parse(original), parse(candidate))
    assert [region.output for region in found.failing] == [f"g{layer}" for layer in range(LAYERS)]
    assert found.counts.alike == 0


def test_a_form_that_was_equal_once_is_known_in_later_candidates() -> None:
    with Checker(parse(layered())) as checker:
        first = layered().replace("g0 = Gelu(p0)", "g0 = " + PARTS.format(0))
        assert checker.check(parse(first)).counts.alike == 0
        found = checker.check(parse(layered(PARTS)))
    assert (found.verdict, found.counts.known, found.counts.alike) == ("equal", 1, LAYERS - 1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """Few nodes in one session, and few bytes."""
    monkeypatch.setattr(chunks, "MOST_NODES", 20)
    monkeypatch.setattr(chunks, "MOST_BYTES", 2_400)
    monkeypatch.setattr(checker, "MOST_LOADED", 20)
    return 20


def test_a_large_model_runs_in_chunks(sessions: list[list[str]], small: int) -> None:
    original, candidate = layered(layers=30), layered(PARTS, layers=30)
    found = check(parse(original), parse(candidate))
    assert (found.verdict, found.counts.run) == ("equal", 30)
    assert "too large to be loaded as a whole" in found.reason
    # A gain behind each node that rounds, and a copy, may come on top.
    assert max(map(len, sessions)) <= 2 * small
    wrong = candidate.replace("g17 = ", "g17 = Mul(1.001, ").replace(", 0.5)\nh18", ", 0.5))\nh18")
    assert wrong != candidate
    found = check(parse(original), parse(wrong))
    assert [region.output for region in found.failing] == ["g17"]


def test_chunks_give_what_one_session_gives(small: int) -> None:
    # Every other value is read much later as well; one node has two outputs, of which one crosses.
    lines = "\n".join(f"v{i + 1} = Tanh(Add(v{i}, v{max(0, i - 33)}))" for i in range(60))
    text = (
        f"opset 20\n(v0: float32[N, 4]) -> (y) {{ {lines}\n a, b = Split(v60, axis=1, num_outputs=2)\n y = Mul(a, b) }}"
    )
    model = parse(text)
    names = ["v0", *(f"v{i}" for i in range(1, 61, 7)), "y"]
    with Runs(model, Options()) as runs:
        values = [model.graph.names[name] for name in names[1:]]
        nodes = list(model.graph.ops())
        several = chunks.Chunks(model, nodes, values, runs)
        whole = part(model, values, runs.weights).load(runs.runner, "whole")
        feed = {"v0": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)}
        for wanted in (None, ["v1"], ["y"], ["v15", "v50"]):
            found, expected = several.run(feed, wanted), whole.run(feed, wanted)
            assert list(found) == list(expected) if wanted else found.keys() == expected.keys()
            assert all(np.array_equal(found[name], expected[name]) for name in expected)
        assert several.types() == whole.types() | several.types()


def test_batches_are_small_in_nodes_and_bytes(small: int) -> None:
    models = parse(layered(layers=12)), parse(layered(PARTS, layers=12))
    found, _ = regions(*models)
    sizes = dict.fromkeys((f"p{i}" for i in range(12)), 150)
    for given, most in ((sizes, 2), ({}, 3), (dict.fromkeys(sizes, 5_000), 1)):
        groups = list(batches(found, given))
        assert [region for group in groups for region in group] == found
        assert max(map(len, groups)) == most


def test_a_shelf_keeps_what_does_not_fit_in_a_file(small: int) -> None:
    shelf = chunks.Shelf()
    arrays = [np.full(250, number, np.float32) for number in range(4)]
    kept = [shelf.keep(array) for array in arrays]
    assert [isinstance(value, np.memmap) for value in kept] == [False, False, True, True]
    assert all(np.array_equal(a, b) for a, b in zip(arrays, kept, strict=True))


def in_file(path: Path, last: float, before: int) -> Model:
    """A model of one matrix of more than a megabyte, in a file, behind some other bytes."""
    data = np.zeros((600, 600), np.float32)
    data[-1, -1] = last
    path.write_bytes(b"." * before + data.tobytes())
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    ports = [onnx.helper.make_tensor_value_info(name, 1, ["N", 600]) for name in ("x", "y")]
    weight = onnx.TensorProto(name="w", data_type=1, dims=data.shape, data_location=onnx.TensorProto.EXTERNAL)
    for key, value in {"location": path.name, "offset": before, "length": data.nbytes}.items():
        weight.external_data.add(key=key, value=str(value))
    graph = onnx.helper.make_graph([node], "matrix", ports[:1], ports[1:], [weight])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)]), path.with_suffix(".onnx")
    )
    return load(path.with_suffix(".onnx"))


def test_weights_in_files_are_compared_to_their_end(tmp_path: Path) -> None:
    original = in_file(tmp_path / "a", 1, 0)
    assert compared(original, in_file(tmp_path / "b", 1, 3))[0] == {}
    assert list(compared(original, in_file(tmp_path / "c", 2, 0))[0]) == ["y"]


def test_the_same_weights_of_two_models_are_used_once(tmp_path: Path) -> None:
    models = [in_file(tmp_path / name, last, before) for name, last, before in (("a", 1, 0), ("b", 1, 3), ("c", 2, 0))]
    with Weights() as weights:
        tensors = [model.graph.names["w"].tensor for model in models]
        places = [weights.declare("w", tensor)[1] for tensor in tensors if tensor is not None]
        assert [place.path.name for place in places if place is not None] == ["a", "a", "c"]


@pytest.mark.parametrize("before", [1, 4])
def test_weights_at_any_offset_are_what_stands_there(tmp_path: Path, before: int) -> None:
    model = in_file(tmp_path / "a", 3, before)
    with Runs(model, Options()) as runs:
        whole = part(model, model.graph.outputs, runs.weights)
        x = np.zeros((1, 600), np.float32)
        x[0, -1] = 1
        # The second session uses what the first one read.
        for name in ("first", "second"):
            assert whole.load(runs.runner, name).run({"x": x})["y"][0, -1] == 3
