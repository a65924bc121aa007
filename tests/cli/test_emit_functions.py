"""`--emit-functions`: fused operators with their bodies, in models that any runtime loads."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime as ort
import pytest

from graphopt.ir import save
from graphopt.ir.text import parse

from .conftest import Cli

MATMUL_ADD_GELU = "ai.graphopt.FusedMatMulAddGelu"
LAYER_NORM_MATMUL = "ai.graphopt.FusedLayerNormMatMul"

# Weights are wide enough to lie in an external file.
BLOCK = """(x: float32[N, S, 32]) -> (y: float32[N, S, 16]) {
  n = LayerNormalization(x, float32[32] random(1), float32[32] random(2))
  h = Gelu(Add(MatMul(n, float32[32, 64] random(3)), float32[64] random(4)), approximate="tanh")
  r = Add(MatMul(h, float32[64, 32] random(5)), x)
  y = MatMul(LayerNormalization(r, float32[32] random(6)), float32[32, 16] random(7))
}"""


def loads_everywhere(path: Path) -> onnx.ModelProto:
    """The model in a file, after a look whether onnx and onnxruntime, optimizing or not, take it."""
    onnx.checker.check_model(path, full_check=True)
    for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
        options = ort.SessionOptions()
        options.graph_optimization_level = level
        ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return onnx.load(path)


@pytest.fixture
def block(tmp_path: Path) -> Path:
    """A file with a block of a transformer that normalizes first."""
    return save(parse(BLOCK, opset=20), tmp_path / "block.onnx")[-1]


def test_a_layer_is_one_operator_with_a_body(cli: Cli, gelu: Path) -> None:
    out = gelu.with_name("fused.onnx")
    done = cli("fuse", gelu, "-o", out, "--emit-functions", "--verify", "full", "--json", "-")
    assert done.code == 0
    report = done.report
    assert report["verdict"] == "equal"
    assert report["fused"] == {"Gelu": 1}
    assert report["nodes"]["after"] == 1
    model = loads_everywhere(out)
    assert [node.op_type for node in model.graph.node] == ["FusedMatMulAddGelu"]
    (function,) = model.functions
    assert [node.op_type for node in function.node] == ["MatMul", "Add", "Gelu"]
    assert cli("verify", gelu, out).code == 0


def test_an_opset_that_must_stay(cli: Cli, gelu: Path) -> None:
    out = gelu.with_name("fused.onnx")
    done = cli("fuse", gelu, "-o", out, "--emit-functions", "--keep-opset", "--target", "ort-cpu", "--json", "-")
    assert (done.code, done.report["verdict"], done.report["fused"]) == (0, "equal", {"Gelu": 1})
    model = loads_everywhere(out)
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 17, "ai.graphopt": 1}
    assert [entry.version for entry in model.functions[0].opset_import if not entry.domain] == [17]
    assert cli("verify", gelu, out).code == 0


@pytest.mark.parametrize(("target", "external"), [("ort-cpu", "always"), ("onnx", "never")])
def test_a_block(cli: Cli, block: Path, target: str, external: str) -> None:
    out = block.with_name("fused.onnx")
    flags = ("--emit-functions", "--target", target, "--external-data", external, "--json", "-")
    done = cli("fuse", block, "-o", out, *flags)
    assert (done.code, done.report["verdict"]) == (0, "equal")
    assert done.report["fused"] == {"Gelu": 1, "LayerNormalization": 2}
    assert done.report["ops"]["after"][MATMUL_ADD_GELU] == 1
    assert done.report["ops"]["after"][LAYER_NORM_MATMUL] == 1
    functions = loads_everywhere(out).functions
    assert [function.name for function in functions] == ["FusedMatMulAddGelu", "FusedLayerNormMatMul"]
    again = block.with_name("again.onnx")
    assert cli("fuse", out, "-o", again, *flags).report["rewrites"] == []
    assert list(onnx.load(again).functions) == list(functions)


def test_what_is_fused_stays_without_the_flag(cli: Cli, block: Path) -> None:
    out = block.with_name("fused.onnx")
    assert cli("fuse", block, "-o", out, "--emit-functions").code == 0
    again = block.with_name("again.onnx")
    done = cli("fuse", out, "-o", again, "--json", "-")
    assert (done.code, done.report["verdict"], done.report["rewrites"]) == (0, "equal", [])
    assert again.read_bytes() == out.read_bytes()


def test_inspect_knows_the_operators(cli: Cli, block: Path) -> None:
    out = block.with_name("fused.onnx")
    assert cli("fuse", block, "-o", out, "--emit-functions").code == 0
    report = cli("inspect", out, "--json", "-").report
    assert report["fused"] == {"Gelu": 1, "LayerNormalization": 2}
    assert report["functions"] == [MATMUL_ADD_GELU, LAYER_NORM_MATMUL]
    assert report["unknown"] == []
    assert report["nodes"] == sum(report["ops"].values()) == len(onnx.load(out).graph.node)


def test_without_the_flag_there_are_none(cli: Cli, gelu: Path) -> None:
    out = gelu.with_name("fused.onnx")
    assert cli("fuse", gelu, "-o", out).code == 0
    assert not onnx.load(out).functions
    said = cli("explain", gelu, "--rule", "MatMulAddGelu").out
    assert f"has no kernel {MATMUL_ADD_GELU}" in " ".join(said.split())
    report = cli("explain", gelu, "--emit-functions", "--json", "-").report
    assert {rule["name"]: rule["fired"] for rule in report["rules"]}["MatMulAddGelu"] == 1


def test_a_table_with_the_kernel_writes_it_as_well(cli: Cli, gelu: Path) -> None:
    table = gelu.with_name("table.json")
    table.write_text(
        '{"name": "mine", "opset": 19, "provider": "cpu", "kernels": ['
        '{"domain": "com.microsoft", "op": "Gelu"}, {"domain": "ai.graphopt", "op": "FusedMatMulAddGelu"}]}'
    )
    out = gelu.with_name("fused.onnx")
    assert cli("fuse", gelu, "-o", out, "--target", table).code == 0
    model = loads_everywhere(out)
    assert [node.op_type for node in model.graph.node] == ["FusedMatMulAddGelu"]
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 17, "ai.graphopt": 1}


def test_a_function_under_its_name_that_is_not_ours_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    text = f"""(x: float32[N, 8]) -> (y: float32[N, 4], z: float32[N, 4]) {{
      y = Gelu(Add(MatMul(x, float32[8, 4] random(1)), float32[4] random(2)))
      z = {MATMUL_ADD_GELU}(x, float32[8, 4] random(3), float32[4] random(4))
    }}
    function {MATMUL_ADD_GELU}(x, w, b) -> (y) {{ y = Relu(Add(MatMul(x, w), b)) }}"""
    path, out = tmp_path / "foreign.onnx", tmp_path / "out.onnx"
    save(parse(text, opset=20), path)
    done = cli("fuse", path, "-o", out, "--emit-functions", "--json", "-")
    assert (done.code, done.report["verdict"]) == (0, "equal")
    model = loads_everywhere(out)
    assert [[node.op_type for node in function.node] for function in model.functions] == [["MatMul", "Add", "Relu"]]
    assert sorted(node.op_type for node in model.graph.node) == ["Add", "FusedMatMulAddGelu", "Gelu", "MatMul"]
