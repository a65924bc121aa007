"""Models as exporters write them: an encoder, a decoder with rotary positions, a convolutional net."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from pairs.base import Array, Feeds, Make, model

HIDDEN, HEADS, VOCAB, POSITIONS = 32, 4, 50, 40
SIZE = HIDDEN // HEADS


def matrix(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """Weights of standard deviation 1/sqrt(rows), as trained ones have."""
    found: Array = rng.standard_normal((rows, columns)) / np.sqrt(rows)
    return found.astype(np.float32)


def norm(x: str, y: str, gain: str, bias: str, how: str = "parts", axis: int = -1, eps: float = 1e-5) -> str:
    """Layer normalization of `x`, spelled in `how`; those after `parts` and `op` are mistakes others make."""
    centred = f"{y}_d = Sub({x}, ReduceMean({x}, axes=[{axis}], keepdims=1))"
    power = {"cubed": "3.0"}.get(how, "2.0")
    variance = f"{y}_v = ReduceMean(Pow({y}_d, {power}), axes=[{axis}], keepdims=1)"
    if how == "op":
        return f"{y} = LayerNormalization({x}, {gain}, {bias}, axis={axis}, epsilon={eps})"
    if how == "rms":
        return f"{y}_v = ReduceMean(Mul({x}, {x}), axes=[{axis}], keepdims=1)\n" + (
            f"{y} = Add(Mul(Div({x}, Sqrt(Add({y}_v, {eps}))), {gain}), {bias})"
        )
    if how == "moments":
        return (
            f"{y}_m = ReduceMean({x}, axes=[{axis}], keepdims=1)\n"
            f"{y}_v = Sub(ReduceMean(Mul({x}, {x}), axes=[{axis}], keepdims=1), Mul({y}_m, {y}_m))\n"
            f"{y} = Add(Mul(Div(Sub({x}, {y}_m), Sqrt(Add({y}_v, {eps}))), {gain}), {bias})"
        )
    if how == "products":
        return (
            f"{centred}\n{y}_v = ReduceMean(Mul({y}_d, {y}_d), axes=[{axis}], keepdims=1)\n"
            f"{y} = Add({bias}, Mul({gain}, Mul({y}_d, Reciprocal(Sqrt(Add({eps}, {y}_v))))))"
        )
    root = f"Sqrt(Add({y}_v, {eps}))" if how != "outside" else f"Add(Sqrt({y}_v), {eps})"
    scaled = f"Mul(Div({y}_d, {root}), {gain})" if how != "no gain" else f"Div({y}_d, {root})"
    return f"{centred}\n{variance}\n{y} = " + (scaled if how == "no bias" else f"Add({scaled}, {bias})")


GELU = {
    "erf": "{y} = Mul(Mul({x}, Add(Erf(Div({x}, 1.4142135)), 1.0)), 0.5)",
    "erf half first": "{y} = Mul(Mul(0.5, {x}), Add(1.0, Erf(Mul({x}, 0.70710677))))",
    "tanh": "{y} = Mul(Mul(0.5, {x}), Add(1.0, Tanh(Mul(0.7978846, Add({x}, Mul(0.044715, Pow({x}, 3.0)))))))",
    "tanh products": "{y} = Mul({x}, Mul(0.5, Add(1.0, Tanh(Mul(Mul({x}, 0.7978846), "
    "Add(1.0, Mul(Mul({x}, {x}), 0.044715)))))))",
    "quick": "{y} = Mul({x}, Sigmoid(Mul({x}, 1.702)))",
    "relu": "{y} = Relu({x})",
    "op": "{y} = Gelu({x})",
    "tanh op": '{y} = Gelu({x}, approximate="tanh")',
}

ENCODER: dict[str, Any] = {
    "scale": 1 / np.sqrt(SIZE),
    "scores": "Mul(MatMul({q}, {k}), {scale})",
    "softmax": "Softmax({s}, axis=-1)",
    "attention": "parts",
    "gelu": "erf",
    "norm": "parts",
    "axis": -1,
    "eps": 1e-5,
    "packed": False,
    "linear": "matmul",
    "power": None,
}


def encoder(
    *,
    layers: int = 2,
    at: int | None = None,
    opset: int = 17,
    batch: int | str = "batch",
    mask: str = "Mul(Sub(1.0, Cast(Unsqueeze(mask, [1, 2]), to=float32)), -1e9)",
    edit: Callable[[dict[str, Array]], None] | None = None,
    rename: bool = False,
    **change: Any,
) -> onnx.ModelProto:
    """A BERT-like encoder: ids and a mask of int64 [batch, seq]; `change` applies to layer `at`, or to all of them."""
    weights = encoder_weights(layers)
    body = [
        "x = Add(Gather(words, ids), Slice(positions, [0], Shape(ids, start=1), [0]))",
        f"bias = {mask}",
    ]
    source = "x"
    for layer in range(layers):
        how = ENCODER | (change if at in (None, layer) else {})
        body += _encoder_layer(layer, source, how, weights)
        source = f"l{layer}_out"
    body.append(f"pooled = Tanh(Add(MatMul(Gather({source}, 0, axis=1), wp), bp))")
    if edit:
        edit(weights)
    declared = [f"{name} = float32[{', '.join(map(str, w.shape))}] 0" for name, w in weights.items()]
    head = f"opset {opset}, com.microsoft 1 (ids: int64[{batch}, seq], mask: int64[{batch}, seq])"
    text = f"{head} -> ({source}: float32[{batch}, seq, {HIDDEN}], pooled: float32[{batch}, {HIDDEN}]) {{\n"
    lines = "\n".join([*declared, *body])
    return model(text + (lines if opset < 18 else re.sub(r"axes=(\[-?\d+\])", r"\1", lines)) + "\n}", weights, rename)


def encoder_weights(layers: int) -> dict[str, Array]:
    """Weights of standard deviation 1/sqrt(fan-in); gains around 1 and biases around 0, neither of them exact."""
    rng = np.random.default_rng(7)
    found: dict[str, Array] = {
        "words": rng.standard_normal((VOCAB, HIDDEN)).astype(np.float32),
        "positions": rng.standard_normal((POSITIONS, HIDDEN)).astype(np.float32),
        "wp": matrix(rng, HIDDEN, HIDDEN),
        "bp": rng.normal(0, 0.2, HIDDEN).astype(np.float32),
    }
    for layer in range(layers):
        p = f"l{layer}_"
        for name in "qkvo":
            found[f"{p}w{name}"] = matrix(rng, HIDDEN, HIDDEN)
            found[f"{p}b{name}"] = rng.normal(0, 0.3, HIDDEN).astype(np.float32)
        found[f"{p}w1"], found[f"{p}w2"] = matrix(rng, HIDDEN, 2 * HIDDEN), matrix(rng, 2 * HIDDEN, HIDDEN)
        found[f"{p}b1"] = rng.normal(0, 0.3, 2 * HIDDEN).astype(np.float32)
        found[f"{p}b2"] = rng.normal(0, 0.3, HIDDEN).astype(np.float32)
        for name in ("g1", "g2"):
            found[p + name] = rng.normal(1, 0.3, HIDDEN).astype(np.float32)
        for name in ("n1", "n2"):
            found[p + name] = rng.normal(0, 0.3, HIDDEN).astype(np.float32)
    return found


def _linear(x: str, w: str, b: str, how: str) -> str:
    if how == "bias first":
        return f"Add({b}, MatMul({x}, {w}))"
    if how == "no bias":
        return f"MatMul({x}, {w})"
    if how == "gemm":
        columns = 2 * HIDDEN if w.endswith("w1") else HIDDEN
        flat = f"Reshape({x}, [-1, {2 * HIDDEN if w.endswith('w2') else HIDDEN}])"
        shape = f"Concat(Shape(ids), [{columns}], axis=0)"
        return f"Reshape(Gemm({flat}, {w}, {b}), {shape})"
    return f"Add(MatMul({x}, {w}), {b})"


def _encoder_layer(layer: int, x: str, how: dict[str, Any], weights: dict[str, Array]) -> list[str]:
    p = f"l{layer}_"
    lines = []
    if how["packed"]:
        weights[f"{p}wqkv"] = np.concatenate([weights.pop(f"{p}w{n}") for n in "qkv"], axis=1)
        weights[f"{p}bqkv"] = np.concatenate([weights.pop(f"{p}b{n}") for n in "qkv"])
        lines.append(
            f"{p}q, {p}k, {p}v = Split(Add(MatMul({x}, {p}wqkv), {p}bqkv), [{HIDDEN}, {HIDDEN}, {HIDDEN}], axis=-1)"
        )
    else:
        lines += [f"{p}{n} = {_linear(x, p + 'w' + n, p + 'b' + n, how['linear'])}" for n in "qkv"]
    if how["attention"] == "mha":
        lines.append(
            f"{p}c = com.microsoft.MultiHeadAttention({p}q, {p}k, {p}v, _, _, "
            f"Expand(bias, Concat([1, {HEADS}], Shape(ids, start=1), Shape(ids, start=1), axis=0)), "
            f"num_heads={HEADS}, scale={how['scale']})"
        )
    else:
        lines += _attention_parts(p, how)
    lines.append(f"{p}r = Add({x}, {_linear(p + 'c', p + 'wo', p + 'bo', how['linear'])})")
    lines.append(norm(f"{p}r", f"{p}n", f"{p}g1", f"{p}n1", how["norm"], how["axis"], how["eps"]))
    lines.append(f"{p}f = {_linear(p + 'n', p + 'w1', p + 'b1', how['linear'])}")
    lines.append(GELU[how["gelu"]].format(x=f"{p}f", y=f"{p}g"))
    lines.append(f"{p}u = Add({p}n, {_linear(p + 'g', p + 'w2', p + 'b2', how['linear'])})")
    lines.append(norm(f"{p}u", f"{p}out", f"{p}g2", f"{p}n2", how["norm"], how["axis"], how["eps"]))
    return lines


def _attention_parts(p: str, how: dict[str, Any]) -> list[str]:
    split = f"[0, 0, {HEADS}, {SIZE}]"
    if how["attention"] == "op":
        heads = [f"{p}h{n} = Transpose(Reshape({p}{n}, {split}), perm=[0, 2, 1, 3])" for n in "qkv"]
        mask = "Expand(bias, Concat(Shape(ids, end=1), [1], Shape(ids, start=1), Shape(ids, start=1), axis=0))"
        return [
            *heads,
            f"{p}y = Attention({p}hq, {p}hk, {p}hv, {mask}, scale={how['scale']})",
            f"{p}c = Reshape(Transpose({p}y, perm=[0, 2, 1, 3]), [0, 0, {HIDDEN}])",
        ]
    scores = how["scores"].format(q=f"{p}hq", k=f"{p}hk", scale=f"{float(how['scale'])!r}")
    return [
        f"{p}hq = Transpose(Reshape({p}q, {split}), perm=[0, 2, 1, 3])",
        f"{p}hk = Transpose(Reshape({p}k, {split}), perm=[0, 2, 3, 1])",
        f"{p}hv = Transpose(Reshape({p}v, {split}), perm=[0, 2, 1, 3])",
        f"{p}s = Add({scores}, bias)",
        f"{p}a = {how['softmax'].format(s=f'{p}s')}",
        f"{p}c = Reshape(Transpose(MatMul({p}a, {p}hv), perm=[0, 2, 1, 3]), [0, 0, {HIDDEN}])",
    ]


def encoder_feeds(rng: np.random.Generator) -> Feeds:
    """Ids of any batch and length, with a mask that is padded left, right or nowhere, or has holes."""
    batch, seq = int(rng.integers(1, 4)), int(rng.integers(3, 12))
    return {"ids": rng.integers(0, VOCAB, (batch, seq)), "mask": rng.integers(0, 2, (batch, seq))}


def padded(side: str = "left", seq: int = 8) -> Callable[[np.random.Generator], Feeds]:
    """Ids with a mask padded on one side, or with a row that is masked throughout (`empty`)."""

    def draw(rng: np.random.Generator) -> Feeds:
        mask = np.ones((2, seq), np.int64)
        mask[0, slice(0, 3) if side == "left" else slice(seq - 3, seq) if side == "right" else slice(0, seq)] = 0
        return {"ids": rng.integers(0, VOCAB, (2, seq)), "mask": mask}

    return draw


def changed(make: Callable[..., onnx.ModelProto], **options: Any) -> Make:
    """`make(**options)`, later."""
    return lambda: make(**options)


DECODER: dict[str, Any] = {
    "rotary": "half",
    "repeat": "each",
    "scale": 1 / np.sqrt(SIZE),
    "causal": 0,
    "cache": "past first",
    "norm": "rms",
    "eps": 1e-6,
    "gate": "silu",
    "angles": "Mul(Cast(Unsqueeze(places, [1]), to=float32), frequencies)",
    "fill": -3.4028235e38,
    "opset": 20,
}


def decoder(*, rename: bool = False, **change: Any) -> onnx.ModelProto:
    """One LLaMA-like layer with a cache: x [batch, seq, 32], past_k and past_v [batch, 2, past, 8], 4 heads on 2.

    Rotary positions go on from the past; token i sees the past and tokens up to i. Outputs: hidden state and cache.
    """
    how = DECODER | change
    rng = np.random.default_rng(11)
    weights = {
        "wq": matrix(rng, HIDDEN, HIDDEN),
        "wk": matrix(rng, HIDDEN, HIDDEN // 2),
        "wv": matrix(rng, HIDDEN, HIDDEN // 2),
        "wo": matrix(rng, HIDDEN, HIDDEN),
        "wg": matrix(rng, HIDDEN, 2 * HIDDEN),
        "wu": matrix(rng, HIDDEN, 2 * HIDDEN),
        "wd": matrix(rng, 2 * HIDDEN, HIDDEN),
        "g1": rng.normal(1, 0.3, HIDDEN).astype(np.float32),
        "g2": rng.normal(1, 0.3, HIDDEN).astype(np.float32),
        "frequencies": (100.0 ** (-np.arange(SIZE // 2) / (SIZE // 2))).astype(np.float32)[None],
    }
    order = "{p}, {n}" if how["cache"] == "past first" else "{n}, {p}"
    body = [
        "now = Shape(x, start=1, end=2)",
        "past = Shape(past_k, start=2, end=3)",
        "total = Add(now, past)",
        "places = Range(Squeeze(past, [0]), Squeeze(total, [0]), 1)",
        f"angle = {how['angles']}",
        "cos = Cos(angle)",
        "sin = Sin(angle)",
        _decoder_norm("x", "h", "g1", how),
        *_projected("q", 4),
        *_projected("k", 2),
        *_projected("v", 2),
        *_rotated("q", how["rotary"]),
        *_rotated("k", how["rotary"]),
        f"keys = Concat({order.format(p='past_k', n='k_r')}, axis=2)",
        f"values = Concat({order.format(p='past_v', n='v_h')}, axis=2)",
        *_repeated("keys", how["repeat"]),
        *_repeated("values", how["repeat"]),
        f"s = Mul(MatMul(q_r, Transpose(keys_n, perm=[0, 1, 3, 2])), {float(how['scale'])!r})",
        f"seen = LessOrEqual(Unsqueeze(Range(0, Squeeze(total, [0]), 1), [0]), Unsqueeze(Add(places, "
        f"{how['causal']}), [1]))",
        f"a = Softmax(Where(seen, s, {how['fill']!r}), axis=-1)",
        f"c = Reshape(Transpose(MatMul(a, values_n), perm=[0, 2, 1, 3]), [0, 0, {HIDDEN}])",
        "r = Add(x, MatMul(c, wo))",
        _decoder_norm("r", "m", "g2", how),
        "gate = MatMul(m, wg)",
        "act = "
        + {"silu": "Mul(gate, Sigmoid(gate))", "gelu": "Gelu(gate)", "div": "Div(gate, Add(1.0, Exp(Neg(gate))))"}[
            how["gate"]
        ],
        "y = Add(r, MatMul(Mul(act, MatMul(m, wu)), wd))",
    ]
    cache = f"float32[batch, 2, past, {SIZE}]"
    text = f"opset {how['opset']} (x: float32[batch, seq, {HIDDEN}], past_k: {cache}, past_v: {cache}) -> ("
    text += f"y: float32[batch, seq, {HIDDEN}], keys: float32[batch, 2, total, {SIZE}], "
    text += f"values: float32[batch, 2, total, {SIZE}]) {{\n"
    declared = [f"{name} = float32[{', '.join(map(str, w.shape))}] 0" for name, w in weights.items()]
    return model(text + "\n".join([*declared, *body]) + "\n}", weights, rename)


def _decoder_norm(x: str, y: str, gain: str, how: dict[str, Any]) -> str:
    if how["norm"] == "op":
        return f"{y} = RMSNormalization({x}, {gain}, axis=-1, epsilon={how['eps']})"
    if how["norm"] == "layer":
        return f"{y} = LayerNormalization({x}, {gain}, axis=-1, epsilon={how['eps']})"
    if how["norm"] == "power":
        return f"{y} = Mul({gain}, Mul({x}, Reciprocal(Sqrt(Add(ReduceMean(Mul({x}, {x}), [-1]), {how['eps']})))))"
    return f"{y} = Mul(Mul({x}, Div(1.0, Sqrt(Add(ReduceMean(Pow({x}, 2.0), [-1]), {how['eps']})))), {gain})"


def _projected(name: str, heads: int) -> list[str]:
    return [f"{name}_h = Transpose(Reshape(MatMul(h, w{name}), [0, 0, {heads}, {SIZE}]), perm=[0, 2, 1, 3])"]


def _rotated(name: str, how: str) -> list[str]:
    x, y, half = f"{name}_h", f"{name}_r", SIZE // 2
    if how == "interleaved":
        even, odd = (f"Slice({x}, [{start}], [{SIZE}], [3], [2])" for start in (0, 1))
        return [
            f"{name}_e = {even}",
            f"{name}_o = {odd}",
            f"{name}_1 = Unsqueeze(Sub(Mul({name}_e, cos), Mul({name}_o, sin)), [4])",
            f"{name}_2 = Unsqueeze(Add(Mul({name}_o, cos), Mul({name}_e, sin)), [4])",
            f"{y} = Reshape(Concat({name}_1, {name}_2, axis=4), [0, 0, 0, {SIZE}])",
        ]
    if how == "concat":
        turned = f"Concat(Neg(Slice({x}, [{half}], [{SIZE}], [3])), Slice({x}, [0], [{half}], [3]), axis=3)"
        wide = "Concat({t}, {t}, axis=1)"
        return [f"{y} = Add(Mul({x}, {wide.format(t='cos')}), Mul({turned}, {wide.format(t='sin')}))"]
    plus, minus = ("Add", "Sub") if how == "half" else ("Sub", "Add")
    return [
        f"{name}_1, {name}_2 = Split({x}, axis=3, num_outputs=2)",
        f"{y} = Concat({minus}(Mul({name}_1, cos), Mul({name}_2, sin)), "
        f"{plus}(Mul({name}_2, cos), Mul({name}_1, sin)), axis=3)",
    ]


def _repeated(name: str, how: str) -> list[str]:
    if how == "tile":
        return [f"{name}_n = Concat({name}, {name}, axis=1)"]
    if how == "gather":
        return [f"{name}_n = Gather({name}, [0, 0, 1, 1], axis=1)"]
    return [
        f"{name}_u = Unsqueeze({name}, [2])",
        f"{name}_n = Reshape(Expand({name}_u, [1, 1, 2, 1, 1]), [0, {HEADS}, -1, {SIZE}])",
    ]


def decoder_feeds(rng: np.random.Generator) -> Feeds:
    """A step of several tokens with a past of any length."""
    batch, seq, past = int(rng.integers(1, 3)), int(rng.integers(2, 6)), int(rng.integers(1, 7))
    cache = (batch, 2, past, SIZE)
    shapes = {"x": (batch, seq, HIDDEN), "past_k": cache, "past_v": cache}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


CNN: dict[str, Any] = {
    "stem": "Conv(x, w1, b1, pads=[1, 1, 1, 1], strides=[2, 2])",
    "bn": "BatchNormalization(c1, gain, bias, mean, var, epsilon=1e-3)",
    "act": "Relu(n1)",
    "pool": "MaxPool(a1, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])",
    "depthwise": "Conv(p1, w2, b2, pads=[1, 1, 1, 1], group=8)",
    "skip": "Add(p1, c2)",
    "head": "Flatten(GlobalAveragePool(Relu(s1)))",
    "result": "Gemm(f1, w3, b3, transB=1)",
    "opset": 18,
}


def cnn(
    *, edit: Callable[[dict[str, Array]], None] | None = None, rename: bool = False, **change: Any
) -> onnx.ModelProto:
    """A convolutional net: x [batch, 3, height, width], a stem with batch normalization, a depthwise block, a head."""
    how = CNN | change
    weights = cnn_weights()
    if edit:
        edit(weights)
    declared = [f"{name} = float32[{', '.join(map(str, w.shape))}] 0" for name, w in weights.items()]
    places = {
        "stem": "c1",
        "bn": "n1",
        "act": "a1",
        "pool": "p1",
        "depthwise": "c2",
        "skip": "s1",
        "head": "f1",
        "result": "y",
    }
    body = [f"{name} = {how[step]}" for step, name in places.items()]
    text = f"opset {how['opset']} (x: float32[batch, 3, height, width]) -> (y: float32[batch, 5]) {{\n"
    return model(text + "\n".join([*declared, *body]) + "\n}", weights, rename)


def cnn_weights() -> dict[str, Array]:
    """Weights with statistics that are not 0 and 1."""
    rng = np.random.default_rng(3)
    found = {
        "w1": rng.standard_normal((8, 3, 3, 3)) / np.sqrt(27),
        "b1": rng.normal(0, 0.3, 8),
        "gain": rng.normal(1, 0.3, 8),
        "bias": rng.normal(0, 0.3, 8),
        "mean": rng.normal(0, 0.3, 8),
        "var": rng.uniform(0.1, 2, 8),
        "w2": rng.standard_normal((8, 1, 3, 3)) / 3,
        "b2": rng.normal(0, 0.3, 8),
        "w3": rng.standard_normal((5, 8)) / np.sqrt(8),
        "b3": rng.normal(0, 0.3, 5),
    }
    return {name: array.astype(np.float32) for name, array in found.items()}


def image(height: int = 16, width: int = 16) -> Callable[[np.random.Generator], Feeds]:
    """Two normal images."""
    return lambda rng: {"x": rng.standard_normal((2, 3, height, width)).astype(np.float32)}


def any_image(rng: np.random.Generator) -> Feeds:
    """Normal images of any number and size."""
    batch, height, width = (int(n) for n in rng.integers((1, 5, 5), (4, 21, 21)))
    return {"x": rng.standard_normal((batch, 3, height, width)).astype(np.float32)}
