"""`graphopt fuse`: what it writes, what it says, and when it does not write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, parser

from graphopt.ir import Model
from graphopt.pipeline import optimize as stages
from graphopt.pipeline.optimize import optimize
from graphopt.rewrite import Trace

from .conftest import HEAD, Cli, gelu_layer, snapshot

WRONG = '''
"""A rule that is wrong, and one that fails."""
from graphopt.rewrite import Expr, Ops, Rule, Value


class ErfIsTanh(Rule):
    """erf is not tanh."""

    stage = "clean"
    priority = 100

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Erf(x)

    def rewrite(self, op: Ops, x: Value) -> Expr:
        return op.Tanh(x)
'''

RAISING = '''
from graphopt.rewrite import Expr, Ops, Rule, Value


class Raises(Rule):
    """Fails where it matches."""

    stage = "recover"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Erf(x)

    def rewrite(self, op: Ops, x: Value) -> Expr:
        raise ZeroDivisionError("planted")
'''


def ops(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_the_model_is_written_beside_the_input(cli: Cli, gelu: Path) -> None:
    before = snapshot(gelu.parent)
    done = cli("fuse", gelu)
    assert (done.code, done.err) == (0, "")
    after = snapshot(gelu.parent)
    assert after.keys() - before.keys() == {"model.fused.onnx"}
    assert before.items() <= after.items()
    assert "Erf" not in ops(gelu.with_name("model.fused.onnx"))
    assert "Gelu" in done.out
    assert "equal" in done.out


def test_the_report_has_what_the_contract_says(cli: Cli, gelu: Path) -> None:
    done = cli("fuse", gelu, "--json", "-")
    report = done.report
    assert done.code == 0
    assert report["schema"] == "graphopt/1"
    assert report["command"] == "fuse"
    assert report["model"] == str(gelu)
    assert report["output"] == str(gelu.with_name("model.fused.onnx"))
    assert report["target"] == "ort-cpu"
    assert report["verdict"] == "equal"
    assert report["fused"] == {"Gelu": 1}
    assert report["nodes"]["before"] == 7 > report["nodes"]["after"] == len(ops(Path(report["output"])))
    assert {"rule", "root", "nodes", "verdict"} <= report["rewrites"][0].keys()
    assert {site["verdict"] for site in report["rewrites"]} == {"equal"}
    assert {"name", "tried", "matched", "ms"} <= report["rules"][0].keys()
    assert {"load", "rewrite", "verify", "save"} <= report["seconds"].keys()
    assert report["verification"]["inputs"][0]["name"] == "x"


def test_the_report_goes_to_a_file_and_quiet_is_quiet(cli: Cli, gelu: Path) -> None:
    path = gelu.with_name("report.json")
    done = cli("fuse", gelu, "--json", path, "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert json.loads(path.read_text())["verdict"] == "equal"


def test_a_dry_run_writes_nothing(cli: Cli, gelu: Path) -> None:
    before = snapshot(gelu.parent)
    done = cli("fuse", gelu, "--dry-run", "--json", "-")
    assert done.code == 0
    assert done.report["output"] is None
    assert done.report["verdict"] == "equal"
    assert snapshot(gelu.parent) == before


@pytest.mark.parametrize("arguments", [["--disable", "GeluErf"], ["--only", "RemoveIdentity"]])
def test_rules_can_be_left_out(cli: Cli, gelu: Path, arguments: list[str]) -> None:
    done = cli("fuse", gelu, "--json", "-", *arguments)
    assert done.code == 0
    assert done.report["fused"] == {}
    assert "Erf" in ops(gelu.with_name("model.fused.onnx"))


def test_no_rewrite_at_all_is_a_success(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(parser.parse_model(f"{HEAD} g (float[N] x) => (float[N] y) {{ y = Neg(x) }}"), path)
    done = cli("fuse", path, "--json", "-")
    assert done.code == 0
    assert done.report["verdict"] == "equal"
    assert done.report["rewrites"] == []
    assert ops(path.with_name("model.fused.onnx")) == ["Neg"]


def test_off_is_skipped_and_written(cli: Cli, gelu: Path) -> None:
    done = cli("fuse", gelu, "--verify", "off", "--json", "-")
    assert done.code == 0
    assert done.report["verdict"] == "skipped"
    assert "verify" not in done.report["seconds"]
    assert gelu.with_name("model.fused.onnx").exists()


@pytest.mark.parametrize("target", ["onnx", "ort-cuda", "auto"])
def test_other_targets_are_taken(cli: Cli, gelu: Path, target: str) -> None:
    report = cli("fuse", gelu, "--target", target, "--json", "-").report
    assert report["verdict"] == "equal"
    assert report["target"] == ("ort-cpu" if target == "auto" else target)
    if target == "onnx":
        onnx.checker.check_model(report["output"], full_check=True)


def test_full_runs_the_whole_model_as_well(cli: Cli, gelu: Path) -> None:
    verification = cli("fuse", gelu, "--verify", "full", "--json", "-").report["verification"]
    assert verification["outputs"][0]["name"] == "y"
    assert verification["outputs"][0]["verdict"] == "equal"


def test_dims_and_inputs_are_what_it_runs_on(cli: Cli, gelu: Path) -> None:
    fed = cli("fuse", gelu, "--dim", "N=5", "--json", "-").report["verification"]["inputs"]
    assert {tuple(one["shape"]) for one in fed} == {(5, 16)}
    data = gelu.with_name("inputs.npz")
    np.savez(data, x=np.ones((3, 16), np.float32))
    fed = cli("fuse", gelu, "--inputs", data, "--json", "-").report["verification"]["inputs"]
    assert [(one["kind"], one["shape"]) for one in fed] == [("given", [3, 16])]


# ---- where it writes -------------------------------------------------------------------------------------------------


def test_the_input_is_overwritten_only_when_allowed(cli: Cli, gelu: Path) -> None:
    before = snapshot(gelu.parent)
    done = cli("fuse", gelu, "-o", gelu)
    assert done.code == 2
    assert snapshot(gelu.parent) == before
    assert cli("fuse", gelu, "-o", gelu, "--in-place").code == 0
    assert "Erf" not in ops(gelu)
    assert snapshot(gelu.parent).keys() == before.keys()


def test_the_input_under_another_name_is_still_the_input(cli: Cli, gelu: Path) -> None:
    link = gelu.with_name("link.onnx")
    link.symlink_to(gelu)
    assert cli("fuse", link, "-o", gelu).code == 2
    assert cli("fuse", gelu, "-o", gelu.parent / "." / gelu.name).code == 2


def test_the_weights_of_the_input_are_not_overwritten(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(gelu_layer(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    before = snapshot(tmp_path)
    done = cli("fuse", path, "-o", tmp_path / "weights.bin")
    assert done.code == 2
    assert "weights" in done.err
    assert snapshot(tmp_path) == before


def test_weights_beside_the_model_are_referred_to(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(gelu_layer(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    before = snapshot(tmp_path)
    assert cli("fuse", path).code == 0
    assert before.items() <= snapshot(tmp_path).items()
    assert cli("verify", path, tmp_path / "model.fused.onnx").code == 0


@pytest.mark.parametrize("place", ["/proc/model.onnx", "nowhere/model.onnx", "model.onnx/x.onnx", "."])
def test_a_place_that_cannot_be_written_is_said_at_once(
    cli: Cli, gelu: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(gelu.parent)
    monkeypatch.setattr(stages, "optimize", lambda *_, **__: pytest.fail("worked before it looked"))
    before = snapshot(gelu.parent)
    done = cli("fuse", gelu, "-o", place)
    assert done.code == 3
    assert "cannot write" in done.err
    assert snapshot(gelu.parent) == before


def test_an_old_output_is_replaced(cli: Cli, gelu: Path) -> None:
    output = gelu.with_name("model.fused.onnx")
    output.write_text("old")
    assert cli("fuse", gelu).code == 0
    assert "Gelu" in ops(output)


# ---- when something is wrong -----------------------------------------------------------------------------------------


def test_a_wrong_rule_is_found_and_rolled_back(cli: Cli, gelu: Path) -> None:
    rules = gelu.with_name("wrong.py")
    rules.write_text(WRONG)
    done = cli("fuse", gelu, "--rules", rules, "--json", "-")
    assert done.code == 0
    assert done.report["verdict"] == "equal"
    assert [site["rule"] for site in done.report["rolled_back"]] == ["ErfIsTanh"]
    assert done.report["fused"] == {"Gelu": 1}
    assert "Tanh" not in ops(gelu.with_name("model.fused.onnx"))
    assert "rolled back" in cli("fuse", gelu, "--rules", rules).out


def test_a_rule_is_rolled_back_wherever_it_is_wrong(cli: Cli, tmp_path: Path) -> None:
    rules, path = tmp_path / "wrong.py", tmp_path / "model.onnx"
    rules.write_text(WRONG)
    text = f"{HEAD} g (float[N] x) => (float[N] y, float[N] z) {{ y = Erf(x) a = Abs(x) z = Erf(a) }}"
    onnx.save(parser.parse_model(text), path)
    report = cli("fuse", path, "--rules", rules, "--json", "-").report
    assert report["verdict"] == "equal"
    assert sorted(site["root"] for site in report["rolled_back"]) == ["y", "z"]
    assert ops(path.with_name("model.fused.onnx")).count("Erf") == 2


def test_a_rule_that_raises_is_set_aside_and_named(cli: Cli, gelu: Path) -> None:
    rules = gelu.with_name("raising.py")
    rules.write_text(RAISING)
    done = cli("fuse", gelu, "--rules", rules)
    assert done.code == 6
    assert "Raises" in done.err
    assert "planted" in done.err
    assert f"{rules}:14" in done.err
    assert "Gelu" in ops(gelu.with_name("model.fused.onnx"))


def test_what_nobody_can_be_blamed_for_is_not_written(cli: Cli, gelu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sabotage(model: Model, **options: object) -> Trace:
        trace = optimize(model, **options)  # type: ignore[arg-type]
        graph = model.graph
        node = next(node for node in graph.ops() if node.op == "MatMul")
        weight = node.inputs[1]
        assert weight is not None
        assert weight.tensor is not None
        graph.set_input(node, 1, graph.add_constant(weight.tensor.numpy() * 1.01, "planted"))
        return trace

    monkeypatch.setattr(stages, "optimize", sabotage)
    before = snapshot(gelu.parent)
    done = cli("fuse", gelu, "--json", gelu.parent.parent / "report.json")
    assert done.code == 1
    assert "not equal" in done.err
    assert "no rule is guilty" in done.err
    assert snapshot(gelu.parent) == before
    assert json.loads((gelu.parent.parent / "report.json").read_text())["verdict"] == "unequal"


def test_what_cannot_be_run_is_inconclusive(cli: Cli, tmp_path: Path) -> None:
    model = gelu_layer()
    model.opset_import.append(helper.make_opsetid("some.domain", 1))
    model.graph.node.insert(0, helper.make_node("Op", ["x"], ["z"], domain="some.domain"))
    model.graph.node[1].input[0] = "z"
    model.graph.value_info.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 16]))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    before = snapshot(tmp_path)

    done = cli("fuse", path)
    assert done.code == 4
    assert "--allow-unverified" in done.err
    assert snapshot(tmp_path) == before

    done = cli("fuse", path, "--allow-unverified", "--json", "-")
    assert done.code == 4
    assert done.report["verdict"] == "inconclusive"
    assert ops(tmp_path / "model.fused.onnx")[:1] == ["Op"]
    assert "Erf" not in ops(tmp_path / "model.fused.onnx")


def test_what_onnxruntime_finds_mistyped_is_inconclusive(cli: Cli, tmp_path: Path) -> None:
    """As exporters and converters write it: nobody need run it before it is fused."""
    model = gelu_layer()
    model.graph.node.insert(0, helper.make_node("Mul", ["x", "narrow"], ["z"]))
    model.graph.node[1].input[0] = "z"
    model.graph.initializer.append(helper.make_tensor("narrow", TensorProto.FLOAT16, [], [0.5]))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    done = cli("fuse", path)
    assert done.code == 4
    assert "Type Error" in done.err
    assert "--allow-unverified" in done.err
    assert cli("fuse", path, "--allow-unverified").code == 4
    assert "Erf" not in ops(tmp_path / "model.fused.onnx")


def test_an_op_of_an_unknown_domain_is_fused_around(cli: Cli, tmp_path: Path) -> None:
    model = gelu_layer()
    model.opset_import.append(helper.make_opsetid("some.domain", 1))
    model.graph.node.append(helper.make_node("Op", ["y"], ["z"], domain="some.domain"))
    model.graph.output[0].name = "z"
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    done = cli("fuse", path, "--json", "-")
    assert done.code == 0, done.err
    assert done.report["verdict"] == "equal"
    assert done.report["fused"] == {"Gelu": 1}
    assert ops(tmp_path / "model.fused.onnx")[-1] == "Op"


def test_a_crash_of_the_runtime_is_told_from_a_difference(
    cli: Cli, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("temporary")))
    text = """g (float[2, 4, 8] x) => (float[2, 4, 8] y)
    <float root = {1.4142135}, float one = {1.0}, float half = {0.5}, int64[2] s = {8, 24}> {
        w = ConstantOfShape <value = float[1] {0.1}> (s)
        h = com.microsoft.Attention <num_heads = 2> (x, w)
        scaled = Div(h, root) erf = Erf(scaled) shifted = Add(erf, one) doubled = Mul(h, shifted) y = Mul(doubled, half)
    }"""
    head = '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>'
    path = tmp_path / "model.onnx"
    onnx.save(parser.parse_model(f"{head} {text}"), path)
    before = snapshot(tmp_path)
    done = cli("fuse", path)
    assert done.code == 5
    assert "SIGSEGV" in done.err
    assert snapshot(tmp_path) == before


def test_without_onnxruntime_one_error_names_both_extras(cli: Cli, gelu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (gelu.parent / "sitecustomize.py").write_text("import sys\nsys.modules['onnxruntime'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(gelu.parent))
    other = gelu.with_name("other.onnx")
    cli("fuse", gelu, "-o", other, "--verify", "off")
    before = snapshot(gelu.parent)
    for command in (["fuse", gelu], ["verify", gelu, other], ["bench", gelu, other]):
        done = cli(*command)
        assert done.code == 4, command
        assert done.err.count("error[") == 1
        assert "graphopt[cpu]" in done.err
        assert "graphopt[cuda]" in done.err
        assert snapshot(gelu.parent) == before


# ---- odd models ------------------------------------------------------------------------------------------------------


def test_a_model_without_nodes_passes_through(cli: Cli, tmp_path: Path) -> None:
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])
    graph = helper.make_graph([], "g", [info], [info])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    done = cli("fuse", path, "--json", "-")
    assert done.code == 0
    assert done.report["nodes"] == {"before": 0, "after": 0}
    assert onnx.load(tmp_path / "model.fused.onnx").graph == onnx.load(path).graph


def test_nodes_of_one_name_are_fused(cli: Cli, tmp_path: Path) -> None:
    model = gelu_layer()
    for node in model.graph.node:
        node.name = "same"
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    done = cli("fuse", path, "--json", "-")
    assert done.code == 0
    assert done.report["fused"] == {"Gelu": 1}


def test_functions_are_looked_into_but_for_those_to_keep(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    text = """
    <ir_version: 10, opset_import: ["" : 20, "own" : 1]> g (float[N] x) => (float[N] y) { y = own.twice(x) }
    <domain: "own", opset_import: ["" : 20]> twice (a) => (b) { b = Add(a, a) }
    """
    onnx.save(parser.parse_model(text), path)
    assert cli("fuse", path).code == 0
    assert ops(path.with_name("model.fused.onnx")) == ["Add"]
    for name in ("own", "own.twice"):
        assert cli("fuse", path, "--keep-function", name).code == 0
        assert ops(path.with_name("model.fused.onnx")) == ["twice"]


def test_what_is_read_is_not_the_output(cli: Cli, gelu: Path) -> None:
    inputs, table = gelu.with_name("in.npz"), gelu.with_name("table.json")
    np.savez(inputs, x=np.zeros(3))
    table.write_text('{"name": "mine", "opset": 20, "provider": "cpu", "kernels": []}')
    before = snapshot(gelu.parent)
    for flag, path in (("--inputs", inputs), ("--target", table)):
        done = cli("fuse", gelu, flag, path, "-o", path, "--in-place")
        assert done.code == 2
        assert done.err.startswith("error[GO011]: the output would overwrite what is read\n")
    assert snapshot(gelu.parent) == before


def test_no_report_takes_the_place_of_weights(cli: Cli, gelu: Path) -> None:
    out, weights = gelu.with_name("out.onnx"), gelu.with_name("out.onnx.data")
    done = cli("fuse", gelu, "-o", out, "--external-data", "always", "--json", weights)
    assert done.code == 2
    assert done.err.startswith("error[GO014]: the report would overwrite a file that is no report\n")
    assert onnx.load(out).graph.initializer


def test_a_report_takes_the_place_of_no_other_json(cli: Cli, gelu: Path) -> None:
    other = gelu.with_name("other.json")
    other.write_text('{"schema": {"type": "object"}}')
    assert cli("fuse", gelu, "--json", other).code == 2
    assert other.read_text() == '{"schema": {"type": "object"}}'


def test_an_output_without_a_name_is_none(cli: Cli, gelu: Path) -> None:
    before = snapshot(gelu.parent)
    done = cli("fuse", gelu, "-o", "")
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("error[GO032]: cannot write: Is a directory\n")
    assert snapshot(gelu.parent) == before


@pytest.mark.parametrize("name", ["a" * 250 + ".onnx", "a" * 300 + ".onnx"])
def test_a_name_that_is_too_long_is_one_error(cli: Cli, tmp_path: Path, name: str) -> None:
    done = cli("fuse", tmp_path / name)
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("error[GO077]: a file cannot be used: File name too long\n")
