"""Old opsets and the newest, every IR version that onnxruntime loads."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from corpora.exotic.base import Made, Theme, array, built, info, text, weights

exotic = Theme("opsets")

_GELU = """g (float[2, 4] x) => (float[2, 4] y) <float r = {1.4142135}, float one = {1}, float half = {0.5}> {
    d = Div(x, r) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half) }"""
_ONE = "g (float[2, 4] x) => (float[2, 4] y) { h = Neg(x) k = Neg(h) y = Tanh(k) }"


@exotic()
def ir_3() -> onnx.ModelProto:
    """IR 3 with opset 7."""
    return text(_ONE, opset=7, ir=3)


@exotic()
def ir_4() -> onnx.ModelProto:
    """IR 4 with opset 9."""
    return text(_GELU, opset=9, ir=4)


@exotic()
def ir_5() -> onnx.ModelProto:
    """IR 5 with opset 10."""
    return text(_GELU, opset=10, ir=5)


@exotic()
def ir_6() -> onnx.ModelProto:
    """IR 6 with opset 11."""
    return text(_GELU, opset=11, ir=6)


@exotic()
def ir_7() -> onnx.ModelProto:
    """IR 7 with opset 12."""
    return text(_GELU, opset=12, ir=7)


@exotic()
def ir_8() -> onnx.ModelProto:
    """IR 8 with opset 17."""
    return text(_GELU, opset=17, ir=8)


@exotic()
def ir_9() -> onnx.ModelProto:
    """IR 9 with opset 19."""
    return text(_GELU, opset=19, ir=9)


@exotic()
def ir_12() -> onnx.ModelProto:
    """IR 12 with opset 24."""
    return text(_GELU, opset=24, ir=12)


@exotic()
def ir_13() -> onnx.ModelProto:
    """IR 13 with opset 26."""
    return text(_GELU, opset=26, ir=13)


@exotic()
def old_ir_new_opset() -> onnx.ModelProto:
    """IR 8 with opset 21, which came later."""
    return text(_GELU, opset=21, ir=8)


@exotic()
def reshape_1() -> onnx.ModelProto:
    """The Reshape of opset 1, whose shape is an attribute."""
    return text("g (float[2, 3] x) => (float[3, 2] y) { y = Reshape<shape = [3, 2]>(x) }", opset=1, ir=3)


@exotic(loads=False)
def batch_normalization_1() -> onnx.ModelProto:
    """BatchNormalization of opset 6 with is_test, and a broadcast Add with an axis."""
    names = ("s", "b", "m", "v")
    nodes = [
        helper.make_node("BatchNormalization", ["x", *names], ["h"], is_test=1),
        helper.make_node("Add", ["h", "s"], ["y"], broadcast=1, axis=1),
    ]
    inputs = [info("x", [1, 3, 2, 2]), *(info(name, [3]) for name in names)]
    return built(nodes, inputs, [info("y", [1, 3, 2, 2])], opset=6, ir=3)


@exotic()
def batch_normalization_7() -> onnx.ModelProto:
    """BatchNormalization of opset 7 behind a convolution, weights that are inputs as well."""
    model = text(
        """g (float[1, 2, 4, 4] x) => (float[1, 3, 4, 4] y) {
            h = Conv<pads = [1, 1, 1, 1]>(x, w) y = BatchNormalization<momentum = 0.5>(h, s, b, m, v) }""",
        opset=7,
        ir=3,
    )
    values = [weights("w", 3, 2, 3, 3), *(weights(n, 3, seed=i) for i, n in enumerate("sbm")), array("v", [1, 2, 0.5])]
    model.graph.initializer.extend(values)
    model.graph.input.extend(info(t.name, list(t.dims)) for t in values)
    return model


@exotic()
def upsample_7() -> onnx.ModelProto:
    """Upsample with scales as an attribute."""
    return text(
        'g (float[1, 1, 2, 2] x) => (float[1, 1, 4, 6] y) { y = Upsample<mode = "nearest", '
        "scales = [1.0, 1.0, 2.0, 3.0]>(x) }",
        opset=7,
        ir=3,
    )


@exotic()
def upsample_9() -> onnx.ModelProto:
    """Upsample with scales as an input."""
    return text(
        'g (float[1, 1, 2, 2] x) => (float[1, 1, 4, 4] y) <float[4] s = {1, 1, 2, 2}> { y = Upsample<mode = "linear">'
        "(x, s) }",
        opset=9,
        ir=4,
    )


@exotic()
def slice_1() -> onnx.ModelProto:
    """Slice, Squeeze, Unsqueeze and Pad with attributes."""
    return text(
        """g (float[4, 3] x) => (float[1, 2, 5] y) {
            a = Slice<axes = [0], starts = [1], ends = [3]>(x) b = Pad<pads = [0, 1, 0, 1], value = 2.0>(a)
            c = Unsqueeze<axes = [0]>(b) d = Squeeze<axes = [0]>(c) y = Unsqueeze<axes = [0]>(d) }""",
        opset=8,
        ir=3,
    )


@exotic()
def softmax_12() -> onnx.ModelProto:
    """Softmax before opset 13: it flattens to two dimensions."""
    return text("g (float[2, 3, 4] x) => (float[2, 3, 4] y) { y = Softmax<axis = 1>(x) }", opset=11, ir=6)


@exotic()
def clip_6() -> onnx.ModelProto:
    """Clip with attributes, Cast from before opset 9, Dropout with a mask nobody reads."""
    return text(
        """g (float[4] x) => (float[4] y) { a = Clip<min = -0.5, max = 0.5>(x) d, m = Dropout<ratio = 0.5>(a)
            y = Clip<min = 0.0>(d) }""",
        opset=7,
        ir=3,
    )


@exotic()
def reduce_11() -> onnx.ModelProto:
    """ReduceSum with axes as an attribute, Split with sizes as one."""
    return text(
        """g (float[2, 6] x) => (float[2, 1] y, float[2, 4] z) {
            a, z = Split<axis = 1, split = [2, 4]>(x) y = ReduceSum<axes = [1]>(a) }""",
        opset=11,
        ir=6,
    )


@exotic()
def gemm_6() -> onnx.ModelProto:
    """Gemm of opset 7 with a bias that broadcasts."""
    model = text("g (float[2, 4] x) => (float[2, 3] y) { y = Gemm<alpha = 0.5, beta = 2.0>(x, w, b) }", opset=8, ir=3)
    model.graph.initializer.extend([weights("w", 4, 3), weights("b", 1, 3, seed=1)])
    model.graph.input.extend([info("w", [4, 3]), info("b", [1, 3])])
    return model


@exotic()
def resize_10() -> onnx.ModelProto:
    """Resize of opset 10, which has neither roi nor sizes."""
    return text(
        'g (float[1, 1, 2, 2] x) => (float[1, 1, 4, 4] y) <float[4] s = {1, 1, 2, 2}> { y = Resize<mode = "nearest">'
        "(x, s) }",
        opset=10,
        ir=5,
    )


@exotic()
def attention_23() -> onnx.ModelProto:
    """Attention of opset 23 with its fourth output unread."""
    return text(
        """g (float[1, 2, 3, 4] q, float[1, 2, 5, 4] k, float[1, 2, 5, 4] v, bool[3, 5] m) => (float[1, 2, 3, 4] y) {
            y = Attention(q, k, v, m) }""",
        opset=23,
        ir=11,
    )


@exotic()
def normalizations_23() -> onnx.ModelProto:
    """RMSNormalization and LayerNormalization over two axes."""
    model = text(
        """g (float[2, 3, 4] x) => (float[2, 3, 4] y) {
            r = RMSNormalization<axis = 1>(x, w) y = LayerNormalization<axis = -2>(r, w) }""",
        opset=23,
        ir=11,
    )
    model.graph.initializer.append(weights("w", 3, 4))
    return model


@exotic()
def tensor_scatter_24() -> onnx.ModelProto:
    """TensorScatter and Swish of opset 24."""
    return text(
        """g (float[2, 4, 3] cache, float[2, 1, 3] x, int64[2] at) => (float[2, 4, 3] y) {
            s = Swish(x) y = TensorScatter<mode = "circular">(cache, s, at) }""",
        opset=24,
        ir=12,
    )


@exotic()
def cum_prod_26() -> onnx.ModelProto:
    """CumProd and BitCast of opset 26."""
    return text(
        """g (float[4] x) => (float[4] y, int32[4] b) <int64 axis = {0}> {
            y = CumProd(x, axis) b = BitCast<to = 6>(x) }""",
        opset=26,
        ir=13,
    )


@exotic()
def mean_variance_and_friends() -> onnx.ModelProto:
    """Operators that onnx itself writes as functions."""
    return text(
        """g (float[2, 3, 4, 4] x, float[2, 3] l, int64[2] t) => (float[2, 3, 4, 4] y, float loss) {
            m = MeanVarianceNormalization(x) h = HardSwish(m) s = Softplus(h) y = Celu<alpha = 2.0>(s)
            loss = SoftmaxCrossEntropyLoss(l, t) }""",
        opset=18,
        ir=8,
    )


@exotic()
def einsum_and_fft() -> onnx.ModelProto:
    """Einsum with an ellipsis, DFT and a window."""
    return text(
        """g (float[2, 3, 8] x, float[2, 8, 4] z) => (float[2, 3, 4] y, float[2, 3, 8, 2] f)
        <int64 n = {8}, int64[1] last = {-1}, int64 two = {2}> {
            y = Einsum<equation = "...ij,...jk->...ik">(x, z)
            w = HannWindow(n) p = Mul(x, w) u = Unsqueeze(p, last) f = DFT(u, , two) }""",
        opset=20,
    )


@exotic()
def range_and_shapes() -> Made:
    """Shapes computed at run time: Range, ConstantOfShape, NonZero, Unique, Compress."""
    model = text(
        """g (float[N, 3] x) => (float[N, 3] y, int64[2, K] nz, float[U] u)
        <int64 zero = {0}, int64 one = {1}, int64[1] first = {0}> {
            s = Shape(x) n = Gather(s, zero) r = Range(zero, n, one) f = Cast<to = 1>(r)
            c = ConstantOfShape<value: tensor = float[1] {0.5}>(s) k = Unsqueeze(f, one) a = Add(c, k)
            y = Mul(x, a) nz = NonZero(x) u = Unique<sorted = 1>(x) }""",
        opset=17,
        ir=8,
    )
    return Made(model, feeds={"x": np.array([[1, 0, 2], [0, 0, 3], [4, 5, 0]], np.float32)})


@exotic()
def quantized_operators() -> onnx.ModelProto:
    """QLinearMatMul, MatMulInteger, DynamicQuantizeLinear, ConvInteger."""
    model = text(
        """g (float[2, 4] x) => (float[2, 3] y, int32[2, 3] i) <float s = {0.02}, uint8 z = {128}, float t = {0.1}> {
            q, a, b = DynamicQuantizeLinear(x) i = MatMulInteger(q, w, b, z)
            p = QuantizeLinear(x, s, z) m = QLinearMatMul(p, s, z, w, s, z, t, z) y = DequantizeLinear(m, t, z) }""",
        opset=17,
        ir=8,
    )
    values = np.random.default_rng(0).integers(0, 255, (4, 3)).astype(np.uint8)
    model.graph.initializer.append(array("w", values, np.uint8))
    return model


@exotic()
def preview_domain() -> onnx.ModelProto:
    """The domain of training operators imported beside the standard one."""
    model = text("g (float[2] x) => (float[2] y) { h = Neg(x) y = Exp(h) }")
    model.opset_import.add(domain="ai.onnx.preview.training", version=1)
    return model


@exotic(loads=False)
def adam() -> onnx.ModelProto:
    """An optimizer's step as an operator of ai.onnx.preview.training."""
    node = helper.make_node(
        "Adagrad", ["r", "t", "x", "g", "h"], ["x_new", "h_new"], domain="ai.onnx.preview.training", decay_factor=0.1
    )
    inputs = [info("r", []), info("t", [], TensorProto.INT64), *(info(name, [2]) for name in "xgh")]
    model = built([node], inputs, [info("x_new", [2]), info("h_new", [2])])
    model.opset_import.add(domain="ai.onnx.preview.training", version=1)
    return model
