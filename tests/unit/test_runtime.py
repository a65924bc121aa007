"""Running models in the child: values, weights, refusals, profiles, timing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, parser

from graphopt.errors import UsageError
from graphopt.runtime import PLACEHOLDER, External, RunError, Runner, Unavailable

HEAD = '<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>'


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner(timeout=60) as runner:
        yield runner


def model(text: str) -> bytes:
    return bytes(parser.parse_model(f"{HEAD} g {text}").SerializeToString())


def run(runner: Runner, text: str, feeds: dict[str, Any]) -> dict[str, Any]:
    with runner.load(model(text), optimize=False) as session:
        return session.run(feeds)


def product(weight: tuple[int, int], location: str = PLACEHOLDER, dtype: int = TensorProto.FLOAT) -> bytes:
    """x · w, then + b, both initializers without data."""
    proto = parser.parse_model(f"{HEAD} g (float[N, {weight[0]}] x) => (y) {{ p = MatMul(x, w) y = Add(p, b) }}")
    for name, dims in (("w", weight), ("b", weight[1:])):
        tensor = TensorProto(name=name, data_type=dtype, dims=dims, data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=location)
        proto.graph.initializer.append(tensor)
    return bytes(proto.SerializeToString())


def test_a_session_knows_its_ports_and_runs(runner: Runner) -> None:
    with runner.load(
        model("(float[N, 2] x) => (float[N, 2] y, float[N, 2] z) { y = Neg(x) z = Abs(x) }"), optimize=True
    ) as s:
        assert s.inputs == (("x", "tensor(float)", ("N", 2)),)
        assert [port.name for port in s.outputs] == ["y", "z"]
        x = np.array([[1, -2]], np.float32)
        np.testing.assert_array_equal(s.run({"x": x})["y"], -x)
        assert list(s.run({"x": x}, ["z"])) == ["z"]


def test_a_closed_session_is_created_again(runner: Runner) -> None:
    session = runner.load(model("(float[N] x) => (float[N] y) { y = Neg(x) }"), optimize=False)
    session.close()
    session.close()
    assert session.run({"x": np.ones(1, np.float32)})["y"].tolist() == [-1]


def test_a_model_is_loaded_from_a_file_with_its_own_external_data(runner: Runner, tmp_path: Path) -> None:
    proto = parser.parse_model(f"{HEAD} g (float[N] x) => (y) {{ y = Add(x, w) }}")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.full(4, 3, np.float32), "w"))
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    bare = (tmp_path / "m.onnx").read_bytes()
    for load in (
        lambda: runner.load(tmp_path / "m.onnx", optimize=False),
        lambda: runner.load(bare, base=tmp_path, optimize=False),
    ):
        with load() as session:
            np.testing.assert_array_equal(session.run({"x": np.ones(4, np.float32)})["y"], np.full(4, 4))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("float", np.float32),
        ("float16", np.float16),
        ("bool", np.bool_),
        ("int8", np.int8),
        ("bfloat16", ml_dtypes.bfloat16),
        ("float8e4m3fn", ml_dtypes.float8_e4m3fn),
    ],
)
@pytest.mark.parametrize("shape", [(), (0, 2), (3, 2)])
def test_tensors_pass_unchanged(runner: Runner, kind: str, dtype: type, shape: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    y = run(runner, f"({kind}{list(shape) if shape else ''} x) => ({kind} y) {{ y = Identity(x) }}", {"x": x})["y"]
    assert y.dtype == x.dtype
    assert y.shape == x.shape
    assert y.tobytes() == x.tobytes()


def test_bfloat16_is_also_taken_as_raw_bits(runner: Runner) -> None:
    x = np.array([1.5, -2], ml_dtypes.bfloat16)
    y = run(runner, "(bfloat16[N] x) => (bfloat16[N] y) { y = Identity(x) }", {"x": x.view(np.uint16)})["y"]
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("count", [1, 4, 7])
def test_four_bit_tensors_are_packed_and_unpacked(runner: Runner, count: int) -> None:
    x = np.arange(-8, 8)[-count:].astype(ml_dtypes.int4)
    text = (
        "(int4[N] x, float s) => (int4[N] y) { f = DequantizeLinear(x, s) y = QuantizeLinear<output_dtype = 22>(f, s) }"
    )
    y = run(runner, text, {"x": x, "s": np.float32(1)})["y"]
    np.testing.assert_array_equal(y, x)
    assert y.dtype == x.dtype


def test_strings_sequences_and_optionals_pass(runner: Runner) -> None:
    text = np.array(["a", "é"], object)
    y = run(runner, "(string[N] x) => (string[N] y) { y = Identity(x) }", {"x": text})["y"]
    assert y.tolist() == ["a", "é"]
    parts = [np.ones(2, np.float32), np.zeros(0, np.float32)]
    y = run(runner, "(seq(float[N]) x) => (seq(float[N]) y) { y = Identity(x) }", {"x": parts})["y"]
    assert [part.tolist() for part in y] == [[1, 1], []]
    assert run(runner, "(optional(float[N]) x) => (optional(float[N]) y) { y = Identity(x) }", {"x": None})["y"] is None


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("columns", [3, 70_000])  # copied by onnxruntime; used where it lies, or sent through a file
@pytest.mark.parametrize("in_file", [False, True])
def test_weights_come_from_memory_and_from_files(
    runner: Runner, tmp_path: Path, optimize: bool, columns: int, in_file: bool
) -> None:
    rng = np.random.default_rng(0)
    w, b = rng.normal(size=(5, columns)).astype(np.float32), rng.normal(size=columns).astype(np.float32)
    external: dict[str, Any] = {"w": w, "b": b}
    if in_file:
        path, skip = tmp_path / "weights.bin", b"abc"  # an offset that is not a multiple of four
        path.write_bytes(skip + w.tobytes() + b.tobytes())
        external = {
            "w": External(path, 3, w.nbytes, w.dtype, w.shape),
            "b": External(path, 3 + w.nbytes, b.nbytes, b.dtype, b.shape),
        }
    x = rng.normal(size=(2, 5)).astype(np.float32)
    with runner.load(product(w.shape), optimize=optimize, external=external) as session:
        np.testing.assert_allclose(session.run({"x": x})["y"], x @ w + b, rtol=1e-4, atol=1e-5)


def test_large_weights_are_not_copied(tmp_path: Path) -> None:
    rows, columns = 4096, 16384  # 256 MiB
    path = tmp_path / "weights.bin"
    with path.open("wb") as file:
        file.truncate(4 * rows * columns)
    w = External(path, 0, 4 * rows * columns, np.dtype(np.float32), (rows, columns))
    external = {"w": w, "b": np.ones(columns, np.float32)}
    with Runner(timeout=60, memory=220 << 20) as small:
        session = small.load(product(w.shape), optimize=False, external=external)
        assert session.run({"x": np.ones((1, rows), np.float32)})["y"].max() == 1
        with pytest.raises(RunError) as raised:
            small.load(product(w.shape), optimize=True, external=external)
    assert raised.value.status == "MEMORY"


def test_packed_weights_come_from_a_file(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(bytes([0x10, 0x32, 0xF4]))
    proto = parser.parse_model(f"{HEAD} g (float s) => (y) {{ y = DequantizeLinear(w, s) }}")
    tensor = TensorProto(name="w", data_type=TensorProto.INT4, dims=[5], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=PLACEHOLDER)
    proto.graph.initializer.append(tensor)
    w = External(tmp_path / "w", 0, 3, np.dtype(ml_dtypes.int4), (5,))
    with runner.load(proto.SerializeToString(), optimize=False, external={"w": w}) as session:
        assert session.run({"s": np.float32(2)})["y"].tolist() == [0, 2, 4, 6, 8]


def test_a_truncated_weight_file_is_refused(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"1234")
    w = External(tmp_path / "w", 0, 24, np.dtype(np.float32), (2, 3))
    with pytest.raises(RunError) as raised:
        runner.load(product((2, 3)), optimize=False, external={"w": w, "b": np.zeros(3, np.float32)})
    assert raised.value.phase == "load"


def test_what_onnxruntime_refuses_is_an_error_and_no_crash(runner: Runner) -> None:
    with pytest.raises(RunError, match="GO054") as raised:
        runner.load(model("(float[N] x) => (y) { y = NoSuchOp(x) }"), optimize=False, name="region 7")
    assert (raised.value.phase, raised.value.where) == ("load", "region 7")
    with runner.load(model("(float[N] a, float[M] b) => (y) { y = Add(a, b) }"), optimize=False) as session:
        with pytest.raises(RunError, match="GO055") as raised:
            session.run({"a": np.ones(3, np.float32), "b": np.ones(4, np.float32)})
        assert raised.value.phase == "run"
        assert "[ONNXRuntimeError]" not in raised.value.message
        with pytest.raises(RunError, match="missing from input feed"):
            session.run({})
        with pytest.raises(RunError) as raised:
            session.run({"a": np.ones(3), "b": np.ones(3)})
        assert raised.value.status == "INVALID_ARGUMENT"
        assert session.run({"a": np.ones(3, np.float32), "b": np.ones(3, np.float32)})["y"].tolist() == [2, 2, 2]


def test_a_kernel_that_does_not_exist_says_so(runner: Runner) -> None:
    with pytest.raises(RunError) as raised:
        runner.load(model("(bfloat16[N, N] x) => (y) { y = MatMul(x, x) }"), optimize=False)
    assert raised.value.status == "NOT_IMPLEMENTED"


def test_kernels_that_ran_are_listed_with_their_domains(runner: Runner) -> None:
    text = "(float[N, 4] x) => (float[N, 4] y) { [one] a = Add(x, x) [two] y = com.microsoft.Gelu(a) }"
    with runner.load(model(text), optimize=False, profile=True) as session:
        session.run({"x": np.ones((2, 4), np.float32)})
        kernels = session.kernels()
    assert [kernel[:4] for kernel in kernels] == [
        ("one", "Add", "", "CPUExecutionProvider"),
        ("two", "Gelu", "com.microsoft", "CPUExecutionProvider"),
    ]


def test_optimization_is_off_for_the_reference_and_entries_reach_the_session(runner: Runner) -> None:
    text = """(float[2, 8, 4] a, float[2, 8, 4] b) => (float[2, 8, 4] y) <float[4] s = {1, 1, 1, 1}> {
        z = Add(a, b) y = LayerNormalization(z, s, s) }"""
    feeds = {name: np.ones((2, 8, 4), np.float32) for name in "ab"}

    def ops(**options: Any) -> list[str]:
        with runner.load(model(text), profile=True, **options) as session:
            session.run(feeds)
            return [kernel.op for kernel in session.kernels()]

    assert ops(optimize=True) == ["SkipLayerNormalization"]
    assert ops(optimize=False) == ["Add", "LayerNormalization"]
    keep = {"optimization.disable_specified_optimizers": "SkipLayerNormFusion"}
    assert ops(optimize=True, entries=keep) == ["Add", "LayerNormalization"]


def test_timing_tells_a_slow_model_from_a_fast_one(runner: Runner) -> None:
    fast = runner.load(model("(float[N, N] x) => (y) { y = Neg(x) }"), optimize=True)
    slow = runner.load(model("(float[N, N] x) => (y) { a = MatMul(x, x) y = MatMul(a, x) }"), optimize=True)
    one, two = runner.time([fast, slow], {"x": np.ones((300, 300), np.float32)}, runs=7, warmup=2)
    assert (len(one), len(two)) == (7, 7)
    assert 0 < np.median(one) < np.median(two)


def test_providers_are_asked_of_onnxruntime(runner: Runner) -> None:
    assert "cpu" in runner.available_providers()
    assert runner.version().count(".") == 2
    text = model("(float[N] x) => (y) { y = Neg(x) }")
    with pytest.raises(UsageError, match="known: cpu, cuda"):
        runner.load(text, optimize=False, provider="cudaa")
    if "cuda" not in runner.available_providers():
        with pytest.raises(Unavailable, match="no 'cuda' provider"):
            runner.load(text, optimize=False, provider="cuda")
