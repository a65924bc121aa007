"""Axes, slices, broadcasts, layouts, and what is wrong only at some sizes."""

from __future__ import annotations

import numpy as np

from pairs.base import Feeds, Make, normal, pair_of, right, wrong


def _any(rng: np.random.Generator) -> Feeds:
    shape = (int(rng.integers(1, 4)), int(rng.integers(2, 8)), 16)
    return {"x": rng.standard_normal(shape).astype(np.float32)}


_X = "opset {opset} (x: float32[batch, seq, 16]) -> (y: float32[{out}]) {{ {body} }}"


def _of(
    reference: str, candidate: str, out: str = "batch, seq, 16", opset: int = 18, keep: bool = False
) -> tuple[Make, Make]:
    one, other = (_X.format(opset=opset, out=out, body=body) for body in (reference, candidate))
    return pair_of(one, other, keep=keep)


_SPLIT_HEADS = "w = float32[16, 16] random(1) h = MatMul(x, w) "
_IMAGE = "opset 18 (x: float32[batch, 4, h, w]) -> (y: float32[batch, 4, h2, w2]) {{ y = {body} }}"
_RESIZE = 'Resize(x, _, [1.0, 1.0, 2.0, 2.0], mode="{mode}", coordinate_transformation_mode="{how}"{more})'


def _resize(mode: str, how: str, more: str = "") -> str:
    return _IMAGE.format(body=_RESIZE.format(mode=mode, how=how, more=more))


_GROUPS = (
    "opset 18 (x: float32[batch, 8, 3, 4]) -> (y: float32[batch, 8, 3, 4]) {{ "
    "g = float32[8, 1, 1] random(1) b = float32[8, 1, 1] random(2) "
    "t = Tanh(x) f = Reshape(t, [0, {groups}, -1]) "
    "n = InstanceNormalization(f, float32[{groups}] 1, float32[{groups}] 0, epsilon=1e-5) "
    "y = Add(Mul(Reshape(n, Shape(x)), g), b) }}"
)
_IMAGES = normal(2, 4, 5, 6)

WRONG = [
    wrong(
        "slice ends one early",
        *_of(
            "y = Mul(Slice(x, [1], [9], [2]), 2.0)",
            "y = Mul(Slice(x, [1], [8], [2]), 2.0)",
            "batch, seq, part",
            keep=True,
        ),
        normal(2, 3, 16),
    ),
    wrong(
        "slice begins one late and ends one late",
        *_of("y = Slice(x, [4], [12], [2])", "y = Slice(x, [5], [13], [2])", "batch, seq, 8"),
        normal(2, 3, 16),
    ),
    wrong(
        "last token by a fixed place",
        *_of("y = Gather(x, -1, axis=1)", "y = Gather(x, 6, axis=1)", "batch, 16"),
        normal(2, 9, 16),
    ),
    wrong(
        "broadcast along the other axis of a square",
        *pair_of(
            "opset 18 (x: float32[n, 8, 8], s: float32[8]) -> (y: float32[n, 8, 8]) { y = Softmax(Mul(x, s)) }",
            "opset 18 (x: float32[n, 8, 8], s: float32[8]) -> (y: float32[n, 8, 8]) { y = Softmax(Mul(x, "
            "Unsqueeze(s, [1]))) }",
        ),
        lambda rng: {"x": rng.standard_normal((2, 8, 8)).astype("f4"), "s": rng.standard_normal(8).astype("f4")},
    ),
    wrong(
        "heads cut out of the width in the other order",
        *_of(
            _SPLIT_HEADS + "y = Reshape(Transpose(Reshape(h, [0, 0, 4, 4]), perm=[0, 2, 1, 3]), [0, 0, 0, 4])",
            _SPLIT_HEADS + "y = Reshape(Transpose(Reshape(h, [0, 0, 4, 4]), perm=[0, 3, 1, 2]), [0, 0, 0, 4])",
            "batch, 4, seq, 4",
        ),
        normal(2, 3, 16),
    ),
    wrong(
        "reshape in the place of a transpose",
        *_of(
            "y = Mul(Transpose(x, perm=[0, 2, 1]), 0.5)",
            "y = Mul(Reshape(x, Gather(Shape(x), [0, 2, 1])), 0.5)",
            "batch, 16, seq",
        ),
        normal(2, 3, 16),
    ),
    wrong(
        "constant folded as its plain transpose",
        *pair_of(
            "opset 18 (x: float32[n, 6]) -> (y: float32[n, 6, 6, 6]) { c = float32[6, 6, 6] random(4) "
            "y = Add(Transpose(c, perm=[1, 2, 0]), Unsqueeze(x, [1, 2])) }",
            "opset 18 (x: float32[n, 6]) -> (y: float32[n, 6, 6, 6]) { c = float32[6, 6, 6] random(4) "
            "y = Add(Transpose(c, perm=[2, 1, 0]), Unsqueeze(x, [1, 2])) }",
        ),
        normal(3, 6),
    ),
    wrong(
        "mean over the other axis of a square",
        *pair_of(
            "opset 18 (x: float32[n, 7, 7]) -> (y: float32[n, 7]) { y = ReduceMean(x, [1], keepdims=0) }",
            "opset 18 (x: float32[n, 7, 7]) -> (y: float32[n, 7]) { y = ReduceMean(x, [2], keepdims=0) }",
        ),
        normal(2, 7, 7),
    ),
    wrong(
        "Squeeze without axes drops a batch of one",
        *_of("y = Squeeze(ReduceSum(x, [1]), [1])", "y = Squeeze(ReduceSum(x, [1]))", "?, ?"),
        normal(1, 3, 16),
    ),
    wrong(
        "a width of one is broadcast",
        *pair_of(
            "opset 18 (x: float32[n, a], z: float32[n, b]) -> (y: float32[n, c]) { y = Concat(x, z, axis=1) }",
            "opset 18 (x: float32[n, a], z: float32[n, b]) -> (y: float32[n, c]) { k = Add(Shape(x, "
            "start=1), Shape(z, start=1)) "
            "y = Slice(Concat(Expand(x, Max(Concat(Shape(x, end=1), [2], axis=0), Shape(x))), z, axis=1), [0], "
            "Add(k, Cast(Equal(Shape(x, start=1), 1), to=int64)), [1]) }",
        ),
        lambda rng: {"x": rng.standard_normal((2, 1)).astype("f4"), "z": rng.standard_normal((2, 3)).astype("f4")},
    ),
    wrong(
        "halves of an odd length",
        *pair_of(
            "opset 18 (x: float32[n, len]) -> (y: float32[n, half]) { m = Div(Shape(x, start=1), 2) y = "
            "Slice(x, [0], m, [1]) }",
            "opset 18 (x: float32[n, len]) -> (y: float32[n, half]) { m = Div(Add(Shape(x, start=1), 1), 2) "
            "y = Slice(x, [0], m, [1]) }",
        ),
        normal(2, 7),
    ),
    wrong(
        "size of a window fixed at export",
        *_of(
            "y = Div(ReduceSum(x, [1], keepdims=0), Cast(Shape(x, start=1, end=2), to=float32))",
            "y = Div(ReduceSum(x, [1], keepdims=0), [7.0])",
            "batch, 16",
            keep=True,
        ),
        normal(2, 5, 16),
    ),
    wrong(
        "batch fixed at one by Reshape",
        *_of("y = Reshape(x, [0, -1])", "y = Reshape(x, [1, -1])", "?, ?"),
        normal(2, 3, 16),
    ),
    wrong(
        "product of nothing is 0",
        *pair_of(
            "opset 18 (x: float32[n, k]) -> (y: float32[n]) { y = ReduceProd(Exp(x), [1], keepdims=0) }",
            "opset 18 (x: float32[n, k]) -> (y: float32[n]) { y = Mul(ReduceProd(Exp(x), [1], keepdims=0), "
            "Cast(Greater(Shape(x, start=1), 0), to=float32)) }",
        ),
        normal(3, 0),
    ),
    wrong(
        "nearest resize rounds the other way",
        *pair_of(
            _resize("nearest", "half_pixel", ', nearest_mode="floor"'),
            _resize("nearest", "half_pixel", ', nearest_mode="ceil"'),
        ),
        _IMAGES,
    ),
    wrong(
        "resize aligns corners", *pair_of(_resize("linear", "half_pixel"), _resize("linear", "align_corners")), _IMAGES
    ),
    wrong("cubic for linear", *pair_of(_resize("linear", "half_pixel"), _resize("cubic", "half_pixel")), _IMAGES),
    wrong(
        "group normalization with other groups",
        *pair_of(_GROUPS.format(groups=4), _GROUPS.format(groups=2)),
        normal(2, 8, 3, 4),
    ),
    wrong(
        "depth to space in the other order",
        *pair_of(
            "opset 18 (x: float32[n, 8, h, w]) -> (y: float32[n, 2, h2, w2]) { y = DepthToSpace(x, blocksize=2) }",
            "opset 18 (x: float32[n, 8, h, w]) -> (y: float32[n, 2, h2, w2]) { y = DepthToSpace(x, "
            'blocksize=2, mode="CRD") }',
        ),
        normal(1, 8, 3, 3),
    ),
    wrong(
        "edge for reflected padding",
        *pair_of(
            _IMAGE.format(body='Pad(x, [0, 0, 2, 2, 0, 0, 2, 2], mode="reflect")'),
            _IMAGE.format(body='Pad(x, [0, 0, 2, 2, 0, 0, 2, 2], mode="edge")'),
        ),
        _IMAGES,
    ),
    wrong(
        "layout of the output",
        *pair_of(
            "opset 18 (x: float32[n, 3, h, w]) -> (y: float32[n, a, b, c]) { k = float32[3, 3, 1, 1] "
            "random(1) y = Conv(x, k) }",
            "opset 18 (x: float32[n, 3, h, w]) -> (y: float32[n, a, b, c]) { k = float32[3, 3, 1, 1] random(1) "
            "y = Transpose(Conv(x, k), perm=[0, 2, 3, 1]) }",
        ),
        normal(1, 3, 3, 3),
    ),
    wrong(
        "einsum with two letters exchanged",
        *pair_of(
            "opset 18 (x: float32[n, 5, 5], z: float32[n, 5, 5]) -> (y: float32[n, 5, 5]) { y = Einsum(x, "
            'z, equation="bij,bjk->bik") }',
            "opset 18 (x: float32[n, 5, 5], z: float32[n, 5, 5]) -> (y: float32[n, 5, 5]) { y = Einsum(x, "
            'z, equation="bij,bkj->bik") }',
        ),
        lambda rng: {
            "x": rng.standard_normal((2, 5, 5)).astype("f4"),
            "z": rng.standard_normal((2, 5, 5)).astype("f4"),
        },
    ),
]

RIGHT = [
    right(
        "two transposes cancelled",
        *_of("y = Transpose(Neg(Transpose(x, perm=[0, 2, 1])), perm=[0, 2, 1])", "y = Neg(x)", keep=True),
        _any,
        "a permutation and its inverse move bits",
    ),
    right(
        "a chain of reshapes merged",
        *_of(
            "y = Reshape(Reshape(Reshape(x, [0, 0, 4, 4]), [-1, 16]), [-1, 4, 2, 2])",
            "y = Reshape(x, [-1, 4, 2, 2])",
            "rows, 4, 2, 2",
        ),
        _any,
        "row-major order stays",
    ),
    right(
        "Slice for Split",
        *_of(
            "a, b = Split(x, axis=2, num_outputs=2) y = Concat(b, a, axis=2)",
            "y = Concat(Slice(x, [8], [16], [2]), Slice(x, [0], [8], [2]), axis=2)",
        ),
        _any,
        "moves bits",
    ),
    right(
        "negative axes and ends",
        *_of("y = Slice(x, [-3], [-1], [-1])", "y = Slice(x, [13], [15], [2])", "batch, seq, 2"),
        _any,
        "the last axis has 16 elements",
    ),
    right(
        "MatMul for Einsum",
        *_of(
            'w = float32[16, 16] random(3) y = Einsum(x, w, equation="bsi,io->bso")',
            "w = float32[16, 16] random(3) y = MatMul(x, w)",
        ),
        _any,
        "the same sums",
    ),
    right(
        "two products associated the other way",
        *pair_of(
            "opset 18 (x: float32[n, 16]) -> (y: float32[n, 16]) { a = float32[16, 16] random(1) b = "
            "float32[16, 16] random(2) "
            "y = MatMul(MatMul(Tanh(x), a), b) }",
            "opset 18 (x: float32[n, 16]) -> (y: float32[n, 16]) { a = float32[16, 16] random(1) b = "
            "float32[16, 16] random(2) "
            "y = MatMul(Tanh(x), MatMul(a, b)) }",
        ),
        normal(3, 16),
        "(xA)B = x(AB) for the finite x that Tanh gives",
    ),
    right(
        "Expand without effect dropped",
        *_of("y = Add(Expand(x, Shape(x)), 1.0)", "y = Add(x, 1.0)"),
        _any,
        "its own shape",
    ),
    right(
        "Concat of one and Identity dropped",
        *_of("y = Tanh(Identity(Concat(x, axis=1)))", "y = Tanh(x)"),
        _any,
        "moves bits",
    ),
    right(
        "sum over two axes, one after the other",
        *_of("y = ReduceSum(x, [1, 2])", "y = ReduceSum(ReduceSum(x, [2]), [1])", "batch, 1, 1"),
        _any,
        "a sum in another order",
    ),
    right(
        "flattened by Reshape",
        *_of("y = Flatten(x, axis=2)", "y = Reshape(x, Concat([-1], Shape(x, start=2), axis=0))", "rows, 16"),
        _any,
        "batch times seq rows",
    ),
    right(
        "group normalization as an op",
        *pair_of(
            _GROUPS.format(groups=4),
            _GROUPS.format(groups=4)
            .replace("opset 18", "opset 21")
            .replace(
                "Add(Mul(Reshape(n, Shape(x)), g), b)",
                "GroupNormalization(t, Squeeze(g, [1, 2]), Squeeze(b, [1, 2]), num_groups=4, epsilon=1e-5)",
            )
            .replace("n = InstanceNormalization(f, float32[4] 1, float32[4] 0, epsilon=1e-5) ", "")
            .replace("f = Reshape(t, [0, 4, -1]) ", ""),
        ),
        normal(2, 8, 3, 4),
        "the op is defined by these parts; its body takes the variance from moments, hence data near zero",
    ),
]
