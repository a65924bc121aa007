"""Assertions about rules: what passes, what does not, and what a failure says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnx
import pytest

from graphopt.errors import ModelError
from graphopt.ir import Value, model_to_proto
from graphopt.ir.text import parse
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule, kernel
from graphopt.testing import assert_equivalent, assert_fuses, assert_unchanged
from graphopt.testing.assertions import Source

TEXT = "(x: float32[N]) -> (y: float32[N]) { y = Log(Add(Exp(x), 1.0)) }"
OTHER = "(x: float32[N]) -> (y) { y = Log(Add(Exp(x), 2.0)) }"


class Softplus(Rule):
    """log(1 + exp(x)) is softplus."""

    stage = "recover"

    def pattern(self, op: Ops, x: Value, k: Number) -> Expr:
        return op.Log(op.Exp(x) + k)

    def where(self, k: float) -> Reason:
        return k == 1 or f"{k:g} is added, not 1"

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Softplus(x)


class Careless(Softplus):
    """Takes every constant for 1."""

    def where(self, k: float) -> Reason:
        return True


class Failing(Softplus):
    """Raises."""

    def rewrite(self, op: Builder, x: Value) -> Value:
        raise RuntimeError("no luck")


class SoftplusKernel(Softplus):
    """Only where there is a kernel that nobody has."""

    needs = kernel("my.domain", "Softplus")


class AbsOfSoftplus(Rule):
    """Softplus is positive."""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Abs(op.Softplus(x))

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Softplus(x)


class ScoresToAttention(Rule):
    """Attention without scale or bias, as an internal operator."""

    stage = "recover"

    def pattern(self, op: Ops, q: Value, k: Value, v: Value) -> Expr:
        return op.MatMul(op.Softmax(op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2])), axis=-1), v)

    def rewrite(self, op: Builder, q: Value, k: Value, v: Value) -> Value:
        return op.ir.Attention(q, k, v, scale=1.0)


@pytest.mark.parametrize("form", ["text", "path", "proto", "model"])
def test_a_model_is_given_in_any_form_and_stays(form: str, tmp_path: Path) -> None:
    model = parse(TEXT)
    proto = model_to_proto(model)
    onnx.save(proto, tmp_path / "model.onnx")
    forms: dict[str, Source] = {"text": TEXT, "path": tmp_path / "model.onnx", "proto": proto, "model": model}
    saved = proto.SerializeToString()

    assert_fuses(forms[form], Softplus, into={"Softplus": 1, "Exp": 0})

    assert model_to_proto(model).SerializeToString() == proto.SerializeToString() == saved


def test_a_file_may_be_named_by_a_string(tmp_path: Path) -> None:
    onnx.save(model_to_proto(parse(TEXT)), tmp_path / "model.onnx")
    assert_fuses(str(tmp_path / "model.onnx"), Softplus, into={"Softplus": 1})
    with pytest.raises(ModelError, match="no such file"):
        assert_fuses(str(tmp_path / "other.onnx"), Softplus, into={"Softplus": 1})


def test_a_rule_that_does_not_fire_says_why_and_where() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_fuses(OTHER, Softplus, into={"Softplus": 1})
    assert str(caught.value).splitlines()[:2] == ["Softplus did not fire", "  y: 2 is added, not 1"]
    assert "  add = Add(exp, 2.0)\n" in str(caught.value)


def test_a_failure_shows_the_pattern_as_far_as_it_came() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_fuses("(x: float32[N]) -> (y) { y = Log(Add(Abs(x), 1.0)) }", Softplus, into={"Softplus": 1})
    tree = ["Softplus at y:", "… Log         y", "… sum of 2  add", "✗ Exp     abs  Abs, wanted Exp", "✓ k = 1"]
    assert [line.strip() for line in str(caught.value).splitlines()[3:8]] == tree
    assert "\n  abs = Abs(x)\n" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "rule", "reason"),
    [
        ("(x: float32[N]) -> (y) { y = Exp(x) }", Softplus, "never tried: there is no Log to begin at"),
        ("(x: float32[N]) -> (y) { y = Log(x) }", Softplus, "x: Input, wanted Add"),
        (TEXT, SoftplusKernel, "the target has no kernel my.domain.Softplus"),
    ],
)
def test_every_silence_has_a_reason(text: str, rule: type[Rule], reason: str) -> None:
    with pytest.raises(AssertionError, match=f"did not fire\n  {reason}"):
        assert_fuses(text, rule, into={}, target="ort-cpu")
    assert_unchanged(text, rule, because=reason.partition(": ")[2] or reason, target="ort-cpu")


def test_another_count_than_expected_is_shown_with_what_changed() -> None:
    text = "(x: float32[N]) -> (y, z) { y = Log(Add(Exp(x), 1.0)) z = Log(Add(Exp(x), 2.0)) }"
    with pytest.raises(AssertionError) as caught:
        assert_fuses(text, Softplus, into={"Softplus": 2})
    said = str(caught.value)
    assert "Softplus: 1, wanted 2\n  Softplus at z: 2 is added, not 1" in said
    assert "-  y = Log(add)\n+  y = Softplus(x)" in said


def test_wrong_numbers_are_seen_unless_nobody_asks() -> None:
    with pytest.raises(AssertionError, match=r"^output 'y' differs by 0\.[^$]*\+  y = Softplus"):
        assert_fuses(OTHER, Careless, into={"Softplus": 1})
    assert_fuses(OTHER, Careless, into={"Softplus": 1}, numbers=False)


def test_inputs_are_of_the_size_and_range_that_is_given() -> None:
    text = "(x: float32[N]) -> (y, w) { y = Log(Add(Exp(x), 1.0)) w = Add(x, float32[4] random(1)) }"
    with pytest.raises(AssertionError, match="the model does not run: "):
        assert_fuses(text, Softplus, into={"Softplus": 1})
    assert_fuses(text, Softplus, into={"Softplus": 1}, dims={"N": 4})


def test_feeds_say_where_an_input_lies() -> None:
    # From 20 on log(k + exp(x)) is x within the tolerance, whatever k.
    assert_fuses(OTHER, Careless, into={"Softplus": 1}, feeds={"x": (20.0, 30.0)})


@pytest.mark.parametrize("check", [partial(assert_fuses, into={}), assert_unchanged])
def test_a_rule_that_raises_is_named_with_its_place(check: Callable[..., None]) -> None:
    with pytest.raises(AssertionError, match=r"Failing failed: RuntimeError: no luck .*\n  --> .*test_testing.py:\d+"):
        check(TEXT, Failing)


def test_rules_run_beside_the_first() -> None:
    text = TEXT.replace("Log(Add(Exp(x), 1.0))", "Abs(Log(Add(Exp(x), 1.0)))")
    assert_unchanged(text, AbsOfSoftplus)
    assert_fuses(text, [AbsOfSoftplus, Softplus], into={"Softplus": 1, "Abs": 0})
    with pytest.raises(AssertionError, match="the model is not left alone\n  Softplus fired at"):
        assert_unchanged(text, [AbsOfSoftplus, Softplus])


def test_internal_operators_are_run_as_kernels() -> None:
    text = """(q: float32[2, 3, N, 4], k: float32[2, 3, N, 4]) -> (y) {
      y = MatMul(Softmax(MatMul(q, Transpose(k, perm=[0, 1, 3, 2]))), k)
    }"""
    assert_fuses(text, ScoresToAttention, into={"ir.Attention": 1, "Softmax": 0})


def test_another_reason_than_expected() -> None:
    assert_unchanged(OTHER, Softplus, because="not 1")
    with pytest.raises(AssertionError, match="Softplus does not say 'not 2'\n  y: 2 is added, not 1"):
        assert_unchanged(OTHER, Softplus, because="not 2")


def test_two_models_compute_the_same() -> None:
    assert_equivalent(TEXT, "(x: float32[M]) -> (y) { y = Softplus(x) }")
    with pytest.raises(AssertionError, match=r"^output 'y' differs by [^$]*-  add = Add\(exp, 2.0\)"):
        assert_equivalent(OTHER, TEXT)


@pytest.mark.parametrize(("old", "new", "what"), [("y", "z", "outputs are y and z"), ("x", "a", "inputs are x and a")])
def test_models_of_another_signature_are_not_equivalent(old: str, new: str, what: str) -> None:
    with pytest.raises(AssertionError, match=what):
        assert_equivalent(
            "(x: float32[N]) -> (y) { y = Abs(x) }", "(x: float32[N]) -> (y) { y = Abs(x) }".replace(old, new)
        )


def test_a_long_text_is_cut() -> None:
    chain = "".join(f"v{i + 1} = Neg(v{i}) " for i in range(100))
    with pytest.raises(AssertionError, match=r"\.\.\. and \d+ lines more$"):
        assert_fuses(f"(v0: float32[N]) -> (v100) {{ {chain} }}", Softplus, into={})
