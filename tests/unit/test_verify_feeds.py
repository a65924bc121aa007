"""Inputs that respect what they mean: indices, masks, sizes, the user's own."""

from __future__ import annotations

import functools
import io
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphopt.errors import GraphoptError, InconclusiveError, ModelError, UsageError
from graphopt.ir import Model, dtypes, model_from_proto
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.runtime import RunError
from graphopt.verify.inputs.equations import should_hold
from graphopt.verify.inputs.feeds import Feed, Feeder
from graphopt.verify.inputs.given import given_feed
from graphopt.verify.inputs.meanings import Meaning, meanings
from graphopt.verify.inputs.sizes import Binding, check_names, choose, others
from graphopt.verify.parts import part
from graphopt.verify.results import Options
from graphopt.verify.runs import Runs

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
    found = meanings(parse(f"opset 17\n(x: {declared}) -> ({outputs}) {{ {body} }}"))["x"]
    return replace(found, square=False)


def index(low: int, high: int, wraps: bool = True) -> Meaning:
    return Meaning("index", low, high, wraps=wraps)


TABLE = "float32[50, 4] random(1)"


@pytest.mark.parametrize(
    ("declared", "body", "expected"),
    [
        ("int64[N]", f"y = Gather({TABLE}, x)", index(0, 50)),
        ("int32[N]", f"y = Gather({TABLE}, Cast(Unsqueeze(x, [0]), to=int64), axis=1)", index(0, 4)),
        ("int64[N]", f"y = Gather({TABLE}, Add(x, 2))", index(-2, 48, wraps=False)),
        ("int64[N]", f"y = Gather({TABLE}, Sub(x, 1))", index(1, 51, wraps=False)),
        (
            "int64[N]",
            f"a = Gather({TABLE}, x)\n y = Add(a, Gather(float32[9, 4] random(2), x))",
            index(0, 9),
        ),
        # A comparison with the padding token does not make a mask of tokens.
        ("int64[N]", f"p = Equal(x, 1)\n y = Where(p, 0.0, ReduceSum(Gather({TABLE}, x)))", index(0, 50)),
        ("int64[B, S]", "y = Mul(Sub(1.0, Cast(x, to=float32)), -10000.0)", Meaning("mask")),
        ("float32[B, S]", "y = Mul(Sub(1.0, x), -10000.0)", Meaning("mask")),
        ("int64[B, S]", "y = Where(Cast(x, to=bool), 0.0, -inf)", Meaning("mask")),
        # Exporters gather from masks by computed places: the mask is data there, not indices.
        ("int64[B, S]", "f = Cast(Flatten(x), to=bool)\n g = Gather(f, [0], axis=1)\n y = Not(g)", Meaning("mask")),
        ("bool[N]", "y = Identity(x)", Meaning("mask")),
        ("float32[B, S]", "y = Exp(x)", Meaning("number")),
        ("float32[B, S, S]", "s = MatMul(x, x)\n y = Exp(s)", Meaning("number")),
        ("int64[]", "y = Range(0, x, 1)", index(4, 10, wraps=False)),
        ("string[N]", "y = Identity(x)", Meaning("text")),
    ],
)
def test_meanings_follow_from_use(declared: str, body: str, expected: Meaning) -> None:
    assert meaning(declared, body) == expected


def fed(declared: str, body: str, header: str = "", **sizes: int) -> Any:
    """What `x` is fed in the plain feed of a model that is `body`, with these sizes."""
    model = parse(f"opset 18\n(x: {declared}{header}) -> (y) {{ {body} }}")
    infer(model)
    return Feeder(model, 0).feed("plain", sizes).arrays["x"]


DATA = ", d: float32[B, S, 6]"


@pytest.mark.parametrize(
    ("declared", "body", "low", "high"),
    [
        # The rows of the table are a size of another input.
        ("int64[50]", "y = Gather(d, x, axis=1)", 0, 7),
        ("int64[50]", "y = Gather(d, Add(Mul(x, 2), 1), axis=2)", 0, 2),
        ("int64[50]", "y = Gather(d, Sub(5, x), axis=2)", 0, 5),
        ("int64[50]", "y = Gather(d, Clip(x, 0, 5), axis=2)", -3, 8),
        ("int64[50]", "y = Gather(d, Where(Equal(x, 77), 0, Max(x, 1)), axis=1)", 0, 7),
        ("int32[50]", "s = Identity(x)\n y = Gather(d, Concat(Cast(s, to=int64), [1], axis=0), axis=2)", 0, 5),
        ("int64[3, 7, 50]", "y = GatherElements(d, x, axis=2)", 0, 5),
        ("int64[50, 2]", "y = GatherND(d, x)", 0, 7),
        ("int64[50]", "y = ReverseSequence(Transpose(d, perm=[1, 0, 2]), x)", 1, 8),
        ("int64[50]", "y = OneHot(x, 6, [0.0, 1.0])", None, None),
        ("int64[50]", "p = Unsqueeze(Range(0, 9, 1), [0])\n y = Less(p, Unsqueeze(x, [1]))", 1, 9),
        ("int32[50]", "y = Div(7, x)", 1, 7),
        ("int64[1]", "y, i = TopK(d, x, axis=1)", 1, 7),
        ("int64[]", "y = CumSum(d, x)", 0, 2),
    ],
)
def test_ranges_follow_from_use(declared: str, body: str, low: int | None, high: int | None) -> None:
    found = fed(declared, body, DATA, B=8, S=8)
    if low is None:
        assert (found < 0).any()
    elif found.size > 1:
        assert (found.min(), found.max()) == (low, high)
    else:
        assert low <= found.min() <= high


def test_both_ends_of_a_range_are_there() -> None:
    found = fed("int64[8]", "y = Gather(float32[5000, 1] random(1), x)")
    assert (found.min(), found.max()) == (0, 4999)


def test_ranges_are_seen_in_subgraphs_and_functions() -> None:
    branch = "{ p = Gather(d, x, axis=2) }"
    body = f"y = If(Identity(true), then_branch=() -> (p) {branch}, else_branch=() -> (p) {branch})"
    assert fed("int64[50]", body, DATA, B=2, S=3).max() == 5
    model = parse("""opset 18, my 1\n(x: int64[50], d: float32[S, 6]) -> (y) { y = my.Pick(d, x) }
        function my.Pick(table, i) -> (z) { z = Gather(table, i) }""")
    infer(model)
    assert Feeder(model, 0).feed("plain", {"S": 4}).arrays["x"].max() == 3


@pytest.mark.parametrize(
    ("declared", "body", "expected"),
    [
        ("int64[2]", "y = Reshape(d, x)", [8, -1]),
        ("int64[3]", "y = Expand(d, x)", [8, 3, 6]),
        ("int64[1]", "y = Squeeze(Unsqueeze(d, [1]), x)", [1]),
        ("int64[1]", "y = ReduceSum(d, x)", [2]),
        ("int64[2]", "y = Split(d, x, axis=2)", [3, 3]),
        ("int64[1]", "y = Slice(d, x, [9], [2])", [0]),
        ("int64[1]", "y = Slice(d, [0], x, [2])", [6]),
        ("float32[3]", "y = Resize(d, _, x)", [1, 1, 2]),
    ],
)
def test_shapes_are_such_that_their_reader_takes_them(declared: str, body: str, expected: list[int]) -> None:
    assert fed(declared, body, DATA, B=8, S=3).tolist() == expected


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64"])
def test_integers_that_are_counted_with_have_both_signs_and_once_the_whole_range(dtype: str) -> None:
    model = parse(f"opset 18\n(x: {dtype}[N]) -> (y) {{ y = Add(x, x) }}")
    feeds = {feed.kind: feed.arrays["x"] for feed in Feeder(model, 0).feeds([{"N": 64}])}
    info = np.iinfo(dtype)
    assert (feeds["whole range"].min(), feeds["whole range"].max()) == (info.min, info.max)
    assert (feeds["plain"].min() < 0) == (info.min < 0)
    assert feeds["plain"].max() < 10


def test_what_may_be_a_size_stays_small() -> None:
    model = parse("opset 18\n(x: int64[3]) -> (y) { y = Expand(1.0, Mul(Mul(x, x), Sub(x, x))) }")
    infer(model)
    assert all(abs(feed.arrays["x"]).max() < 10 for feed in Feeder(model, 0).all_feeds([{}]))


def test_indices_count_from_the_end_in_one_feed_where_they_may() -> None:
    def least(body: str) -> int:
        model = parse(f"opset 18\n(x: int64[50]) -> (y) {{ y = {body} }}")
        return min(int(feed.arrays["x"].min()) for feed in Feeder(model, 0).feeds([{}]))

    assert -50 <= least(f"Gather({TABLE}, x)") < 0
    assert least(f"Gather({TABLE}, Sub(x, 1))") == 1


def test_a_mask_that_is_added_to_scores_is_additive() -> None:
    model = parse("""opset 17\n(q: float32[B, S, 4], k: float32[B, 4, S], m: float32[B, S, S]) -> (y) {
      s = Mul(MatMul(q, k), 0.5)\n y = Softmax(Add(s, m), axis=-1) }""")
    assert {name: found.kind for name, found in meanings(model).items()} == {"q": "number", "k": "number", "m": "bias"}


def test_captured_inputs_are_followed_into_subgraphs() -> None:
    branch = f"{{ p = Gather({TABLE}, x) }}"
    body = f"y = If(Identity(true), then_branch=() -> (p) {branch}, else_branch=() -> (p) {branch})"
    assert meaning("int64[N]", body) == index(0, 50)


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


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("Where(x, d, -inf)", 1),
        ("Where(x, -inf, d)", 0),
        ("Where(Not(x), -inf, d)", 1),
        ("Add(d, Mul(Cast(x, to=float32), -10000.0))", 0),
        ("Add(d, Mul(Sub(1.0, Cast(x, to=float32)), -10000.0))", 1),
    ],
)
def test_a_full_mask_lets_everything_through(body: str, kept: int) -> None:
    model = parse(f"opset 18\n(x: bool[B, S], d: float32[B, S]) -> (y) {{ y = {body} }}")
    assert set(Feeder(model, 0).feed("full", {"B": 2, "S": 9}).arrays["x"].astype(int).flatten()) == {kept}


def test_a_mask_over_one_sequence_is_causal_too_and_rows_of_masks_differ() -> None:
    model = parse("opset 18\n(x: bool[S, S], d: float32[S, S]) -> (y) { y = Where(x, d, -inf) }")
    feeds = {feed.kind: feed.arrays["x"] for feed in Feeder(model, 0).feeds([{"S": 5}])}
    assert (feeds["causal"] == np.tri(5, dtype=bool)).all()
    for kind in ("right-padded", "left-padded", "holes"):
        assert len({row.tobytes() for row in feeds[kind]}) > 1


def test_thorough_feeds_hold_numbers_of_every_kind() -> None:
    model = parse("opset 18\n(x: float32[B, S]) -> (y) { y = Exp(x) }")
    bindings = [{"B": 4, "S": 32}, {"B": 3, "S": 7}, {"B": 1, "S": 1}, {"B": 0, "S": 7}]
    feeds = Feeder(model, 0).all_feeds(bindings)
    assert len(feeds) <= 25
    assert {feed.arrays["x"].shape for feed in feeds} == {tuple(sizes.values()) for sizes in bindings}
    found = {feed.kind: feed.arrays["x"] for feed in feeds}
    assert (found["negative"] < 0).all()
    assert not found["zeros"].any()
    assert (np.ptp(found["constant rows"], axis=1) == 0).all()
    assert len(np.unique(found["ties"])) <= 4
    assert np.abs(found["tiny"]).max() < 1e-3
    assert np.abs(found["large"]).max() > 1e3
    assert found["offset"].min() > 1e3
    special = {feed.kind: feed.arrays["x"] for feed in feeds if feed.special}
    assert special.keys() == {"nan", "infinities", "negative zeros"}
    assert 0 < np.isnan(special["nan"]).mean() < 0.5
    assert {np.inf, -np.inf} <= set(special["infinities"].flatten())
    assert (np.signbit(special["negative zeros"]) & (special["negative zeros"] == 0)).any()
    assert all(np.isfinite(feed.arrays["x"]).all() for feed in feeds if not feed.special)


@pytest.mark.parametrize(
    ("body", "low", "high"),
    [("Log(x)", 0, np.inf), ("Sqrt(Identity(x))", 0, np.inf), ("Acosh(x)", 1, np.inf), ("Pow(x, 0.5)", 0, np.inf)],
)
def test_plain_numbers_lie_where_the_reader_is_defined(body: str, low: float, high: float) -> None:
    plain = fed("float32[200]", f"y = {body}")
    assert low < plain.min()
    assert plain.max() < high
    assert fed("float32[200]", "y = Pow(x, 3.0)").min() < 0


def test_what_is_no_tensor_of_numbers_is_made_too() -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]>
        g (seq(float[N]) s, optional(float[2]) o, map(int64, float) m, string[40] t) => (int64 n) {
            n = SequenceLength(s) }""")
    feeds = Feeder(model_from_proto(proto), 0).all_feeds([{"N": 5}])
    assert {len(feed.arrays["s"]) for feed in feeds} >= {2, 3}
    assert {feed.arrays["o"] is None for feed in feeds} == {True, False}
    assert feeds[0].arrays["s"][0].shape == (5,)
    assert all(isinstance(key, int) for key in feeds[0].arrays["m"])
    texts = set(feeds[0].arrays["t"])
    assert "" in texts
    assert any(not text.isascii() for text in texts)
    assert len(texts) < 40
    assert feeds[0].records()[0].dtype == "sequence(float32)"


def test_feeds_are_the_same_every_time_and_differ_by_seed() -> None:
    def ids(seed: int) -> Any:
        return Feeder(parse(BERT), seed).feeds([{"B": 2, "S": 16}])[0].arrays["ids"].tolist()

    assert ids(0) == ids(0) != ids(1)


def test_an_overridable_initializer_has_its_default_but_for_one_run() -> None:
    model = parse("opset 17\n(x: float32[N], w = float32[2] {1, 2}) -> (y) { y = Mul(ReduceSum(x), w) }")
    values = {feed.kind: feed.arrays["w"].tolist() for feed in Feeder(model, 0).feeds([{"N": 3}])}
    assert [kind for kind, value in values.items() if value != [1, 2]] == ["overridden"]
    assert len(values) > 1


def test_overridable_integers_get_other_values_apart_from_the_rest() -> None:
    model = parse(
        f"opset 17\n(i = int64[2] {{3, 9}}, w = float32[4] random(1)) -> (y) {{ y = Add(Gather({TABLE}, i), w) }}"
    )
    feeds = {feed.kind: feed.arrays for feed in Feeder(model, 0).feeds([{}])}
    assert feeds["overridden"]["i"].tolist() == [3, 9]
    assert feeds["overridden integers"]["i"].tolist() == [4, 10]
    assert (feeds["overridden integers"]["w"] == feeds["plain"]["w"]).all()


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


def test_names_that_lead_shapes_get_different_sizes_where_they_may() -> None:
    for sizes in chosen(model_of("a, b", "b, a"), lambda **sizes: True):
        assert len(set(sizes.values())) == 2
    assert chosen(model_of("a, s", "b, s"), lambda a, b, s: a == b)[0] == {"a": 2, "b": 2, "s": 16}


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


@pytest.mark.parametrize(
    ("inputs", "body", "expected"),
    [
        ("x: float32[N]", "y = Reshape(x, [5, 5])", {"N": 25}),
        ("x: float32[B, K]", "y = MatMul(x, float32[12, 3] random(1))", {"K": 12}),
        ("x: float32[B, C, H, W]", "y = Conv(x, float32[8, 3, 1, 1] random(1))", {"C": 3}),
        ("x: float32[B, K], b: float32[M]", "y = Add(MatMul(x, float32[12, 3] random(1)), b)", {"K": 12, "M": 3}),
        ("x: float32[B, S], p: float32[B, P], t: float32[B, T]", "y = Add(Concat(p, x, axis=1), t)", {"T": ("S", "P")}),
        ("x: float32[10, 20], o: float32[N]", "y = Reshape(x, Concat([1, 4], Shape(o), axis=0))", {"N": 50}),
        ("x: float32[B, S], m: float32[B, T]", "y = Mul(x, m)", {"T": ("S",)}),
    ],
)
def test_sizes_are_read_from_the_graph(inputs: str, body: str, expected: dict[str, Any]) -> None:
    model = parse(f"opset 17\n({inputs}) -> (y) {{ {body} }}")
    infer(model)
    for binding in [*choose(model, {}, lambda binding: None)[:1], *(group[0] for group in others(model, {}, []))]:
        for name, size in expected.items():
            assert binding[name] == (size if isinstance(size, int) else sum(binding[part] for part in size))


def test_more_sizes_are_one_an_odd_prime_and_none() -> None:
    found = list(others(model_of("b, s", "b, s"), {}, []))
    assert {(group[0]["b"], group[0]["s"]) for group in found} == {(1, 1), (1, 31), (0, 7), (2, 0)}
    assert {"b": 1, "s": 13} in found[1]
    assert not list(others(model_of("2"), {}, []))


def test_sizes_that_would_not_fit_into_memory_are_not_tried() -> None:
    for binding in chosen(model_of("b, c, d, e, f, g, h"), lambda **sizes: True):
        assert np.prod(list(binding.values())) < 1 << 23
    assert chosen(model_of("n, m"), lambda **sizes: True, n=1 << 20)[0]["n"] == 1 << 20


def test_one_size_that_works_is_enough() -> None:
    assert chosen(model_of("n"), lambda n: n == 1) == [{"n": 1}]


def test_no_size_at_all_is_said_as_the_command_line_says_it(tmp_path: Path) -> None:
    model = model_of("N")
    model.path = Path("model.onnx")
    message = (
        "Non-zero status code returned while running Reshape node. Name:'Reshape_12' Status Message: x {7} {1,200}"
    )
    with pytest.raises(InconclusiveError) as raised:
        choose(model, {}, lambda binding: RunError("run", "FAIL", message))
    assert str(raised.value) == (
        "error[GO012]: no size of the dimension 'N' of input 'x0' makes the model run "
        "(tried 1, 2, 3, 6, 7, 16, 32, 64, 128)\n"
        "  --> model.onnx: node 'Reshape_12' (Reshape)\n"
        "  hint: pass --dim N=200"
    )

    with pytest.raises(InconclusiveError, match=r"tried 9 choices of sizes from 1 to 17\)"):
        choose(model_of("N, 9000", "M, 9000"), {}, lambda binding: RunError("run", "FAIL", message))


# ---- the user's own ------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {"ids": np.zeros((2, 3), np.int64), "mask": np.ones((2, 3), np.int64)}


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


def zipped(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def spoilt() -> bytes:
    """An archive whose compressed data is damaged."""
    file = io.BytesIO()
    np.savez_compressed(file, ids=np.random.default_rng(0).normal(size=999))
    content = bytearray(file.getvalue())
    content[200:260] = bytes(60)
    return bytes(content)


def flat_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


def of_header(shape: str) -> bytes:
    """An archive whose array `ids` is said to be of this shape, and has no numbers."""
    text = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return of_members(ids=np.lib.format.magic(1, 0) + len(text).to_bytes(2, "little") + text)


def of_members(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


@functools.cache
def bomb() -> bytes:
    """An archive of 300 kB that unpacks to 300 MB."""
    return of_members(ids=flat_array(), more=bytes(300_000_000))


def test_a_pipe_is_no_file_of_inputs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "inputs.npz")
    with pytest.raises(ModelError, match="not a regular file"):
        given_feed(parse(BERT), tmp_path / "inputs.npz")


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (None, UsageError, "no such file"),
        (b"", ModelError, "cannot be read"),
        (b"PK\x03\x04 garbage", ModelError, "cannot be read"),
        (b"text", ModelError, "the file is no .npz archive"),
        (zipped(**GOOD)[:-40], ModelError, "cannot be read"),
        (zipped(**GOOD).replace(b"\x01\0\0\0", b"\x07\0\0\0"), ModelError, "cannot be read"),
        (spoilt(), ModelError, "cannot be read"),
        (flat_array(), ModelError, "one array, not an archive"),
        (zipped(), UsageError, "no array for the input 'ids'"),
        (zipped(ids=np.array([None], object)), ModelError, "the array 'ids' cannot be read: Object arrays"),
        (of_header("(1099511627776, 64)"), ModelError, "cannot be read"),
        (of_header("(True, 64)"), ModelError, "cannot be read"),
        (of_header("-" * 9000 + "1"), ModelError, "cannot be read"),
        (bomb(), ModelError, "unpack to 300,000,"),
    ],
)
def test_files_that_cannot_be_read_are_named(
    tmp_path: Path, content: bytes | None, kind: type[GraphoptError], message: str
) -> None:
    path = tmp_path / "inputs.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(kind, match=message) as raised:
        given_feed(parse(BERT), path)
    assert raised.value.where == str(path)


def test_types_that_numpy_lacks_and_strings_are_taken(tmp_path: Path) -> None:
    model = parse("opset 17\n(x: bfloat16[2], t: string[2]) -> (y) { y = Identity(x) }")
    bfloat16 = dtypes.to_numpy(dtypes.BFLOAT16)
    np.savez(tmp_path / "x.npz", x=np.array([1, 2], bfloat16), t=np.array(["a", "bc"]))
    arrays = given_feed(model, tmp_path / "x.npz").arrays
    assert arrays["x"].dtype == bfloat16
    assert arrays["x"].tolist() == [1, 2]
    assert arrays["t"].dtype == object
    with pytest.raises(UsageError, match="'t' is string"):
        given_feed(model, {"x": np.zeros(2, bfloat16), "t": np.zeros(2)})


# ---- what runs -----------------------------------------------------------------------------------------------------


def that_run(text: str, thorough: bool = False) -> list[Feed]:
    """The feeds that a model runs."""
    model = parse(text)
    with Runs(model, Options()) as runs:
        session = part(model, model.graph.outputs, runs.weights).load(runs.runner, "the model")
        return runs.feeds(session, thorough)


def test_one_feed_has_all_sizes_one() -> None:
    shapes = [feed.arrays["x"].shape for feed in that_run("opset 18\n(x: float32[B, S]) -> (y) { y = Abs(x) }")]
    assert shapes.count((1, 1)) == 1


def test_what_the_model_refuses_is_left_out() -> None:
    # Numbers from the whole range are no indices, and there is no 17th row.
    text = "opset 18\n(x: int64[N]) -> (y) { h = Abs(x)\n y = Gather(float32[5, 2] random(1), Mod(Add(h, x), 16)) }"
    kinds = [feed.kind for feed in that_run(text)]
    assert "plain" in kinds
    assert "whole range" not in kinds


def test_an_integer_division_by_zero_is_no_bad_size() -> None:
    text = "opset 18\n(x: int64[N], z: int64[N]) -> (y) { y = Div(x, Mul(z, z)) }"
    assert {feed.arrays["x"].shape for feed in that_run(text)} == {(16,), (7,), (1,)}


def test_an_input_of_which_no_range_is_known_is_asked_for_by_name() -> None:
    text = "opset 18\n(d: float32[4], k: int64[1]) -> (y) { h = Sub(Mul(k, k), [90])\n y, i = TopK(d, h) }"
    with pytest.raises(InconclusiveError) as raised:
        that_run(text)
    assert raised.value.code == "GO017"
    assert raised.value.message.startswith("the range of the input 'k' cannot be told: it is read by TopK 'y' as K (")
    assert "--inputs" in raised.value.hint


def test_what_is_added_to_something_empty_does_not_empty_the_model() -> None:
    found = parse("opset 17\n(x: float32[M, K]) -> (y, z) { y = Abs(x)\n z = Add(x, float32[0] random(1)) }")
    infer(found)
    assert should_hold(found) == []
