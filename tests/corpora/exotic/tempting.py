"""Graphs that look like something simpler, and are not."""

from __future__ import annotations

import numpy as np
import onnx

from corpora.exotic.base import Made, Theme, array, text, weights

exotic = Theme("tempting")


@exotic()
def third_power() -> onnx.ModelProto:
    """A LayerNormalization but for the power, which is 3."""
    return text(
        """g (float[2, 4] x) => (float[2, 4] y) <int64[1] last = {-1}, float three = {3}, float eps = {0.00001}> {
            u = ReduceMean(x, last) d = Sub(x, u) p = Pow(d, three) a = Abs(p) v = ReduceMean(a, last)
            e = Add(v, eps) s = Sqrt(e) y = Div(d, s) }""",
        opset=18,
        ir=8,
    )


@exotic()
def normalized_over_the_middle() -> onnx.ModelProto:
    """A LayerNormalization over axis 1 of three."""
    return text(
        """g (float[2, 3, 4] x) => (float[2, 3, 4] y) <int64[1] axis = {1}, float two = {2}, float eps = {0.00001}> {
            u = ReduceMean(x, axis) d = Sub(x, u) p = Pow(d, two) v = ReduceMean(p, axis) e = Add(v, eps) s = Sqrt(e)
            y = Div(d, s) }""",
        opset=18,
        ir=8,
    )


@exotic()
def padded_with_zeros_then_pooled() -> onnx.ModelProto:
    """Pad writes zeros, the largest of all that is negative; MaxPool's own padding does not."""
    return text(
        """g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y) <int64[8] p = {0, 0, 1, 1, 0, 0, 1, 1}> {
            a = Abs(x) n = Neg(a) b = Pad(n, p) y = MaxPool<kernel_shape = [3, 3]>(b) }"""
    )


@exotic()
def shared_convolution() -> onnx.ModelProto:
    """A normalization behind a convolution whose output, and whose weight, somebody else reads."""
    model = text(
        """g (float[1, 2, 4, 4] x) => (float[1, 3, 2, 2] y, float[1, 3, 2, 2] h, float[1, 3, 2, 2] z) {
            h = Conv(x, w) y = BatchNormalization(h, s, b, m, v) n = Neg(x) z = Conv(n, w) }""",
        opset=15,
        ir=8,
    )
    parameters = [weights(name, 3, seed=seed) for seed, name in enumerate("sbm")]
    model.graph.initializer.extend([weights("w", 3, 2, 3, 3), *parameters, array("v", [1, 2, 0.5])])
    return model


@exotic()
def rank_raised_by_a_one() -> onnx.ModelProto:
    """A product with 1 of shape [1, 1, 1, 1]: it changes the rank."""
    return text("g (float[2, 3] x) => (float[1, 1, 2, 3] y) <float[1, 1, 1, 1] one = {1}> { y = Mul(x, one) }")


@exotic()
def transposes_that_do_not_cancel() -> onnx.ModelProto:
    """A permutation twice is not its own inverse."""
    return text(
        """g (float[2, 3, 4] x) => (float[4, 2, 3] y) {
            a = Transpose<perm = [1, 2, 0]>(x) b = Relu(a) y = Transpose<perm = [1, 2, 0]>(b) }"""
    )


@exotic()
def casts_that_lose() -> Made:
    """Numbers to a narrower type and back."""
    model = text(
        """g (int64[3] x, float[3] f) => (int64[3] y, float[3] z, float[3] h) {
            a = Cast<to = 1>(x) y = Cast<to = 7>(a) b = Cast<to = 7>(f) z = Cast<to = 1>(b)
            c = Cast<to = 10>(f) h = Cast<to = 1>(c) }"""
    )
    return Made(model, feeds={"x": np.array([2**53 + 1, -1, 7]), "f": np.array([0.1, -2.75, 2049], np.float32)})


@exotic()
def numbers_as_truth() -> Made:
    """A number to bool and back is 0 or 1."""
    model = text("g (int64[3] x) => (int64[3] y) { a = Cast<to = 9>(x) y = Cast<to = 7>(a) }")
    return Made(model, feeds={"x": np.array([5, 0, -3])})


@exotic()
def nothing_of_infinity() -> Made:
    """x · 0 and x − x are not 0 where x is infinite or NaN, x / x is not 1, x⁰ is."""
    model = text(
        """g (float[4] x) => (float[4] a, float[4] b, float[4] c, float[4] d) <float zero = {0}> {
            a = Mul(x, zero) b = Sub(x, x) c = Div(x, x) d = Pow(x, zero) }"""
    )
    return Made(model, feeds={"x": np.array([np.inf, np.nan, 0, -2], np.float32)})


@exotic()
def comparisons_with_nan() -> Made:
    """Not (x < y) is not x ≥ y; Where(x == x, x, 0) drops NaN; Max passes it on."""
    model = text(
        """g (float[3] x, float[3] z) => (bool[3] a, float[3] b, float[3] c) <float zero = {0}> {
            l = Less(x, z) a = Not(l) e = Equal(x, x) b = Where(e, x, zero) m = Max(x, zero) c = Min(m, z) }"""
    )
    feeds = {"x": np.array([np.nan, 1, -1], np.float32), "z": np.array([0, np.nan, 5], np.float32)}
    return Made(model, feeds=feeds)


@exotic()
def integers_divide_downwards_or_not() -> Made:
    """Multiplying and dividing by a number is not nothing for integers."""
    model = text(
        "g (int64[3] x) => (int64[3] y, int64[3] z) <int64 two = {2}> { a = Div(x, two) y = Mul(a, two) "
        "b = Mul(x, two) z = Div(b, two) }"
    )
    return Made(model, feeds={"x": np.array([5, -5, 2**62])})


@exotic()
def reshapes_with_zeros() -> onnx.ModelProto:
    """0 in a shape means the size that was there, or 0 with allowzero."""
    return text(
        """g (float[0, 3] x, float[2, 3] w) => (float[3, 0] y, float[2, 3] z) <int64[2] s = {3, 0},
            int64[2] t = {0, -1}> { y = Reshape<allowzero = 1>(x, s) z = Reshape(w, t) }"""
    )


@exotic()
def gelu_by_tanh_at_an_output() -> onnx.ModelProto:
    """A GELU by tanh, one of whose inner values is an output, beside one by erf."""
    return text(
        """g (float[2, 4] x) => (float[2, 4] y, float[2, 4] t, float[2, 4] z) <float c = {0.044715}, float three = {3},
            float k = {0.7978846}, float one = {1}, float half = {0.5}, float r = {1.4142135}> {
            p = Pow(x, three) q = Mul(p, c) a = Add(x, q) b = Mul(a, k) t = Tanh(b) u = Add(t, one) v = Mul(x, u)
            y = Mul(v, half) d = Div(x, r) e = Erf(d) f = Add(e, one) g = Mul(x, f) z = Mul(g, half) }"""
    )


@exotic()
def attention_over_the_queries() -> onnx.ModelProto:
    """Attention with a softmax over the queries."""
    return text(
        """g (float[2, 2, 3, 4] q, float[2, 2, 3, 4] k, float[2, 2, 3, 4] v) => (float[2, 2, 3, 4] y)
        <float scale = {0.3}> {
            t = Transpose<perm = [0, 1, 3, 2]>(k) s = MatMul(q, t) m = Mul(s, scale) p = Softmax<axis = 2>(m)
            y = MatMul(p, v) }"""
    )


@exotic()
def fully_masked_row() -> Made:
    """Attention with a mask that leaves a row nothing: it is uniform for the lowest float."""
    model = text(
        """g (float[1, 2, 3, 4] q, float[1, 2, 3, 4] k, float[1, 2, 3, 4] v, bool[1, 1, 1, 3] m)
        => (float[1, 2, 3, 4] y) <float scale = {0.5}, float low = {-3.4028234663852886e38}, float zero = {0}> {
            t = Transpose<perm = [0, 1, 3, 2]>(k) s = MatMul(q, t) n = Mul(s, scale) f = Where(m, zero, low)
            a = Add(n, f) p = Softmax<axis = -1>(a) y = MatMul(p, v) }"""
    )
    rng = np.random.default_rng(3)
    arrays = {name: rng.standard_normal((1, 2, 3, 4), np.float32) for name in "qkv"}
    return Made(model, feeds={**arrays, "m": np.zeros((1, 1, 1, 3), bool)})


@exotic()
def one_shape_in_three_types() -> onnx.ModelProto:
    """A constant that is read as it is, and in two other types."""
    return text(
        """g (float[2, 3] x) => (int64[2] a, float[2] b, int32[2] c) {
            s = Shape(x) a = Identity(s) b = Cast<to = 1>(s) c = Cast<to = 6>(s) }"""
    )
