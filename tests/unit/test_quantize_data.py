"""Calibration data: what is read, what is refused and how it is named, how it is split."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphopt.errors import ModelError
from graphopt.ir import Model
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.quantize.data.batches import Batches, calibration_data

BERT = """
opset 17
(ids: int64[B, S], mask: int64[B, S]) -> (y) {
  table = float32[100, 8] random(1)
  m = Unsqueeze(Cast(mask, to=float32), [2])
  y = Mul(Gather(table, ids), m)
}
"""
IMAGE = "opset 17\n(image: float32[N, 3, 8, 8]) -> (y) { y = Relu(image) }"
FIXED = "opset 17\n(x: float32[4, 8]) -> (y) { y = Relu(x) }"
ADDED = """
opset 17
(x: float32[1, 2, S, 4], m: float32[1, 1, S, S]) -> (y) {
  y = Softmax(Add(MatMul(x, Transpose(x, perm=[0, 1, 3, 2])), m), axis=-1)
}
"""


def ids(count: int, length: int = 5, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "ids": rng.integers(0, 100, (count, length)),
        "mask": np.ones((count, length), np.int64),
    }


def images(count: int) -> dict[str, Any]:
    return {"image": np.random.default_rng(0).normal(size=(count, 3, 8, 8)).astype(np.float32)}


def shapes(batches: Batches, name: str) -> list[tuple[int, ...]]:
    return [batch.feeds[name].shape for batch in batches]


def typed(text: str) -> Model:
    model = parse(text)
    infer(model)
    return model


def fails(source: Any, model: str, code: str, **options: Any) -> ModelError:
    """The error, which names its code and exits with 3."""
    with pytest.raises(ModelError) as caught:
        list(calibration_data(source, typed(model), **options))
    assert caught.value.code == code
    assert caught.value.exit_code == 3
    return caught.value


# ---- what is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_an_archive_is_cut_along_the_first_axis(tmp_path: Path, write: Any) -> None:
    given = ids(5)
    write(tmp_path / "d.npz", **given)
    one = calibration_data(tmp_path / "d.npz", typed(BERT))
    assert one.size == 5
    assert np.array_equal(np.concatenate([batch.feeds["ids"] for batch in one]), given["ids"])
    two = calibration_data(tmp_path / "d.npz", typed(BERT), batch=2)
    assert shapes(two, "ids") == [(2, 5), (2, 5), (1, 5)]
    assert [batch.name for batch in two] == ["samples 0 to 1", "samples 2 to 3", "samples 4 to 4"]


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_an_archive_is_not_held_in_memory(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "d.npz", image=np.ones((10_000, 3, 8, 8), np.float32))
    tracemalloc.start()
    assert sum(len(batch.feeds["image"]) for batch in calibration_data(tmp_path / "d.npz", typed(IMAGE), 100)) == 10_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000 * 3 * 8 * 8 * 4 / 10


def test_arrays_in_fortran_order_and_arrays_in_memory_are_cut_alike(tmp_path: Path) -> None:
    given = images(3)
    np.savez(tmp_path / "d.npz", image=np.asfortranarray(given["image"]))
    from_file = [batch.key for batch in calibration_data(tmp_path / "d.npz", typed(IMAGE))]
    assert from_file == [batch.key for batch in calibration_data(given, typed(IMAGE))]


def test_the_models_own_batch_is_taken_and_the_rest_left_out() -> None:
    batches = calibration_data({"x": np.ones((10, 8), np.float32)}, typed(FIXED))
    assert shapes(batches, "x") == [(4, 8), (4, 8)]
    assert batches.size == 2
    assert batches.notes == ("2 samples at the end are left out: the model takes 4 at a time",)


def test_fewer_samples_than_the_model_takes() -> None:
    error = fails({"x": np.ones((3, 8), np.float32)}, FIXED, "GO116")
    assert error.message == "the model takes 4 samples at a time, there are 3"


def test_a_scalar_serves_every_sample() -> None:
    model = typed("opset 17\n(x: float32[N, 2], t: float32[]) -> (y) { y = Mul(x, t) }")
    batches = calibration_data({"x": np.ones((3, 2), np.float32), "t": np.float32(5)}, model)
    assert [(batch.feeds["x"].shape, float(batch.feeds["t"])) for batch in batches] == [((1, 2), 5)] * 3


def test_samples_of_the_whole_shape_are_fed_as_they_are() -> None:
    batches = calibration_data({"x": np.ones((3, 4, 8), np.float32)}, typed(FIXED))
    assert shapes(batches, "x") == [(4, 8)] * 3


def test_a_folder_is_read_by_name_and_may_be_ragged(tmp_path: Path) -> None:
    for name, length in (("b", 7), ("a", 3)):
        np.savez(tmp_path / f"{name}.npz", **ids(2, length))
    (tmp_path / "notes.txt").write_text("not a batch")
    batches = calibration_data(tmp_path, typed(BERT))
    assert [(batch.name, batch.feeds["ids"].shape) for batch in batches] == [("a.npz", (2, 3)), ("b.npz", (2, 7))]


def test_a_python_file_begins_anew_in_each_pass(tmp_path: Path) -> None:
    (tmp_path / "d.py").write_text(
        "import numpy as np\ndef batches():\n  for n in (2, 4):\n    yield {'x': np.full((4, 8), n, 'f4')}\n"
    )
    batches = calibration_data(str(tmp_path / "d.py"), typed(FIXED))
    assert batches.size is None
    assert [[float(batch.feeds["x"][0, 0]) for batch in batches] for _ in range(2)] == [[2, 4], [2, 4]]


def test_python_objects_are_read_again_and_again() -> None:
    given = [ids(1, seed=seed) for seed in range(3)]
    listed, called = (calibration_data(one, typed(BERT)) for one in (given, lambda: iter(given)))
    assert (listed.size, called.size) == (3, None)
    assert [batch.key for batch in listed] == [batch.key for batch in called] == [batch.key for batch in called]


def test_numbers_are_converted_where_they_stay_what_they_are_and_it_is_said() -> None:
    narrow = {name: array.astype(np.int32) for name, array in ids(2).items()}
    batches = calibration_data([narrow], typed(BERT))
    assert {array.dtype.name for batch in batches for array in batch.feeds.values()} == {"int64"}
    assert batches.notes == tuple(f"the input '{name}' is given as int32 and read as int64" for name in ("ids", "mask"))
    double = calibration_data([{"image": np.ones((1, 3, 8, 8))}], typed(IMAGE))
    assert [batch.feeds["image"].dtype for batch in double] == [np.float32]
    fails([{"ids": np.full((1, 5), 2**40), "mask": ids(1)["mask"]}], BERT.replace("int64", "int32"), "GO116")
    fails([{"image": np.ones((1, 3, 8, 8), np.uint8)}], IMAGE, "GO116")


def test_a_key_is_of_the_contents() -> None:
    def keys(*feeds: dict[str, Any]) -> list[str]:
        return [batch.key for batch in calibration_data(list(feeds), typed(BERT))]

    one = ids(1)
    same, moved = (
        keys(one, dict(reversed(one.items()))),
        keys(one, {**one, "ids": one["ids"] + np.eye(1, 5, dtype=int)}),
    )
    assert same[0] == same[1]
    assert moved[0] != moved[1]
    assert len(set(keys({**one, "ids": one["ids"].reshape(5, 1), "mask": one["mask"].reshape(5, 1)}, one))) == 2


# ---- splits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
def test_half_is_for_calibration_and_a_quarter_each_for_search_and_holdout(known: bool) -> None:
    given = [ids(1, seed=seed) for seed in range(9)]
    batches = calibration_data(given if known else lambda: given, typed(BERT))
    split = batches.split()
    parts = [[batch.number for batch in part] for part in (split.calibration, split.search, split.holdout)]
    assert parts == [[0, 2, 4, 6, 8], [1, 5], [3, 7]]
    # Where nobody knows how many there are, the pass has told.
    assert [part.size for part in (split.calibration, split.search, split.holdout)] == [5, 2, 2]
    assert split.note == ""


@pytest.mark.parametrize(("count", "told"), [(1, "there is only one batch"), (3, "there are only 3 batches")])
def test_few_batches_serve_all_purposes_and_it_is_said(count: int, told: str) -> None:
    split = calibration_data([ids(1, seed=seed) for seed in range(count)], typed(BERT)).split()
    assert split.note.startswith(told)
    assert [[batch.number for batch in part] for part in (split.calibration, split.search, split.holdout)] == [
        list(range(count))
    ] * 3


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_what_is_no_calibration_data(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npz.npy", np.ones(3))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty").mkdir()
    assert "no such" in fails(tmp_path / "absent.npz", BERT, "GO115").message
    assert "no .npz file" in fails(tmp_path / "empty", BERT, "GO115").message
    assert "only once" in fails(iter([ids(1)]), BERT, "GO115").message
    assert "no calibration data" in fails(3, BERT, "GO115").message
    assert "no .npz archive" in fails(tmp_path / "text.npz", BERT, "GO024").message
    assert "one array" in fails(tmp_path / "array.npz.npy", BERT, "GO024").message
    fails([], BERT, "GO118")
    fails({}, BERT, "GO118")
    fails({"ids": np.zeros((0, 5), np.int64), "mask": np.zeros((0, 5), np.int64)}, BERT, "GO118")


def test_names_shapes_and_types_that_do_not_fit() -> None:
    one = ids(1)
    error = fails([{"idss": one["ids"], "mask": one["mask"]}], BERT, "GO116")
    assert (error.where, error.hint) == ("calibration data: batch 0", "did you mean ids?")
    assert "'mask' int64[B, S]" in fails([{"ids": one["ids"]}], BERT, "GO116").message
    assert "'B' is 1" in fails([{**one, "mask": ids(2)["mask"]}], BERT, "GO116").hint
    assert "2 dimensions" in fails([{**one, "ids": one["ids"][0]}], BERT, "GO116").hint
    assert "float64" in fails([{**one, "ids": one["ids"] * 0.5}], BERT, "GO116").message
    assert "no array" in fails([{**one, "ids": [[1, 2], [3]]}], BERT, "GO116").message
    assert "a batch is a list" in fails([[1, 2]], BERT, "GO116").message
    assert "'ids' 3, 'mask' 2" in fails({"ids": ids(3)["ids"], "mask": ids(2)["mask"]}, BERT, "GO116").message


def test_numbers_that_are_none(tmp_path: Path) -> None:
    bad = images(4)
    bad["image"][2, 0, 0, 0] = np.nan
    error = fails(bad, IMAGE, "GO117")
    assert (error.message, error.where) == (
        "the input 'image' has NaN: 1 of 192 numbers",
        "calibration data: sample 2",
    )
    assert "infinities" in fails([{"image": np.full((1, 3, 8, 8), 1e300)}], IMAGE, "GO117").message
    assert "is empty: 'ids' has the shape [0, 5]" in fails([ids(1), ids(0)], BERT, "GO117").message
    assert "is empty" in fails([ids(2, 0)], BERT, "GO117").message


def test_infinities_belong_into_an_additive_mask() -> None:
    feed = {"x": np.ones((1, 2, 3, 4), np.float32), "m": np.triu(np.full((1, 1, 3, 3), -np.inf, np.float32), 1)}
    assert len(list(calibration_data([feed], typed(ADDED)))) == 1
    fails([{**feed, "m": feed["m"] * np.float32(np.nan)}], ADDED, "GO117")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", ids=np.array([{}, {}], object), mask=np.ones((2, 5), np.int64))
    assert "not unpickled" in fails(tmp_path / "d.npz", BERT, "GO024").message


def test_an_archive_that_ends_early_or_is_damaged(tmp_path: Path) -> None:
    whole = io.BytesIO()
    np.save(whole, ids(4)["ids"])
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as archive:
        archive.writestr("ids.npy", whole.getvalue()[:-8])
        archive.writestr("mask.npy", whole.getvalue())
    assert "ends before its last sample" in fails(tmp_path / "short.npz", BERT, "GO024").message
    np.savez(tmp_path / "d.npz", **ids(400))
    data = bytearray((tmp_path / "d.npz").read_bytes())
    data[1000] ^= 0xFF
    (tmp_path / "d.npz").write_bytes(data)
    assert "CRC" in fails(tmp_path / "d.npz", BERT, "GO024").message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1", "no function batches()"),
        ("def batch(): pass", "no function batches()"),
        ("import nothing_of_the_kind", "cannot be imported: ModuleNotFoundError"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit"),
        ("def batches(): return 3", "batch 0 cannot be had"),
        (
            "def batches():\n  raise ValueError('no disk')\n  yield",
            "batch 0 cannot be had, nor what follows: ValueError",
        ),
    ],
)
def test_a_python_file_that_fails(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "d.py").write_text(text)
    error = fails(tmp_path / "d.py", BERT, "GO119")
    assert told in error.message
    assert error.where == str(tmp_path / "d.py")


# ---- bad batches among good ones -------------------------------------------------------------------------------------


def test_a_bad_batch_is_left_out_only_if_asked_and_stays_out(tmp_path: Path) -> None:
    for number in range(5):
        np.savez(tmp_path / f"{number}.npz", **ids(1, seed=number))
    (tmp_path / "1.npz").write_text("damaged")
    np.savez(tmp_path / "3.npz", **ids(0))
    assert fails(tmp_path, BERT, "GO024").where == str(tmp_path / "1.npz")
    batches = calibration_data(tmp_path, typed(BERT), skip_bad=True)
    for _ in range(2):
        assert [batch.name for batch in batches] == ["0.npz", "2.npz", "4.npz"]
        assert [error.code for error in batches.skipped] == ["GO024", "GO117"]


def test_a_generator_that_raises_ends_there() -> None:
    def batches() -> Iterator[dict[str, Any]]:
        yield ids(1)
        yield ids(2)
        raise OSError("the disk is gone")

    model = typed(BERT)
    with pytest.raises(ModelError, match="batch 2 cannot be had, nor what follows: OSError: the disk is gone"):
        list(calibration_data(batches, model))
    kept = calibration_data(batches, model, skip_bad=True)
    assert len(list(kept)) == 2
    assert len(kept.skipped) == 1


def test_only_bad_batches_are_no_data() -> None:
    error = fails([ids(0), ids(0)], BERT, "GO118", skip_bad=True)
    assert error.hint == "bad ones that were left out: 2"


def test_overridable_initializers_are_fed_only_where_the_data_has_them() -> None:
    model = typed("opset 17\n(x: float32[N, 2], k = float32[2] 2) -> (y) { y = Mul(x, k) }")
    feeds = [batch.feeds for batch in calibration_data([{"x": np.ones((1, 2), np.float32)}], model)]
    assert [list(feed) for feed in feeds] == [["x"]]
