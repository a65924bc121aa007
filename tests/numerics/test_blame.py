"""Rules with a mistake in them: each is caught, blamed by name, taken back, and nothing of it is written."""

from __future__ import annotations

import runpy
import tomllib
from pathlib import Path

import onnx
import pytest

import graphopt
from graphopt.bench import BertConfig, bert
from graphopt.ir import model_to_proto
from graphopt.ir.text import parse

CONFIG = BertConfig(layers=2, hidden=64, heads=4, intermediate=128, vocabulary=100, positions=64, mask="product")

HEAD = """
from typing import Annotated
from graphopt.ir import Value
from graphopt.patterns.recover.attention import AttentionFromParts
from graphopt.patterns.recover.layer_norm import LayerNormFromParts
from graphopt.rewrite import Builder, Expr, Number, Ops, Rule
"""

# 0.1 % in the scale of one layer only.
SCALE = """
class WrongScale(AttentionFromParts):
    def rewrite(self, op, q, kt, v, scale, bias, more, cap, zero, narrow, root):
        off = 1.001 if "layer.1" in root.name else 1.0
        return super().rewrite(op, q, kt, v, scale * off, bias, more, cap, zero, narrow)
"""
EPSILON = """
class WrongEpsilon(LayerNormFromParts):
    def rewrite(self, op, x, axes, eps, g, b):
        return super().rewrite(op, x, axes, 1e-5, g, b)
"""
ORIENTATION = """
class WrongOrientation(Rule):
    stage = "recover"
    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Sub(1.0, x)
    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Add(x, op.const(0.0, like=x))
"""
FILL = """
class WrongFill(Rule):
    stage = "recover"
    def pattern(self, op: Ops, x: Value, fill: Number) -> Expr:
        return op.Mul(op.Sub(1.0, x), fill)
    def where(self, fill: float) -> bool:
        return fill < -1e30
    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Mul(op.Sub(op.const(1.0, like=x), x), op.const(-1e4, like=x))
"""


@pytest.mark.parametrize(
    ("rule", "source", "replaced", "sites"),
    [
        ("WrongScale", SCALE, ["AttentionFromParts"], 1),
        ("WrongEpsilon", EPSILON, ["LayerNormFromParts", "RMSNormFromParts"], 5),
        ("WrongOrientation", ORIENTATION, [], 1),
        ("WrongFill", FILL, [], 1),
    ],
)
def test_a_mistaken_rule_is_blamed_and_taken_back(
    tmp_path: Path, rule: str, source: str, replaced: list[str], sites: int
) -> None:
    model, output, rules = tmp_path / "model.onnx", tmp_path / "out.onnx", tmp_path / "wrong.py"
    onnx.save(bert(CONFIG), model)
    rules.write_text(HEAD + source)

    result = graphopt.fuse(model, output, rules=[str(rules)], disable=replaced)

    assert {site.rule for site in result.rolled_back} == {rule}
    assert len(result.rolled_back) == sites
    assert result.verdict == "equal"
    assert result.exit_code == 0
    assert graphopt.verify(model, output).verdict == "equal"
    # What was right stays: only the layer whose scale was off keeps its parts.
    assert result.fused["Gelu"] == CONFIG.layers
    assert result.fused.get("Attention", 0) == CONFIG.layers - (rule == "WrongScale")


@pytest.mark.parametrize(
    "rule", ["MergeFactors", "SoftmaxFromParts", "RotaryEmbeddingFromParts", "PadIntoMaxPool", "AttentionToStandard"]
)
def test_a_mistake_in_a_rule_of_ours_leaves_a_small_case_that_fails_until_it_is_mended(
    root: Path, tmp_path: Path, rule: str
) -> None:
    table = tomllib.loads((root / "tools" / "planted.toml").read_text())
    row = next(row for stage in table.values() for row in stage if row["rule"] == rule)
    right = (root / row["file"]).read_text().replace(f"class {rule}(", f"class Another{rule}(")
    rules = tmp_path / "wrong.py"
    rules.write_text(right.replace(row["old"], row["new"]))

    model = model_to_proto(parse(row["model"]))
    result = graphopt.fuse(model, rules=[str(rules)], disable=[rule], keep=tmp_path / "kept")

    (blamed,) = result.blamed
    assert blamed.rule == f"Another{rule}"
    assert result.verdict == "equal"
    assert 0 < blamed.nodes <= 15
    assert 0 < blamed.replays <= 6

    def run_test() -> None:
        found = runpy.run_path(str(Path(blamed.case) / "test_case.py"))
        next(what for name, what in found.items() if name.startswith("test_"))()

    with pytest.raises(AssertionError, match="is another"):
        run_test()
    rules.write_text(right)
    run_test()
