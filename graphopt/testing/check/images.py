"""How a wanted shape is pushed down through operators on images, (N, C, ...)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from graphopt.ir import dims
from graphopt.ir.dims import Shape, Size
from graphopt.rewrite import pattern as p
from graphopt.testing.check.choices import Rejected
from graphopt.testing.check.terms import Term

if TYPE_CHECKING:
    from graphopt.testing.check.grow import Grower, Want


def natural(g: Grower, e: p.Op) -> Shape:
    return g.known(e.operands[0]) or g.some_shape((3, 4))


def convolution(g: Grower, e: p.Op, want: Want) -> Term:
    """A kernel of one, or of three with padding where attributes are open; one group, or one for each channel."""
    batch, channels, *image = _image(want)
    free = e.kept is not None or e.rest
    size = g.choose("attributes", (1, 3) if free else (1,))
    deep = g.choose("attributes", (False, True) if free else (False,))
    group = g.number(channels) if deep else 1
    legal: dict[str, Any] = {"pads": [[size // 2] * 2 * len(image)], "group": [group]}
    named = e.attrs.keys() & legal.keys()
    attrs = {**g.attributes(e), **{name: legal[name][0] for name in legal if free or name in named}}
    inner = channels if deep else g.size()
    part: Size = 1 if deep else inner
    kernel = (inner, 1 if deep else channels) if e.op == "ConvTranspose" else (channels, part)
    x = g.operand(e, 0, want._replace(shape=(batch, inner, *image), exact=True))
    w = g.operand(e, 1, want._replace(shape=(*kernel, *[size] * len(image)), exact=True))
    b = g.operand(e, 2, want._replace(shape=(channels,), exact=True))
    return g.call(e, [x, w, b], want.shape, want.dtype, attrs)


def batch_norm(g: Grower, e: p.Op, want: Want) -> Term:
    if len(want.shape) < 2:
        raise Rejected
    vector = want._replace(shape=want.shape[1:2], exact=True)
    terms = [g.operand(e, 0, want._replace(exact=True)), *(g.operand(e, slot, vector) for slot in range(1, 5))]
    return g.call(e, terms, want.shape, want.dtype, g.attributes(e))


def group_norm(g: Grower, e: p.Op, want: Want) -> Term:
    """A gain and a bias for each channel, or before opset 21 for each group."""
    _, channels, *_ = _image(want)
    attrs = g.attributes(e, num_groups=(1, g.number(channels)))
    vector = want._replace(shape=(channels if g.opset >= 21 else attrs["num_groups"],), exact=True)
    terms = [g.operand(e, 0, want._replace(exact=True)), *(g.operand(e, slot, vector) for slot in (1, 2))]
    return g.call(e, terms, want.shape, want.dtype, attrs)


def pad(g: Grower, e: p.Op, want: Want) -> Term:
    """Zeros around the image, or what never is the greatest."""
    batch, channels, *image = _image(want)
    before = g.choose("attributes", (1, 0))
    inner = [g.number(size) - before - 1 for size in image]
    if min(inner) < 1:
        raise Rejected
    around = [0, 0, *[before] * len(image), 0, 0, *[1] * len(image)]
    attrs: dict[str, Any] = {"pads": around}
    if "constant_value" in e.attrs and g.choose("numbers", (False, True)):
        attrs["constant_value" if g.opset >= 11 else "value"] = -math.inf
    x = g.operand(e, 0, want._replace(shape=(batch, channels, *inner), exact=True))
    return g.call(e, [x], want.shape, want.dtype, attrs)


def pool(g: Grower, e: p.Op, want: Want) -> Term:
    """A kernel of two or three, in steps of one."""
    batch, channels, *image = _image(want)
    size = g.choose("attributes", (3, 2))
    x = want._replace(shape=(batch, channels, *(dims.add(length, size - 1) for length in image)), exact=True)
    attrs = {**g.attributes(e), "kernel_shape": [size] * len(image)}
    return g.call(e, [g.operand(e, 0, x)], want.shape, want.dtype, attrs)


def tile(g: Grower, e: p.Op, want: Want) -> Term:
    """Nothing is repeated."""
    repeats = g.ints_operand(e, 1, *[1] * len(want.shape))
    return g.call(e, [g.operand(e, 0, want._replace(exact=True)), repeats], want.shape, want.dtype, {})


def _image(want: Want) -> Shape:
    if len(want.shape) < 3:
        raise Rejected
    return want.shape
