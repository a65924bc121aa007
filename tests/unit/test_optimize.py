"""The stages together: what targets, promises, pinned opsets and budgets change."""

from __future__ import annotations

import gc
from collections import Counter
from functools import partial

import pytest

from graphopt.ir import Model, Node
from graphopt.ir.text import parse, to_text
from graphopt.pipeline.optimize import optimize, optimized
from graphopt.rewrite import Trace, built_in_rules
from graphopt.targets import target_named

PRE_NORM = """(x: float32[B, S, 64]) -> (y: float32[B, S, 64]) {
  n = LayerNormalization(x, float32[64] random(1), float32[64] random(2))
  h = Gelu(Add(MatMul(n, float32[64, 128] random(3)), float32[128] random(4)))
  y = Add(MatMul(h, float32[128, 64] random(5)), x)
}"""
POST_NORM = """(x: float32[B, S, 64]) -> (y: float32[B, S, 64]) {
  n = LayerNormalization(x, float32[64] random(1), float32[64] random(2))
  y = Add(MatMul(n, float32[64, 64] random(3)), n)
}"""
ATTENTION = """(q: float32[B, 4, S, 16], k: float32[B, 4, S, 16], v: float32[B, 4, S, 16], m: bool[B, 1, S, S])
-> (y: float32[B, 4, S, 16]) {
  s = Mul(MatMul(q, Transpose(k, perm=[0, 1, 3, 2])), 0.25)
  y = MatMul(Softmax(Add(s, Where(m, 0.0, FILL)), axis=-1), v)
}"""

CONTRIB = """(x: float32[B, S, 64], m: int32[B, S]) -> (y: float32[B, S, 64]) {
  a = com.microsoft.Attention(x, float32[64, 192] random(1), float32[192] random(2), m, num_heads=4)
  n, _, _, r = com.microsoft.SkipLayerNormalization(x, a, float32[64] random(3), float32[64] random(4))
  h = com.microsoft.BiasGelu(MatMul(n, float32[64, 128] random(5)), float32[128] random(6))
  y = Add(MatMul(h, float32[128, 64] random(7)), r)
}"""


def fused(text: str, target: str = "ort-cpu", opset: int = 20, **options: object) -> tuple[Model, Trace]:
    model = parse(text, opset=opset)
    trace = optimize(model, target=target_named(target), rules=built_in_rules(), **options)  # type: ignore[arg-type]
    assert not trace.failures
    return model, trace


def ops(model: Model) -> Counter[str]:
    return Counter(f"{node.domain}.{node.op}".lstrip(".") for node in model.graph.ops())


def test_a_norm_is_folded_where_only_products_read_it() -> None:
    assert "FoldNormIntoProducts" in {site.rule for site in fused(PRE_NORM)[1].sites}
    assert "FoldNormIntoProducts" not in {site.rule for site in fused(POST_NORM)[1].sites}


def test_passes_look_again_only_at_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Model] = []

    def merge_common(model: Model) -> int:
        seen.append(model)
        return 0

    monkeypatch.setattr("graphopt.pipeline.optimize.merge_common", merge_common)
    unchanged, _ = fused("(x: float32[B]) -> (y: float32[B]) { y = Sin(x) }")
    changed, _ = fused("(x: float32[B]) -> (y: float32[B]) { y = Sin(Identity(x)) }")
    assert seen.count(unchanged) == 1
    assert seen.count(changed) > 1


def test_a_rule_that_writes_too_much_is_left_out_whole() -> None:
    make = partial(parse, PRE_NORM)
    options = {"target": target_named("ort-cpu"), "rules": built_in_rules()}
    model, trace = optimized(make, max_new_weights=64 * 128 * 4 - 1, **options)
    assert list(trace.left_out) == ["FoldNormIntoProducts"]
    assert "FoldNormIntoProducts" not in {site.rule for site in trace.sites}
    assert "folded" not in to_text(model)
    assert optimized(make, max_new_weights=64 * 128 * 4 + 4096, **options)[1].left_out == {}


def test_nodes_that_are_gone_are_let_go() -> None:
    model, _ = fused(PRE_NORM)
    gc.collect()
    nodes = [found for found in gc.get_objects() if isinstance(found, Node) and found.graph is model.graph]
    assert [node for node in nodes if node not in model.graph] == []


@pytest.mark.parametrize(
    ("fill", "assume", "op"),
    [
        ("-1e4", (), "Attention"),
        ("-3.4028235e38", (), "Attention"),
        ("-inf", (), "com.microsoft.MultiHeadAttention"),
        ("-inf", ("no-empty-rows",), "Attention"),
    ],
)
def test_the_fill_of_a_mask_decides_the_kernel(fill: str, assume: tuple[str, ...], op: str) -> None:
    model, _ = fused(ATTENTION.replace("FILL", fill), assume=frozenset(assume))
    assert ops(model)[op] == 1
    assert ops(model)["Softmax"] == 0
    keys = [entry.key for entry in model.proto.metadata_props]
    assert keys == [f"graphopt.assume.{name}" for name in assume]


@pytest.mark.parametrize("target", ["ort-cpu", "ort-cuda", "onnx"])
@pytest.mark.parametrize(
    "text",
    [PRE_NORM, POST_NORM, ATTENTION.replace("FILL", "-1e4"), CONTRIB],
    ids=["pre", "post", "mask", "contrib"],
)
def test_a_fused_model_stays_as_it_is(text: str, target: str) -> None:
    model, _ = fused(text, target)
    before = to_text(model, names=False)
    # What was lowered is recovered, and lowered again.
    assert not optimize(model, target=target_named(target), rules=built_in_rules()).failures
    assert to_text(model, names=False) == before


def test_what_older_tools_wrote_is_written_anew() -> None:
    found = ops(fused(CONTRIB)[0])
    assert (found["Attention"], found["LayerNormalization"], found["Gelu"]) == (1, 1, 1)
    assert not any("." in op for op in found)
    assert {op for op in ops(fused(CONTRIB, "ort-cuda")[0]) if "." in op} == {
        "com.microsoft.MultiHeadAttention",
        "com.microsoft.BiasGelu",
    }


def test_a_pinned_opset_stays() -> None:
    raised, _ = fused(ATTENTION.replace("FILL", "-1e4"), opset=17)
    assert (raised.opset, ops(raised)["Attention"]) == (23, 1)
    kept, _ = fused(ATTENTION.replace("FILL", "-1e4"), opset=17, keep_opset=True)
    assert (kept.opset, ops(kept)["com.microsoft.MultiHeadAttention"]) == (17, 1)
    plain, _ = fused(ATTENTION.replace("FILL", "-1e4"), "onnx", opset=17, keep_opset=True)
    assert (plain.opset, ops(plain)["Softmax"]) == (17, 1)


@pytest.mark.parametrize("opset", [7, 10])
def test_an_opset_too_old_to_be_raised_stays_where_all_nodes_are_contrib_ones(opset: int) -> None:
    text = "(x: float32[B, 64], b: float32[64]) -> (y) { y = com.microsoft.BiasGelu(x, b) }"
    model, _ = fused(text, opset=opset)
    assert (model.opset, ops(model)) == (opset, {"Add": 1, "com.microsoft.Gelu": 1})


@pytest.mark.parametrize(
    ("opset", "keep", "after"), [(9, False, 9), (10, True, 10), (11, False, 17), (11, True, 11), (16, True, 16)]
)
def test_a_layer_normalization_in_an_opset_that_stays(opset: int, keep: bool, after: int) -> None:
    text = """(x: float32[B, S, 64]) -> (y) {
      d = Sub(x, ReduceMean(x, axes=[-1]))
      n = Div(d, Sqrt(Add(ReduceMean(Mul(d, d), axes=[-1]), 1e-5)))
      y = MatMul(n, float32[64, 8] random(1))
    }"""
    model, _ = fused(text, opset=opset, keep_opset=keep)
    assert (model.opset, ops(model)["LayerNormalization"]) == (after, 1)


@pytest.mark.parametrize(
    ("target", "keep", "opset", "op"),
    [
        ("ort-cpu", False, 23, "RMSNormalization"),
        ("ort-cpu", True, 17, "SimplifiedLayerNormalization"),
        ("onnx", False, 23, "RMSNormalization"),
        ("onnx", True, 17, "ReduceMean"),
    ],
)
def test_where_an_opset_has_no_rms_normalization(target: str, keep: bool, opset: int, op: str) -> None:
    text = """(x: float32[B, S, 64]) -> (y: float32[B, S, 64]) {
      y = Mul(Div(x, Sqrt(Add(ReduceMean(Mul(x, x), axes=[-1]), 1e-6))), float32[64] random(1))
    }"""
    model, _ = fused(text, target, opset=17, keep_opset=keep)
    assert (model.opset, ops(model)[op]) == (opset, 1)


def test_the_standard_target_writes_no_contrib_domain() -> None:
    for text in (PRE_NORM, POST_NORM, ATTENTION.replace("FILL", "-inf")):
        assert all(not node.domain for node in fused(text, "onnx")[0].graph.ops())
