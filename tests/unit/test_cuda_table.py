"""The table of what needs a graphics card: nothing in it is equal that no card ran."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from graphopt.ir import save
from graphopt.ir.text import parse
from graphopt.runtime import Runner

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import cuda

FakeCuda = Callable[..., None]


def rows(*only: str, dtypes: tuple[str, ...] = cuda.TYPES) -> list[cuda.Row]:
    return list(cuda.checks([pair for pair in cuda.pairs(only) if pair.dtype in dtypes], "cuda"))


def test_without_a_card_every_row_is_skipped() -> None:
    with Runner() as runner:
        if "cuda" in runner.available_providers():
            pytest.skip("there is a card")
    found = rows()
    assert len(found) == len(cuda.pairs()) >= 54
    assert {row.verdict for row in found} == {"skipped"}
    assert {row.ran for row in found} == {""}
    assert cuda.exit_code(found) == 4
    done = CliRunner().invoke(cuda.main, ["--only", "Gelu"])
    assert (done.exit_code, done.stdout.count("skipped")) == (4, 6)
    assert "equal" not in done.stdout


@pytest.mark.parametrize("kind", ["no driver", "a liar"])
def test_no_row_is_equal_where_the_cpu_did_the_work(fake_cuda: FakeCuda, kind: str) -> None:
    fake_cuda(kind)
    found = rows("Gelu", "FusedMatMul", dtypes=("float32",))
    assert [row.verdict for row in found] == ["skipped"] * 3
    assert {row.ran for row in found} == ({""} if kind == "no driver" else {"on CPUExecutionProvider"})
    assert cuda.exit_code(found) == 4


def test_on_a_card_rows_say_what_ran(fake_cuda: FakeCuda, tmp_path: Path) -> None:
    fake_cuda("a card")
    found = rows("LayerNormalization", "Mish", "QuickGelu", dtypes=("float32", "bfloat16"))
    said = {(row.name, row.dtype): (row.verdict, row.ran) for row in found}
    assert said["LayerNormalization", "float32"] == ("equal", "native")
    assert said["Mish", "float32"] == ("equal", "expanded")
    assert said["com.microsoft.QuickGelu", "bfloat16"] == ("absent", "absent")
    assert cuda.exit_code(found) == 4
    table = json.loads(cuda.written(TABLE, found, "1.0"))
    assert table["kernels"][0]["runs"] == {"float32": "expanded", "bfloat16": "absent"}
    (tmp_path / "models").mkdir()
    text = "opset 20 (x: float32[N, 64]) -> (y) { y = Mul(Mul(x, Add(Erf(Div(x, 1.4142135)), 1.0)), 0.5) }"
    save(parse(text), tmp_path / "models" / "gelu.onnx")
    (tmp_path / "models" / "text.onnx").write_text("no model")
    model, bad = cuda.models(tmp_path / "models", "cuda")
    assert (model.name, model.verdict, model.ran) == ("gelu", "equal", "1 Gelu")
    assert (bad.verdict, bad.reason[:2]) == ("error", "GO")


TABLE = '{"name": "t", "kernels": [{"domain": "", "op": "Mish", "status": "assumed"}]}'


def test_a_row_that_raises_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: cuda.Pair) -> None:
        raise ValueError("no such graph")

    monkeypatch.setattr(cuda.Pair, "fused", property(fail))
    found = rows("Mish")
    assert [(row.verdict, row.reason) for row in found] == [("error", "ValueError: no such graph")] * 3
    assert cuda.exit_code(found) == 1


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (["equal", "equal"], 0),
        (["equal", "skipped"], 4),
        (["equal", "inconclusive"], 4),
        (["skipped", "unequal"], 1),
        (["equal", "error"], 1),
        (["equal", "absent"], 4),
        ([], 4),
    ],
)
def test_only_equal_rows_succeed(verdicts: list[str], code: int) -> None:
    assert cuda.exit_code([cuda.Row("Op", "float32", verdict) for verdict in verdicts]) == code
    assert cuda.exit_code([cuda.Row("Op", "float32", "absent", "absent"), cuda.Row("Op", "float16", "equal")]) == 0
