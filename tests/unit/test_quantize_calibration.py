"""Calibration: one pass, flat memory, padding left out, bad batches named, and a cache that takes up what was begun."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from graphopt.errors import GraphoptError, ModelError, RuntimeCrash
from graphopt.ir import Model, load
from graphopt.ir import save as save_model
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.quantize.data.batches import Batches, calibration_data
from graphopt.quantize.data.padding import Mask, masks
from graphopt.quantize.observe.cache import Cache, cache_folder, model_key
from graphopt.quantize.observe.calibration import Wanted, calibrate
from graphopt.quantize.observe.shards import merge
from graphopt.quantize.observe.statistics import Statistics
from graphopt.runtime import RunError, Runner
from graphopt.verify.parts import part
from graphopt.verify.weights import Weights

Array = npt.NDArray[Any]

BERT = """
opset 17
(ids: int64[B, S], mask: int64[B, S]) -> (y) {
  table = float32[50, 8] random(1)
  x = Gather(table, ids)
  bias = Mul(Sub(1.0, Cast(Unsqueeze(mask, [1]), to=float32)), -3.4e38)
  p = Softmax(Add(MatMul(x, Transpose(x, perm=[0, 2, 1])), bias), axis=-1)
  h = MatMul(p, x)
  flat = Reshape(h, [-1, 8])
  w = float32[8, 4] random(2)
  y = MatMul(flat, w)
}
"""
PLAIN = "opset 17\n(x: float32[N, K]) -> (y) { y = Relu(x) }"


def typed(text: str) -> Model:
    model = parse(text)
    infer(model)
    return model


def data(*feeds: dict[str, Any], skip_bad: bool = False) -> Batches:
    return calibration_data(list(feeds), typed(PLAIN), skip_bad=skip_bad)


def plain(count: int, rows: int = 4, channels: int = 3) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(size=(rows, channels)).astype(np.float32)} for _ in range(count)]


class Fake:
    """Outputs `a`, `b`, … are multiples of x; what was asked for is kept. It fails as `failing` says, by x's first."""

    def __init__(self, failing: Mapping[float, BaseException] | None = None) -> None:
        self.failing = failing or {}
        self.asked: list[list[str]] = []

    def run(self, feeds: Mapping[str, Any], outputs: list[str]) -> dict[str, Any]:
        error = self.failing.get(float(feeds["x"][0, 0]))
        if error is not None:
            raise error
        self.asked.append(outputs)
        return {name: feeds["x"] * np.float32(1 + ord(name) - ord("a")) for name in outputs}


def same(a: Mapping[str, Statistics], b: Mapping[str, Statistics]) -> None:
    assert list(a) == list(b)
    for name, one in a.items():
        assert one.count == b[name].count
        assert one.range == b[name].range
        assert np.array_equal(one.rows, b[name].rows)
        np.testing.assert_allclose(one.total, b[name].total, rtol=1e-9, atol=1e-9)
        assert np.array_equal(one.histogram.counts, b[name].histogram.counts)


# ---- with the runtime ------------------------------------------------------------------------------------------------


def test_activations_of_a_model_without_its_padding() -> None:
    model = typed(BERT)
    rng = np.random.default_rng(0)
    lengths = [(5, 3), (7, 2), (4, 4)]
    feeds = []
    for pair in lengths:
        mask = np.array([[place < length for place in range(max(pair))] for length in pair]).astype(np.int64)
        feeds.append({"ids": rng.integers(1, 50, mask.shape) * mask, "mask": mask})
    found = masks(model, ["x", "h", "flat", "bias", "w"])
    assert found == {name: Mask("mask") for name in ("x", "h", "flat")}
    wanted = {name: Wanted(gram=True, mask=found[name]) for name in ("x", "h", "flat")}
    with Weights() as weights, Runner() as runner:
        tap = part(model, [model.graph.names[name] for name in wanted], weights).load(runner, "taps")
        statistics = calibrate(tap, wanted, calibration_data(feeds, model))
        table = model.graph.names["table"].tensor
        assert table is not None
        rows = np.concatenate([table.numpy()[feed["ids"][feed["mask"] == 1]] for feed in feeds])
    assert [one.count for one in statistics.values()] == [sum(map(sum, lengths))] * 3
    assert np.array_equal(statistics["x"].high, rows.max(0))
    gram = statistics["x"].gram
    assert gram is not None
    np.testing.assert_allclose(gram, rows.T @ rows, rtol=1e-4)
    assert np.array_equal(statistics["h"].absmax, statistics["flat"].absmax)


def test_which_values_a_mask_is_for() -> None:
    two = typed("""
        opset 17
        (a: float32[B, S, 8], b: float32[B, T, 8], amask: bool[B, S], bmask: bool[B, T], sq: bool[S, S]) -> (y, z, w) {
          y = Where(Unsqueeze(amask, [2]), a, 0.0)
          z = Where(Unsqueeze(bmask, [2]), 0.0, b)
          w = Softmax(Where(sq, 0.0, ReduceSum(a)), axis=-1)
        }""")
    found = masks(two, ["a", "z", "w", "none"])
    assert found["a"].name == "amask"
    assert found["z"].name == "bmask"
    assert found.keys() == {"a", "z"}


def test_a_mask_of_what_is_left_out() -> None:
    feeds = {"m": np.array([[0, 0, 1]])}
    kept = Mask("m", drops=True).kept(feeds, (1, 3, 8))
    assert kept is not None
    assert kept.tolist() == [[True, True, False]]
    assert Mask("m").kept(feeds, (1, 4, 8)) is None
    assert Mask("m").kept({}, (1, 3, 8)) is None
    assert Mask("m", drops=True).kept({"m": np.zeros((1, 3))}, (1, 3, 8)) is None


def test_a_batch_that_onnxruntime_refuses_is_named_or_left_out() -> None:
    model = typed(BERT)
    good, bad = ({"ids": np.full((1, 4), n), "mask": np.ones((1, 4), np.int64)} for n in (3, 99))
    with Weights() as weights, Runner() as runner:
        tap = part(model, [model.graph.names["x"]], weights).load(runner, "taps")
        with pytest.raises(RunError, match="indices element out of data bounds") as caught:
            calibrate(tap, {"x": Wanted()}, calibration_data([good, bad, good], model))
        assert (caught.value.code, caught.value.where) == ("GO055", "calibration data: batch 1")
        batches = calibration_data([good, bad, good], model, skip_bad=True)
        assert calibrate(tap, {"x": Wanted()}, batches)["x"].count == 8
        assert [error.where for error in batches.skipped] == ["calibration data: batch 1"]
        assert len(list(batches)) == 2


# ---- one pass --------------------------------------------------------------------------------------------------------


def test_memory_is_flat_in_the_number_of_batches() -> None:
    def peak(count: int) -> int:
        def batches() -> Iterator[dict[str, Any]]:
            for seed in range(count):
                yield {"x": np.random.default_rng(seed).normal(size=(400, 64)).astype(np.float32)}

        wanted = dict.fromkeys("abcdef", Wanted(gram=True))
        tracemalloc.start()
        calibrate(Fake(), wanted, calibration_data(batches, typed(PLAIN)))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)
    few, many = peak(8), peak(32)
    assert many < 1.05 * few
    assert few < 20 * 400 * 64 * 4 + 6 * 400_000


def test_outputs_are_held_in_groups_that_fit() -> None:
    tap = Fake()
    one = plain(1)[0]["x"].nbytes
    calibrate(tap, dict.fromkeys("abcdefg", Wanted()), data(*plain(3)), most_bytes=3 * one)
    first, rest = tap.asked[:5], tap.asked[5:]
    assert first == [["a"], ["b"], ["c"], ["d"], ["e"], ["f"], ["g"]][:5]
    assert rest[-3:] == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    asked = [name for names in tap.asked for name in names]
    assert asked == list("abcdefg") * 3
    tap = Fake()
    calibrate(tap, dict.fromkeys("abcdefg", Wanted()), data(*plain(2)))
    assert tap.asked == [["a"], list("bcdefg"), list("abcdefg")]


def test_shards_add_up_to_one_pass() -> None:
    feeds = plain(7, rows=90)
    wanted = {"a": Wanted(), "c": Wanted()}
    whole = calibrate(Fake(), wanted, data(*feeds))
    parts = [calibrate(Fake(), wanted, data(*part)) for part in (feeds[:2], feeds[2:])]
    same(merge(*parts), whole)
    same(merge(*reversed(parts)), whole)
    assert whole["c"].range == (3 * min(f["x"].min() for f in feeds), 3 * max(f["x"].max() for f in feeds))


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int | None]] = []
    calibrate(Fake(), {"a": Wanted()}, data(*plain(3)), progress=lambda *one: told.append(one))
    assert told == [("calibrating", done, 3) for done in (1, 2, 3)]


def test_a_crash_names_its_batch() -> None:
    feeds = plain(3)
    crash = RuntimeCrash("GO051", "onnxruntime died", "taps", "")
    failing = {float(feeds[1]["x"][0, 0]): crash}
    with pytest.raises(RuntimeCrash) as caught:
        calibrate(Fake(failing), {"a": Wanted()}, data(*feeds))
    assert caught.value.where == "calibration data: batch 1"
    batches = data(*feeds, skip_bad=True)
    same(
        calibrate(Fake(failing), {"a": Wanted()}, batches), calibrate(Fake(), {"a": Wanted()}, data(feeds[0], feeds[2]))
    )
    assert [error.code for error in batches.skipped] == ["GO051"]


def test_an_axis_that_an_activation_has_not() -> None:
    with pytest.raises(ModelError, match="has no axis 2"):
        calibrate(Fake(), {"a": Wanted(axis=2)}, data(*plain(1)))


# ---- the cache -------------------------------------------------------------------------------------------------------

WANTED = {"a": Wanted(gram=True), "b": Wanted()}


def runs(cache: Cache | None, batches: Batches, wanted: Mapping[str, Wanted] = WANTED) -> int:
    """How many batches are run; the statistics are those of a calibration without a cache."""
    tap = Fake()
    same(calibrate(tap, wanted, batches, cache=cache), calibrate(Fake(), wanted, batches))
    return sum("a" in names for names in tap.asked)


def test_what_was_calibrated_is_not_run_again(tmp_path: Path) -> None:
    cache, feeds = Cache("model", tmp_path), plain(5)
    assert [runs(cache, data(*feeds)) for _ in range(2)] == [5, 0]
    assert runs(Cache("another", tmp_path), data(*feeds)) == 5
    assert runs(cache, data(*feeds[:4])) == 4
    assert runs(cache, data(*feeds), {**WANTED, "b": Wanted(gram=True)}) == 5
    assert runs(cache, data(*feeds)) == 0


def test_what_was_interrupted_is_taken_up(tmp_path: Path) -> None:
    feeds = plain(9)
    failing = {float(feeds[7]["x"][0, 0]): KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        calibrate(Fake(failing), WANTED, data(*feeds), cache=Cache("model", tmp_path, every=3))
    assert runs(Cache("model", tmp_path), data(*feeds)) == 3


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_ignored_and_written_anew(tmp_path: Path, content: bytes) -> None:
    cache, batches = Cache("model", tmp_path), data(*plain(3))
    runs(cache, batches)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content or file.read_bytes()[:-100])
    assert [runs(cache, batches) for _ in range(2)] == [3, 0]


def test_two_at_once_do_not_meet(tmp_path: Path) -> None:
    feeds, cache = plain(6), Cache("model", tmp_path, every=1)
    counts: list[int] = []

    def other(what: str, done: int, total: int | None) -> None:
        if done == 3:
            counts.append(runs(Cache("model", tmp_path, every=1), data(*feeds)))

    found = calibrate(Fake(), WANTED, data(*feeds), cache=cache, progress=other)
    same(found, calibrate(Fake(), WANTED, data(*feeds)))
    assert counts == [3]
    assert runs(cache, data(*feeds)) == 0
    assert len(list(tmp_path.iterdir())) == 1


def test_data_that_is_another_in_each_pass_is_not_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    batches = calibration_data(lambda: iter([{"x": rng.normal(size=(4, 3))} for _ in range(3)]), typed(PLAIN))
    for _ in range(2):
        assert calibrate(Fake(), WANTED, batches, cache=Cache("model", tmp_path))["a"].count == 12
    assert list(tmp_path.iterdir()) == []


def test_a_calibration_with_a_batch_that_did_not_run_is_not_kept(tmp_path: Path) -> None:
    feeds = plain(4)
    failing: dict[float, BaseException] = {float(feeds[1]["x"][0, 0]): RunError("run", "FAIL", "no")}
    calibrate(Fake(failing), WANTED, data(*feeds, skip_bad=True), cache=Cache("model", tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_no_cache(
    tmp_path: Path, nobody: Callable[[], AbstractContextManager[None]]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert runs(Cache("model", tmp_path / "file" / "below"), data(*plain(2))) == 2
    tmp_path.chmod(0o555)
    with nobody():
        assert runs(Cache("model", tmp_path / "new"), data(*plain(2))) == 2


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "graphopt"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "graphopt"


def test_the_key_of_a_model_is_of_its_numbers_wherever_they_lie(tmp_path: Path) -> None:
    text = "opset 17\n(x: float32[N, 64]) -> (y) { w = float32[64, 64] random(1) y = MatMul(x, w) }"
    model = parse(text)
    (tmp_path / "other").mkdir()
    save_model(model, tmp_path / "m.onnx", external="never")
    save_model(parse(text), tmp_path / "other" / "n.onnx", external="always")
    keys = {model_key(load(path)) for path in (tmp_path / "m.onnx", tmp_path / "other" / "n.onnx")}
    assert len(keys) == 1
    for other in (text.replace("random(1)", "random(2)"), text.replace("MatMul(x, w)", "Add(x, w)")):
        save_model(parse(other), tmp_path / "o.onnx", external="always")
        assert model_key(load(tmp_path / "o.onnx")) not in keys


def test_errors_keep_their_class_and_code() -> None:
    feeds = plain(1)
    failing: dict[float, BaseException] = {float(feeds[0]["x"][0, 0]): RunError("run", "MEMORY", "no memory")}
    with pytest.raises(GraphoptError) as caught:
        calibrate(Fake(failing), WANTED, data(*feeds))
    assert (caught.value.code, caught.value.hint) == ("GO055", "allow more with --memory")
