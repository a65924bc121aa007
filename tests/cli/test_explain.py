"""`graphopt explain`: node and reason, on one screen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from graphopt.bench.bert import BertConfig, bert
from graphopt.ir import model_to_proto
from graphopt.ir.text import parse

from .conftest import Cli, snapshot

SMALL = BertConfig(layers=3, hidden=32, heads=2, intermediate=64, vocabulary=50, positions=16)
SCREEN = 40

RULES = '''
from typing import Annotated

from graphopt.rewrite import Builder, Expr, Ops, Rule, Value, const

Matrix = Annotated[Value, const(rank=2)]
Vector = Annotated[Value, const(rank=1)]


class LinearToGemm(Rule):
    """x·W + b as Gemm."""

    stage = "fuse"

    def pattern(self, op: Ops, x: Value, w: Matrix, b: Vector) -> Expr:
        return op.MatMul(x, w) + b

    def rewrite(self, op: Builder, x: Value, w: Value, b: Value) -> Value:
        return op.Gemm(x, w, b)


class LinearRelu(Rule):
    """Relu(x·W + b) as one kernel."""

    stage = "fuse"

    def pattern(self, op: Ops, x: Value, w: Matrix, b: Vector) -> Expr:
        return op.Relu(op.MatMul(x, w) + b)

    def rewrite(self, op: Builder, x: Value, w: Value, b: Value) -> Value:
        return op.ms.FusedGemm(x, w, b, activation="Relu")


class Six(Rule):
    """A product of six operands, of which two are one."""

    stage = "fuse"

    def pattern(self, op: Ops, a: Value, b: Value, c: Value, d: Value, e: Value) -> Expr:
        return op.Neg(op.prod(a, b, c, d, e, a))

    def rewrite(self, op: Builder) -> None:
        return None
'''


def of(model: onnx.ModelProto, op: str, scope: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == op and scope in node.name]


def with_wrong_constant() -> onnx.ModelProto:
    """The GELU of layer 1 by tanh, its 0.044715 cut off."""
    model = bert(SMALL)
    (erf,) = of(model, "Erf", "layer.1")
    (div,) = of(model, "Div", "layer.1/intermediate")
    x, nodes = div.input[0], list(model.graph.node)
    for name, value in (("three", 3.0), ("c", 0.0447), ("k", np.sqrt(2 / np.pi))):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    nodes[nodes.index(div) : nodes.index(erf) + 1] = [
        helper.make_node("Pow", [x, "three"], ["power"]),
        helper.make_node("Mul", ["c", "power"], ["cube"]),
        helper.make_node("Add", [x, "cube"], ["sum"]),
        helper.make_node("Mul", ["sum", "k"], ["inner"]),
        helper.make_node("Tanh", ["inner"], list(erf.output)),
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def with_probabilities(*layers: int) -> onnx.ModelProto:
    """The probabilities of the attentions of `layers` are outputs."""
    model = bert(SMALL)
    for layer in layers:
        (softmax,) = of(model, "Softmax", f"layer.{layer}/")
        model.graph.output.append(helper.make_tensor_value_info(softmax.output[0], 1, None))
    return model


def with_norm_over_axis_1() -> onnx.ModelProto:
    """The last normalization of layer 1 runs over the sequence."""
    model = bert(SMALL)
    for mean in of(model, "ReduceMean", "layer.1/output/LayerNorm"):
        mean.attribute[0].ints[:] = [1]
    return model


def two_linear_layers() -> onnx.ModelProto:
    return model_to_proto(
        parse("""(x: float32[N, 8]) -> (y: float32[N, 4]) {
          h = Relu(Add(MatMul(x, float32[8, 16] random(1)), float32[16] random(2)))
          y = Add(MatMul(h, float32[16, 4] random(3)), float32[4] random(4))
        }""")
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "rules.py").write_text(RULES)
    return tmp_path / "model.onnx"


def test_a_constant_that_is_another(cli: Cli, path: Path) -> None:
    onnx.save(with_wrong_constant(), path)
    before = snapshot(path.parent)
    done = cli("explain", path)
    assert (done.code, done.err) == (0, "")
    assert len(done.out.splitlines()) <= SCREEN
    assert "GeluTanh  " in done.out
    assert "blocked at cube: 0.0447, wanted 0.044715" in done.out
    assert "recover/gelu_tanh.py:" in done.out
    assert "✗ 0.044715" in done.out
    assert snapshot(path.parent) == before


def test_probabilities_that_are_an_output(cli: Cli, path: Path) -> None:
    model = with_probabilities(0)
    (softmax,) = of(model, "Softmax", "layer.0/")
    onnx.save(model, path)
    done = cli("explain", path)
    assert len(done.out.splitlines()) <= SCREEN
    assert (
        f"blocked at {softmax.name}: {softmax.name.rpartition('/')[2]} inside the match is a graph output" in done.out
    )
    row = "AttentionFromParts 2 1 of 1 5 of 5 Softmax inside the match is a graph output"
    assert row in " ".join(done.out.split())


def test_what_would_recover_a_meaning_leads_and_is_told_once(cli: Cli, path: Path) -> None:
    onnx.save(with_probabilities(0), path)
    lines = cli("explain", path).out.splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("rule "))
    rules = [line.split()[0] for line in lines[first + 1 : lines.index("", first)] if not line.startswith(" ")]
    # MatMul and Add of ProductBiasToGemm stand at every linear layer; the row that the pooler takes is of an output.
    assert rules == ["AttentionFromParts", "PackQKV", "RowOfLayer"]


def test_a_normalization_over_another_axis(cli: Cli, path: Path) -> None:
    model = with_norm_over_axis_1()
    root = of(model, "Mul", "layer.1/output/LayerNorm")[-1]
    onnx.save(model, path)
    done = cli("explain", path)
    assert len(done.out.splitlines()) <= SCREEN
    assert f"LayerNormFromParts at {root.name}" in done.out
    assert f"blocked at {root.name}: axes [1] are not the trailing ones" in done.out


def test_a_rule_that_another_comes_before(cli: Cli, path: Path) -> None:
    onnx.save(two_linear_layers(), path)
    rules = path.with_name("rules.py")
    done = cli("explain", path, "--rules", rules)
    assert len(done.out.splitlines()) <= SCREEN
    lines = [line.strip() for line in done.out.splitlines()]
    first = lines.index("LinearRelu matched at h when its stage began")
    assert lines[first + 2] == "LinearToGemm fired first at add and took add, matmul"
    places = [lines[first + 1].rpartition("/")[2], lines[first + 3].rpartition("/")[2]]
    starts = [1 + RULES.splitlines().index(f"class {name}(Rule):") for name in ("LinearRelu", "LinearToGemm")]
    assert places == [f"rules.py:{line}" for line in starts]
    report = cli("explain", path, "--rules", rules, "--rule", "LinearRelu", "--json", "-").report
    assert report["rules"][0]["shadows"][0]["by"]["rule"] == "LinearToGemm"
    assert "fired first" not in cli("explain", path, "--rules", rules, "--disable", "LinearToGemm").out


def test_reasons_are_counted_over_the_model(cli: Cli, path: Path) -> None:
    onnx.save(with_probabilities(0, 1, 2), path)
    row = "AttentionFromParts  0      3 of 3   5 of 5  Softmax inside the match is a graph output"
    assert row in cli("explain", path).out


def test_what_is_required_and_missing_is_exit_1_with_reasons(cli: Cli, path: Path) -> None:
    onnx.save(with_probabilities(1), path)
    done = cli("explain", path, "--require", "Attention=3", "--require", "Gelu=3")
    assert done.code == 1
    assert done.err.startswith("error[GO083]: Attention: 2, required 3\n")
    assert "required: 3 Attention, found 2\nrequired: 3 Gelu, found 3\n" in done.out
    assert "Softmax inside the match is a graph output" in done.out
    assert "GeluErf" not in done.out
    report = cli("explain", path, "--require", "Attention=3", "--json", "-").report
    assert (report["schema"], report["command"], report["error"]["code"]) == ("graphopt/1", "explain", "GO083")
    assert report["required"][0]["found"] == 2
    assert "AttentionFromParts" in report["required"][0]["rules"]


def test_what_is_required_and_there_is_all_that_is_said(cli: Cli, path: Path) -> None:
    onnx.save(with_probabilities(), path)
    done = cli("explain", path, "--require", "Attention=3", "--require", "MatMul=1")
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("required: 3 Attention, found 3\nrequired: 1 MatMul, found 18\n")


def test_what_became_of_a_node(cli: Cli, path: Path) -> None:
    model = with_probabilities(0)
    kept, taken = (of(model, "Softmax", f"layer.{layer}/")[0] for layer in (0, 1))
    onnx.save(model, path)
    # A node is named by itself or by what it writes.
    for name in (taken.name, taken.output[0]):
        said = " ".join(cli("explain", path, "--node", name).out.split())
        assert f"{name} (Softmax) was taken by AttentionFromParts at" in said
    done = cli("explain", path, "--node", kept.name)
    assert f"{kept.name} (Softmax) stands in the result" in done.out
    assert "AttentionFromParts 5 of 5" in " ".join(done.out.split())
    report = cli("explain", path, "--node", taken.name, "--json", "-").report
    assert report["nodes"][0]["taken"]["rule"] == "AttentionFromParts"


def test_one_rule_in_full(cli: Cli, path: Path) -> None:
    onnx.save(with_probabilities(0), path)
    done = cli("explain", path, "--rule", "MergeTransposes")
    assert "MergeTransposes (clean) fired " in done.out
    done = cli("explain", path, "--rule", "AttentionFromParts", "--verbose")
    assert "AttentionFromParts (recover) fired 2 times" in done.out
    assert "wanted Cast or Softmax or Where" in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rule", "BiasGelu", "--target", "onnx"], "onnx has no kernel com.microsoft.BiasGelu"),
        (["--rule", "GeluErf", "--disable", "GeluErf"], "disabled"),
        (["--rule", "RemoveDropout"], "no Dropout in the model"),
        (["--rule", "LayerNormFromParts", "--max-new-weights", "16"], "left out: its rewrites would write more than"),
    ],
)
def test_a_rule_that_had_no_part_says_why(cli: Cli, path: Path, arguments: list[str], said: str) -> None:
    onnx.save(with_probabilities(), path)
    assert said in cli("explain", path, *arguments).out


def test_a_search_that_is_given_up_is_said(cli: Cli, path: Path) -> None:
    leaves = [f"x{index}" for index in range(32)]
    inputs = ", ".join(f"{name}: float32[4]" for name in leaves)
    while len(leaves) > 1:
        leaves = [f"Mul({a}, {b})" for a, b in zip(leaves[::2], leaves[1::2], strict=True)]
    onnx.save(model_to_proto(parse(f"({inputs}) -> (y) {{ y = Neg({leaves[0]}) }}")), path)
    done = cli("explain", path, "--rules", path.with_name("rules.py"), "--rule", "Six")
    assert "step budget used up" in done.out


def test_a_report_is_written_beside_what_is_printed(cli: Cli, path: Path) -> None:
    onnx.save(with_wrong_constant(), path)
    done = cli("explain", path, "--rule", "GeluTanh", "--json", path.with_name("explain.json"))
    (rule,) = json.loads(path.with_name("explain.json").read_text())["rules"]
    assert "GeluTanh (recover) fired 0 times" in done.out
    nearest = rule["groups"][0]["refusals"][0]
    assert (nearest["node"], nearest["matched"], nearest["size"]) == ("cube", 8, 8)
    assert rule["place"].rpartition(":")[0].endswith("gelu_tanh.py")


def test_a_meaning_that_no_kernel_takes_says_why_it_is_spelled_in_parts(cli: Cli, tmp_path: Path) -> None:
    text = """(q: float32[B, 2, S, 8], k: float32[B, 2, 8, S], v: float32[B, 2, S, 8], m: float32[S, S]) -> (y) {
      y = MatMul(Softmax(Add(Mul(MatMul(q, k), 0.25), m), axis=-1), v)
    }"""
    path = tmp_path / "model.onnx"
    onnx.save(model_to_proto(parse(text)), path)
    done = " ".join(cli("explain", path, "--target", "onnx").out.split())
    assert "AttentionToStandard 1 spelled in parts: what the mask holds is not proved" in done
    assert "spelled in parts" not in cli("explain", path).out
