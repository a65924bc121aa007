"""Checking candidates: regions, whole models, what is not installed, what does not run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from graphopt.errors import InconclusiveError, RuntimeCrash, UsageError
from graphopt.ir import Model, load
from graphopt.ir.save import model_to_proto
from graphopt.ir.text import parse
from graphopt.verify import Checker, Options, Verification, check, compare
from graphopt.verify.parts import PartSession
from graphopt.verify.runs import Runs

NET = """
opset 20, com.microsoft 1
(x: float32[N, 64], m: int64[N]) -> (y, k) {
  w = float32[64, 64] random(1)
  g = float32[64] random(2)
  a = MatMul(x, w)
  b = Gelu(a)
  c = Mul(b, g)
  y = Softmax(c, axis=-1)
  k = Add(m, 1)
}
"""
PARTS = "b = Mul(Mul(a, Add(Erf(Div(a, 1.4142135)), 1.0)), 0.5)"
NET_PARTS = NET.replace("b = Gelu(a)", PARTS)


def verified(original: str, candidate: str, **options: object) -> Verification:
    return check(parse(original), parse(candidate), Options(**options))  # type: ignore[arg-type]


def test_what_is_the_same_is_equal_without_a_run() -> None:
    found = verified(NET, NET)
    assert (found.verdict, found.decided_by, found.counts.run, found.inputs) == ("equal", "structure", 0, ())


def test_a_right_rewrite_is_equal_by_regions() -> None:
    found = verified(NET_PARTS, NET)
    assert (found.verdict, found.decided_by) == ("equal", "regions")
    assert [region.name for region in found.regions] == ["b"]
    assert (found.counts.run, found.counts.free) == (1, 4)
    assert len({record.feed for record in found.inputs}) >= 2
    assert [(provider.name, provider.verdict) for provider in found.providers] == [("cpu", "equal")]
    assert found.seconds > 0


@pytest.mark.parametrize(
    ("old", "new", "region"),
    [
        ("Gelu(a)", 'Gelu(a, approximate="tanh")', "b"),
        ("Mul(b, g)", "Mul(b, float32[64] random(3))", "c"),
        ("axis=-1", "axis=0", "y"),
        ("Add(m, 1)", "Add(m, 2)", "k"),
        ("Mul(b, g)", "Add(b, g)", "c"),
    ],
)
def test_a_wrong_rewrite_is_unequal_and_its_region_named(old: str, new: str, region: str) -> None:
    found = verified(NET_PARTS.replace(PARTS, "b = Gelu(a)"), NET.replace(old, new))
    assert found.verdict == "unequal"
    assert [failing.output for failing in found.failing] == [region]
    assert region in found.reason


def test_a_small_region_is_found_in_a_deep_model() -> None:
    body = "\n".join(f"v{i + 1} = Tanh(MatMul(v{i}, float32[16, 16] random({i})))" for i in range(50))
    text = f"opset 17\n(v0: float32[N, 16]) -> (v50) {{ {body} }}"
    found = verified(text, text.replace("random(33)", "random(99)"))
    assert [failing.output for failing in found.failing] == ["matmul_33"]


def test_a_variance_as_small_as_an_epsilon_is_reached() -> None:
    text = """opset 17\n(x: float32[N, 64]) -> (y) {{
      h = Relu(x)\n y = LayerNormalization(h, float32[64] random(1), epsilon={}) }}"""
    assert verified(text.format("1e-12"), text.format("1e-11")).verdict == "unequal"


def test_a_floor_is_measured_only_where_the_least_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []
    moved = Runs.moved

    def counted(runs: Runs, feeds: Mapping[str, Any], session: PartSession, number: int) -> Iterator[dict[str, Any]]:
        measured.append(number)
        return moved(runs, feeds, session, number)

    monkeypatch.setattr(Runs, "moved", counted)
    assert verified(NET_PARTS, NET).verdict == "equal"
    assert not measured
    assert verified(NET, NET.replace("Gelu(a)", 'Gelu(a, approximate="tanh")')).verdict == "unequal"
    assert measured


def test_what_a_value_is_known_to_be_may_be_used() -> None:
    # The second product is made from shapes, so a rule may know it; scaling it in a variant would be unfair.
    text = "opset 17\n(x: float32[N, 4]) -> (y, s) {{ s = Sqrt(Cast(Shape(x), to=float32))\n y = Mul(x, {}) }}"
    assert verified(text.format("Gather(s, 1)"), text.format("2.0")).verdict == "equal"


def test_a_wrong_type_or_rank_is_unequal() -> None:
    assert verified(NET, NET.replace("Add(m, 1)", "Cast(Add(m, 1), to=int32)")).verdict == "unequal"
    assert verified(NET, NET.replace("Mul(b, g)", "Unsqueeze(Mul(b, g), [0])")).verdict == "unequal"


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("-> (y, k)", "-> (k, y)", "outputs"),
        ("-> (y, k)", "-> (y)", "outputs"),
        ("(x: float32[N, 64], m: int64[N])", "(m: int64[N], x: float32[N, 64])", "inputs"),
        ("m: int64[N]", "m: int64[N], extra: float32[N]", "inputs"),
        ("m: int64[N]", "m: int64[3]", "is [N] in the reference, [3] in the candidate"),
        ("m: int64[N]", "m: int64[N, M]", "is [N] in the reference, [N, M] in the candidate"),
    ],
)
def test_another_interface_is_unequal(old: str, new: str, word: str) -> None:
    for function in (check, compare):
        found = function(parse(NET), parse(NET.replace(old, new)))
        assert (found.verdict, found.decided_by) == ("unequal", "structure")
        assert word in found.reason


def test_both_branches_of_a_flag_are_run() -> None:
    text = """opset 17\n(x: float32[N], c: bool[]) -> (y: float32[N]) {
      y = If(c, then_branch=() -> (p: float32[N]) { p = Abs(x) }, else_branch=() -> (q: float32[N]) { q = Neg(x) }) }"""
    for old, new in (("Abs(x)", "Relu(x)"), ("Neg(x)", "Relu(x)")):
        assert compare(parse(text), parse(text.replace(old, new))).verdict == "unequal"


def test_the_defaults_of_inputs_are_compared() -> None:
    text = "opset 17\n(x: float32[N, 2], w = float32[2] {1, 2}) -> (y) { y = Mul(x, w) }"
    for other in ("w = float32[2] {1, 3}", "w: float32[2]"):
        found = compare(parse(text), parse(text.replace("w = float32[2] {1, 2}", other)))
        assert (found.verdict, found.reason) == ("unequal", "the default of the input 'w' differs")


def test_inputs_may_be_renamed_in_size_and_left_open() -> None:
    text = "opset 17\n(x: float32[N, 2]) -> (y) { y = Abs(x) }"
    assert compare(parse(text), parse(text.replace("[N, 2]", "[M, K]"))).verdict == "equal"


def test_outputs_without_elements_decide_nothing() -> None:
    text = "opset 17\n(x: float32[N, 2]) -> (y) { y = Slice(x, [5000], [6000], [0]) }"
    found = compare(parse(text), parse(text.replace("Slice(x", "Slice(Neg(x)")))
    assert (found.verdict, found.reason) == ("inconclusive", "'y': it has no elements to compare")


def test_an_overridable_initializer_that_was_folded_is_unequal() -> None:
    text = "opset 17\n(x: float32[N, 2], w = float32[2] {1, 2}) -> (y) { y = Mul(x, w) }"
    assert verified(text, text.replace("Mul(x, w)", "Mul(x, float32[2] {1, 2})")).verdict == "unequal"


def test_a_model_that_onnxruntime_does_not_run_is_inconclusive() -> None:
    text = "opset 17, other 1\n(x: float32[2]) -> (y) {{ z = other.Unknown(x)\n y = {} }}"
    found = verified(text.format("Exp(z)"), text.format("Abs(z)"))
    assert found.verdict == "inconclusive"
    assert "onnxruntime does not run the original" in found.reason


def test_a_candidate_that_onnxruntime_does_not_run_is_unequal() -> None:
    text = "opset 17, other 1\n(x: float32[2]) -> (y, z) {{ z = {}\n y = Exp(z) }}"
    found = verified(text.format("Abs(x)"), text.format("other.Unknown(x)"))
    assert found.verdict == "unequal"
    assert [failing.output for failing in found.failing] == ["z"]
    reshape = "opset 17\n(x: float32[N, 4]) -> (y) {{ y = Reshape(x, {}) }}"
    assert verified(reshape.format("[-1, 2]"), reshape.format("[3, -1]")).verdict == "unequal"


def test_a_candidate_that_is_not_loaded_is_unequal_and_says_whether_the_original_runs() -> None:
    text = "opset 17\n(x: float32[2, 3]) -> (y) {{ y = Exp(Reshape(x, {})) }}"
    found = verified(text.format("Concat(Shape(x), [0], axis=0)"), text.format("[2, 3, 0]"))
    assert found.verdict == "unequal"
    assert "loads the original, but not the candidate" in found.reason
    assert "does not run the original" in found.reason


def test_a_candidate_whose_parts_run_but_that_does_not_load_is_unequal() -> None:
    """What a file says of a value in between counts only in the whole model."""
    wrong = parse(NET)
    lie = onnx.helper.make_tensor_value_info("b", onnx.TensorProto.INT64, ["N", 64])
    wrong.graph.proto = onnx.GraphProto(name="graph", value_info=[lie])
    with Checker(parse(NET_PARTS)) as checker:
        found = checker.check(wrong)
        assert (found.verdict, found.decided_by) == ("unequal", "structure")
        assert "loads the original, but not the candidate" in found.reason
        assert all(region.verdict == "equal" for region in found.regions)
        assert checker.check(parse(NET)).verdict == "equal"


def test_a_provider_that_is_not_installed_is_skipped_and_never_equal() -> None:
    with Checker(parse(NET)) as checker:
        if "cuda" in checker._runs.runner.available_providers():
            pytest.skip("every provider is installed here")
    for providers in (("cuda",), ("cpu", "cuda")):
        for function in (check, compare):
            found = function(parse(NET_PARTS), parse(NET), Options(providers=providers))
            assert found.verdict == "skipped"
            assert ("cuda", "skipped") in [(p.name, p.verdict) for p in found.providers]
    assert check(parse(NET), parse(NET.replace("-1", "0")), Options(providers=("cpu", "cuda"))).verdict == "unequal"
    with pytest.raises(UsageError, match="known: cpu, cuda"):
        check(parse(NET), parse(NET), Options(providers=("cudaa",)))


def test_dimensions_can_be_bound_and_inputs_given() -> None:
    found = verified(NET_PARTS, NET, dims={"N": 5})
    assert {record.shape for record in found.inputs} == {(5, 64), (5,)}
    arrays = {"x": np.ones((3, 64), np.float32), "m": np.ones(3, np.int64)}
    found = verified(NET_PARTS, NET, inputs=arrays)
    assert {(record.feed, record.kind) for record in found.inputs} == {("given 3x64", "given")}
    with pytest.raises(UsageError, match="GO016"):
        verified(NET_PARTS, NET, dims={"M": 5})


def test_no_size_that_works_is_an_error_with_a_place() -> None:
    text = "opset 17\n(x: float32[N]) -> (y) {{ s = Cast([5.0, 5.0], to=int64)\n r = Reshape(x, s)\n y = {}(r) }}"
    with pytest.raises(InconclusiveError, match=r"GO012.*'N' of input 'x'"):
        verified(text.format("Exp"), text.format("Abs"))
    assert verified(text.format("Exp"), text.format("Abs"), dims={"N": 25}).verdict == "unequal"


def test_the_time_limit_ends_a_check() -> None:
    with pytest.raises(RuntimeCrash):
        verified(NET_PARTS, NET, timeout=1e-3)


def test_a_checker_does_not_run_again_what_it_has_seen() -> None:
    with Checker(parse(NET_PARTS)) as checker:
        first, again = checker.check(parse(NET)), checker.check(parse(NET))
        other = checker.check(parse(NET.replace("Mul(b, g)", "Mul(g, b)")))
    assert (first.counts.run, again.counts.run, again.counts.known) == (1, 0, 1)
    assert again.regions == first.regions
    assert (other.counts.run, other.counts.known) == (1, 1)


def external_model(folder: Path, last: float = 0.0) -> Model:
    proto = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]> g (float[N, 64] x) => (float[N, 64] y)
        { h = MatMul(x, w) y = Relu(h) }""")
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    weight[-1, -1] += last
    proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    folder.mkdir()
    onnx.save(proto, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    return load(folder / "m.onnx")


def test_weights_in_external_files_are_compared_and_used_where_they_lie(tmp_path: Path) -> None:
    a, b, c = (external_model(tmp_path / name, last) for name, last in [("a", 0.0), ("b", 0.0), ("c", 1.0)])
    before = sorted(tmp_path.rglob("*"))
    assert check(a, b).decided_by == "structure"
    assert [failing.output for failing in check(a, c).failing] == ["h"]
    assert compare(a, c).verdict == "unequal"
    assert sorted(tmp_path.rglob("*")) == before


def test_weights_of_subgraphs_in_external_files_are_read(tmp_path: Path) -> None:
    text = """opset 17\n(x: float32[N, 64], c: bool[]) -> (y) {{
      h = MatMul(x, float32[64, 64] random(1))
      p = If(c, then_branch=() -> (a: float32) {{ a = MatMul(h, float32[64, 64] random(2)) }},
                else_branch=() -> (b: float32) {{ b = Neg(h) }})
      y = {}(p) }}"""
    models: list[Model] = []
    for op in ("Relu", "Abs", "Relu"):
        path = tmp_path / str(len(models)) / "m.onnx"
        path.parent.mkdir()
        onnx.save(model_to_proto(parse(text.format(op))), path, save_as_external_data=True, location="m.data")
        models.append(load(path))
    a, b, c = models
    assert [failing.output for failing in check(a, b).failing] == ["y"]
    assert compare(a, c).verdict == "equal"


def test_sequences_and_strings_cross_a_boundary() -> None:
    text = """opset 17\n(x: float32[4], s: string[N]) -> (y, t) {{
      q = SplitToSequence(x, axis=0)\n y = {}\n t = Identity(s) }}"""
    assert verified(text.format("ConcatFromSequence(q, axis=0)"), text.format("SequenceAt(q, 0)")).verdict == "unequal"
    same = text.format("ConcatFromSequence(q, axis=0, new_axis=0)")
    assert verified(same, text.format("Identity(ConcatFromSequence(q, axis=-1))")).verdict == "equal"


# ---- whole models --------------------------------------------------------------------------------------------------


def renamed(text: str) -> str:
    """The same model with other names inside, as another tool would write it."""
    for name in "abcwg":
        text = text.replace(f" {name} ", f" {name}{name} ").replace(f"({name},", f"({name}{name},")
        text = text.replace(f"({name})", f"({name}{name})").replace(f", {name})", f", {name}{name})")
    return text


def test_two_files_are_compared_by_structure_then_end_to_end() -> None:
    assert compare(parse(NET), parse(renamed(NET))).decided_by == "structure"
    found = compare(parse(NET_PARTS), parse(renamed(NET)))
    assert (found.verdict, found.decided_by) == ("equal", "end-to-end")
    assert [output.name for output in found.outputs] == ["y", "k"]
    assert all(output.verdict == "equal" for output in found.outputs)
    assert found.outputs[0].floor is not None
    assert found.outputs[0].cosine == pytest.approx(1)
    wrong = compare(parse(NET_PARTS), parse(renamed(NET.replace("random(2)", "random(4)"))))
    assert (wrong.verdict, [output.verdict for output in wrong.outputs]) == ("unequal", ["unequal", "equal"])
    assert "'y'" in wrong.reason


def test_full_adds_whole_models_to_the_regions() -> None:
    found = verified(NET_PARTS, NET, level="full")
    assert (found.verdict, found.decided_by) == ("equal", "end-to-end")
    assert [region.name for region in found.regions] == ["b"]
    assert [output.name for output in found.outputs] == ["y", "k"]


def test_what_only_the_default_session_makes_wrong_is_unequal() -> None:
    # onnxruntime's optimizer puts the zeros of Pad into MaxPool, where padding is -inf: wrong for negative data.
    text = """opset 17\n(x: float32[1, 2, 4, 4]) -> (y) {{
      n = Sub(Neg(Abs(x)), {})\n p = Pad(n, [0, 0, 1, 1, 0, 0, 1, 1])\n
      y = MaxPool({}, kernel_shape=[3, 3], strides=[3, 3]) }}"""
    raw, fused = text.format("1.0", "Max(p, p)"), text.format("1.0", "p")
    found = compare(parse(raw), parse(fused))
    assert found.verdict == "unequal"
    assert "default session" in found.reason
    # Where the original is wrong there as well, it is no fault of the rewrite.
    assert compare(parse(fused), parse(text.format("float32[1] 1", "p"))).verdict == "equal"


def test_the_reference_that_does_not_run_is_inconclusive() -> None:
    text = "opset 17, other 1\n(x: float32[2]) -> (y) {{ y = {} }}"
    found = compare(parse(text.format("other.Unknown(x)")), parse(text.format("Exp(x)")))
    assert (found.verdict, found.decided_by) == ("inconclusive", "end-to-end")
    assert compare(parse(text.format("Exp(x)")), parse(text.format("other.Unknown(x)"))).verdict == "unequal"
