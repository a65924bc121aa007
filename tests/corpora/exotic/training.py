"""What draws numbers, and what behaves otherwise in training."""

from __future__ import annotations

import numpy as np
import onnx

from corpora.exotic.base import Made, Theme, array, text, weights

exotic = Theme("training")


@exotic()
def dropout_training() -> onnx.ModelProto:
    """A Dropout in training mode with ratio 0, and one whose mask is an output."""
    return text(
        """g (float[4] x) => (float[4] y, bool[4] m) <float zero = {0}, bool yes = {1}, float half = {0.5}> {
            a = Dropout(x, zero, yes) y, m = Dropout(a, half) }""",
        opset=17,
        ir=8,
    )


@exotic()
def dropout_by_input() -> Made:
    """Whether a Dropout drops is an input of the model."""
    model = text(
        "g (float[4] x, bool train) => (float[4] y) <float half = {0.5}> { y = Dropout<seed = 1>(x, half, train) }",
        opset=17,
        ir=8,
    )
    return Made(model, feeds={"x": np.arange(4, dtype=np.float32), "train": np.array(False)})


@exotic(random=True)
def dropout_drops() -> onnx.ModelProto:
    """A Dropout in training mode, which must stay."""
    return text(
        """g (float[4] x) => (float[4] y) <float half = {0.5}, bool yes = {1}> { y = Dropout(x, half, yes) }""",
        opset=17,
        ir=8,
    )


@exotic(random=True)
def random_normal() -> onnx.ModelProto:
    """Two equal nodes that draw: neither is constant, nor are they one."""
    return text(
        """g (float[4] x) => (float[4] y, float[4] z) {
            a = RandomNormal<shape = [4]>() b = RandomNormal<shape = [4]>() y = Add(x, a) z = Add(x, b) }"""
    )


@exotic(random=True)
def random_uniform_like() -> onnx.ModelProto:
    """Draws in the shape of a constant."""
    return text("""g (float[2] x) => (float[2] y) <float[2] c = {1, 2}> { a = RandomUniformLike(c) y = Add(x, a) }""")


@exotic(random=True)
def bernoulli() -> onnx.ModelProto:
    """Draws from constant probabilities, and in a loop."""
    return text(
        """g (float[4] x) => (float[4] y, float[3, 4] all) <float[4] p = {0.5, 0.5, 0.1, 0.9}> {
            n = Constant<value: tensor = int64 {3}>() c = Constant<value: tensor = bool {1}>()
            b = Bernoulli(p) y = Mul(x, b)
            all = Loop(n, c) <body = l (int64 i, bool go) => (bool on, float[4] d)
                { on = Identity(go) d = Bernoulli(p) }> }"""
    )


@exotic(random=True)
def multinomial() -> onnx.ModelProto:
    """Draws from a distribution."""
    return text(
        "g (float[2, 3] x) => (int32[2, 5] y) { l = LogSoftmax(x) y = Multinomial<sample_size = 5>(l) }",
        opset=17,
        ir=8,
    )


@exotic()
def random_nobody_reads() -> onnx.ModelProto:
    """A draw whose numbers do not matter: only its shape is read."""
    return text(
        """g (float[2] x) => (float[2] y, int64[1] s) { a = RandomNormal<shape = [4]>() s = Shape(a) y = Neg(x) }"""
    )


@exotic()
def batch_normalization_training() -> onnx.ModelProto:
    """BatchNormalization in training mode, whose running mean and variance are outputs."""
    return text(
        """g (float[2, 3, 4] x, float[3] s, float[3] b, float[3] m, float[3] v)
        => (float[2, 3, 4] y, float[3] rm, float[3] rv) {
            y, rm, rv = BatchNormalization<training_mode = 1, momentum = 0.5>(x, s, b, m, v) }""",
        opset=15,
        ir=8,
    )


@exotic()
def batch_normalization_unread_statistics() -> onnx.ModelProto:
    """BatchNormalization in inference, whose parameters are constants behind a convolution."""
    model = text(
        """g (float[1, 2, 4, 4] x) => (float[1, 3, 4, 4] y) {
            h = Conv<pads = [1, 1, 1, 1]>(x, w) y = BatchNormalization<epsilon = 0.001>(h, s, b, m, v) }""",
        opset=15,
        ir=8,
    )
    model.graph.initializer.extend([weights("w", 3, 2, 3, 3), *(weights(n, 3, seed=i) for i, n in enumerate("sbm"))])
    model.graph.initializer.append(array("v", [1, 2, 0.5]))
    return model
