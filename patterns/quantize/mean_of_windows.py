import numpy as np

from graphopt.ir import Tensor, Value
from graphopt.patterns.quantize.integers import Integers as Bytes
from graphopt.patterns.quantize.integers import Scale, Zero, image_of, kept, on_grids, result
from graphopt.patterns.quantize.products import as_floats
from graphopt.rewrite import Attrs, Builder, Context, Expr, Integers, Ops, Reason, Rule, all_of

_LARGEST = 127


class MeanOfWindows(Rule):
    """The means of the windows of an image on a grid, each of as many places.

    Why: as a convolution of each channel by itself it has a kernel 20 times as fast as that of the pool.
    Before: AveragePool(dq(x), kernel_shape=[k, l])
    After: dq(q(Conv(dq(x), dq(127 everywhere)))), of one group for each channel, the scale 1/(127·k·l)
    Safety: the plan says so; the weights are exact. All windows count as many places: without padding, or where it
    counts as zeros, which is on every grid. Sizes are not rounded up. The number of channels is known.
    """

    stage = "quantize"
    priority = 1
    keeps_inner = True

    def pattern(self, op: Ops, x: Bytes, s: Scale, z: Zero, others: Attrs) -> Expr:
        return op.AveragePool(op.DequantizeLinear(x, s, z), others=others)

    def where(self, ctx: Context, root: Value, x: Value, others: Attrs) -> Reason:
        if others.get("ceil_mode") or others.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            return "the last windows may be smaller"
        if any(others.get("pads", ())) and not others.get("count_include_pad"):
            return "windows at the border count fewer places"
        known = x.shape is not None and isinstance(x.shape[1], int)
        return all_of(known or "the number of channels is not known", kept(ctx, root), on_grids(image_of(root)))

    def rewrite(self, op: Builder, ctx: Context, root: Value, x: Value, others: Attrs) -> Value | None:
        if x.shape is None:
            return None
        channels, window = int(str(x.shape[1])), others["kernel_shape"]
        values = np.full((channels, 1, *window), _LARGEST, np.int8)
        weights = Integers(Tensor.of(values), Tensor.of(np.float32(1 / (_LARGEST * np.prod(window)))))
        kept_attrs = {name: others[name] for name in ("pads", "strides", "dilations") if name in others}
        return result(op, ctx, root, op.Conv(image_of(root), as_floats(op, weights), group=channels, **kept_attrs))
