"""Which products are sites, which of them are alike, what they are called, and how they are chosen by name."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.errors import UsageError
from graphopt.ir import Model, validate
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.pipeline.optimize import optimize
from graphopt.quantize.sites import Site, find_sites, matching
from graphopt.quantize.untied import untie
from graphopt.rewrite import built_in_rules
from graphopt.targets import target_named

W = "float32[8, 8] random(1)"
IMAGE = "Reshape(x, [-1, 8, 4, 4])"


def model(statements: str, signature: str = "(x: float32[B, S, 8], c: bool[], ids: int64[B]) -> (y)") -> Model:
    found = parse(f"{signature} {{ {statements} }}")
    infer(found)
    return found


def sites(statements: str, *, embed: bool = False) -> list[Site]:
    return find_sites(model(statements), embed=embed)


def groups(statements: str) -> list[list[str]]:
    """The names of the sites, those of one group together."""
    found: dict[str, list[str]] = {}
    for site in sites(statements):
        found.setdefault(site.group, []).append(site.name)
    assert all(name == members[0] for name, members in found.items())
    return list(found.values())


# ---- what is one -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("product", "shape", "axis", "channels"),
    [
        ("y = MatMul(x, float32[8, 5] random(1))", (8, 5), 0, 1),
        ("y = Gemm(x, float32[8, 5] random(1))", (8, 5), 0, 1),
        ("y = Gemm(x, float32[5, 8] random(1), transB=1)", (5, 8), 1, 0),
        ("y = Conv(x, float32[5, 8, 3] random(1))", (5, 8, 3), 1, 0),
        ("y = ConvTranspose(x, float32[8, 5, 3] random(1))", (8, 5, 3), 0, 1),
        ("y = LSTM(x, float32[1, 20, 8] random(1), float32[1, 20, 5] random(2), hidden_size=5)", (1, 20, 8), 2, 1),
    ],
)
def test_products_with_constant_weights(product: str, shape: tuple[int, ...], axis: int, channels: int) -> None:
    (site,) = sites(product)
    assert (site.shape, site.axis, site.channels) == (shape, axis, channels)
    assert bool(site.refusal) == (site.op == "ConvTranspose")
    assert site.macs == np.prod(shape)
    assert site.input == "x"


@pytest.mark.parametrize(
    "statements",
    [
        "y = MatMul(x, Transpose(x, perm=[0, 2, 1]))",
        f"y = MatMul({W}, x)",
        "y = MatMul(x, float32[8] random(1))",
        f"y = com.example.MatMul(x, {W})",
        f"y = Add(x, MatMul({W}, float32[8, 8] random(2)))",
        f"y = Mul(x, {W})",
        f"y = Gather({W}, ids)",
        "h = Cast(x, to=7) y = MatMul(h, int64[8, 8] {" + ", ".join(["1"] * 64) + "})",
    ],
)
def test_what_is_no_site(statements: str) -> None:
    assert sites(statements) == []


@pytest.mark.parametrize(
    ("product", "words"),
    [
        ("y = MatMul(x, float32[3, 8, 8] random(1))", "batch of matrices"),
        (f"y = Gemm(x, {W}, transA=1)", "transposed"),
        (f"y = Gemm(x, {W}, alpha=0.5)", "alpha"),
        ("h = Cast(x, to=10) y = MatMul(h, float16[8, 8] random(1))", "float16"),
        ("y = GRU(x, float32[1, 15, 8] random(1), float32[1, 15, 5] random(2), hidden_size=5)", "GRU"),
        ("y = MatMul(x, float32[8, 0] {})", "empty"),
        ("y = Conv(x, float32[5, 8, 3] random(1), ReduceSum(x, [1, 2], keepdims=0))", "bias"),
        ("y = ConvTranspose(x, float32[8, 5, 3] random(1))", "two dimensions"),
        (f"y = ConvTranspose({IMAGE}, float32[8, 5, 3, 3] random(1), strides=[2, 2])", "3×3 in steps of 2×2 overlap"),
        (f"y = ConvTranspose({IMAGE}, float32[8, 5, 2, 2] random(1), strides=[2, 2], pads=[1, 1, 1, 1])", "padding"),
        (f"y = ConvTranspose({IMAGE}, float32[8, 5, 2, 2] random(1), strides=[2, 2], group=2)", "groups"),
        ("y = ConvTranspose(Unsqueeze(x, [1]), float32[1, 5, 2, 2] random(1), strides=[2, 2])", "height and width"),
    ],
)
def test_sites_that_stay_as_they_are_say_why(product: str, words: str) -> None:
    (site,) = sites(product)
    assert words in site.refusal


def test_tables_are_sites_where_they_are_asked_for() -> None:
    (site,) = sites(f"y = Gather({W}, ids)", embed=True)
    assert (site.op, site.input, site.axis, site.channels) == ("Gather", "ids", 1, 0)
    assert sites(f"y = Gather({W}, ids, axis=1)", embed=True) == []


TIED = """
  w = float32[6, 8] random(1)
  e = Gather(w, ids)
  t = Transpose(w, perm=[1, 0])
  h = MatMul(e, t)
  y = MatMul(x, t)
"""


@pytest.mark.parametrize(("names", "untied"), [(None, {"h", "y"}), ({"y"}, {"y"}), (set(), set())])
def test_weights_that_others_read_as_well_are_untied(names: set[str] | None, untied: set[str]) -> None:
    found = model(TIED)
    assert find_sites(found) == []
    untie(found, names)
    validate(found)
    products = find_sites(found)
    assert {site.name for site in products} == untied
    table = found.graph.names["w"].tensor
    assert table is not None
    assert all(np.array_equal(site.weights.numpy(), table.numpy().T) for site in products)


def test_weights_with_no_numbers_are_found_out() -> None:
    good, bad = sites(f"h = MatMul(x, {W}) y = MatMul(h, float32[8, 2] {{{', '.join(['1'] * 15)}, nan}})")
    assert good.is_finite
    assert not bad.is_finite


# ---- names -----------------------------------------------------------------------------------------------------------

BRANCHES = f"""
  h = Relu(x)
  y = If(c, then_branch=() -> (p) {{ p = MatMul(h, {W}) }}, else_branch=() -> (q) {{
    q = If(c, then_branch=() -> (r) {{ i = Neg(h) m = MatMul(i, {W}) r = Add(m, 1.0) }}, else_branch=() -> (s) {{
      s = Neg(h)
    }})
  }})
"""


def test_sites_in_subgraphs_are_called_by_what_holds_them() -> None:
    inner, outer = sorted(sites(BRANCHES), key=lambda site: -len(site.name))
    then, other = sorted({site.name.split("/")[0] for site in (inner, outer)})
    assert {then, other} == {"y:0", "y:1"}
    assert outer.name.endswith("/p")
    assert outer.input == "h"
    assert inner.name.split("/")[1:] == ["q:0", "m"]
    assert inner.input == inner.name.removesuffix("m") + "i"
    assert inner.ends == (inner.name, inner.name.removesuffix("m") + "r")
    assert inner.nested
    assert outer.nested


def test_names_in_two_branches_are_told_apart() -> None:
    branch = f"{{ p = MatMul(x, {W}) }}"
    text = f"y = If(c, then_branch=() -> (p) {branch}, else_branch=() -> (q) {{ q = MatMul(x, {W}) }})"
    names = [site.name for site in sites(text)]
    assert len(set(names)) == 2


def test_the_ends_are_sums_and_cuts_that_nothing_else_reads() -> None:
    (site,) = sites(f"m = MatMul(x, {W}) a = Add(m, float32[8] random(2)) r = Relu(a) s = Sigmoid(r) y = Neg(s)")
    assert site.ends == ("m", "a", "r")
    (site,) = sites(f"m = MatMul(x, {W}) a = Add(m, float32[8] random(2)) y = Mul(a, m)")
    assert site.ends == ("m",)


def test_products_of_shared_weights_are_two_sites() -> None:
    first, second = sites(f"w = {W} h = MatMul(x, w) y = MatMul(h, w)")
    assert (first.weights_name, second.weights_name) == ("w", "w")
    assert (first.name, first.input, second.name, second.input) == ("h", "x", "y", "h")


# ---- groups ----------------------------------------------------------------------------------------------------------


def block(index: int, x: str, bias: str = "Add({0}, float32[8] random(9))") -> str:
    """Two products, of which the second gives a residual sum."""
    h = bias.format(f"u{index}")
    return f"""
      n{index} = LayerNormalization({x}, float32[8] random(3))
      u{index} = MatMul(n{index}, float32[8, 8] random({index}))
      a{index} = {h} g{index} = Gelu(a{index})
      d{index} = MatMul(g{index}, float32[8, 8] random({index + 50}))
      r{index} = Add(d{index}, {x})
    """


def test_sites_of_equal_structure_are_one_group() -> None:
    text = block(1, "x") + block(2, "r1") + block(3, "r2") + "y = Neg(r3)"
    assert groups(text) == [["u1", "u2", "u3"], ["d1", "d2", "d3"]]


def test_it_does_not_matter_how_a_bias_or_a_residual_is_spelled() -> None:
    turned = block(2, "r1", bias="Add(float32[8] random(9), {0})").replace("Add(d2, r1)", "Add(r1, d2)")
    assert groups(block(1, "x") + turned + "y = Neg(r2)") == [["u1", "u2"], ["d1", "d2"]]


def test_other_shapes_and_other_readers_are_other_groups() -> None:
    assert groups(f"a = MatMul(x, {W}) b = MatMul(a, float32[8, 4] random(1)) y = Neg(b)") == [["a"], ["b"]]
    assert groups(f"h = Relu(x) a = MatMul(h, {W}) s = Softmax(a) b = MatMul(h, {W}) y = Mul(s, Tanh(b))") == [
        ["a"],
        ["b"],
    ]
    assert groups(f"h = Relu(x) t = Tanh(x) a = MatMul(h, {W}) b = MatMul(t, {W}) y = Mul(Neg(a), Neg(b))") == [
        ["a"],
        ["b"],
    ]


def test_where_heads_are_split_keys_and_values_are_told_apart() -> None:
    text = "n = Relu(x) " + " ".join(
        f"{one} = MatMul(n, float32[8, 8] random({seed})) {one}s = Reshape({one}, [0, 0, 2, 4])"
        f" {one}t = Transpose({one}s, perm=[0, 2, 1, 3])"
        for seed, one in enumerate("qkv")
    )
    assert groups(text + " y = ir.Attention(qt, kt, vt, _, scale=0.5)") == [["q"], ["k"], ["v"]]


# ---- chosen by name --------------------------------------------------------------------------------------------------

NAMED = """
  layer.0.weight = float32[8, 8] random(1)
  layer.1.weight = float32[8, 8] random(2)
  a = MatMul(x, layer.0.weight)
  b = Add(a, float32[8] random(3))
  y = MatMul(b, layer.1.weight)
"""


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        (["a"], {"a"}),
        (["b"], {"a"}),
        (["layer.1.*"], {"y"}),
        (["layer.?.weight"], {"a", "y"}),
        (["a", "layer.1.weight"], {"a", "y"}),
        ([], set()),
    ],
)
def test_patterns_match_the_value_what_is_made_of_it_and_the_weights(patterns: list[str], chosen: set[str]) -> None:
    assert matching(sites(NAMED), patterns) == chosen


def test_patterns_match_the_node() -> None:
    found = model(f"a = MatMul(x, {W}) y = MatMul(a, {W})")
    found.graph.names["a"].node.name = "/encoder/query/MatMul"
    assert matching(find_sites(found), ["*query*"]) == {"a"}


def test_a_pattern_that_matches_nothing_is_refused_with_a_near_name() -> None:
    with pytest.raises(UsageError) as error:
        matching(sites(NAMED), ["a", "layer.1.wieght"])
    assert error.value.code == "GO141"
    assert "'layer.1.wieght'" in error.value.message
    assert "layer.1.weight" in error.value.hint


def test_weights_keep_their_name_where_a_norm_is_folded_into_them() -> None:
    text = """(x: float32[B, S, 8]) -> (y: float32[B, S, 8]) {
      n = LayerNormalization(x, float32[8] random(1), float32[8] random(2))
      layer.0.query = float32[8, 8] random(3)
      y = Add(MatMul(n, layer.0.query), float32[8] random(4))
    }"""
    found: list[Site] = []
    rules = built_in_rules()
    optimize(
        parse(text), target=target_named("ort-cpu"), rules=rules, plan=lambda fused: found.extend(find_sites(fused))
    )
    (site,) = found
    assert not np.array_equal(site.weights.numpy(), parse(text).graph.names["layer.0.query"].tensor.numpy())  # type: ignore[union-attr]
    assert matching(found, ["layer.0.query*"]) == matching(found, ["y"]) == {site.name}
