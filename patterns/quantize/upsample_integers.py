from graphopt.ir import Value
from graphopt.patterns.quantize.integers import Integers, Scale, Zero, back, grid_of, integers_of
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule

_EVERYWHERE = ("half_pixel", "pytorch_half_pixel")
_NEAREST = ("round_prefer_floor", "round_prefer_ceil")


class UpsampleIntegers(Rule):
    """An image on a grid, each place of which becomes r × r places.

    Why: the kernel goes place by place; channels last, copies are joined whole, 20 times as fast.
    Before: Resize(dq(q), scales=[1, 1, r, r], mode="nearest")
    After: dq of q to (N, H, W, C); r copies of it joined along C, r copies of that along W: (N, H, r·W, r·C), which is
    (N, r·H, r·W, C); and back to (N, C, r·H, r·W)
    Safety: exact: place i of the result is place i // r of the image, which half_pixel with any rounding to the nearest
    says, and asymmetric with floor. Channels, height and width are known.
    """

    stage = "quantize"
    keeps_inner = True
    priority = 1

    def pattern(
        self, op: Ops, x: Integers, s: Scale, z: Zero, scales: Attr, sizes: Attr, way: Attr, rounding: Attr
    ) -> Expr:
        y = op.DequantizeLinear(x, s, z)
        return op.Resize(
            y,
            ...,
            scales=scales,
            sizes=sizes,
            mode="nearest",
            coordinate_transformation_mode=way,
            nearest_mode=rounding,
        )

    def where(self, x: Value, root: Value, way: str, rounding: str) -> Reason:
        image = root.node.inputs[0]
        if image is None or grid_of(image) is None:
            return "it does not read an activation on a grid"
        if not (way in _EVERYWHERE and rounding in _NEAREST) and (way, rounding) != ("asymmetric", "floor"):
            return f"{way} with {rounding} is not place i // r"
        times = _times(x, root)
        return times is not None or f"{x.shape} to {root.shape} is not a whole number of times, in height as in width"

    def rewrite(self, op: Builder, x: Value, root: Value) -> Value | None:
        times, image = _times(x, root), root.node.inputs[0]
        if times is None or x.shape is None or image is None:
            return None
        channels, height, width = (int(str(size)) for size in x.shape[1:])
        q = op.Transpose(integers_of(image), perm=[0, 2, 3, 1])
        for axis in (3, 2):
            q = op.Concat(*[q] * times, axis=axis)
        q = op.Reshape(q, op.ints(0, times * height, times * width, channels))
        return back(op, op.Transpose(q, perm=[0, 3, 1, 2]), image)


def _times(x: Value, root: Value) -> int | None:
    """How many places one becomes in height, and as many in width; None for no whole number, or sizes not known."""
    sizes = [*(x.shape or ())[1:], *(root.shape or ())[1:]]
    if len(sizes) != 6 or not all(isinstance(size, int) and size > 0 for size in sizes):
        return None
    channels, height, width, same, high, wide = (int(str(size)) for size in sizes)
    times = high // height
    return times if same == channels and (high, wide) == (times * height, times * width) and times > 1 else None
