"""What quantization decided, as rules are told: on which grid a value lies, how a product is computed.

A rule of stage `quantize` asks `ctx.recipe(root)` and `ctx.grid(value)` and places nodes; where the numbers come from
is none of its business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy.typing as npt

from graphopt.ir import Tensor, Value

Array = npt.NDArray[Any]
Scheme = Literal["static", "dynamic", "weights"]
"""How a product is computed: activations on a grid that calibration found, on one found at run time, or as floats."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The numbers (q − zero_point) · scale of integers q, onnx's QuantizeLinear.

    `scale` is float32, `zero_point` of the integer type: both () for the whole tensor, or (C,) along `axis`.
    """

    scale: Array
    zero_point: Array
    axis: int | None = None


@dataclass(frozen=True, eq=False)
class Integers:
    """Constant weights as integers: (values − zero_point) · scale.

    `values` has the shape of the weights, int8, uint8, int4 or uint4. Without `block`, `scale` and `zero_point` are
    (C,) along `axis`, the axis of output channels, or () for the whole tensor. With it, `scale` has the shape of the
    weights but for `axis`, the axis that is summed over, where one scale serves `block` elements (the last block may be
    shorter). No `zero_point` is zero. Large tensors are computed when they are read. `name` is what
    the values are called in the model.
    """

    values: Tensor
    scale: Tensor
    zero_point: Tensor | None = None
    axis: int | None = None
    block: int = 0
    name: str = "weights"


@dataclass(frozen=True, eq=False)
class Recipe:
    """How one product of an activation x with constant weights is computed.

    `weights` are in the layout of the operand that they replace. `input` is the grid of x, of scheme `static` only;
    `output` that of the result, where it is to stay integer. `smooth` (K,) divides x before all else along the axis
    that is summed over; `weights` are multiplied by it already. `bias` (N,) is added to the result: what rounding the
    weights took away on average. `accuracy_level` is that of MatMulNBits (4: the products are of int8, 0: of floats).
    `open` says that a convolution writes floats and adds a bias of floats: only what it reads is rounded.
    """

    scheme: Scheme
    weights: Integers
    input: Grid | None = None
    output: Grid | None = None
    smooth: Array | None = None
    bias: Array | None = None
    accuracy_level: int = 0
    open: bool = False


class Plan(Protocol):
    """What quantization decided for one model; the same questions get the same answers."""

    def recipe(self, root: Value) -> Recipe | None:
        """How the product that ends in `root` is computed; None: as it stands."""

    def grid(self, value: Value) -> Grid | None:
        """The grid of an activation that may stay integer between two operators; None: it is not to."""
