"""Every kind of feed, of inputs of every type and shape; what must be in them; and which of them decide."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from graphopt.errors import GraphoptError
from graphopt.ir import dtypes
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.verify import Options, check, compare
from graphopt.verify.inputs import floats
from graphopt.verify.inputs.feeds import _RECIPES, CAUTION, Feeder

SHAPES = ("", "0", "1", "2", "5", "0, 3", "3, 0", "1, 1", "4, 1", "1, 7", "2, 3, 4", "2, 0, 4", "2, 1, 1, 1", "n, m")
READERS = (
    "y = Identity(x)",
    "y = Where(x, 0.0, -inf)",
    "y = Mul(Sub(1.0, Cast(x, to=float32)), -10000.0)",
    "y = Softmax(Add(MatMul(d, d), x), axis=-1)",
    "y = Gather(d, x)",
    "y = Reshape(d, x)",
    "y = Expand(d, x)",
    "y = Slice(d, x, [9])",
    "y = Log(x)",
    "y = Resize(d, _, x)",
    "y = Range(x, 9.0, 0.5)",
    "y = QuantizeLinear(d, x, uint8 0)",
    "y = Unsqueeze(d, x)",
    "y = TopK(d, x)",
    "y = Mod(x, x)",
    "y = Clip(x, -1.0, 1.0)",
    'y = StringNormalizer(x, locale="C", case_change_action="LOWER", stopwords=["B"])',
    "y = Cast(x, to=int64)",
)


@pytest.mark.parametrize("reader", READERS)
def test_a_feed_of_any_type_and_shape_is_made_or_said_not_to_be(reader: str) -> None:
    usual = itertools.product(("float32", "int64", "bool", "string"), SHAPES)
    for dtype, shape in (*usual, *itertools.product(dtypes.NUMBERS, ("", "0", "7"))):
        model = parse(f"opset 20\n(x: {dtype}[{shape}], d: float32[6, 6]) -> (y) {{ {reader} }}")
        infer(model)
        feeder = Feeder(model, 0)
        feeder.caution = len(shape) % (CAUTION + 1)
        bindings = [{"n": 3, "m": 7}, {"n": 0, "m": 7}, {"n": 2, "m": 0}] if "n" in shape else [{}]
        for number, (kind, binding) in enumerate(itertools.product(_RECIPES, bindings)):
            try:
                fed = feeder.feed(kind, binding, number).arrays["x"]
            except GraphoptError:
                continue
            assert list(fed.shape) == [binding[size] if size in binding else int(size) for size in _sizes(shape)]
            assert dtypes.from_numpy(fed.dtype) == dtypes.NUMBERS[dtype]


def _sizes(shape: str) -> list[str]:
    return shape.split(", ") if shape else []


def drawn(kind: str, *shape: int, seed: int = 0) -> Any:
    return floats.numbers(kind, shape, np.dtype(np.float32), None, np.random.default_rng(seed))


@pytest.mark.parametrize("shape", [(2,), (7,), (16,), (3, 1), (2, 5), (2, 1, 1)])
def test_both_infinities_and_both_zeros_reach_short_inputs(shape: tuple[int, ...]) -> None:
    for seed in range(5):
        assert {-np.inf, np.inf} <= set(drawn("infinities", *shape, seed=seed).flatten())
        zeros = drawn("negative zeros", *shape, seed=seed)
        assert set(np.signbit(zeros[zeros == 0])) == {False, True}


def test_any_place_in_a_vector_may_be_special() -> None:
    assert len({tuple(np.flatnonzero(np.isnan(drawn("nan", 16, seed=seed)))) for seed in range(8)}) > 2


def test_rows_without_anything_special_stay() -> None:
    found = drawn("infinities", 4, 8)
    assert np.isfinite(found[:-1]).all()
    assert not np.isfinite(found[-1]).all()


@pytest.mark.parametrize("shape", ["", "1", "1, 1"])
def test_a_lone_number_is_each_infinity_once(shape: str) -> None:
    model = parse(f"opset 18\n(x: float32[{shape}]) -> (y) {{ y = Exp(x) }}")
    assert {-np.inf, np.inf} <= {float(feed.arrays["x"].item()) for feed in Feeder(model, 0).all_feeds([{}])}
    several = parse("opset 18\n(x: float32[N]) -> (y) { y = Exp(x) }")
    assert floats.LONE not in {feed.kind for feed in Feeder(several, 0).all_feeds([{"N": 7}])}


@pytest.mark.parametrize("size", [4, 7, 16])
def test_every_tie_is_there_in_short_vectors(size: int) -> None:
    assert all(set(drawn("ties", size, seed=seed)) == {-1.0, 0.0, 0.5, 1.0} for seed in range(5))


def verdict(before: str, after: str, options: Options | None = None) -> str:
    return compare(parse(f"opset 20\n{before}"), parse(f"opset 20\n{after}"), options).verdict


def test_a_half_is_rounded_to_even_and_not_up() -> None:
    text = "(x: float32[n]) -> (y: int64[n]) {{ y = Cast({}, to=int64) }}"
    assert verdict(text.format("Round(x)"), text.format("Floor(Add(x, 0.5))")) == "unequal"


SCORES = "s = MatMul(q, Transpose(q, perm=[0, 2, 1]))"
ADDED = "y = Softmax(Add(Mul(s, 0.5), {}), axis=-1)"


@pytest.mark.parametrize(
    ("declared", "added", "expected"),
    [
        ("int64[b, 1, s]", "Mul(Sub(1.0, Cast(x, to=float32)), -1e9)", "mask"),
        ("float32[b, 1, s]", "Mul(Sub(1.0, x), -10000.0)", "mask"),
        ("int32[b, 1, s]", "Cast(Mul(Sub(1, x), -1000000), to=float32)", "mask"),
        ("int64[b, s, s]", "Cast(x, to=float32)", "integer"),
        ("bool[b, 1, s]", "Cast(x, to=float32)", "mask"),
        ("float32[b, s, s]", "x", "bias"),
        ("float16[b, s, s]", "Cast(Max(x, float16 -60000.0), to=float32)", "bias"),
    ],
)
def test_what_is_added_to_scores_is_an_additive_mask_only_as_it_is(declared: str, added: str, expected: str) -> None:
    model = parse(f"opset 18\n(q: float32[b, s, 4], x: {declared}) -> (y) {{ {SCORES}\n {ADDED.format(added)} }}")
    infer(model)
    feeder = Feeder(model, 0)
    assert feeder._meanings["x"].kind == expected
    if expected == "mask":
        fed = {value for feed in feeder.feeds([{"b": 2, "s": 5}]) for value in feed.arrays["x"].flatten().tolist()}
        assert fed == {0, 1}


def test_strings_that_a_model_names_are_fed_in_other_cases() -> None:
    model = parse("""opset 20\n(x: string[12]) -> (y, z, a, b) {
        y = StringNormalizer(x, locale="C", case_change_action="NONE", stopwords=["apple"])
        z = Equal(x, ["Pear"])\n a, b = StringSplit(x, delimiter="-") }""")
    infer(model)
    texts = {text for feed in Feeder(model, 0).feeds([{}]) for text in feed.arrays["x"]}
    assert {"apple", "APPLE", "Pear", "pEAR", "a-b", "", "bc"} <= texts


def test_strings_that_are_read_as_numbers_are_numerals() -> None:
    model = parse(
        'opset 20\n(x: string[12], z: string[3]) -> (y, w) { y = Cast(StringConcat(x, ["1"]), to=float32)\n'
        "w = Identity(z) }"
    )
    infer(model)
    feeds = {feed.kind: feed for feed in Feeder(model, 0).all_feeds([{}])}
    assert all(text.isdecimal() for text in feeds["plain"].arrays["x"])
    assert {"-2.5", "1e3"} <= set(feeds["fractions as text"].arrays["x"])
    text = "(x: string[n]) -> (y: float32[n]) {{ y = {} }}"
    whole = "Cast(Cast(x, to=int64), to=float32)"
    assert verdict(text.format("Cast(x, to=float32)"), text.format(whole)) == "unequal"


POSITIONS = """(x: float32[b, 2, n, 8], p: int64[b, n]) -> (y) {{ c = float32[64, 4] random(1)
    s = float32[64, 4] random(2)\n {} }}"""
PARTS = """g = Unsqueeze(Gather(c, p), [1])\n h = Unsqueeze(Gather(s, p), [1])
    l, r = Split(x, axis=3, num_outputs=2)
    y = Concat(Sub(Mul(l, g), Mul(r, h)), Add(Mul(r, g), Mul(l, h)), axis=3)"""


@pytest.mark.parametrize("level", ["sites", "full"])
def test_a_candidate_may_refuse_indices_from_the_end_but_not_give_others_for_them(level: Any) -> None:
    before, refusing, clipping = (
        parse("opset 23\n" + POSITIONS.format(body))
        for body in (PARTS, "y = RotaryEmbedding(x, c, s, p)", "y = RotaryEmbedding(x, c, s, Max(p, 0))")
    )
    found = compare(before, refusing)
    assert found.verdict == "equal"
    assert found.hint.startswith("only the reference runs on negative indices")
    assert check(before, refusing, Options(level=level)).verdict == "equal"
    for wrong in (compare(before, clipping), check(before, clipping, Options(level=level))):
        assert wrong.verdict == "unequal"


def test_a_candidate_may_not_refuse_what_counts_from_the_start() -> None:
    before, after = (
        parse("opset 23\n" + POSITIONS.format(body)) for body in (PARTS, "y = RotaryEmbedding(x, c, s, Add(p, 1))")
    )
    assert compare(before, after).verdict == "unequal"
    narrow = "opset 18\n(x: int64[n]) -> (y) {{ y = Gather(float32[{}, 4] random(1), x) }}"
    found = compare(parse(narrow.format(10)), parse(narrow.format(9)))
    assert (found.verdict, "does not run the candidate" in found.reason) == ("unequal", True)


NOISY = "Where(Less(Abs(Sub(Abs(x), 5.0)), 4.99), Mod(Mul(x, 2097152.0), 1.0, fmod=1), 0.0)"


def test_large_numbers_do_not_decide_what_is_chaotic_otherwise() -> None:
    text = "(x: float32[n, 8]) -> (y) {{ y = Add(x, {}) }}"
    assert verdict(text.format(NOISY), text.format("0.0")) == "inconclusive"
    before, after = (parse("opset 20\n" + text.format(body)) for body in (NOISY, "0.0"))
    assert check(before, after).verdict == "inconclusive"
