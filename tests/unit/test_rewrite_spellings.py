"""One formula in all its spellings is fused; a formula that differs in one place keeps its numbers.

The grids count: every spelling must be fused. The mutants compare: whatever fired, the outputs must be those of the
model as it was, run by onnxruntime with every optimization off.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from graphopt.ir import Model, dtypes, model_to_proto, validate
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.pipeline.optimize import optimize
from graphopt.rewrite import Trace, built_in_rules
from graphopt.targets import target_named

Arrays = dict[str, np.ndarray[Any, Any]]

SIZES = {"B": 2, "S": 3, "T": 5}


def optimized(text: str, opset: int = 20) -> tuple[Model, Trace]:
    model = parse(text, opset=opset)
    trace = optimize(model, target=target_named("ort-cpu"), rules=built_in_rules())
    validate(model)
    assert not trace.failures
    return model, trace


def feeds(model: Model, seed: int) -> Arrays:
    """Random inputs; what may be overridden is overridden in every second run."""
    random = np.random.default_rng(seed)
    made: Arrays = {}
    for node in model.graph.inputs:
        value = node.output
        if node.data is not None and seed % 2 == 0:
            continue
        assert value.shape is not None
        shape = [size if isinstance(size, int) else SIZES[str(size)] for size in value.shape]
        kind = dtypes.to_numpy(value.dtype)
        array = random.standard_normal(shape) if value.dtype in dtypes.FLOATS else random.integers(0, 2, shape)
        if value.dtype == dtypes.BOOL and len(shape) > 1:
            array[..., 0, :] = 0  # A row in which nothing is allowed.
        made[value.name] = array.astype(kind)
    return made


def run(model: Model, runs: list[Arrays]) -> list[Arrays]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    data = model_to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, one), strict=True)) for one in runs]


def assert_same_numbers(text: str, after: Model, opset: int = 20) -> None:
    before = parse(text, opset=opset)
    infer(before)
    runs = [feeds(before, seed) for seed in range(3)]
    for wanted, found in zip(run(before, runs), run(after, runs), strict=True):
        assert list(wanted) == list(found)
        for name, x in wanted.items():
            y = found[name]
            assert (x.dtype, x.shape) == (y.dtype, y.shape)
            scale = np.abs(x[np.isfinite(x)]).max(initial=1e-3)
            tolerance = {np.dtype(np.float16): 4e-3, np.dtype(np.float64): 1e-12}.get(x.dtype, 2e-5)
            np.testing.assert_allclose(y, x, rtol=tolerance, atol=tolerance * scale, err_msg=name)


# ---- grids -----------------------------------------------------------------------------------------------------------


def orders(op: str, a: str, b: str) -> list[str]:
    return [f"{op}({a}, {b})", f"{op}({b}, {a})"]


def products(a: str, b: str, c: str) -> Iterator[str]:
    """Three factors in three bracketings and all orders: twelve."""
    for x, y, z in ((a, b, c), (a, c, b), (b, c, a)):
        for inner in orders("Mul", x, y):
            yield from orders("Mul", inner, z)


def gelu_erf() -> Iterator[str]:
    for scaled in ("Div(x, {1.4142135})", *orders("Mul", "x", "{0.70710677}")):
        for one_more in orders("Add", f"Erf({scaled})", "{1.0}"):
            yield from products("x", "{0.5}", one_more)


def gelu_tanh() -> Iterator[str]:
    cubes = ("Pow(x, {3.0})", "Mul(Mul(x, x), x)", "Mul(x, Mul(x, x))")
    cubics = [total for cube in cubes for c in orders("Mul", cube, "{0.044715}") for total in orders("Add", "x", c)]
    inner = [scaled for cubic in cubics for scaled in orders("Mul", cubic, "{0.7978845608}")]
    squares = ("Mul(x, x)", "Pow(x, {2.0})")
    for square in squares:
        for term in orders("Mul", square, "{0.044715}"):
            inner.extend(products("x", "{0.7978845608}", f"Add({term}, {{1.0}})"))
    for one in inner:
        yield f"Mul(Mul(x, {{0.5}}), Add(Tanh({one}), {{1.0}}))"
        yield f"Mul({{0.5}}, Mul(x, Add({{1.0}}, Tanh({one}))))"
        yield f"Mul(Mul(Add(Tanh({one}), {{1.0}}), {{0.5}}), x)"


def layer_norm() -> Iterator[str]:
    mean, variance = "ReduceMean(x, AXES)", "ReduceMean(SQUARE, AXES)"
    d = f"Sub(x, {mean})"
    for square in (f"Pow({d}, {{2.0}})", f"Mul({d}, {d})"):
        for total in orders("Add", variance.replace("SQUARE", square), "{1e-5}"):
            for root in (f"Sqrt({total})", f"Pow({total}, {{0.5}})"):
                yield f"Div({d}, {root})"
                yield from orders("Mul", d, f"Reciprocal({root})")
                yield from orders("Mul", d, f"Div({{1.0}}, {root})")


def layer_norm_affine() -> Iterator[str]:
    for plain in layer_norm():
        for gain in orders("Mul", plain, "float32[16] random(1)"):
            yield gain
            yield from orders("Add", gain, "float32[16] random(2)")


def attention() -> Iterator[str]:
    factor = {"": "{}", "Mul": "Mul({}, {{0.5}})", "Mul first": "Mul({{0.5}}, {})", "Div": "Div({}, {{2.0}})"}
    sides = [("q", "kt"), *((factor[f].format("q"), "kt") for f in ("Mul", "Mul first", "Div"))]
    sides += [("q", factor["Mul"].format("kt")), (factor["Div"].format("q"), factor["Mul first"].format("kt"))]
    for (q, kt), scale, mask, guard in itertools.product(sides, factor.values(), range(4), (False, True)):
        scores = scale.format(f"MatMul({q}, {kt})")
        biased = [scores, f"Add({scores}, m)", f"Add(m, {scores})", f"Add(Add({scores}, m), n)"][mask]
        weights = f"Softmax({biased}, axis={-1 if mask % 2 else 3})"
        yield f"MatMul({f'Where(IsNaN({weights}), {{0.0}}, {weights})' if guard else weights}, v)"


CONSTANTS = {"scalar": "{}", "vector of one": "[{}]", "Constant node": "Constant(value_float={})"}
ACTIVATION = "x: float32[B, S, 16]"
HEADS = (
    "q: float32[B, 2, S, 8], kt: float32[B, 2, 8, T], v: float32[B, 2, T, 4], "
    "m: float32[B, 1, 1, T], n: float32[1, 2, S, T]"
)
GRIDS = {
    "gelu_erf": (gelu_erf, ACTIVATION, "GeluErf", 20),
    "gelu_tanh": (gelu_tanh, ACTIVATION, "GeluTanh", 20),
    "layer_norm": (layer_norm, ACTIVATION, "LayerNormFromParts", 20),
    "layer_norm_13": (layer_norm, ACTIVATION, "LayerNormFromParts", 13),
    "layer_norm_affine": (layer_norm_affine, ACTIVATION, "LayerNormGain", 20),
    "attention": (attention, HEADS, "AttentionFromParts", 20),
}
FUSED = {
    "GeluErf": ("Gelu", "BiasGelu"),
    "GeluTanh": ("Gelu",),
    "AttentionFromParts": ("Attention", "MultiHeadAttention"),
}


def spelled(text: str, constant: str, opset: int) -> str:
    """A spelling with its constants, each in braces, and its axes written in one way."""
    text = text.replace("AXES", "[-1]" if opset >= 18 else "axes=[-1]")
    head, *rest = text.split("{")
    return head + "".join(constant.format(*part.split("}")[:1]) + part.split("}")[1] for part in rest)


@pytest.mark.parametrize("constant", CONSTANTS.values(), ids=CONSTANTS.keys())
@pytest.mark.parametrize("grid", GRIDS)
def test_every_spelling_is_fused(grid: str, constant: str) -> None:
    spellings, inputs, rule, opset = GRIDS[grid]
    texts = [spelled(text, constant, opset) for text in spellings()]
    assert len(set(texts)) >= 40
    # Spellings that share an input would share parts of the formula, too, and a shared part is not fused.
    names = [name.partition(":")[0].strip() for name in inputs.split(", ") if ":" in name]
    body, parameters = "", []
    for index, text in enumerate(texts):
        body += f"y{index} = {_numbered(text, names, index)}\n"
        parameters.append(_numbered(inputs, names, index))
    outputs = ", ".join(f"y{index}" for index in range(len(texts)))
    whole = f"({', '.join(parameters)}) -> ({outputs}) {{\n{body}}}"
    model, trace = optimized(whole, opset)
    sites = [site for site in trace.sites if site.rule == rule]
    print(f"{grid}: {len(sites)}/{len(texts)} fused")
    assert len(sites) == len(texts)
    assert_same_numbers(whole, model, opset)


def _numbered(text: str, names: list[str], index: int) -> str:
    for name in names:
        for before, after in itertools.product("( ", ",):"):
            text = text.replace(f"{before}{name}{after}", f"{before}{name}_{index}{after}")
        if text.startswith(f"{name}:"):
            text = f"{name}_{index}{text[len(name) :]}"
    return text


# ---- mutants ---------------------------------------------------------------------------------------------------------

X = "(x: float32[B, S, 16], z: float32[B, S, 16], c: bool[])"
IF = "If(c, then_branch=() -> (this) {{ this = Neg({0}) }}, else_branch=() -> (that) {{ that = Abs({0}) }})"


def seen_from_outside(signature: str, body: str, inner: list[str]) -> Iterator[str]:
    """A formula with each inner value an output, read again, and captured."""
    for name in inner:
        yield f"{signature} -> (y, {name}) {{ {body} }}"
        yield f"{signature} -> (y, again) {{ {body} again = Neg({name}) }}"
        yield f"{signature} -> (y, again) {{ {body} again = {IF.format(name)} }}"


def gelu_mutants() -> Iterator[str]:
    base = "Mul(Mul(x, 0.5), Add(Erf(Div(x, 1.4142135)), 1.0))"
    swaps = [
        *(("0.5", number) for number in ("0.501", "0.49", "0.500002", "1.0", "-0.5", "0.0", "nan")),
        *(("1.0)", number) for number in ("1.001)", "-1.0)", "0.0)", "1.00001)", "nan)", "inf)")),
        *(("1.4142135", number) for number in ("1.414", "1.5", "2.0", "-1.4142135", "0.0", "1.4143", "z")),
        ("Div(x, 1.4142135)", "Div(1.4142135, x)"),
        ("Div(x, 1.4142135)", "Mul(x, 1.4142135)"),
        ("Div(x, 1.4142135)", "x"),
        ("Div(x, 1.4142135)", "Div(z, 1.4142135)"),
        ("Div(x, 1.4142135)", "Pow(x, 0.70710677)"),
        ("Erf(Div(x, 1.4142135))", "Div(Erf(x), 1.4142135)"),
        ("Erf", "Tanh"),
        ("Erf", "Sigmoid"),
        ("Erf(Div(x, 1.4142135))", "Erf(Erf(Div(x, 1.4142135)))"),
        ("Add(", "Sub("),
        ("Add(Erf(Div(x, 1.4142135)), 1.0)", "Sub(1.0, Erf(Div(x, 1.4142135)))"),
        ("Mul(x, 0.5)", "Mul(z, 0.5)"),
        ("Mul(x, 0.5)", "Div(0.5, x)"),
        ("Mul(x, 0.5)", "Mul(x, x)"),
        ("Mul(x, 0.5)", "Mul(x, float32[1, 1, 1, 1] 0.5)"),
        ("Mul(x, 0.5)", "Mul(x, float32[16] 0.5)"),
        ("Mul(x, 0.5)", "Mul(x, float32[16] random(1))"),
        ("Mul(x, 0.5)", "Mul(x, Mul(0.5, 0.5))"),
        ("Mul(x, 0.5)", "Sub(x, 0.5)"),
        (", 1.0)", ", float32[1, 1, 1, 1] 1.0)"),
        (", 1.0)", ", float32[3, 1] 1.0)"),
        ("1.4142135)", "float32[1, 1, 1, 1] 1.4142135)"),
        ("1.4142135)", "float32[16] random(1))"),
    ]
    for old, new in swaps:
        yield f"{X} -> (y) {{ y = {base.replace(old, new, 1)} }}"
    parts = "h = Mul(x, 0.5) d = Div(x, 1.4142135) e = Erf(d) a = Add(e, 1.0) y = Mul(h, a)"
    yield from seen_from_outside(X, parts, ["h", "d", "e", "a"])
    for name in ("half", "root", "one"):
        names = {"half": "0.5", "root": "1.4142135", "one": "1.0", name: name}
        body = f"y = Mul(Mul(x, {names['half']}), Add(Erf(Div(x, {names['root']})), {names['one']}))"
        number = {"half": 0.5, "root": 1.4142135, "one": 1.0}[name]
        yield f"(x: float32[B, S, 16], {name} = {number}) -> (y) {{ {body} }}"
        yield f"(x: float32[B, S, 16], {name}: float32[]) -> (y) {{ {body} }}"
    half = "Mul(Mul(x, float16 0.5), Add(Erf(Div(x, float16 {})), float16 1.0))"
    for divisor in ("1.4142135", "1.40625"):
        yield f"(x: float16[B, 16]) -> (y) {{ y = {half.format(divisor)} }}"
    yield "(x: float32[16]) -> (y) { y = Mul(Mul(x, float32[1, 1] 0.5), Add(Erf(Div(x, 1.4142135)), 1.0)) }"


def layer_norm_mutants() -> Iterator[str]:
    base = "m = ReduceMean(x, [-1]) d = Sub(x, m) s = Mul(d, d) v = ReduceMean(s, [-1]) e = Add(v, 1e-5) r = Sqrt(e) "
    tail = "n = Div(d, r) g = Mul(n, float32[16] random(1)) y = Add(g, float32[16] random(2))"
    swaps = [
        *(("ReduceMean(x, [-1])", f"ReduceMean(x, {axes})") for axes in ("[1]", "[0]", "[1, 2]", "[0, 1, 2]")),
        *(("ReduceMean(s, [-1])", f"ReduceMean(s, {axes})") for axes in ("[1]", "[0]", "[1, 2]", "[0, 1, 2]")),
        ("[-1]", "[1]", 2),
        ("[-1]", "[1, 2]", 2),
        ("[-1]", "[0, 1]", 2),
        ("ReduceMean(x, [-1])", "ReduceMean(x)"),
        ("ReduceMean(s, [-1])", "ReduceMean(s)"),
        ("ReduceMean(x, [-1])", "ReduceMean(x, noop_with_empty_axes=1)"),
        ("ReduceMean(x, [-1])", "ReduceMax(x, [-1])"),
        ("ReduceMean(x, [-1])", "ReduceMean(z, [-1])"),
        ("ReduceMean(s, [-1])", "ReduceSum(s, [-1])"),
        *(("1e-5", number) for number in ("0.0", "-1e-5", "nan", "inf", "1.0", "float32[16] 1e-5")),
        ("1e-5", "float32[1, 1, 1, 1] 1e-5"),
        ("1e-5", "float32[3, 1] random(1)"),
        ("Mul(d, d)", "Mul(d, x)"),
        ("Mul(d, d)", "Mul(x, x)"),
        ("Mul(d, d)", "Mul(d, z)"),
        *(("Mul(d, d)", f"Pow(d, {power})") for power in ("3.0", "2.001", "1.0", "4.0", "[2.0]")),
        ("Mul(d, d)", "Abs(d)"),
        ("Sub(x, m)", "Sub(m, x)"),
        ("Sub(x, m)", "Add(x, m)"),
        ("Sub(x, m)", "Sub(z, m)"),
        ("Sqrt(e)", "Sqrt(v)"),
        *(("Sqrt(e)", f"Pow(e, {power})") for power in ("0.499", "-0.5", "1.0")),
        ("Sqrt(e)", "Add(Sqrt(v), 1e-5)"),
        ("Sqrt(e)", "Reciprocal(Sqrt(e))"),
        ("Div(d, r)", "Div(r, d)"),
        ("Div(d, r)", "Div(x, r)"),
        ("Div(d, r)", "Mul(d, r)"),
        ("Div(d, r)", "Mul(d, Reciprocal(e))"),
        ("Div(d, r)", "Mul(d, Div(2.0, r))"),
        ("Div(d, r)", "Div(d, Div(r, 1.0))"),
        *(("float32[16] random(1)", f"float32{shape} random(1)") for shape in ("[1]", "[3, 1]", "[3, 16]", "[1, 16]")),
        *(
            ("float32[16] random(2)", f"float32{shape} random(2)")
            for shape in ("[1]", "[3, 1]", "[3, 16]", "[1, 1, 16]")
        ),
        ("float32[16] random(1)", "float32[4, 1, 1, 16] random(1)"),
        ("float32[16] random(2)", "float32[4, 1, 1, 16] random(2)"),
        ("Mul(n, float32[16] random(1))", "Mul(Mul(n, float32[16] random(1)), float32[16] random(3))"),
        ("Mul(n, float32[16] random(1))", "Mul(Add(n, float32[16] random(3)), float32[16] random(1))"),
        ("Mul(n, float32[16] random(1))", "Div(n, float32[16] random(1))"),
        ("Add(g, float32[16] random(2))", "Sub(g, float32[16] random(2))"),
        ("Add(g, float32[16] random(2))", "Add(n, g)"),
        ("Mul(n, float32[16] random(1))", "Mul(n, n)"),
    ]
    for old, new, *count in swaps:
        yield f"{X} -> (y) {{ {(base + tail).replace(old, new, *(count or [1]))} }}"
    yield from seen_from_outside(X, base + tail, ["m", "d", "s", "v", "e", "r", "n", "g"])
    body = base + tail
    for old, name in (("1e-5", "eps"), ("float32[16] random(1)", "gain"), ("float32[16] random(2)", "bias")):
        shape = "[]" if name == "eps" else "[16]"
        yield f"(x: float32[B, S, 16], {name} = {old}) -> (y) {{ {body.replace(old, name)} }}"
        if name != "eps":
            yield f"(x: float32[B, S, 16], {name}: float32{shape}) -> (y) {{ {body.replace(old, name)} }}"
    computed = body.replace("ReduceMean(x, [-1])", "ReduceMean(x, Mul(axes, 0))")
    yield f"(x: float32[B, S, 16], axes: int64[1]) -> (y) {{ {computed} }}"
    flat = base.replace("ReduceMean(s, [-1])", "ReduceMean(s, [-1], keepdims=0)")
    yield f"(x: float32[16, 16]) -> (y) {{ {flat} y = Div(d, r) }}"
    yield f"(x: float32[B, 16, S]) -> (y) {{ {base} y = Div(d, r) }}"
    yield f"(x: float32[16]) -> (y) {{ {base} y = Div(d, r) }}"
    yield f"(x: float32[B, S, 16]) -> (y) {{ {base.replace('1e-5', '[1e-5]')} y = Add(Div(d, r), x) }}"


def attention_mutants() -> Iterator[str]:
    inputs = f"({HEADS}, c: bool[], allowed: bool[B, 1, S, T], w: float32[B, 2, S, T])"
    base = "s = MatMul(q, kt) f = Mul(s, 0.25) b = Add(f, m) p = Softmax(b, axis=-1) y = MatMul(p, v)"
    lowest = "-3.4028234663852886e38"
    swaps = [
        *(("axis=-1", f"axis={axis}") for axis in (0, 1, 2, -2)),
        ("Softmax(b", "LogSoftmax(b"),
        ("Softmax(b, axis=-1)", "Softmax(Softmax(b, axis=-1), axis=-1)"),
        *(("0.25", number) for number in ("0.0", "-0.25", "nan", "inf", "1e-30", "1.0", "100.0")),
        ("0.25", "float32[2, 1, 1] random(1)"),
        ("0.25", "float32[1, 1, 1, 1, 1] 0.25"),
        ("0.25", "w"),
        ("Mul(s, 0.25)", "Div(0.25, s)"),
        ("Mul(s, 0.25)", "Div(s, 0.0)"),
        ("Mul(s, 0.25)", "Mul(s, s)"),
        ("Mul(s, 0.25)", "Pow(s, 0.25)"),
        ("Mul(s, 0.25)", "Mul(Tanh(s), 0.25)"),
        ("Mul(s, 0.25)", "Sub(s, 0.25)"),
        ("Add(f, m)", "Sub(f, m)"),
        ("Add(f, m)", "Sub(m, f)"),
        ("Add(f, m)", "Mul(f, m)"),
        ("Add(f, m)", "Max(f, m)"),
        ("Add(f, m)", "Add(f, s)"),
        ("Add(f, m)", "Add(f, f)"),
        ("Add(f, m)", "Add(f, w)"),
        ("Add(f, m)", "Add(f, float32[1] random(1))"),
        ("Add(f, m)", "Add(f, float32[1, 2, 1, 1, 1] random(1))"),
        ("Add(f, m)", "Add(f, float32[3, 1, 1, 1, 1] random(1))"),
        ("Add(f, m)", "Add(Add(f, m), Add(n, w))"),
        ("Add(f, m)", "Mul(Add(s, m), 0.25)"),
        ("Add(f, m)", "Where(allowed, f, -inf)"),
        *(
            ("Add(f, m)", f"Add(f, Where(allowed, 0.0, {fill}))")
            for fill in ("-inf", lowest, "-1e9", "-1e4", "nan", "inf")
        ),
        *(
            ("Add(f, m)", f"Add(Add(f, Where(allowed, 0.0, {lowest})), Where(allowed, 0.0, {fill}))")
            for fill in (lowest, "-inf")
        ),
        ("MatMul(p, v)", "MatMul(Where(IsNaN(p), 0.0, p), v)"),
        ("MatMul(p, v)", "MatMul(Where(IsNaN(p), 1.0, p), v)"),
        ("MatMul(p, v)", "MatMul(Where(IsNaN(p), p, 0.0), v)"),
        ("MatMul(p, v)", "MatMul(Where(IsNaN(b), 0.0, p), v)"),
        ("MatMul(p, v)", "MatMul(Where(IsNaN(p), float32[1, 1, 1, 1, 1] 0.0, p), v)"),
        ("MatMul(p, v)", "MatMul(Where(IsInf(p), 0.0, p), v)"),
        ("MatMul(p, v)", "MatMul(Mul(p, 0.5), v)"),
        ("MatMul(p, v)", "MatMul(Add(p, w), v)"),
        ("MatMul(p, v)", "MatMul(Dropout(p, 0.5, false), v)"),
        ("MatMul(p, v)", "MatMul(Cast(Cast(p, to=float16), to=float32), v)"),
        ("MatMul(p, v)", "MatMul(Transpose(v, perm=[0, 1, 3, 2]), Transpose(p, perm=[0, 1, 3, 2]))"),
        ("MatMul(q, kt)", "Add(MatMul(q, kt), MatMul(q, kt))"),
        ("MatMul(q, kt)", "MatMul(Relu(q), Mul(kt, float32[8, 1] random(1)))"),
        ("Add(f, m)", "Add(f, Where(allowed, 0.0, -inf))"),
    ]
    masked = f"Add(f, Where(allowed, 0.0, {lowest}))"
    for old, new in swaps:
        yield f"{inputs} -> (y) {{ {base.replace(old, new, 1)} }}"
    for fill in ("-inf", lowest, "-1e9"):
        guarded = base.replace("MatMul(p, v)", "MatMul(Where(IsNaN(p), 0.0, p), v)")
        yield f"{inputs} -> (y) {{ {guarded.replace('Add(f, m)', masked.replace(lowest, fill))} }}"
    yield from seen_from_outside(inputs, base, ["s", "f", "b", "p"])
    # The key transposed in another way, of a shape that both ways fit; batches and heads that broadcast.
    square = "(q: float32[B, 4, 4, 8], k: float32[B, 4, 4, 8], v: float32[B, 4, 4, 8])"
    for perm in ("[0, 1, 3, 2]", "[0, 2, 3, 1]"):
        yield f"{square} -> (y) {{ y = MatMul(Softmax(MatMul(q, Transpose(k, perm={perm}))), v) }}"
    equal = "(q: float32[4, 4, 4, 4], k: float32[4, 4, 4, 4], v: float32[4, 4, 4, 4])"
    for perm in itertools.permutations(range(4)):
        yield f"{equal} -> (y) {{ y = MatMul(Softmax(MatMul(q, Transpose(k, perm={list(perm)}))), v) }}"
    for q, kt, v, m in (
        ("1, 2, S, 8", "B, 2, 8, T", "B, 2, T, 4", "1, 1, 1, 1"),
        ("B, 2, S, 8", "1, 2, 8, T", "B, 2, T, 4", "B, 1, 1, T"),
        ("B, 2, S, 8", "B, 1, 8, T", "B, 1, T, 4", "B, 2, S, T"),
        ("B, 2, S, 8", "B, 2, 8, T", "B, 1, T, 4", "S, T"),
        ("1, 2, S, 8", "1, 2, 8, T", "1, 2, T, 4", "B, 1, S, T"),
        ("B, 1, S, 8", "B, 1, 8, T", "B, 1, T, 4", "1, 2, S, T"),
        ("B, 2, 1, 8", "B, 2, 8, T", "B, 2, T, 4", "B, 2, S, T"),
        ("B, 2, S, 8", "B, 2, 8, 1", "B, 2, T, 4", "B, 2, S, T"),
        ("S, 8", "8, T", "T, 4", "S, T"),
        ("2, S, 8", "2, 8, T", "2, T, 4", "T"),
        ("2, S, 8", "2, 8, T", "2, T, 4", "B, 2, S, T"),
        ("2, S, 8", "8, T", "T, 4", "2, S, T"),
        ("B, 2, S, 8", "B, 2, 8, T", "2, T, 4", "T"),
        ("1, B, 2, S, 8", "1, B, 2, 8, T", "1, B, 2, T, 4", "T"),
    ):
        types = f"q: float32[{q}], kt: float32[{kt}], v: float32[{v}], m: float32[{m}]"
        yield f"({types}) -> (y) {{ y = MatMul(Softmax(Add(Mul(MatMul(q, kt), 0.25), m)), v) }}"


MUTANTS = [
    *(pytest.param(text, id=f"gelu-{index}") for index, text in enumerate(gelu_mutants())),
    *(pytest.param(text, id=f"layer_norm-{index}") for index, text in enumerate(layer_norm_mutants())),
    *(pytest.param(text, id=f"attention-{index}") for index, text in enumerate(attention_mutants())),
]


@pytest.mark.parametrize("text", MUTANTS)
def test_a_mutant_keeps_its_numbers(text: str) -> None:
    model, _ = optimized(text)
    assert_same_numbers(text, model)


def test_there_are_enough_mutants() -> None:
    counts = [len(set(kind())) for kind in (gelu_mutants, layer_norm_mutants, attention_mutants)]
    print(f"mutants: {counts}")
    assert min(counts) >= 60
