"""What is kept of what failed: a case that reproduces it, or what onnxruntime died of."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from graphopt.ir import load
from graphopt.pipeline import attempt
from graphopt.runtime import Runner
from graphopt.verify.failures import cases

from .conftest import HEAD, Cli, snapshot

RULE = """
from graphopt.rewrite import Expr, Ops, Rule, Value


class ErfOfAbs(Rule):
    stage = "clean"
    priority = 100

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Erf(op.Abs(x))

    def rewrite(self, op: Ops, x: Value) -> Expr:
        return {wrong}


class CosOfNeg(Rule):
    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Cos(op.Neg(x))

    def rewrite(self, op: Ops, x: Value) -> Expr:
        return op.Cos(x)
"""
WRONG, RIGHT = RULE.format(wrong="op.Tanh(op.Abs(x))"), RULE.format(wrong="op.Abs(op.Erf(x))")

# The kernel of com.microsoft.Attention dereferences the bias without asking whether there is one.
DIES = RULE.format(wrong='op.Attention(x, op.Abs(x), domain="com.microsoft", num_heads=1)')

MODEL = f"""{HEAD} g (float[4, 4, 4] x) => (float[4, 4, 4] y, float[4, 4, 4] z) {{
    a = Relu(x) b = Abs(a) y = Erf(b) c = Neg(x) z = Cos(c)
}}"""
CRASHING = f"""{HEAD} g (float[2, 4, 8] x, float[8, 24] w) => (float[2, 4, 8] y) {{
    a = com.microsoft.Attention<num_heads = 2>(x, w) b = Abs(a) y = Erf(b)
}}"""
ENDLESS = f"""{HEAD} g (bool c, float[1] x) => (float[1] y) {{
    n = Constant<value_int = 4611686018427387904>()
    a = Loop(n, c, x) <body = b (int64 i, bool k, float[1] p) => (bool k2, float[1] q) {{
        k2 = Identity(k) q = Identity(p)
    }}>
    b = Abs(a) y = Erf(b)
}}"""


@pytest.fixture
def files(tmp_path: Path) -> Callable[[str, str], tuple[Path, Path]]:
    """Writes a model and rules into a folder of their own."""

    def write(text: str, rules: str) -> tuple[Path, Path]:
        folder = tmp_path / "here"
        folder.mkdir()
        onnx.save(parser.parse_model(text), folder / "model.onnx")
        (folder / "rules.py").write_text(rules)
        return folder / "model.onnx", folder / "rules.py"

    return write


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def run_test(place: Path) -> None:
    """Runs the test that was kept."""
    (test,) = (what for name, what in runpy.run_path(str(place / "test_case.py")).items() if name.startswith("test_"))
    test()


def test_the_case_that_is_kept_fails_until_the_rule_is_right(cli: Cli, files: Any, tmp_path: Path) -> None:
    model, rules = files(MODEL, WRONG)
    before = snapshot(model.parent)
    done = cli("fuse", model, "--rules", rules, "--keep-failed", tmp_path / "kept", "--json", "-")
    assert done.code == 0
    (blamed,) = done.report["blamed"]
    assert (blamed["rule"], blamed["root"], blamed["region"], blamed["nodes"]) == ("ErfOfAbs", "y", "y", 2)
    assert blamed["replays"] >= 1
    told = {(one["rule"], one["verdict"], one["layer"], one["rolled_back"]) for one in done.report["rewrites"]}
    assert told == {("ErfOfAbs", "unequal", "regions", True), ("CosOfNeg", "equal", "regions", False)}
    assert "noise floor" in blamed["reason"]
    place = Path(blamed["case"])
    assert place == tmp_path / "kept" / "ErfOfAbs_y"
    assert snapshot(model.parent).keys() - before.keys() == {"model.fused.onnx"}

    inputs = dict(np.load(place / "inputs.npz"))
    with Runner() as runner:
        found = [
            runner.load(place / f"{name}.onnx", optimize=False).run(inputs).popitem()[1]
            for name in ("case", "candidate")
        ]
    assert not np.allclose(found[0], found[1], rtol=1e-3, atol=0)
    assert max(array.size for array in inputs.values()) == 1

    assert (place / "test_case.py").read_text() == blamed["test"]
    with pytest.raises(AssertionError, match="noise floor"):
        run_test(place)
    rules.write_text(RIGHT)
    run_test(place)


def test_the_test_is_printed_and_no_case_is_lost(cli: Cli, files: Any, tmp_path: Path) -> None:
    model, rules = files(MODEL, WRONG)
    kept = tmp_path / "not" / "there"
    done = [cli("fuse", model, "--rules", rules, "--keep-failed", kept) for _ in range(2)]
    assert "assert_keeps(" in done[0].out
    assert sorted(path.name for path in kept.iterdir()) == ["ErfOfAbs_y", "ErfOfAbs_y-2"]


def test_nothing_is_kept_unless_it_is_asked_for(cli: Cli, files: Any, temporary: Path) -> None:
    model, rules = files(MODEL, WRONG)
    before = snapshot(model.parent)
    done = cli("fuse", model, "--rules", rules, "--dry-run")
    assert done.code == 0
    assert "--keep-failed" in done.out
    assert snapshot(model.parent) == before
    assert not list(temporary.iterdir())


def test_before_it_is_given_up_all_that_touched_what_fails_is_taken_back(
    cli: Cli, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "_ROUNDS", 3)
    model, rules = files(MODEL, WRONG)
    report = cli("fuse", model, "--rules", rules, "--json", "-").report
    assert report["verdict"] == "equal"
    assert [(one["rule"], one["replays"]) for one in report["blamed"]] == [("ErfOfAbs", 0)]


@pytest.mark.parametrize("command", ["fuse", "verify"])
def test_a_folder_that_cannot_be_is_said_at_once(cli: Cli, files: Any, command: str) -> None:
    model, _ = files(MODEL, RIGHT)
    models = [model, model] if command == "verify" else [model]
    done = cli(command, *models, "--keep-failed", model)
    assert done.code == 2
    assert "GO028" in done.err


def test_a_crash_of_what_a_rule_wrote_is_a_verdict_on_the_rule(cli: Cli, files: Any, temporary: Path) -> None:
    model, rules = files(MODEL, DIES)
    done = cli("fuse", model, "--rules", rules, "--json", "-")
    assert done.code == 0
    assert done.report["verdict"] == "equal"
    (blamed,) = done.report["blamed"]
    assert blamed["rule"] == "ErfOfAbs"
    assert "SIGSEGV" in blamed["reason"]
    # What has nothing to do with it was checked, and stays.
    assert {one["rule"] for one in done.report["rewrites"] if one["verdict"] == "equal"} == {"CosOfNeg"}
    place = Path(blamed["case"])
    assert place.parent.parent == temporary
    assert place.parent.name.startswith(cases.CRASHES)
    assert "Attention" in [node.op for node in load(place / "case.onnx").graph.ops()]
    assert "kept in" in cli("fuse", model, "--rules", rules).out


def test_a_crash_of_the_model_itself_is_kept_and_named(cli: Cli, files: Any, temporary: Path) -> None:
    model, rules = files(CRASHING, RIGHT)
    before = snapshot(model.parent)
    done = cli("fuse", model, "--rules", rules, "--json", "-")
    assert done.code == 5
    assert done.report["verdict"] == "inconclusive"
    (place,) = temporary.glob(f"{cases.CRASHES}*/*")
    assert str(place) in done.err
    assert "GO051" in done.err
    assert (place / "case.onnx").is_file()
    assert set(np.load(place / "inputs.npz")) == {"x", "w"}
    assert snapshot(model.parent) == before


def test_a_model_that_does_not_end_is_kept_and_named(cli: Cli, files: Any, tmp_path: Path) -> None:
    model, rules = files(ENDLESS, RIGHT)
    done = cli("fuse", model, "--rules", rules, "--timeout", 3, "--keep-failed", tmp_path / "kept")
    assert done.code == 5
    assert "GO052" in done.err
    assert "--timeout" in done.err
    (place,) = (tmp_path / "kept").iterdir()
    assert str(place) in done.err


def test_what_only_the_default_session_makes_wrong_is_found_end_to_end(cli: Cli, files: Any) -> None:
    # onnxruntime's optimizer takes zeros around an image for nothing, once it sees them before a pool.
    text = f"""{HEAD} g (float[B, 3, 6, 6] x) => (float[B, 3, 6, 6] y) {{
        nine = Constant<value_float = 9.0>() pads = Constant<value_ints = [0, 0, 1, 1, 0, 0, 1, 1]>()
        a = Sub(x, nine) b = Pad(a, pads) c = Neg(b) d = Neg(c) y = MaxPool<kernel_shape = [3, 3]>(d)
    }}"""
    model, _ = files(text, RIGHT)
    assert cli("fuse", model, "--dry-run", "--json", "-").report["blamed"] == []
    done = cli("fuse", model, "--dry-run", "--verify", "full", "--json", "-")
    assert (done.code, done.report["verdict"]) == (0, "equal")
    assert [one["rule"] for one in done.report["blamed"]] == ["RemoveDouble"]
    assert [one["layer"] for one in done.report["rewrites"] if one["rolled_back"]] == ["end-to-end"]


@pytest.mark.parametrize("wrong", [WRONG, DIES])
def test_verify_keeps_what_onnxruntime_died_of(cli: Cli, files: Any, temporary: Path, wrong: str) -> None:
    model, rules = files(MODEL, wrong)
    other = model.with_name("other.onnx")
    assert cli("fuse", model, "-o", other, "--rules", rules, "--verify", "off").code == 0
    done = cli("verify", model, other)
    kept = list(temporary.glob(f"{cases.CRASHES}*/*"))
    assert (done.code, len(kept)) == ((5, 1) if wrong is DIES else (1, 0))
    assert all(str(place) in done.err for place in kept)
