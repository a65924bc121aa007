"""The recipe of each site at each level, and the plan that rules are told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphopt.ir import Model
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.quantize.observe.statistics import Statistics
from graphopt.quantize.recipes import Options, Recipes
from graphopt.quantize.rounding.weights import dequantized
from graphopt.quantize.search import Level
from graphopt.quantize.sites import Site, find_sites
from graphopt.rewrite import Recipe

TEXT = """(x: float32[B, 64], c: bool[]) -> (y, t, s) {
  h = Relu(x)
  q = MatMul(h, float32[64, 32] random(1))
  k = MatMul(h, float32[64, 48] random(2))
  g = Gemm(q, float32[16, 32] random(3), transB=1)
  y = Concat(g, k, axis=1)
  table = float32[40, 48] random(4)
  t = MatMul(k, Transpose(table, perm=[1, 0]))
  s = Gather(table, int64[3] {1, 2, 3})
}"""
RNG = np.random.default_rng(0)
VNNI = Options("x86-vnni")
# Two channels of great range.
SIZES = np.ones(64, np.float32)
SIZES[[3, 9]] = 60


def model() -> Model:
    found = parse(TEXT)
    infer(found)
    return found


def statistics(*, gram: bool = False, sizes: Any = SIZES) -> dict[str, Statistics]:
    wide = np.abs(RNG.standard_normal((128, 64)).astype(np.float32)) * sizes
    return {
        "h": Statistics.of(wide, gram=gram),
        "q": Statistics.of(RNG.standard_normal((128, 32)).astype(np.float32), gram=gram),
        "k": Statistics.of(RNG.standard_normal((128, 48)).astype(np.float32), gram=gram),
    }


def sites() -> dict[str, Site]:
    return {site.name: site for site in find_sites(model())}


def recipe(name: str, level: Level, options: Options = VNNI, known: dict[str, Statistics] | None = None) -> Recipe:
    found = Recipes(list(sites().values()), statistics() if known is None else known, options)
    made = found.of(sites()[name], level)
    assert made is not None
    return made


def error(name: str, made: Recipe) -> float:
    """How far the weights are from what they were, relative; smoothing undone."""
    exact = sites()[name].weights.numpy()
    near = dequantized(made.weights)
    if made.smooth is not None:
        near = near / made.smooth[:, None]
    return float(np.linalg.norm(near - exact) / np.linalg.norm(exact))


def test_floats_have_no_recipe() -> None:
    assert Recipes(list(sites().values()), {}, VNNI).of(sites()["q"], "float") is None


@pytest.mark.parametrize(
    ("name", "axis", "channels"),
    [("q", 1, 32), ("g", 0, 16)],
)
def test_integers_have_a_scale_for_each_output_channel(name: str, axis: int, channels: int) -> None:
    made = recipe(name, "dynamic", known={})
    assert made.scheme == "dynamic"
    assert made.weights.axis == axis
    assert made.weights.scale.shape == (channels,)
    assert made.weights.values.numpy().dtype == np.int8
    assert made.input is None
    assert made.smooth is None
    assert made.bias is None
    assert error(name, made) < 0.01


def test_static_sites_have_a_grid_of_what_was_observed() -> None:
    known = statistics()
    made = recipe("q", "static", Options("x86-vnni", smooth=0.0), known)
    assert made.input is not None
    assert made.input.zero_point.dtype == np.uint8
    assert made.input.zero_point == 0
    assert made.input.scale == pytest.approx(known["h"].high.max() / 255)
    assert made.bias is not None
    assert made.bias.shape == (32,)


def test_outliers_are_smoothed_alike_for_all_readers_of_an_activation() -> None:
    found = Recipes(list(sites().values()), statistics(), VNNI)
    q, k = (found.of(sites()[name], "static") for name in "qk")
    assert q is not None
    assert k is not None
    assert q.smooth is not None
    assert np.array_equal(q.smooth, k.smooth)  # type: ignore[arg-type]
    assert q.smooth[[3, 9]].min() > 3 * np.median(q.smooth)
    assert q.input is not None
    assert k.input is not None
    assert q.input.scale == k.input.scale
    assert error("q", q) < 0.2
    low, high = found.range(sites()["q"]) or (0, 0)
    assert 0 <= low < high < 60


def test_smoothing_is_not_taken_where_it_is_not_wanted_or_nothing_is_known() -> None:
    assert recipe("q", "static", Options("x86-vnni", smooth=0.0)).smooth is None
    assert recipe("q", "dynamic", known={}).smooth is None
    assert recipe("q", "weights8").smooth is None
    assert recipe("q", "static", Options("x86-vnni", correct=False)).bias is None


def test_without_vnni_weights_have_seven_bits() -> None:
    assert np.abs(recipe("q", "dynamic", Options("x86"), {}).weights.values.numpy().astype(int)).max() <= 64
    assert np.abs(recipe("q", "dynamic", VNNI, {}).weights.values.numpy().astype(int)).max() > 100


def test_where_zero_points_are_zero_grids_lie_around_zero() -> None:
    made = recipe("q", "static", Options("x86-vnni", target="tensorrt", smooth=0.0))
    assert made.input is not None
    assert made.input.zero_point.dtype == np.int8
    assert made.input.zero_point == 0


@pytest.mark.parametrize(("level", "size"), [("weights8", 0.02), ("weights4", 0.2)])
def test_weights_alone_have_a_scale_for_each_block(level: Level, size: float) -> None:
    made = recipe("q", level, Options("x86-vnni", block=16), {})
    assert made.scheme == "weights"
    assert made.input is None
    assert (made.weights.axis, made.weights.block) == (0, 16)
    assert made.weights.scale.shape == (4, 32)
    assert error("q", made) < size


def test_four_bits_make_up_for_their_errors_where_the_activations_are_known() -> None:
    known = statistics(gram=True, sizes=1.0)
    rows = known["h"].rows
    exact = rows @ sites()["q"].weights.numpy()
    lost = [
        float(np.linalg.norm(rows @ dequantized(recipe("q", "weights4", known=data).weights) - exact))
        for data in (known, {})
    ]
    assert lost[0] < 0.9 * lost[1]


def test_a_recipe_is_made_once() -> None:
    found = Recipes(list(sites().values()), statistics(), VNNI)
    assert found.of(sites()["q"], "static") is found.of(sites()["q"], "static")


def test_the_plan_says_of_each_product_what_was_decided() -> None:
    fused = model()
    found = Recipes(list(sites().values()), statistics(), VNNI)
    plan = found.plan(fused, {"q": "static", "k": "float", "g": "weights8"})
    names = fused.graph.names
    made = {name: plan.recipe(names[name]) for name in "qkghyt"}
    assert {name: one.scheme if one is not None else "" for name, one in made.items()} == {
        "q": "static",
        "k": "",
        "g": "weights",
        "h": "",
        "y": "",
        "t": "",
    }
    assert plan.grid(names["h"]) is None


@pytest.mark.parametrize(("level", "tied"), [("dynamic", False), ("float", True)])
def test_only_what_becomes_integers_gets_weights_of_its_own(level: Level, tied: bool) -> None:
    fused = model()
    Recipes([], {}, VNNI).plan(fused, {"t": level})
    weights = fused.graph.names["t"].node.inputs[1]
    assert weights is not None
    assert weights.node.is_op("Transpose") == tied


def test_images_stay_integer_between_convolutions() -> None:
    text = """(x: float32[1, 4, 8, 8]) -> (y) {
      a = Conv(x, float32[4, 4, 3, 3] random(1)) r = Relu(a)
      y = Conv(r, float32[4, 4, 3, 3] random(2))
    }"""
    fused = parse(text)
    infer(fused)
    found = find_sites(fused)
    seen = Statistics.of(np.abs(RNG.standard_normal((1, 4, 8, 8))).astype(np.float32), axis=1)
    names = ["x", "a", "r", "y"]
    recipes = Recipes(found, dict.fromkeys(names, seen), VNNI)
    plan = recipes.plan(fused, dict.fromkeys(("a", "y"), "static"))
    kept = [name for name in names if plan.grid(fused.graph.names[name]) is not None]
    assert "r" in kept
    assert recipes.plan(fused, {"a": "static", "y": "float"}).kept.isdisjoint({"y"})
