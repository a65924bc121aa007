"""Shape arithmetic that is known before the model runs."""

from __future__ import annotations

import numpy as np

from graphopt.ir import dtypes
from graphopt.ir.dims import Shape, Size
from graphopt.ir.graph import Graph
from graphopt.ir.infer import infer, infer_node
from graphopt.ir.model import Model
from graphopt.ir.node import Node, Value
from graphopt.ir.operands import Content, known_content
from graphopt.ir.tensor import Tensor


def simplify_shapes(model: Model) -> int:
    """Replaces computed shapes by constants and by each other; returns the number of changes.

        n = Concat(Shape(x)[0:2], [12, 64])       q = Reshape(x, [0, 0, 12, 64])
        q = Reshape(x, n)
        m = Concat(Shape(x)[0:2], [12, 64])   →   k = Reshape(y, [0, 0, 12, 64])
        k = Reshape(y, m)                         (x: [B, S, 768], y: [B, S, 768])
        e = Expand(k, Shape(k))                   (k in place of e)

    Rests on inferred contents, which it brings up to date first: whole numbers become constants, equal symbolic
    contents are computed once, a size is not read from a product, or from what a rule left to be measured, where
    something before it has that size, a Reshape copies (0) and infers (-1) what it can, and an Expand to the shape
    that is already there goes. What this leaves unread is for `remove_dead`.
    """
    infer(model)
    return sum(_Scope(graph).simplify() for graph in list(model.scopes()))


class _Scope:
    """One walk over one scope, in order; keeps what was computed first."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.computed: dict[tuple[int, Shape, Content], Value] = {}
        self.targets: dict[tuple[int, ...], Value] = {}
        self.sized: dict[Size, tuple[Value, int]] = {}

    def simplify(self) -> int:
        changes = 0
        for node in self.graph.inputs:
            self._sizes(node)
        for node in self.graph.ops():
            if node.is_op("Reshape"):
                changes += self._reshape(node)
            elif node.is_op("Expand"):
                changes += self._expand(node)
            for value in node.outputs:
                if value.content is not None and node.op != "Constant":
                    changes += self._value(value, value.content) or self._read(value, value.content)
            self._sizes(node)
        return changes

    def _sizes(self, node: Node) -> None:
        """Remembers which value had a symbolic size first, and where."""
        for value in node.outputs:
            for axis, size in enumerate(value.shape or ()):
                if not isinstance(size, int):
                    self.sized.setdefault(size, (value, axis))

    def _read(self, value: Value, content: Content) -> int:
        """Reads a size that is taken from what need not be there from the first value that has it.

        That is a product, as scores are, which is never written once it is fused; and what a rule reads only the shape
        of, as of a view that it has moved.
        """
        graph, node = self.graph, value.node
        whole = node.input(0)
        x = whole.node.input(0) if whole is not None and whole.node.is_op("Shape") else None
        y, axis = self.sized.get(content[0], (x, 0)) if len(content) == 1 else (x, 0)
        if x is None or y is x or y is None or node.op not in ("Slice", "Gather"):
            return 0
        if not _is_product(x) and not all(_is_measure(reader) for reader, _ in graph.consumers(x)):
            return 0
        if value.uses == 0 or graph.is_output(value):
            return 0
        index = graph.add_constant(np.array(axis, np.int64).reshape([1] * (value.rank or 0)), "axis")
        sizes = graph.add_op("Shape", [y], version=node.version, before=node)
        one = graph.add_op("Gather", [sizes.output, index], version=node.version, before=node)
        infer_node(sizes)
        infer_node(one)
        graph.replace(value, one.output)
        return 1

    def _value(self, value: Value, content: Content) -> int:
        """Replaces a value whose content is a constant, or was computed before."""
        shape, graph = value.shape, self.graph
        if shape is None or value.dtype not in dtypes.COUNTED or value.uses == 0:
            return 0
        if all(isinstance(size, int) for size in content):
            if graph.is_output(value):
                return 0
            data = np.array(content, np.int64).reshape([len(content)] * len(shape))
            graph.replace(value, graph.add_constant(data, value.name, value.dtype), take_name=True)
            return 1
        first = self.computed.setdefault((value.dtype, shape, content), value)
        if first is value or graph.needs_identity(value, first):
            return 0
        graph.replace(value, first)
        return 1

    def _reshape(self, node: Node) -> int:
        """Makes the target a constant, where 0 and -1 can stand for what is symbolic."""
        x, target = node.input(0), node.input(1)
        content = target.content if target is not None else None
        if x is None or target is None or content is None or target.tensor is not None:
            return 0
        copying = not node.attr("allowzero", 0)
        literal = literal_target(x.shape, content, copying)
        if literal is None:
            return 0
        if literal not in self.targets:
            self.targets[literal] = self.graph.add_constant(Tensor.of(np.array(literal, np.int64)), "shape")
        self.graph.set_input(node, 1, self.targets[literal])
        if not copying:
            self.graph.set_attr(node, "allowzero", None)
        return 1

    def _expand(self, node: Node) -> int:
        x, y = node.input(0), node.output
        content = known_content(node.input(1))
        if x is None or x.shape is None or content is None or y.uses == 0 or len(content) > len(x.shape):
            return 0
        aligned = x.shape[len(x.shape) - len(content) :]
        if not all(size in (1, there) for size, there in zip(content, aligned, strict=True)):
            return 0
        if self.graph.needs_identity(y, x):
            return 0
        self.graph.replace(y, x)
        return 1


def _is_measure(node: Node) -> bool:
    """Whether a rule wrote the node to read a shape."""
    return node.is_op("Shape") and node.proto is None


def _is_product(x: Value) -> bool:
    """Whether `x` is a product of matrices, or that scaled by another value."""
    if x.node.op in ("Mul", "Div") and not x.node.domain:
        return any(operand is not None and operand.node.is_op("MatMul") for operand in x.node.inputs)
    return x.node.is_op("MatMul")


def literal_target(shape: Shape | None, content: Content, copying: bool = True) -> tuple[int, ...] | None:
    """A constant target for a Reshape of a tensor of `shape` to `content`; None where there is none.

    The constant is read with 0 as "copy"; `content` as well where it is `copying`. A -1 that the content did not have
    is safe only beside sizes that are certainly not 0: the runtime cannot divide what is left among nothing. A 0 that
    has no size to copy is refused when a model is loaded if it is a constant, else when it runs.
    """
    copied = 0 if not copying else len(content) if shape is None else len(shape)
    if 0 in content[copied:]:
        return None
    target = [_literal(size, _at(shape, position)) for position, size in enumerate(content)]
    if target.count(-1) > 1:
        return None
    safe = -1 in content or -1 not in target or all(size for size in target)
    return tuple(target) if safe else None


def _literal(size: Size, there: Size | None) -> int:
    if isinstance(size, int):
        return size
    return 0 if size == there else -1


def _at(shape: Shape | None, position: int) -> Size | None:
    return shape[position] if shape is not None and position < len(shape) else None
