"""Made-up plans: every product is quantized, on grids that anybody can compute, so that cases can say what rules make.

`plan: static smooth bias` names a scheme (static, dynamic, weights8, weights4) and what else recipes have: `smooth`,
activations are smoothed; `bias`, results are corrected; `output`, they are rounded to a grid; `signed`, activations are
int8 and symmetric; `positive`, they are not negative; `open`, convolutions write floats; `exact`, MatMulNBits computes
with floats.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from graphopt.ir import Tensor, Value, dtypes
from graphopt.ir.tensor import Array
from graphopt.rewrite import Grid, Integers, Recipe, constant_of
from graphopt.rewrite.grids import along
from graphopt.rewrite.plan import Scheme
from graphopt.testing.cases import SCHEMES

BLOCK = 16

_SLOTS = {"MatMul": 1, "Gemm": 1, "Conv": 1, "ConvTranspose": 1, "LSTM": 1, "Gather": 0}


@dataclass(frozen=True)
class MadePlan:
    """A plan that quantizes every product that has constant weights.

    Activations lie on a grid from −8 to 16, which zero splits unevenly.
    """

    scheme: str
    words: frozenset[str] = frozenset()

    @cached_property
    def activations(self) -> Grid:
        """The grid of every activation."""
        if "signed" in self.words:
            return Grid(np.array(np.float32(8 / 127)), np.array(np.int8(0)))
        return Grid(np.array(np.float32(24 / 255)), np.array(np.uint8(0 if "positive" in self.words else 85)))

    def recipe(self, root: Value) -> Recipe | None:
        slot = _SLOTS.get(root.node.op)
        weights = None if slot is None else root.node.input(slot)
        tensor = None if weights is None else constant_of(weights)
        if tensor is None or tensor.dtype != dtypes.FLOAT or root.node.domain:
            return None
        summed, channels = _axes(root, len(tensor.shape))
        floats = tensor.numpy().astype(np.float64)
        smooth = np.linspace(0.5, 2.0, tensor.shape[summed], dtype=np.float32) if "smooth" in self.words else None
        if smooth is not None:
            floats = floats * along(smooth, floats.ndim, summed)
        static = self.scheme == "static"
        scheme: Scheme = "static" if static else "dynamic" if self.scheme == "dynamic" else "weights"
        return Recipe(
            scheme,
            self._integers(floats, summed, channels),
            input=self.activations if static else None,
            output=self.activations if static and "output" in self.words else None,
            smooth=smooth,
            bias=np.full(tensor.shape[channels], 1e-3, np.float32) if "bias" in self.words else None,
            accuracy_level=0 if "exact" in self.words else 4,
            open="open" in self.words,
        )

    def grid(self, value: Value) -> Grid | None:
        return self.activations if value.dtype == dtypes.FLOAT and self.scheme == "static" else None

    @property
    def tolerance(self) -> float:
        """How far the result may be from that in floats: root mean squares, one relative to the other."""
        return 0.15 if SCHEMES[self.scheme] == 4 else 0.06

    def _integers(self, floats: Array, summed: int, channels: int) -> Integers:
        """`floats` rounded to the nearest: a scale for each output channel, or for each block of 4-bit weights."""
        if SCHEMES[self.scheme] == 4:
            padded = np.pad(
                floats, [(0, -size % BLOCK if axis == summed else 0) for axis, size in enumerate(floats.shape)]
            )
            edges = np.arange(0, floats.shape[summed], BLOCK)
            scale = np.maximum.reduceat(np.abs(padded), edges, axis=summed) / 7
            every = np.repeat(scale, BLOCK, axis=summed)[tuple(map(slice, floats.shape))]
            integers = Tensor.of(np.rint(floats / every), dtypes.NUMBERS["int4"])
            return Integers(integers, Tensor.of(scale, dtypes.FLOAT), None, summed, BLOCK)
        others = tuple(axis for axis in range(floats.ndim) if axis != channels)
        scale = np.abs(floats).max(axis=others) / 127
        integers = Tensor.of(np.rint(floats / along(scale, floats.ndim, channels)), dtypes.NUMBERS["int8"])
        return Integers(integers, Tensor.of(scale, dtypes.FLOAT), None, channels)


def made_plan(words: str) -> MadePlan:
    """The plan that `words` name, which a case file was read with."""
    scheme, *more = words.split()
    return MadePlan(scheme, frozenset(more))


def _axes(root: Value, rank: int) -> tuple[int, int]:
    """The axis that a product sums over, and that of output channels."""
    match root.node.op:
        case "Gemm" if root.node.attr("transB", 0):
            return 1, 0
        case "Conv" | "Gather":
            return 1, 0
        case "ConvTranspose":
            return 0, 1
        case "LSTM":
            return 2, 1
    return rank - 2, rank - 1
