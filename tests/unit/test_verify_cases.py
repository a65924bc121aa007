"""Cases in their folders."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import parser

from graphopt.errors import UsageError
from graphopt.ir.text import parse
from graphopt.runtime import Crash, Runner
from graphopt.verify.failures.cases import folder_for_cases, keep, keep_crash, standalone
from graphopt.verify.parts import part
from graphopt.verify.weights import Weights

NEGATE = parser.parse_model('<ir_version: 10, opset_import: ["": 20]> g (float[N] x) => (float[N] y) { y = Neg(x) }')
DYING = """opset 17, com.microsoft 1
(x: float32[2, 4, 40]) -> (y) {
  w = float32[40, 120] random(1)
  y = com.microsoft.Attention(x, w, num_heads=2)
}"""


def test_a_folder_is_called_after_its_case_and_none_is_written_twice(tmp_path: Path) -> None:
    feed = {"x": np.ones(3, np.float32)}
    places = [keep(tmp_path, "Rule /a/b:c.0", {"case": NEGATE}, feed, {"note.txt": "why"}) for _ in range(3)]
    assert [place.name for place in places] == ["Rule_a_b_c.0", "Rule_a_b_c.0-2", "Rule_a_b_c.0-3"]
    assert {path.name for path in places[0].iterdir()} == {"case.onnx", "inputs.npz", "note.txt"}
    assert keep(tmp_path, "../..", {}, {}).parent == tmp_path
    assert len(keep(tmp_path, "x" * 500, {}, {}).name) <= 80


def test_arrays_that_a_file_cannot_hold_are_kept_as_they_can_be(tmp_path: Path) -> None:
    feed = {
        "narrow": np.array([1.5, 2.5], ml_dtypes.bfloat16),
        "text": np.array(["a", "bc"], object),
        "sequence": [np.ones(2)],
        "nothing": None,
    }
    with np.load(keep(tmp_path, "case", {}, feed) / "inputs.npz") as found:
        assert set(found) == {"narrow", "text"}
        assert found["narrow"].view(ml_dtypes.bfloat16).tolist() == [1.5, 2.5]
        assert found["text"].tolist() == ["a", "bc"]


def test_a_place_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="GO028"):
        folder_for_cases(tmp_path / "file")
    assert folder_for_cases(tmp_path / "a" / "b").is_dir()


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    with pytest.raises(UsageError, match="GO028"):
        folder_for_cases(tmp_path)


def test_what_onnxruntime_died_of_has_its_weights_in_it(tmp_path: Path) -> None:
    model = parse(DYING)
    with Weights() as weights, Runner(timeout=60) as runner:
        whole = part(model, model.graph.outputs, weights)
        assert whole.external
        session = whole.load(runner, "a part")
        with pytest.raises(Crash) as raised:
            session.run({"x": np.ones((2, 4, 40), np.float32)})
        place = keep_crash(tmp_path, raised.value)
        written = standalone(whole)
    assert place.name == "crash_of_a_part"
    assert "SIGSEGV" in (place / "crash.txt").read_text()
    for proto in (onnx.load(place / "case.onnx"), written):
        (weight,) = proto.graph.initializer
        tensor = model.graph.names["w"].tensor
        assert tensor is not None
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(weight), tensor.numpy())
