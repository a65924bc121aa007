"""What was not run on the provider that was asked for is never equal on it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import graphopt
from graphopt.ir import load, model_to_proto, save
from graphopt.ir.text import parse
from graphopt.pipeline.fusion import target_for
from graphopt.runtime import Kernel, Runner, Unavailable
from graphopt.verify import Comparison, Options, ProviderResult, Verdict, Verification, check, chunks, compare, endtoend
from graphopt.verify.placement import complaint, counted, over_providers, provider_result

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
GELU = frozenset([("", "Gelu")])

TEXT = """
opset 20
(x: float32[N, 64]) -> (y) {
  a = MatMul(x, float32[64, 64] random(1))
  b = Gelu(a)
  s = Reshape(b, Shape(x))
  y = Softmax(s, axis=-1)
}
"""
PARTS = TEXT.replace("b = Gelu(a)", "b = Mul(Mul(a, Add(Erf(Div(a, 1.4142135)), 1.0)), 0.5)")

MODEL = model_to_proto(parse("(x: float32[N]) -> (y: float32[N]) { y = Neg(x) }")).SerializeToString()

FakeCuda = Callable[..., None]


def checked(before: str, after: str, *providers: str, level: str = "sites") -> list[Verification]:
    """By regions and by whole models."""
    options = Options(providers=providers, level=level)  # type: ignore[arg-type]
    return [function(parse(before), parse(after), options) for function in (check, compare)]


def test_a_build_without_a_driver_has_no_cuda(fake_cuda: FakeCuda) -> None:
    fake_cuda("no driver")
    with Runner() as runner:
        assert runner.available_providers() == ("cpu",)
        with pytest.raises(Unavailable, match="no 'cuda' provider"):
            runner.load(MODEL, optimize=False, provider="cuda")
    for found in checked(PARTS, TEXT, "cuda"):
        assert (found.verdict, [line.verdict for line in found.providers]) == ("skipped", ["skipped"])
    assert target_for("auto").name == "ort-cpu"


@pytest.mark.parametrize("level", ["sites", "full"])
def test_what_ran_on_the_cpu_is_not_equal_on_cuda(fake_cuda: FakeCuda, level: str) -> None:
    fake_cuda("a liar")
    for found in checked(PARTS, TEXT, "cpu", "cuda", level=level):
        assert found.verdict == "skipped"
        assert "'Gelu' ran on CPUExecutionProvider" in found.reason
        said = {line.name: (line.verdict, line.reason) for line in found.providers}
        assert said == {
            "cpu": ("equal", ""),
            "cuda": ("skipped", "'Gelu' ran on CPUExecutionProvider; TF32 off"),
        }


def test_nothing_that_ran_on_the_cpu_is_equal_even_without_a_fused_operator(fake_cuda: FakeCuda) -> None:
    fake_cuda("a liar")
    for found in checked(TEXT, TEXT.replace("b = Gelu(a)", "b = Gelu(Mul(a, 1.0))"), "cuda"):
        assert found.verdict == "skipped"


def test_a_mistake_is_one_wherever_it_ran(fake_cuda: FakeCuda) -> None:
    fake_cuda("a liar")
    for found in checked(PARTS, TEXT.replace("b = Gelu(a)", 'b = Gelu(a, approximate="tanh")'), "cpu", "cuda"):
        assert found.verdict == "unequal"


def test_a_card_is_believed_and_told_to_be_exact(fake_cuda: FakeCuda, tmp_path: Path) -> None:
    fake_cuda("a card", on_cpu="Shape")
    for found in checked(PARTS, TEXT, "cpu", "cuda"):
        assert found.verdict == "equal"
        assert found.providers == (ProviderResult("cpu", "equal"), ProviderResult("cuda", "equal", "TF32 off"))
    created = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    told = [options for providers, _ in created for name, options in providers if name == CUDA]
    assert told
    assert all(options["use_tf32"] == "0" for options in told)
    assert {override for _, override in created} == {"0"}


def test_a_fused_node_that_a_card_left_to_the_cpu_is_named(fake_cuda: FakeCuda) -> None:
    fake_cuda("a card", on_cpu="Gelu")
    for found in checked(PARTS, TEXT, "cuda"):
        assert (found.verdict, found.providers[0].verdict) == ("skipped", "skipped")
        assert "'Gelu' ran on CPUExecutionProvider" in found.reason


@pytest.mark.parametrize(("kind", "verdict"), [("a liar", "skipped"), ("a card", "equal")])
def test_a_model_in_several_sessions_runs_where_it_was_asked_for(
    fake_cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, kind: str, verdict: str
) -> None:
    fake_cuda(kind)
    monkeypatch.setattr(endtoend, "is_large", lambda model: True)
    monkeypatch.setattr(chunks, "MOST_NODES", 2)
    found = compare(parse(PARTS), parse(TEXT), Options(providers=("cuda",)))
    assert (found.verdict, found.decided_by) == (verdict, "end-to-end")


def test_timing_leaves_tf32_to_the_user(fake_cuda: FakeCuda, tmp_path: Path) -> None:
    fake_cuda("a card")
    with Runner(tf32=True) as runner:
        runner.load(MODEL, optimize=True, provider="cuda").close()
    providers, override = json.loads((tmp_path / "log").read_text().splitlines()[-1])
    assert (dict(providers)[CUDA], override) == ({}, None)


def test_fuse_writes_nothing_that_did_not_run_where_it_was_asked_for(fake_cuda: FakeCuda, tmp_path: Path) -> None:
    fake_cuda("a liar")
    source = save(parse(PARTS), tmp_path / "m.onnx")[-1]
    out = tmp_path / "out.onnx"
    for allowed in (False, True):
        found = graphopt.fuse(source, out, target="onnx", providers=("cpu", "cuda"), allow_unverified=allowed)
        assert (found.verdict, out.exists(), found.exit_code) == ("skipped", allowed, 4)
    assert load(out).graph


def test_structure_needs_no_provider_and_says_so(fake_cuda: FakeCuda) -> None:
    fake_cuda("no driver")
    for found in checked(TEXT, TEXT, "cuda"):
        assert (found.verdict, found.decided_by, found.providers) == ("equal", "structure", ())
        assert "nothing had to run on cuda" in found.reason


def kernel(op: str, provider: str, floats: int = 8, domain: str | None = "") -> Kernel:
    return Kernel("", op, domain, provider, 1, floats)


@pytest.mark.parametrize(
    ("kernels", "said"),
    [
        ([kernel("Gelu", CUDA)], ""),
        ([kernel("Gelu", CUDA), kernel("Shape", CPU, 0)], ""),
        ([kernel("Gelu", CUDA), kernel("Sqrt", CPU, 1)], ""),
        ([kernel("Mul", CUDA), kernel("Gelu", CPU, 0)], ""),
        ([kernel("Gelu", CPU)], "'Gelu' ran on"),
        ([kernel("Gelu", CUDA), kernel("Gelu", CPU)], "'Gelu' ran on"),
        ([kernel("Gelu", CPU, domain=None)], "'Gelu' ran on"),
        ([kernel("Gelu", CPU, domain="com.microsoft"), kernel("Gelu", CUDA)], ""),
        ([kernel("Erf", CUDA), kernel("Mul", CUDA)], ""),
        ([kernel("Erf", CPU), kernel("Mul", CUDA)], "'Gelu' was spelled in parts, and 'Erf' ran on"),
        ([kernel("MemcpyFromHost", CUDA), kernel("Erf", CPU)], "'Gelu' was spelled in parts"),
        ([], "nothing ran on"),
    ],
)
def test_fallbacks_are_seen_in_the_profile(kernels: list[Kernel], said: str) -> None:
    found = complaint("cuda", kernels, GELU)
    assert found.startswith(said)
    assert bool(found) == bool(said)


def test_a_fused_operator_counts_whatever_it_gives() -> None:
    kernels = [kernel("QLinearAdd", CPU, 0, "com.microsoft"), kernel("Add", CUDA)]
    fused = {("com.microsoft", "QLinearAdd")}
    assert complaint("cuda", kernels, fused) == "'QLinearAdd' ran on CPUExecutionProvider"


def test_copies_are_no_work() -> None:
    kernels = [kernel("MemcpyFromHost", CUDA), kernel("Add", CPU)]
    assert complaint("cuda", kernels, frozenset()).startswith("nothing ran on")


VERDICTS: tuple[Verdict, ...] = ("equal", "unequal", "inconclusive", "skipped")


@pytest.mark.parametrize("verdicts", list(itertools.product(VERDICTS, repeat=2)))
def test_skipped_never_becomes_equal(verdicts: tuple[Verdict, Verdict]) -> None:
    """Whatever another provider, or another region, says."""
    found = {name: Comparison("y", verdict) for name, verdict in zip(("cpu", "cuda"), verdicts, strict=True)}
    together = over_providers(found)
    assert (together.verdict == "equal") == (set(verdicts) == {"equal"})
    for name, verdict in zip(found, verdicts, strict=True):
        assert provider_result(name, [together]).verdict == verdict
        assert provider_result(name, [together, Comparison("z", "skipped")]).verdict != "equal"
    for verdict in verdicts:
        assert counted(Comparison("y", verdict), "ran elsewhere").verdict != "equal"
    assert provider_result("cuda", []).verdict != "equal"
