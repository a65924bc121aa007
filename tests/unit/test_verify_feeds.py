"""Inputs that respect what they mean: indices, masks, sizes, the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphopt.errors import GraphoptError, InconclusiveError, ModelError, UsageError
from graphopt.ir import Model
from graphopt.ir.text import parse
from graphopt.runtime import RunError
from graphopt.verify.feeds import Feed, Feeder, given_feed
from graphopt.verify.meanings import Meaning, meanings
from graphopt.verify.sizes import Binding, check_names, choose

BERT = """
opset 17
(ids: int64[B, S], mask: int64[B, S]) -> (y) {
  table = float32[100, 8] random(1)
  h = Gather(table, ids)
  m = Cast(Sub(1, mask), to=float32)
  bias = Mul(Unsqueeze(m, [1]), -3.4e38)
  s = MatMul(h, Transpose(h, perm=[0, 2, 1]))
  y = Softmax(Add(s, bias), axis=-1)
}
"""


def meaning(declared: str, body: str, outputs: str = "y") -> Meaning:
    """What `x` is taken for in a model that is `body`."""
    return meanings(parse(f"opset 17\n(x: {declared}) -> ({outputs}) {{ {body} }}"))["x"]


TABLE = "float32[50, 4] random(1)"


@pytest.mark.parametrize(
    ("declared", "body", "expected"),
    [
        ("int64[N]", f"y = Gather({TABLE}, x)", Meaning("index", 0, 50)),
        ("int32[N]", f"y = Gather({TABLE}, Cast(Unsqueeze(x, [0]), to=int64), axis=1)", Meaning("index", 0, 4)),
        ("int64[N]", f"y = Gather({TABLE}, Add(x, 2))", Meaning("index", 0, 48)),
        ("int64[N]", f"y = Gather({TABLE}, Sub(x, 1))", Meaning("index", 1, 51)),
        (
            "int64[N]",
            f"a = Gather({TABLE}, x)\n y = Add(a, Gather(float32[9, 4] random(2), x))",
            Meaning("index", 0, 9),
        ),
        # A comparison with the padding token does not make a mask of tokens.
        ("int64[N]", f"p = Equal(x, 1)\n y = Where(p, 0.0, ReduceSum(Gather({TABLE}, x)))", Meaning("index", 0, 50)),
        ("int64[B, S]", "y = Mul(Sub(1.0, Cast(x, to=float32)), -10000.0)", Meaning("mask")),
        ("float32[B, S]", "y = Mul(Sub(1.0, x), -10000.0)", Meaning("mask")),
        ("int64[B, S]", "y = Where(Cast(x, to=bool), 0.0, -inf)", Meaning("mask")),
        # Exporters gather from masks by computed places: the mask is data there, not indices.
        ("int64[B, S]", "f = Cast(Flatten(x), to=bool)\n g = Gather(f, [0], axis=1)\n y = Not(g)", Meaning("mask")),
        ("bool[N]", "y = Identity(x)", Meaning("mask")),
        ("float32[B, S]", "y = Exp(x)", Meaning("number")),
        ("float32[B, S, S]", "s = MatMul(x, x)\n y = Exp(s)", Meaning("number")),
        ("int64[]", "y = Range(0, x, 1)", Meaning("count")),
        ("string[N]", "y = Identity(x)", Meaning("text")),
    ],
)
def test_meanings_follow_from_use(declared: str, body: str, expected: Meaning) -> None:
    assert meaning(declared, body) == expected


def test_a_mask_that_is_added_to_scores_is_additive() -> None:
    model = parse("""opset 17\n(q: float32[B, S, 4], k: float32[B, 4, S], m: float32[B, S, S]) -> (y) {
      s = Mul(MatMul(q, k), 0.5)\n y = Softmax(Add(s, m), axis=-1) }""")
    assert {name: found.kind for name, found in meanings(model).items()} == {"q": "number", "k": "number", "m": "bias"}


def test_captured_inputs_are_followed_into_subgraphs() -> None:
    branch = f"{{ p = Gather({TABLE}, x) }}"
    body = f"y = If(Identity(true), then_branch=() -> (p) {branch}, else_branch=() -> (p) {branch})"
    assert meaning("int64[N]", body) == Meaning("index", 0, 50)


def bert_feeds(bindings: list[Binding]) -> dict[str, Feed]:
    return {feed.kind: feed for feed in Feeder(parse(BERT), 0).feeds(bindings)}


def test_masks_take_every_form_and_indices_stay_in_range() -> None:
    feeds = bert_feeds([{"B": 2, "S": 16}, {"B": 3, "S": 7}])
    assert {feed.arrays["mask"].shape for feed in feeds.values()} == {(2, 16), (3, 7)}
    for kind, feed in feeds.items():
        ids, mask = feed.arrays["ids"], feed.arrays["mask"]
        assert ids.dtype == mask.dtype == np.int64
        assert 0 <= ids.min() <= ids.max() < 100
        assert set(np.unique(mask)) <= {0, 1}
        steps = np.diff(mask, axis=1)
        match kind:
            case "full":
                assert mask.all()
            case "right-padded":
                assert (steps <= 0).all()
                assert (mask[:, -1] == 0).all()
            case "left-padded":
                assert (steps >= 0).all()
                assert (mask[:, 0] == 0).all()
            case "holes":
                assert (steps > 0).any()
                assert mask.any(axis=1).all()
            case "empty row":
                assert mask.any(axis=1).tolist() == [True] * (len(mask) - 1) + [False]
    assert set(feeds) == {"full", "right-padded", "left-padded", "holes", "empty row"}


def test_a_mask_of_rank_4_is_causal_once_and_an_additive_one_has_the_lowest_float() -> None:
    model = parse("""opset 17\n(q: float32[B, 2, S, 4], m: float32[B, 1, S, S]) -> (y) {
      s = MatMul(q, Transpose(q, perm=[0, 1, 3, 2]))\n y = Softmax(Add(s, m), axis=-1) }""")
    feeds = {feed.kind: feed.arrays["m"] for feed in Feeder(model, 0).feeds([{"B": 2, "S": 5}])}
    lowest = np.finfo(np.float32).min
    assert (feeds["causal"][1, 0] == np.where(np.tri(5), 0, lowest)).all()
    assert (feeds["empty row"][-1] == lowest).all()
    assert (feeds["full"] == 0).all()


def test_feeds_are_the_same_every_time_and_differ_by_seed() -> None:
    def ids(seed: int) -> Any:
        return Feeder(parse(BERT), seed).feeds([{"B": 2, "S": 16}])[0].arrays["ids"].tolist()

    assert ids(0) == ids(0) != ids(1)


def test_an_overridable_initializer_has_its_default_but_for_one_run() -> None:
    model = parse("opset 17\n(x: float32[N], w = float32[2] {1, 2}) -> (y) { y = Mul(ReduceSum(x), w) }")
    values = {feed.kind: feed.arrays["w"].tolist() for feed in Feeder(model, 0).feeds([{"N": 3}])}
    assert [kind for kind, value in values.items() if value != [1, 2]] == ["overridden"]
    assert len(values) > 1


def test_the_report_says_what_was_fed() -> None:
    record = bert_feeds([{"B": 2, "S": 16}])["holes"].records()[1]
    assert (record.name, record.shape, record.dtype) == ("mask", (2, 16), "int64")
    assert record.kind == "mask, holes"


@pytest.mark.parametrize("declared", ["float32", "?"])
def test_inputs_that_cannot_be_made_are_named(declared: str) -> None:
    with pytest.raises(InconclusiveError, match="'x'") as raised:
        Feeder(parse(f"opset 17\n(x: {declared}) -> (y) {{ y = Identity(x) }}"), 0).feeds([{}])
    assert raised.value.code == "GO017"
    assert "--inputs" in raised.value.hint


# ---- sizes ---------------------------------------------------------------------------------------------------------


def chosen(model: Model, fits: Any, **given: int) -> list[Binding]:
    """What is chosen for a model that runs where `fits` holds."""

    def runs(binding: Binding) -> RunError | None:
        return None if fits(**binding) else RunError("run", "FAIL", "Name:'r' no")

    return choose(model, given, runs)


def model_of(*shapes: str) -> Model:
    inputs = ", ".join(f"x{i}: float32[{shape}]" for i, shape in enumerate(shapes))
    return parse(f"opset 17\n({inputs}) -> (y) {{ y = Neg(x0) }}")


def test_a_name_has_one_size_in_a_run_and_two_in_all() -> None:
    assert chosen(model_of("b, s", "b, s"), lambda **sizes: True) == [{"b": 2, "s": 16}, {"b": 3, "s": 7}]


def test_names_get_different_sizes_where_they_may() -> None:
    first, _ = chosen(model_of("b, s", "b, t"), lambda **sizes: True)
    assert len(set(first.values())) == 3
    first, _ = chosen(model_of("b, s", "b, t"), lambda b, s, t: s == t)
    assert first == {"b": 2, "s": 16, "t": 16}


def test_a_total_is_the_sum_of_its_parts() -> None:
    model = model_of("b, s", "b, past", "b, total")
    first, _ = chosen(model, lambda b, s, past, total: s + past == total)
    assert first["total"] == first["s"] + first["past"]


def test_sums_of_names_are_computed() -> None:
    model = model_of("b, s", "b, p + s")
    feed = Feeder(model, 0).feed("plain", {"b": 2, "s": 3, "p": 4})
    assert feed.arrays["x1"].shape == (2, 7)


def test_what_is_given_stays() -> None:
    assert {sizes["s"] for sizes in chosen(model_of("b, s"), lambda **sizes: True, s=5)} == {5}
    assert chosen(model_of("b, s"), lambda **sizes: True, b=1, s=5) == [{"b": 1, "s": 5}]
    with pytest.raises(UsageError, match=r"GO016.*'seq'") as raised:
        check_names(model_of("b, s"), {"seq": 3})
    assert raised.value.hint


def test_one_size_that_works_is_enough() -> None:
    assert chosen(model_of("n"), lambda n: n == 1) == [{"n": 1}]


def test_no_size_at_all_is_said_as_the_command_line_says_it(tmp_path: Path) -> None:
    model = model_of("N")
    model.path = Path("model.onnx")
    message = (
        "Non-zero status code returned while running Reshape node. Name:'Reshape_12' Status Message: x {7} {1,128}"
    )
    with pytest.raises(InconclusiveError) as raised:
        choose(model, {}, lambda binding: RunError("run", "FAIL", message))
    assert str(raised.value) == (
        "error[GO012]: no size of the dimension 'N' of input 'x0' makes the model run (tried 1, 2, 7, 16)\n"
        "  --> model.onnx: node 'Reshape_12' (Reshape)\n"
        "  hint: pass --dim N=128"
    )


# ---- the user's own ------------------------------------------------------------------------------------------------

GOOD = {"ids": np.zeros((2, 3), np.int64), "mask": np.ones((2, 3), np.int64)}


def test_arrays_and_files_are_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **GOOD)
    for source in (GOOD, tmp_path / "x.npz"):
        feed = given_feed(parse(BERT), source)
        assert feed.arrays.keys() == GOOD.keys()
        assert feed.kinds == {"ids": "given", "mask": "given"}


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"idz": GOOD["ids"]}, "no input 'idz'", "did you mean ids?"),
        ({"mask": None}, r"no array for the input 'mask' int64\[B, S\]", "by its name"),
        ({"ids": np.zeros((2, 3), np.int32)}, r"'ids' is int64\[B, S\], the array given is int32\[2, 3\]", "astype"),
        ({"ids": np.zeros(3, np.int64)}, r"the array given is int64\[3\]", "2 dimensions"),
        ({"ids": np.zeros((2, 4), np.int64)}, "the array given is", "'S' is 4 in another array"),
    ],
)
def test_arrays_that_do_not_fit_are_named(change: dict[str, Any], message: str, hint: str) -> None:
    arrays = {name: array for name, array in {**GOOD, **change}.items() if array is not None}
    with pytest.raises(UsageError, match=message) as raised:
        given_feed(parse(BERT), arrays)
    assert raised.value.code == "GO018"
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    ("content", "kind"), [(None, UsageError), (b"", ModelError), (b"PK\x03\x04 garbage", ModelError)]
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, content: bytes | None, kind: type[GraphoptError]) -> None:
    path = tmp_path / "inputs.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(kind) as raised:
        given_feed(parse(BERT), path)
    assert raised.value.where == str(path)
