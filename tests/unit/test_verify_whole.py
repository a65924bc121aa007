"""Whole models: what is run, in which sessions, and what is said where the two sides do not both run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from graphopt.ir import load
from graphopt.ir.save import model_to_proto
from graphopt.ir.text import parse
from graphopt.pipeline import verify
from graphopt.runtime import Runner, Session
from graphopt.verify import Options, checker, chunks, compare, endtoend
from graphopt.verify.refusals import shortened


def chain(wrong: int = -1, prefix: str = "v") -> str:
    """Fifty times x → |1.01 x|, and once another factor."""
    names = ["x", *(f"{prefix}{i}" for i in range(49)), "y"]
    factors = [1.02 if i == wrong else 1.01 for i in range(50)]
    lines = [f"m{i} = Mul({names[i]}, {k})\n{names[i + 1]} = Abs(m{i})" for i, k in enumerate(factors)]
    return f"opset 17\n(x: float32[N, 4]) -> (y) {{ {chr(10).join(lines)} }}"


def respelled(text: str) -> str:
    return text.replace("m0 = Mul(x, 1.01)", "z = Abs(x)").replace("Abs(m0)", "Mul(z, 1.01)")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large model has more than 20 nodes."""
    monkeypatch.setattr(chunks, "MOST_NODES", 20)
    monkeypatch.setattr(endtoend, "MOST_LOADED", 20)
    monkeypatch.setattr(checker, "MOST_LOADED", 20)


def largest(sessions: list[list[str]]) -> int:
    """The most nodes of the model's own in one session: there are some that copy or measure as well."""
    return max(sum(op in ("Abs", "Mul") for op in ops) for ops in sessions)


@pytest.mark.usefixtures("small")
def test_a_large_model_is_run_in_chunks(sessions: list[list[str]]) -> None:
    found = compare(parse(chain()), parse(respelled(chain(prefix="w"))))
    assert (found.verdict, found.decided_by) == ("equal", "end-to-end")
    assert 0 < largest(sessions) <= 20
    wrong = compare(parse(chain()), parse(respelled(chain(40, "w"))))
    assert (wrong.verdict, wrong.decided_by) == ("unequal", "end-to-end")
    assert wrong.parting is not None
    assert wrong.parting.reference


@pytest.mark.usefixtures("small")
def test_large_models_whose_names_survive_are_decided_by_regions(sessions: list[list[str]]) -> None:
    found = verify(model_to_proto(parse(chain())), model_to_proto(parse(respelled(chain()))))
    assert (found.verdict, found.decided_by, found.level) == ("equal", "regions", "sites")
    assert 0 < largest(sessions) <= 20
    wrong = verify(model_to_proto(parse(chain())), model_to_proto(parse(chain(40))))
    assert (wrong.verdict, wrong.decided_by) == ("unequal", "end-to-end")


@pytest.mark.usefixtures("small")
def test_a_name_that_was_given_to_another_value_proves_nothing() -> None:
    other = chain().replace("v17", "free").replace("v18", "v17").replace("free", "v18")
    found = verify(model_to_proto(parse(chain())), model_to_proto(parse(respelled(other))))
    assert found.verdict == "equal"


def test_feeds_are_run_one_by_one_and_not_after_one_that_shows_a_mistake() -> None:
    text = "opset 17\n(x: float32[N, 4]) -> (y, z) {{ y = {}(x)\n z = Neg(Neg(x)) }}"
    wrong = compare(parse(text.format("Abs")), parse(text.format("Relu")))
    right = compare(parse(text.format("Abs")), parse(text.format("Abs").replace("Neg(Neg(x))", "Mul(x, 1.0)")))
    assert {one.feed for one in wrong.inputs} < {one.feed for one in right.inputs}
    assert {one.name: one.verdict for one in wrong.outputs} == {"y": "unequal", "z": "equal"}
    assert len({one.feed for one in wrong.inputs}) == 1


def test_a_candidate_that_does_not_take_empty_inputs_is_said_to() -> None:
    text = "opset 17\n(x: float32[N, 4]) -> (y) {{ y = Abs(Reshape(x, {})) }}"
    found = compare(parse(text.format("[-1, 4], allowzero=0")), parse(text.format("[0, 4], allowzero=1")))
    assert found.verdict == "unequal"  # not only of none: other sizes do not run either
    attention = """opset 23\n(q: float32[N, 2, 3, 4]) -> (y) {{ y = {} }}"""
    parts = "MatMul(Softmax(Mul(MatMul(q, Transpose(q, perm=[0, 1, 3, 2])), 0.5), axis=-1), q)"
    found = compare(parse(attention.format(parts)), parse(attention.format("Attention(q, q, q)")))
    assert found.verdict == "equal"
    assert found.hint.startswith("only the reference runs on empty inputs")


def test_weights_in_files_are_read_there_by_default_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "opset 17\n(x: float32[2, 64]) -> (y) { h = MatMul(x, float32[64, 64] random(1))\n y = Relu(h) }"
    requests: list[tuple[bool, int, bool]] = []
    create = Runner.load

    def noted(runner: Runner, model: bytes | Path, **options: Any) -> Session:
        requests.append((options["optimize"], len(options["external"]), options["base"] is not None))
        return create(runner, model, **options)

    monkeypatch.setattr(Runner, "load", noted)
    models = []
    for name, op in (("a", "Relu(h)"), ("b", "Max(h, 0.0)")):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "m.onnx"
        proto = model_to_proto(parse(text.replace("Relu(h)", op)))
        onnx.save(proto, path, save_as_external_data=True, location="m.data", size_threshold=0)
        models.append(load(path))
    assert compare(*models).verdict == "equal"
    assert (True, 0, True) in requests
    assert {request for request in requests if request[0]} == {(True, 0, True)}


def test_given_inputs_are_the_only_ones() -> None:
    text = "opset 17\n(x: float32[N]) -> (y) {{ y = {}(x) }}"
    given = Options(inputs={"x": np.ones(3, np.float32)})
    found = compare(parse(text.format("Abs")), parse(text.format("Relu")), given)
    assert (found.verdict, {one.kind for one in found.inputs}) == ("equal", {"given"})
    assert compare(parse(text.format("Abs")), parse(text.format("Relu"))).verdict == "unequal"


def test_messages_are_without_places_in_the_source_of_onnxruntime() -> None:
    text = "running node. Name:'a' Status Message: /src/core/x.h:55 Status f(const T*, int) p > 0 was false. Too small"
    assert shortened(text) == "running node. Name:'a' Status Message: p > 0 was false. Too small"
    assert shortened("nothing of the kind") == "nothing of the kind"


def test_what_the_optimizer_of_onnxruntime_changes_in_both_is_said() -> None:
    text = """opset 17
        (x: float32[1, 1, 4, 4]) -> (y) {{
            p = Pad(x, [0, 0, 1, 1, 0, 0, 1, 1], 0.0)
            m = MaxPool(p, kernel_shape=[3, 3])
            y = {}
        }}"""
    found = compare(parse(text.format("Neg(Abs(m))")), parse(text.format("Min(m, Neg(m))")))
    assert found.verdict == "equal"
    assert found.hint.startswith("onnxruntime's own optimizer changes the reference")
    right = text.replace("p = Pad(x, [0, 0, 1, 1, 0, 0, 1, 1], 0.0)", "p = Abs(x)")
    assert not compare(parse(right.format("Neg(Abs(m))")), parse(right.format("Min(m, Neg(m))"))).hint


def test_sizes_that_a_file_declares_and_attention_needs_are_kept() -> None:
    text = """opset 23
        (x: float32[B, S, 16]) -> (y) {{
            v = Reshape(x, Abs(Shape(x)))
            a = Attention(x, v, v, q_num_heads=2, kv_num_heads=2)
            m = MatMul(a, float32[16, 4] random(1))
            y = {}
        }}"""
    models = [model_to_proto(parse(text.format(end))) for end in ("Mul(m, 1.0)", "Identity(m)")]
    for model in models:
        model.graph.value_info.append(helper.make_tensor_value_info("v", onnx.TensorProto.FLOAT, ["B", "S", 16]))
    assert verify(*models).verdict == "equal"
