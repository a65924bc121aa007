"""`check_rule` finds what is wrong with a rule, and says so in a case that can be pasted."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest

from graphopt.ir import dtypes
from graphopt.patterns.clean.add_constants import AddConstants
from graphopt.patterns.recover.gelu_erf import GeluErf
from graphopt.patterns.recover.layer_norm import LayerNormFromParts
from graphopt.patterns.recover.swish import SwishFromParts
from graphopt.rewrite import Attr, Builder, Expr, Number, Ops, Reason, Rule, Value, const, constant_of, numbers_of
from graphopt.rewrite.facts import source_of
from graphopt.testing import check_rule, parse_cases
from graphopt.testing.check.choices import GENERATORS


class WrongConstant(Rule):
    """GELU with 1.4 for √2."""

    stage = "recover"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.prod(x, 0.5, 1.0 + op.Erf(op.scaled(x, 1 / 1.4)))

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Gelu(x)


class AnyConstant(Rule):
    """GELU, whatever the divisor."""

    stage = "recover"

    def pattern(self, op: Ops, x: Value, k: Number) -> Expr:
        return op.prod(x, 0.5, 1.0 + op.Erf(op.scaled(x, k)))

    def where(self, k: float) -> Reason:
        return abs(k - math.sqrt(0.5)) < 0.3 or "another constant"

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Gelu(x)


class ForgetsApproximate(Rule):
    """A GELU taken for the exact one, whatever its attributes."""

    stage = "lower"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Gelu(x, ...)

    def where(self, x: Value) -> Reason:
        return x.dtype == dtypes.FLOAT or "not float32"

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.ms.Gelu(x)


class MovesAxis(Rule):
    """A layer normalization over any axis, taken for one over the last."""

    stage = "recover"

    def pattern(self, op: Ops, x: Value, axes: Attr, eps: Number) -> Expr:
        d = x - op.ReduceMean(x, axes=axes, keepdims=1)
        return d / op.Sqrt(op.ReduceMean(op.prod(d, d), axes=axes, keepdims=1) + eps)

    def where(self, x: Value, axes: list[int] | None, eps: float) -> Reason:
        if x.shape is None or axes is None or len(axes) != 1 or not 0 < eps < 1:
            return "not one axis"
        return isinstance(x.shape[-1], int) or "the size is not known"

    def rewrite(self, op: Builder, x: Value, axes: list[int], eps: float) -> Value:
        assert x.shape is not None
        return op.LayerNormalization(x, op.const(np.ones(x.shape[-1]), like=x), axis=-1, epsilon=eps)


class ForgetsBroadcast(Rule):
    """A bias of any shape, taken for a vector."""

    stage = "lower"

    def pattern(self, op: Ops, x: Value, b: Annotated[Value, const()]) -> Expr:
        return op.Gelu(op.sum(x, b))

    def where(self, x: Value) -> Reason:
        return (x.dtype == dtypes.FLOAT and bool(x.shape) and isinstance(x.shape[-1], int)) or "not float32"

    def rewrite(self, op: Builder, x: Value, b: Value) -> Value:
        assert x.shape is not None
        return op.ms.BiasGelu(x, op.const(np.resize(numbers_of(b), x.shape[-1:]), like=b))


class FoldsWhatMayBeOverridden(Rule):
    """The sum of two initializers, one of which a caller may override."""

    stage = "fuse"

    def pattern(self, op: Ops, x: Value, b: Value, c: Annotated[Value, const()]) -> Expr:
        return op.sum(x, b, c)

    def where(self, x: Value, b: Value, c: Value) -> Reason:
        return (_default(b) is not None and b.shape == c.shape) or "not two initializers"

    def rewrite(self, op: Builder, x: Value, b: Value, c: Value) -> Value:
        return op.Add(x, op.const(_default(b) + numbers_of(c), like=b))


def _default(value: Value) -> Any:
    """The numbers of an initializer, though a caller may give others."""
    data = source_of(value).node.data
    return None if data is None else data.numpy()


class MissesAnOrder(Rule):
    """A sum of three, of which one order is taken back."""

    stage = "fuse"

    def pattern(self, op: Ops, x: Value, k: Number) -> Expr:
        return op.Relu(op.sum(x, k))

    def where(self, root: Value) -> Reason:
        added = root.node.inputs[0]
        assert added is not None
        first = added.node.inputs[0]
        return (first is not None and constant_of(first) is None) or "the constant comes first"

    def rewrite(self, op: Builder, x: Value, k: float) -> Value:
        return op.Max(op.Add(x, op.const(k, like=x)), op.const(0.0, like=x))


class WritesAsItReads(Rule):
    """A rule that undoes itself."""

    stage = "fuse"

    def pattern(self, op: Ops, x: Value, k: Number) -> Expr:
        return op.scaled(x, k)

    def where(self, k: float) -> Reason:
        return 0 < k < math.inf or "no factor"

    def rewrite(self, op: Builder, x: Value, k: float) -> Value:
        return op.Mul(x, op.const(k, like=x))


class NeverFires(Rule):
    """A condition that nothing satisfies."""

    stage = "fuse"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Relu(op.Relu(x))

    def where(self, x: Value) -> Reason:
        return x.dtype == 99 or "the moon is not full"

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Relu(x)


class Raises(Rule):
    """A rewrite that raises on scalars."""

    stage = "fuse"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Relu(op.Relu(x))

    def rewrite(self, op: Builder, x: Value) -> Value:
        assert x.shape is not None
        return op.Relu(x) if x.shape[-1] else x


class SwapsOperands(Rule):
    """A difference, taken for its opposite."""

    stage = "fuse"

    def pattern(self, op: Ops, x: Value, y: Value) -> Expr:
        return op.Neg(op.Sub(x, y))

    def rewrite(self, op: Builder, x: Value, y: Value) -> Value:
        return op.Sub(x, y)


class KeepsNothing(Rule):
    """A transposition that is forgotten where the sizes hide it."""

    stage = "clean"

    def pattern(self, op: Ops, x: Value, perm: Attr) -> Expr:
        return op.Transpose(x, perm=perm)

    def where(self, x: Value, root: Value) -> Reason:
        return x.shape == root.shape or "the shape changes"

    def rewrite(self, x: Value) -> Value:
        return x


class Healthy(Rule):
    """Two Relus are one."""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Relu(op.Relu(x))

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Relu(x)


WRONG: list[tuple[type[Rule], str]] = [
    (WrongConstant, "changes the numbers"),
    (AnyConstant, "changes the numbers"),
    (ForgetsApproximate, "changes the numbers"),
    (MovesAxis, "changes the numbers"),
    (ForgetsBroadcast, "changes the numbers"),
    (FoldsWhatMayBeOverridden, "changes the numbers"),
    (MissesAnOrder, "does not find this spelling of its pattern"),
    (WritesAsItReads, "it undoes itself"),
    (NeverFires, "fires on no instance of its pattern; most often it says: the moon is not full"),
    (Raises, "IndexError: tuple index out of range"),
    (SwapsOperands, "changes the numbers"),
    (KeepsNothing, "changes the numbers"),
]


@pytest.mark.parametrize(("rule", "message"), WRONG, ids=lambda item: getattr(item, "__name__", ""))
def test_a_wrong_rule_is_told(rule: type[Rule], message: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as failure:
        check_rule(rule)
    text = str(failure.value)
    print(text)
    assert text.startswith(rule.__name__)
    assert message in text
    if "[case" in text:
        # What is printed is a case as it stands, up to what became of it.
        case = text[text.index("[case") :].partition("\nIt became")[0]
        (tmp_path / "cases.txt").write_text(f"rule: {rule.__name__}\n\n{case}\n")
        assert len(parse_cases(tmp_path / "cases.txt")) == 1


def _or_default(value: Value) -> Any:
    return constant_of(value) or source_of(value).node.data


@pytest.mark.parametrize(
    ("where", "instead", "rule", "message"),
    [
        ("search.close", lambda want, found, dtype=1: abs(want - found) < 0.2, GeluErf, "changes the numbers"),
        ("search.same_value", lambda a, b: True, GeluErf, "but another value"),
        ("search.same_attribute", lambda *given: True, LayerNormFromParts, "[2] is [1]"),
        ("constraints.constant_of", _or_default, AddConstants, "a caller may override"),
        ("search.see_through", lambda value: None, SwishFromParts, "does not find this spelling"),
        ("leaves.inverse_of", lambda op, value: None, GeluErf, "does not find this spelling"),
    ],
)
def test_a_matcher_with_a_hole_is_told(
    where: str, instead: Any, rule: type[Rule], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"graphopt.rewrite.{where}", instead)
    with pytest.raises(AssertionError, match=re.escape(message)):
        check_rule(rule)


def test_a_sound_rule_passes_and_every_run_is_the_same() -> None:
    report, again = check_rule(Healthy), check_rule(Healthy)
    assert report.fired >= 20
    assert report.mutants >= 40
    assert report.compared >= 50
    assert str(report).rpartition(";")[0] == str(again).rpartition(";")[0]
    assert check_rule(Healthy, seed=1).fired != 0


def test_a_rule_may_leave_out_one_generator() -> None:
    exempt = ("ranks", "scalars have no last dimension")
    report = check_rule(type("Raises", (Raises,), {"exempt": exempt}))
    assert report.exempt == exempt
    assert str(report).endswith("without 'ranks': scalars have no last dimension")


@pytest.mark.parametrize(
    ("exempt", "message"),
    [
        (("rank", "why"), "did you mean ranks"),
        ((("ranks", "why"), ("dtypes", "why")), "may leave out one generator"),
        ("ranks", "may leave out one generator"),
    ],
)
def test_exemptions_that_are_none(exempt: object, message: str) -> None:
    with pytest.raises(AssertionError, match=message) as failure:
        check_rule(type("Raises", (Raises,), {"exempt": exempt}))
    assert "\n  swaps         two operands are swapped" in str(failure.value)


class Dangling(Rule):
    """An operator whose operands are not all named."""

    stage = "fuse"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Neg(op.CumSum(x, ...))

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.CumSum(op.Neg(x), op.ints(0))


class ReluOfConv(Rule):
    """A rectified convolution of what is not negative anyway, in an operator whose shapes no generator knows."""

    stage = "fuse"

    def pattern(self, op: Ops, x: Value, w: Annotated[Value, const(rank=4)]) -> Expr:
        return op.Relu(op.Relu(op.Conv(x, w)))

    def rewrite(self, op: Builder, x: Value, w: Value) -> Value:
        return op.Relu(op.Conv(x, w))


def test_an_operator_without_generator() -> None:
    with pytest.raises(AssertionError, match="no instance of the pattern of Dangling runs in onnxruntime"):
        check_rule(Dangling)
    assert check_rule(ReluOfConv).fired >= 10
    report = check_rule(ReluOfConv, given={"x": "float32[1, 3, 8, 8]", "w": "float32[4, 3, 3, 3]"})
    assert report.fired >= 10
    assert report.compared >= 20


class FoldsFactor(Rule):
    """A factor after a product, folded into its weights."""

    stage = "fuse"

    def pattern(self, op: Ops, x: Value, w: Annotated[Value, const(rank=2)], k: Number) -> Expr:
        return op.scaled(op.MatMul(x, w), k)

    def rewrite(self, op: Builder, x: Value, w: Value, k: float) -> Value:
        return op.MatMul(x, op.const(numbers_of(w).astype(np.float64) * k, like=w))


class OneAxis(Rule):
    """A mean over the last axis, which is given as a number and no list."""

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Relu(op.Relu(op.ReduceMean(x, axes=-1)))

    def rewrite(self, op: Builder, x: Value, root: Value) -> Value:
        first = root.node.inputs[0]
        assert first is not None
        return op.Relu(first.node.inputs[0])


@pytest.mark.parametrize("rule", [FoldsFactor, OneAxis])
def test_a_right_rule_passes_without_a_warning(rule: type[Rule], recwarn: pytest.WarningsRecorder) -> None:
    assert check_rule(rule).fired >= 20
    assert not [warning for warning in recwarn if warning.category is RuntimeWarning]


class WithoutKernel(Rule):
    """Softplus of any type."""

    stage = "recover"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Log(op.Exp(x) + 1.0)

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Softplus(x)


def test_a_result_without_kernel_is_no_change_of_numbers() -> None:
    with pytest.raises(AssertionError, match=r"^WithoutKernel: the result does not run: .*Softplus") as failure:
        check_rule(WithoutKernel)
    assert "[case does_not_run]" in str(failure.value)
    assert "hint: where some types have no kernel: `x: Annotated[Value, like(dtype=" in str(failure.value)


class NarrowRange(Rule):
    """A condition that hardly any number satisfies."""

    stage = "clean"

    def pattern(self, op: Ops, x: Value, k: Number) -> Expr:
        return op.Relu(op.Relu(op.scaled(x, k)))

    def where(self, k: float) -> Reason:
        return 0.70 < k < 0.71 or f"k is {k:g}"

    def rewrite(self, op: Builder, x: Value, k: float) -> Value:
        return op.Relu(op.scaled(x, k))


def test_a_number_may_be_given() -> None:
    with pytest.raises(AssertionError, match=re.escape("may be given: `given={'k': NUMBER}`")):
        check_rule(NarrowRange)
    assert check_rule(NarrowRange, given={"k": 0.7071}).fired >= 20


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kk": 0.7}, "has no variable 'kk': did you mean k"),
        ({"k": "float32[1]"}, "'k' cannot be 'float32[1]'"),
        ({"x": 0.5}, "'x' cannot be 0.5"),
    ],
)
def test_what_cannot_be_given(given: dict[str, str | float], message: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(message)):
        check_rule(NarrowRange, given=given)


def test_every_choice_and_every_mutation_belongs_to_a_generator(root: Path) -> None:
    found: set[str] = set()
    for path in (root / "graphopt/testing/check").glob("*.py"):
        found |= set(re.findall(r'(?:choose|Mutation)\(\s*"(\w+)"', path.read_text()))
    assert found - GENERATORS.keys() == set()
    assert GENERATORS.keys() - found <= {"ranks", "shapes"}


def test_hypothesis_is_needed_only_for_this() -> None:
    program = """
import sys
sys.modules["hypothesis"] = None
from graphopt import testing
testing.assert_fuses
try:
    testing.check_rule
except Exception as error:
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "check_rule needs hypothesis" in found.stdout
    assert 'pip install "graphopt[testing]"' in found.stdout
