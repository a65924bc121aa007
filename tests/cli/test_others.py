"""`graphopt verify`, `inspect`, `rules`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

from graphopt.rewrite import CompiledRule, built_in_rules

from .conftest import HEAD, Cli, gelu_layer


@pytest.fixture
def scaled(gelu: Path) -> Path:
    """The GELU layer with one weight of 512 off by 1 %."""
    model = gelu_layer()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    values = numpy_helper.to_array(weight).copy()
    values[3, 4] *= 1.01
    weight.CopyFrom(numpy_helper.from_array(values, "w"))
    path = gelu.with_name("scaled.onnx")
    onnx.save(model, path)
    return path


# ---- verify ----------------------------------------------------------------------------------------------------------


def test_a_model_equals_what_fuse_made_of_it(cli: Cli, gelu: Path) -> None:
    cli("fuse", gelu)
    done = cli("verify", gelu, gelu.with_name("model.fused.onnx"), "--json", "-")
    report = done.report
    assert done.code == 0
    assert (report["schema"], report["command"], report["verdict"]) == ("graphopt/1", "verify", "equal")
    assert {"name", "max_abs", "max_rel", "rms", "cosine", "floor", "verdict"} <= report["outputs"][0].keys()
    assert {"name", "shape", "dtype", "kind", "seed"} <= report["inputs"][0].keys()
    assert report["providers"][0]["name"] == "cpu"
    assert report["reason"] == ""
    assert len({tuple(one["shape"]) for one in report["inputs"]}) >= 2


def test_a_small_difference_is_found(cli: Cli, gelu: Path, scaled: Path) -> None:
    done = cli("verify", gelu, scaled)
    assert done.code == 1
    assert "unequal" in done.out
    assert "error[GO080]: not equal" in done.err
    assert "value 'y'" in done.err


def test_other_outputs_are_unequal(cli: Cli, gelu: Path) -> None:
    model = gelu_layer()
    model.graph.output[0].name = "h"
    path = gelu.with_name("other.onnx")
    onnx.save(model, path)
    done = cli("verify", gelu, path)
    assert done.code == 1
    assert "outputs differ" in done.err


def test_a_provider_that_is_not_there_is_skipped_never_passed(cli: Cli, gelu: Path) -> None:
    cli("fuse", gelu)
    done = cli("verify", gelu, gelu.with_name("model.fused.onnx"), "--provider", "cuda", "--json", "-")
    assert done.code == 4
    assert done.report["verdict"] == "skipped"
    assert done.report["providers"] == [
        {"name": "cuda", "verdict": "skipped", "reason": done.report["providers"][0]["reason"]}
    ]


def test_what_cannot_be_run_is_not_equal(cli: Cli, tmp_path: Path) -> None:
    paths = []
    for op in ("Op", "Other"):
        model = parser.parse_model(f"{HEAD} g (float[N] x) => (float[N] y) {{ y = Neg(x) }}")
        model.opset_import.append(helper.make_opsetid("some.domain", 1))
        model.graph.node[0].CopyFrom(helper.make_node(op, ["x"], ["y"], domain="some.domain"))
        paths.append(tmp_path / f"{op}.onnx")
        onnx.save(model, paths[-1])
    done = cli("verify", *paths)
    assert done.code == 4
    assert "could not decide" in done.err


# ---- inspect ---------------------------------------------------------------------------------------------------------


def test_inspect_says_what_is_there(cli: Cli, gelu: Path) -> None:
    report = cli("inspect", gelu, "--json", "-").report
    assert (report["schema"], report["command"], report["model"]) == ("graphopt/1", "inspect", str(gelu))
    assert report["opsets"] == {"ai.onnx": 17}
    assert report["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["N", 16]}]
    assert report["outputs"] == [{"name": "y", "dtype": "float32", "shape": ["N", 32]}]
    assert report["nodes"] == 7
    assert report["ops"]["Add"] == 2
    assert report["parameters"] == 16 * 32 + 32 + 3
    assert report["weight_bytes"] == 4 * report["parameters"]
    assert report["unknown"] == []
    text = cli("inspect", gelu).out
    for word in ("x: float32 (N, 16)", "ai.onnx 17", "547", "Erf"):
        assert word in text


def test_inspect_counts_meanings_and_names_strangers(cli: Cli, tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["": 23, "com.microsoft": 1, "some.domain": 1]>
    g (float[N, 16] x, bool c, float[16] w) => (float[N, 16] y) {
        a = Gelu(x)
        b = com.microsoft.FastGelu(a)
        d = RMSNormalization(b, w)
        e = some.domain.Op(d)
        y = If(c) <then_branch = t () => (z) { z = com.microsoft.QuickGelu(e) },
                   else_branch = f () => (z) { z = LayerNormalization(e, w) }>
    }"""
    path = tmp_path / "model.onnx"
    onnx.save(parser.parse_model(text), path)
    report = cli("inspect", path, "--json", "-").report
    assert report["fused"] == {"Gelu": 2, "LayerNormalization": 1, "RMSNormalization": 1, "Swish": 1}
    assert report["unknown"] == ["some.domain.Op"]
    assert (report["nodes"], report["subgraphs"]) == (7, 2)


def test_inspect_reads_no_external_weights(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(gelu_layer(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").write_bytes(np.random.default_rng(0).bytes((tmp_path / "weights.bin").stat().st_size))
    report = cli("inspect", path, "--json", "-").report
    assert report["external"] == ["weights.bin"]


# ---- rules -----------------------------------------------------------------------------------------------------------


def test_rules_lists_every_rule_by_stage(cli: Cli) -> None:
    names = [rule.name for rule in built_in_rules()]
    report = cli("rules", "--json", "-").report
    assert [rule["name"] for rule in report["rules"]] == names
    assert [rule["stage"] for rule in report["rules"]] == [rule.stage for rule in built_in_rules()]
    out = cli("rules").out
    assert all(name in out for name in names)


@pytest.mark.parametrize("rule", built_in_rules(), ids=lambda rule: rule.name)
def test_every_rule_has_a_page(cli: Cli, rule: CompiledRule) -> None:
    done = cli("rules", rule.name)
    assert done.code == 0
    assert done.out.startswith(rule.name)
    assert rule.place in "".join(done.out.split())
    (report,) = cli("rules", rule.name, "--json", "-").report["rules"]
    assert report["page"].partition("\n")[0].endswith(".")
